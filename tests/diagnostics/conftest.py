"""A small net and a patcher that knows DNA."""

from __future__ import annotations

import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.patching import calibrate
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

SMALL = {
    "hidden_size": 24,
    "num_layers": 3,
    "local_hidden_size": 16,
    "ngram_sizes": (2, 4),
    "ngram_table_size": 64,
    "filter_hidden_size": 8,
    "medium_filter_length": 24,
}


@pytest.fixture
def make_net():
    """`make_net(patcher=None, **changes)`: a net of a few thousand weights, the same every time."""

    def build(patcher=None, **changes) -> HyenaGLT:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = HyenaGLT(HyenaGLTConfig(**{**SMALL, **changes}), external_patcher=patcher).eval()
        with torch.no_grad():
            for weight in net.parameters():
                weight.mul_(1.5)  # larger than at the start of training, so that every path carries weight
        return net

    return build


@pytest.fixture(scope="session")
def sequence() -> str:
    """Random DNA with a run of N."""
    text = generate_random_genomic_sequence(120, seed=1)
    return text[:50] + "N" * 8 + text[50:]


@pytest.fixture(scope="session")
def entropy_patcher() -> Patcher:
    """Patches of a few bases, by a model that was fitted before; the edges of runs of N are starts."""
    genome = [generate_random_genomic_sequence(3000, seed=5)]
    model = MarkovEntropy.fit(genome, order=3)
    return calibrate(genome, entropy_model=model, target_mean_length=5, max_patch_length=12).build()


@pytest.fixture(scope="module", autouse=True)
def in_one_thread(one_thread):
    """Every test of this folder in one thread."""
