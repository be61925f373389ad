"""Genomes that evolved along a known tree, and the nets that look at them."""

from __future__ import annotations

import numpy as np
import pytest

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.evolution.genome import Genome


def mutated(sequence: bytes, changes: int, seed: int) -> bytes:
    """The sequence with `changes` substitutions."""
    generator = np.random.default_rng(seed)
    codes = np.frombuffer(sequence, np.uint8).copy()
    places = generator.choice(codes.size, changes, replace=False)
    letters = np.frombuffer(b"ACGT", np.uint8)
    old = np.searchsorted(letters, codes[places])
    codes[places] = letters[(old + generator.integers(1, 4, changes)) % 4]
    return codes.tobytes()


def random_sequence(length: int, seed: int) -> bytes:
    """Letters without structure."""
    return np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(seed).integers(0, 4, length)].tobytes()


@pytest.fixture(scope="session")
def family() -> list[Genome]:
    """((a, b), (c, d), e): 3,000 bases, 60 changes on every branch."""
    root = random_sequence(3000, 1)
    left, right = mutated(root, 60, 2), mutated(root, 60, 3)
    tips = {"a": (left, 4), "b": (left, 5), "c": (right, 6), "d": (right, 7), "e": (root, 8)}
    return [Genome.of(name, mutated(parent, 60, seed)) for name, (parent, seed) in tips.items()]


@pytest.fixture(scope="session")
def net() -> HyenaGLT:
    """A tiny net of random weights that reads both directions."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HyenaGLT(HyenaGLTConfig.preset("tiny", causal=False, genomic_vocab_size=4, alphabet="dna")).eval()


@pytest.fixture(scope="session")
def patcher() -> Patcher:
    """Patches of eight bases."""
    return Patcher(patching_mode="static", patch_size=8)
