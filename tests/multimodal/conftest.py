"""Processors of a few thousand weights, and made-up genes."""

from __future__ import annotations

import numpy as np
import pytest

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.multimodal import CodingPair, MultiModalGenomicProcessor, translate

SMALL = {
    "hidden_size": 24,
    "num_layers": 2,
    "local_hidden_size": 16,
    "ngram_sizes": (3,),
    "ngram_table_size": 64,
    "filter_hidden_size": 8,
    "medium_filter_length": 24,
}


@pytest.fixture(scope="session")
def small_config():
    """A configuration of a few thousand weights."""
    return HyenaGLTConfig(**SMALL)


@pytest.fixture
def small_processor(small_config):
    """`small_processor(**options)`: a processor in evaluation mode, the same for the same seed."""

    def build(**options) -> MultiModalGenomicProcessor:
        return MultiModalGenomicProcessor(small_config, **{"seed": 0, "shared_size": 16, "num_heads": 2, **options})

    return build


@pytest.fixture(scope="session")
def made_pairs():
    """`made_pairs(count, codons, seed=0)`: random genes without stops and their proteins."""

    def make(count: int, codons: int, seed: int = 0) -> list[CodingPair]:
        random = np.random.default_rng(seed)
        sense = [c for c in (a + b + d for a in "ACGT" for b in "ACGT" for d in "ACGT") if translate(c) != b"*"]
        pairs = []
        for number in range(count):
            dna = "".join(random.choice(sense, codons)).encode()
            pairs.append(CodingPair(f"made:{number}", dna, translate(dna), 1))
        return pairs

    return make


@pytest.fixture(scope="module", autouse=True)
def in_one_thread(one_thread):
    """Every test of this folder in one thread."""
