"""Levels of a hierarchy: nested, near their targets, and each row on its own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching import Patcher, PatcherArgs, ScanRule, patch_hierarchy
from hyena_glt.patching.hierarchy import merge_patches, nested_lengths, start_values
from hyena_glt.sequences.fasta import read_records
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

RULES = [{}, {"monotonicity": True, "threshold": 0.1}, {"threshold_add": 0.0}]
LIMITS = [{}, {"max_patch_length": 20}, {"min_patch_length": 3}, {"min_patch_length": 3, "max_patch_length": 20}]


def ends_of(lengths):
    """Ends of the patches of one row, padding left out."""
    return np.cumsum([length for length in np.asarray(lengths).tolist() if length])


def check_nested(levels, length):
    for level in levels:
        assert sum(np.asarray(level).tolist()) == length
    for fine, coarse in pairwise(levels):
        assert np.isin(ends_of(coarse), ends_of(fine)).all()


scores_and_forced = st.lists(
    st.tuples(st.one_of(st.floats(0, 2, width=32), st.sampled_from([0.5, 1.0])), st.integers(0, 9)), max_size=120
)


@pytest.mark.parametrize("mode", ["threshold", "monotone", "dual"])
@given(
    tokens=scores_and_forced,
    limit=st.sampled_from([(None, None), (None, 3), (2, None), (2, 5), (3, 3)]),
    targets=st.sampled_from([(2,), (2, 4), (2, 5, 11), (1.5, 40)]),
)
def test_levels_are_nested_and_within_their_limits(mode, tokens, limit, targets):
    scores = np.array([score for score, _ in tokens], np.float32)
    forced = np.array([place == 0 for _, place in tokens], np.bool_)
    forced[:1] = False
    rule = ScanRule(mode, 0.0, 0.1, None, *limit)
    levels = nested_lengths(scores, forced, rule, targets)
    check_nested(levels, len(tokens))
    for level, target in zip(levels, targets, strict=True):
        starts = ends_of(level)[:-1]
        assert set(np.flatnonzero(forced)) <= set(starts.tolist())
        growth = target / targets[0]
        if rule.max_patch_length:
            assert level.max(initial=0) <= int(rule.max_patch_length * growth)
        elif rule.min_patch_length:
            shortest = int(rule.min_patch_length * growth)
            assert all(length >= shortest or forced[end] for length, end in zip(level[:-1], starts, strict=True))


@given(tokens=scores_and_forced, threshold=st.floats(0, 2, width=32))
def test_without_limits_a_coarse_level_is_what_its_threshold_alone_gives(tokens, threshold):
    scores = np.array([score for score, _ in tokens] or [0.0], np.float32)
    for fields, mode in zip(RULES, ("threshold", "monotone", "dual"), strict=True):
        patcher = Patcher(**{**fields, "threshold": threshold})
        row = torch.from_numpy(scores)[None]
        expected = patcher.patch(torch.full(row.shape, 70), entropies=row)[0][0]
        values = start_values(scores, ScanRule(mode, 0.0, 0.0))
        nothing, merged = np.zeros(scores.size, np.bool_), np.empty(scores.size, np.int64)
        count = merge_patches(
            np.ones(scores.size, np.int64), values, nothing, np.float32(threshold), 1, 1 << 60, merged
        )
        assert merged[:count].tolist() == expected.tolist()


@pytest.mark.parametrize("limit", LIMITS, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_means_are_near_the_targets_on_simulated_dna(rule, limit):
    text = generate_random_genomic_sequence(200_000, seed=1)
    scores = np.random.default_rng(3).normal(1.3, 0.05, len(text)).astype(np.float32)  # no two alike
    levels = patch_hierarchy(PatcherArgs(**rule, **limit), text, entropies=scores)
    assert [len(text) / level.shape[1] for level in levels] == pytest.approx([8, 64, 512], rel=0.02)
    model = MarkovEntropy.fit([text])  # whose table has ties
    levels = patch_hierarchy(PatcherArgs(entropy_model=model, **rule, **limit), text, (6, 24, 96))
    check_nested([level[0] for level in levels], len(text))
    assert [len(text) / level.shape[1] for level in levels] == pytest.approx([6, 24, 96], rel=0.1)


def test_a_row_gives_the_same_alone_and_in_any_batch():
    rows = [generate_random_genomic_sequence(size, seed=size) for size in (5_000, 900, 0, 1, 2, 3, 40)]
    args = PatcherArgs(max_patch_length=32)
    together = patch_hierarchy(args, rows, (4, 32))
    assert [level.dtype for level in together] == [torch.int64] * 2
    for index, row in enumerate(rows):
        check_nested([level[index] for level in together], len(row))
        alone = patch_hierarchy(args, row, (4, 32))
        for level, one in zip(together, alone, strict=True):
            assert one[0].tolist() == [length for length in level[index].tolist() if length]


def test_runs_of_n_are_patches_of_their_own_on_every_level():
    text = generate_random_genomic_sequence(6_000, seed=2)
    text = text[:3_000] + "N" * 300 + text[3_000:]
    patcher = Patcher(entropy_model=MarkovEntropy.fit([text]), min_patch_length=2)
    for level in patch_hierarchy(patcher, text, (4, 32, 128)):
        assert {3_000, 3_300} <= set(ends_of(level[0]).tolist())


def test_tokens_and_given_scores_come_as_a_row_or_a_batch():
    scores = torch.rand(2, 400, generator=torch.Generator().manual_seed(0))
    tokens = torch.full((2, 400), 70)
    args = PatcherArgs(patching_mode="track")
    both = patch_hierarchy(args, tokens, (4, 16), entropies=scores)
    for row in range(2):
        alone = patch_hierarchy(args, tokens[row].numpy(), (4, 16), entropies=scores[row].numpy())
        for level, one in zip(both, alone, strict=True):
            assert one[0].tolist() == [length for length in level[row].tolist() if length]


def test_a_real_genome_has_nested_levels_near_their_targets(data):
    (record,) = read_records(data("genomes/mgenitalium_NC_000908.2.fa.gz"))
    levels = patch_hierarchy(PatcherArgs(), record.sequence, (8, 64, 512))
    check_nested([level[0] for level in levels], len(record.sequence))
    means = [len(record.sequence) / level.shape[1] for level in levels]
    assert means == pytest.approx([8, 64, 512], rel=0.1)


@pytest.mark.parametrize("targets", [(), (8, 8), (64, 8), (0.5, 8), (8, float("nan"))])
def test_targets_that_do_not_ascend_are_refused(targets):
    with pytest.raises(ConfigError, match="target_lengths: expected ascending"):
        patch_hierarchy(PatcherArgs(), "ACGT" * 9, targets)


def test_modes_without_scores_are_refused():
    with pytest.raises(ConfigError, match="expected entropy or track for a hierarchy, got static"):
        patch_hierarchy(PatcherArgs(patching_mode="static"), "ACGT")
    with pytest.raises(PatchingError, match="expected the track's scores"):
        patch_hierarchy(PatcherArgs(patching_mode="track"), "ACGT")
    with pytest.raises(PatchingError, match="NaN"):
        patch_hierarchy(PatcherArgs(), "ACGT", entropies=torch.tensor([0.0, float("nan"), 0.0, 0.0]))
