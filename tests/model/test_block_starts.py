"""Starts decided block by block are those of the whole sequence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.model import AdaptiveTokenMerger
from hyena_glt.model.block_starts import LearnedStarts, LookingScanner
from hyena_glt.patching.scan import Scanner, ScanRule

RULES = [
    ScanRule("threshold", threshold=1.36, max_patch_length=9),
    ScanRule("threshold", threshold=1.3, min_patch_length=4, max_patch_length=11),
    ScanRule("monotone", threshold=0.01, max_patch_length=20),
    ScanRule("static", patch_size=4.5),
    ScanRule("static", patch_size=9, max_patch_length=4),
]


@pytest.mark.parametrize("rule", RULES)
def test_the_scanner_closes_the_same_patches(rule):
    random = np.random.default_rng(1)
    scores, forced = random.uniform(1.2, 1.4, 400).astype(np.float32), random.random(400) < 0.05
    plain, looking = Scanner(rule), LookingScanner(rule)
    for first in range(0, 400, 13):
        part = slice(first, first + 13)
        assert np.array_equal(plain.feed(scores[part], forced[part]), looking.feed(scores[part], forced[part]))
        assert looking.known[~forced[part]].all()


@given(
    chances=st.lists(st.sampled_from([0.1, 0.49, 0.5, 0.9]), min_size=1, max_size=60),
    sizes=st.lists(st.integers(1, 20), max_size=12),
    limits=st.sampled_from([(None, None), (None, 1), (None, 5), (3, None), (2, 6), (4, 4)]),
)
@settings(max_examples=150, deadline=None)
def test_learned_starts_are_those_of_the_merger(chances, sizes, limits):
    merger = AdaptiveTokenMerger(4, target_patch_length=4, min_patch_length=limits[0], max_patch_length=limits[1])
    row = torch.tensor([[1.0, *chances[1:]]])
    expected = merger.cut(row, torch.ones_like(row, dtype=torch.bool))
    starts, lengths, known, first = LearnedStarts(merger), [], [], 0
    for size in [*sizes, len(chances)]:
        if part := chances[first : first + size]:
            lengths += starts.feed(torch.tensor(part)).tolist()
            known += starts.known.tolist()
        first += size
    is_full = sum(lengths) == len(chances)  # only the cap closes a patch at its own last byte
    assert is_full == bool(expected.next_starts_patch)
    assert lengths + [len(chances) - sum(lengths)] * (not is_full) == expected.patch_lengths[0].tolist()
    assert known == expected.known_starts[0].tolist()
