"""Nets small enough that a test may run them at every position."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.model import HyenaGLT

SMALL = {
    "hidden_size": 24,
    "num_layers": 3,
    "local_hidden_size": 16,
    "ngram_sizes": (2, 4),
    "ngram_table_size": 64,
    "filter_hidden_size": 8,
    "medium_filter_length": 24,
    "bridge_num_patches": 3,
}


@pytest.fixture(scope="session")
def small_config():
    """`small_config(**changes)`: a configuration of a few thousand weights."""

    def build(**changes) -> HyenaGLTConfig:
        return HyenaGLTConfig(**{**SMALL, **changes})

    return build


@pytest.fixture(scope="session")
def small_net(small_config):
    """`small_net(patcher=None, seed=0, **changes)`: a net in evaluation mode, the same for the same seed.

    The weights are larger than at the start of training, so that every path carries weight.
    """

    def build(patcher=None, seed: int = 0, **changes) -> HyenaGLT:
        torch.manual_seed(seed)
        net = HyenaGLT(small_config(**changes), external_patcher=patcher).eval()
        with torch.no_grad():
            for weight in net.parameters():
                weight.mul_(1.5)
        return net

    return build


@pytest.fixture(scope="session")
def random_dna():
    """`random_dna(length, seed=0)`: a str over ACGT."""

    def draw(length: int, seed: int = 0) -> str:
        generator = torch.Generator().manual_seed(seed)
        return "".join("ACGT"[i] for i in torch.randint(0, 4, (length,), generator=generator).tolist())

    return draw
