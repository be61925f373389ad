"""Levels of a stream are those of the whole sequence, whatever the chunks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError
from hyena_glt.patching import OnlineHierarchy, PatcherArgs, ScanRule, calibrate_hierarchy, patch_hierarchy
from hyena_glt.patching.hierarchy import nested_levels
from hyena_glt.patching.online_hierarchy import FinestLevel, LevelMerger
from hyena_glt.sequences.fasta import read_records
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

RULES = [{}, {"monotonicity": True}, {"threshold_add": 0.0}]
LIMITS = [(None, None), (None, 3), (2, None), (2, 5)]
scores_and_forced = st.lists(
    st.tuples(st.one_of(st.floats(0, 2, width=32), st.sampled_from([0.5, 1.0])), st.integers(0, 9)),
    min_size=1,
    max_size=80,
)


def joined(parts):
    """Patch lengths of each level from what feed and finish gave."""
    return [torch.cat(level).tolist() for level in zip(*parts, strict=True)]


@pytest.mark.parametrize("fields", RULES, ids=str)
@pytest.mark.parametrize("limits", LIMITS, ids=str)
@settings(max_examples=40, deadline=None)
@given(tokens=scores_and_forced, cuts=st.lists(st.integers(0, 80), max_size=5))
def test_any_chunks_give_the_levels_of_the_whole(fields, limits, tokens, cuts):
    scores = np.array([score for score, _ in tokens], np.float32)
    forced = np.array([place == 0 for _, place in tokens])
    forced[0] = False
    args = PatcherArgs(threshold=0.0, min_patch_length=limits[0], max_patch_length=limits[1], **fields)
    rule, targets = ScanRule.from_args(args), (2, 5, 11)
    levels = nested_levels(scores, forced, rule, targets)
    online = OnlineHierarchy(args, thresholds=[level.threshold for level in levels], target_lengths=targets)
    places = sorted(min(cut, scores.size) for cut in cuts)
    parts = []
    for piece, edges in zip(np.split(scores, places), np.split(forced, places), strict=True):
        parts.append(online._merged(online._finest.feed(piece, edges), ends=False))
    parts.append(online.finish())
    assert joined(parts) == [level.lengths.tolist() for level in levels]


def test_a_genome_in_a_stream(data):
    (record,) = read_records(data("genomes/phix174_NC_001422.1.fna"))
    args = PatcherArgs(entropy_model=MarkovEntropy.fit(record.sequence, order=5), max_patch_length=32)
    thresholds = calibrate_hierarchy(args, [record.sequence])
    online = OnlineHierarchy(args, thresholds=thresholds)
    parts = [online.feed(record.sequence[i : i + 100]) for i in range(0, 5386, 100)]
    levels = joined([*parts, online.finish()])
    assert levels == [level[0].tolist() for level in patch_hierarchy(args, record.sequence)]
    assert [sum(level) for level in levels] == [5386] * 3
    for fine, coarse in pairwise(levels):
        assert set(np.cumsum(coarse)) <= set(np.cumsum(fine))
    again = [online.feed(record.sequence), online.finish()]
    assert joined(again) == levels


def test_thresholds_of_several_sequences_serve_all():
    sequences = [generate_random_genomic_sequence(20_000, seed=seed) for seed in (1, 2)]
    args = PatcherArgs(entropy_model=MarkovEntropy.fit(sequences, order=6))
    thresholds = calibrate_hierarchy(args, sequences, (8, 64))
    online = OnlineHierarchy(args, thresholds=thresholds, target_lengths=(8, 64))
    lengths = []
    for sequence in sequences:
        lengths.append(joined([online.feed(sequence), online.finish()]))
    for level, target in enumerate((8, 64)):
        patches = sum(len(row[level]) for row in lengths)
        assert 40_000 / patches == pytest.approx(target, rel=0.02)


def test_thresholds_and_targets_must_fit():
    with pytest.raises(ConfigError, match="one for each of 3 levels, got 1"):
        OnlineHierarchy(PatcherArgs(), thresholds=[1.0])
    with pytest.raises(ConfigError, match="expected entropy or track"):
        OnlineHierarchy(PatcherArgs(patching_mode="byte"), thresholds=[1.0, 2.0, 3.0])


def test_memory_of_a_level_is_one_patch():
    finest = FinestLevel(ScanRule("threshold", 1.0))
    merger = LevelMerger(1.5, 1, 1 << 60)
    patches = merger.feed(finest.feed(np.array([0.0, 2.0, 1.2, 0.0], np.float32), None), ends=False)
    assert patches.lengths.tolist() == [1, 1]
