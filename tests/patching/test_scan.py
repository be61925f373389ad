"""The scanner against the definition, written token by token in plain Python."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.config import AdvancedPatcherConfig
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching import Patcher, PatcherArgs, Scanner, ScanRule, count_patches
from hyena_glt.patching.scan import ScoreRows
from hyena_glt.patching.scan_kernels import COUNT_BLOCK

SCORE_MODES = ("threshold", "monotone", "dual")


def wants_start(rule, scores, token, origin):
    """Whether the rule alone starts a patch at `token` > 0."""
    if rule.mode == "mask":
        return bool(scores[token])
    if rule.mode == "byte":
        return True
    if rule.mode == "static":
        distance = token - origin
        return any(math.floor(k * rule.patch_size) == distance for k in range(distance + 2))
    if token == 1 or (token == 2 and rule.mode != "threshold"):
        return True
    above = scores[token - 1] > np.float32(rule.threshold)
    if rule.mode == "threshold":
        return bool(above)
    rise = scores[token - 1] - scores[token - 2]
    if rule.mode == "monotone":
        return bool(rise > np.float32(rule.threshold))
    return bool(token != 3 and above and rise > np.float32(rule.threshold_add))


def lengths_by_definition(rule, scores, forced, num_tokens):
    """Patch lengths, and which starts are known from the past alone."""
    lengths, known = [], [True] * num_tokens
    last = origin = 0
    for token in range(1, num_tokens):
        length = token - last
        due = wants_start(rule, scores, token, origin) and length >= (rule.min_patch_length or 1)
        due = due or length == rule.max_patch_length
        is_forced = token < len(forced) and forced[token]
        if due or is_forced:
            lengths.append(length)
            last, known[token] = token, due
        if is_forced:
            origin = token
    return [*lengths, num_tokens - last] if num_tokens else [], known


limits = st.one_of(
    st.just((None, None)),
    st.tuples(st.none(), st.integers(1, 9)),
    st.tuples(st.integers(1, 6), st.none()),
    st.tuples(st.integers(1, 6), st.integers(6, 12)),
)


@st.composite
def rules(draw, modes=("threshold", "monotone", "dual", "static", "byte", "mask")):
    mode = draw(st.sampled_from(modes))
    shortest, longest = draw(limits)
    return ScanRule(
        mode,
        threshold=draw(st.integers(-4, 8)) / 8 if mode in SCORE_MODES else None,
        threshold_add=draw(st.integers(-4, 4)) / 8 if mode == "dual" else None,
        patch_size=draw(st.sampled_from([1, 2, 3.5, 4.5, 7.3, 12])) if mode == "static" else None,
        min_patch_length=shortest,
        max_patch_length=longest,
    )


@st.composite
def sequences(draw, rule, max_size=200):
    """Scores (or starts) with many ties, and sparse forced starts."""
    length = draw(st.integers(0, max_size))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if rule.mode == "mask":
        scores = random.random(length) < draw(st.sampled_from([0.02, 0.3, 0.9]))
    else:
        scores = (random.integers(0, 9, length) / 8).astype(np.float32)
    forced = random.random(length) < draw(st.sampled_from([0.0, 0.05, 0.4]))
    return scores, forced


@st.composite
def scanned(draw):
    rule = draw(rules())
    scores, forced = draw(sequences(rule))
    cuts = draw(st.lists(st.integers(0, len(scores)), max_size=6).map(sorted))
    return rule, scores, forced, [0, *cuts, len(scores)]


@given(scanned())
def test_any_chunking_equals_the_definition(case):
    rule, scores, forced, cuts = case
    scanner = Scanner(rule)
    lengths = [
        length for start, stop in pairwise(cuts) for length in scanner.feed(scores[start:stop], forced[start:stop])
    ]
    lengths += scanner.finish().tolist()
    assert lengths == lengths_by_definition(rule, scores, forced, len(scores))[0]


@given(scanned())
def test_a_finished_scanner_begins_anew(case):
    rule, scores, forced, _ = case
    scanner = Scanner(rule)
    first = [*scanner.feed(scores, forced), *scanner.finish()]
    assert [*scanner.feed(scores, forced), *scanner.finish()] == first


@given(scanned(), st.booleans())
def test_the_token_after_the_last_one_is_decided_by_the_last_score(case, next_token):
    rule, scores, forced, _ = case
    if rule.mode == "mask":
        return
    scanner = Scanner(rule)
    lengths = [*scanner.feed(scores, forced), *scanner.finish(next_token)]
    expected = lengths_by_definition(rule, scores, forced, len(scores) + next_token)[0]
    assert lengths == (expected if len(scores) else [1] * next_token)


def test_a_patch_is_returned_as_soon_as_the_next_start_is_known():
    scanner = Scanner(ScanRule("threshold", threshold=1.0))
    assert scanner.feed(np.array([0, 0, 0, 2], np.float32)).tolist() == [1, 3]
    assert scanner.finish().tolist() == []


@given(scanned())
def test_the_scanner_equals_the_patcher(case):
    rule, scores, _, cuts = case
    if rule.mode == "mask":
        return
    patcher = patcher_of(rule)
    tokens = torch.full((1, len(scores)), 69)
    entropies = torch.from_numpy(scores)[None] if rule.mode in SCORE_MODES else None
    scanner = Scanner(rule)
    lengths = [length for start, stop in pairwise(cuts) for length in scanner.feed(scores[start:stop])]
    assert patcher.patch(tokens, entropies=entropies)[0][0].tolist() == [*lengths, *scanner.finish()]


def patcher_of(rule):
    fields = {"patching_mode": "entropy" if rule.mode in SCORE_MODES else rule.mode}
    if rule.mode in SCORE_MODES:
        fields |= {"threshold": rule.threshold, "monotonicity": rule.mode == "monotone"}
        fields |= {"threshold_add": rule.threshold_add}
    if rule.mode == "static":
        fields["patch_size"] = rule.patch_size
    return Patcher(min_patch_length=rule.min_patch_length, max_patch_length=rule.max_patch_length, **fields)


class TableWithEdges:
    """An entropy source that gives fixed scores and forced starts."""

    is_causal = True

    def __init__(self, scores, forced):
        self.scores, self.forced = scores, forced

    def entropies(self, tokens):
        return self.scores[: len(tokens)]

    def forced_starts(self, tokens):
        return self.forced[: len(tokens)]


@pytest.mark.filterwarnings("ignore::hyena_glt.patching.PatchingWarning")
@given(st.data())
def test_the_patcher_marks_the_starts_that_only_the_source_forced(data):
    rule = data.draw(rules(SCORE_MODES))
    scores, forced = data.draw(sequences(rule))
    patcher = patcher_of(rule)
    patcher.entropy_model = TableWithEdges(scores, forced)
    patched = patcher.patch_with_starts(torch.full((1, len(scores)), 104))
    lengths, known = lengths_by_definition(rule, scores, forced, len(scores))
    assert patched.patch_lengths[0].tolist() == lengths
    assert patched.known_starts[0].tolist() == known


@given(st.data())
def test_counting_equals_scanning(data):
    rule = data.draw(rules(SCORE_MODES))
    rows = [data.draw(sequences(rule)) for _ in range(data.draw(st.integers(0, 3)))]
    expected = [len(lengths_by_definition(rule, scores, forced, len(scores))[0]) for scores, forced in rows]
    for (scores, forced), count in zip(rows, expected, strict=True):
        assert count_patches(scores, forced, rule) == count
    together = ScoreRows([scores for scores, _ in rows], [forced for _, forced in rows])
    assert together.count_patches(rule) == sum(expected)
    assert together.num_tokens == sum(len(scores) for scores, _ in rows)


@pytest.mark.parametrize("mode", SCORE_MODES)
@pytest.mark.parametrize("longest", [None, 40])
def test_long_sequences_are_counted_in_blocks_without_a_seam(mode, longest):
    random = np.random.default_rng(5)
    scores = (random.integers(0, 64, 200_000) / 64).astype(np.float32)
    forced = random.random(scores.size) < 1e-4
    rule = ScanRule(mode, 0.5, 0.25 if mode == "dual" else None, None, 3, longest)
    for edges in (None, forced):
        scanner = Scanner(rule)
        expected = scanner.feed(scores, edges).size + scanner.finish().size
        assert count_patches(scores, edges, rule) == expected


@pytest.mark.parametrize("mode", ["monotone", "dual"])
def test_a_rise_at_the_seam_of_two_blocks_is_counted(mode):
    scores = np.zeros(4 * COUNT_BLOCK, np.float32)
    scores[COUNT_BLOCK::COUNT_BLOCK] = 1.0
    rule = ScanRule(mode, 0.5, 0.5 if mode == "dual" else None)
    assert count_patches(scores, None, rule) == 3 + 3  # tokens 0, 1 and 2, and one after each seam


def test_a_long_gap_is_cut_at_the_cap():
    scanner = Scanner(ScanRule("threshold", threshold=1.0, max_patch_length=7))
    lengths = np.concatenate([scanner.feed(np.zeros(500, np.float32)) for _ in range(10)])
    assert lengths.tolist() == [1] + [7] * 714
    assert scanner.finish().tolist() == [1]


def test_a_cut_of_the_cap_does_not_reset_the_minimum():
    starts = np.zeros(12, bool)
    starts[[0, 6, 7]] = True  # 5 is a cut; 6 and 7 come 1 and 2 tokens after it
    scanner = Scanner(ScanRule("mask", min_patch_length=2, max_patch_length=5))
    assert [*scanner.feed(starts), *scanner.finish()] == [5, 2, 5]


def test_a_forced_start_restarts_the_stride():
    forced = np.zeros(12, bool)
    forced[5] = True
    scanner = Scanner(ScanRule("static", patch_size=4))
    assert [*scanner.feed(np.zeros(12, np.float32), forced), *scanner.finish()] == [4, 1, 4, 3]


def test_positions_beyond_two_to_the_31_keep_the_stride():
    scanner = Scanner(ScanRule("static", patch_size=4.5))
    scanner._seen = scanner._last_start = 9 * (2**30)
    assert scanner.feed(np.zeros(20, np.float32)).tolist() == [4, 5, 4, 5]


def test_nan_is_refused_with_its_token():
    scanner = Scanner(ScanRule("threshold", threshold=1.0))
    scanner.feed(np.zeros(10, np.float32))
    with pytest.raises(PatchingError, match="NaN at token 12"):
        scanner.feed(np.array([0, 0, np.nan], np.float32))


@pytest.mark.parametrize(
    ("scores", "forced", "message"),
    [
        (np.zeros((2, 3), np.float32), None, "expected \\(n,\\)"),
        (np.zeros(3, np.float32), np.zeros(4, bool), "forced: expected bool"),
        (np.zeros(3, np.float32), np.zeros(3, np.int8), "forced: expected bool"),
    ],
)
def test_chunks_of_another_shape_are_refused(scores, forced, message):
    with pytest.raises(PatchingError, match=message):
        Scanner(ScanRule("threshold", threshold=1.0)).feed(scores, forced)


def test_a_mode_ignores_the_numbers_of_the_others():
    scores = (np.random.default_rng(3).integers(0, 9, 300) / 8).astype(np.float32)
    plain, cluttered = ScanRule("threshold", 0.5), ScanRule("threshold", 0.5, threshold_add=0.25, patch_size=3)
    assert count_patches(scores, None, plain) == count_patches(scores, None, cluttered)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "topk"}, "mode: expected one of"),
        ({"mode": "threshold"}, "threshold: expected a finite number"),
        ({"mode": "threshold", "threshold": math.nan}, "threshold: expected a finite number"),
        ({"mode": "dual", "threshold": 1.0}, "threshold_add: expected a finite number"),
        ({"mode": "static"}, "patch_size: expected a finite number"),
        ({"mode": "static", "patch_size": 0.5}, "patch_size: expected at least 1"),
        ({"mode": "byte", "max_patch_length": 0}, "max_patch_length: expected at least 1"),
        ({"mode": "byte", "min_patch_length": 5, "max_patch_length": 4}, "min_patch_length: expected at most"),
    ],
)
def test_rules_that_mean_nothing_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        ScanRule(**fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"threshold": 1.25, "max_patch_length": 9}, ScanRule("threshold", 1.25, max_patch_length=9)),
        ({"threshold": 0.1, "monotonicity": True}, ScanRule("monotone", 0.1)),
        ({"threshold": 0.1, "threshold_add": 0.0}, ScanRule("dual", 0.1, 0.0)),
        ({"patching_mode": "static", "max_patch_length": 8}, ScanRule("static", patch_size=8, max_patch_length=8)),
        ({"patching_mode": "static", "patch_size": 4.5}, ScanRule("static", patch_size=4.5)),
        ({"patching_mode": "byte", "min_patch_length": 2}, ScanRule("byte", min_patch_length=2)),
        ({"patching_mode": "space"}, ScanRule("mask")),
        ({"patching_mode": "bpe"}, ScanRule("mask")),
    ],
)
def test_a_rule_is_made_from_patcher_options(fields, expected):
    assert ScanRule.from_args(PatcherArgs(**fields)) == expected
    assert ScanRule.from_args(AdvancedPatcherConfig(**fields)) == expected


def test_windows_that_overlap_have_no_sequential_rule():
    with pytest.raises(ConfigError, match="overlap: expected 0"):
        ScanRule.from_args(PatcherArgs(patching_mode="static", patch_size=4, overlap=1))


def test_top_k_has_no_sequential_rule():
    with pytest.raises(ConfigError, match="top-k needs the whole sequence"):
        ScanRule.from_args(PatcherArgs(threshold=None, patch_size=4))
    assert ScanRule.from_args(PatcherArgs(threshold=None, patch_size=4), threshold=1.0).threshold == 1.0


@pytest.mark.parametrize(
    ("scores", "forced", "message"),
    [
        ([np.zeros((2, 2), np.float32)], None, "one-dimensional"),
        ([[0.0, 1.0]], None, "one-dimensional"),
        ([np.array([0, np.nan], np.float32)], None, "NaN"),
        ([np.zeros(3, np.float32)], [np.zeros(2, bool)], "forced: expected 3"),
    ],
)
def test_rows_of_scores_are_checked(scores, forced, message):
    with pytest.raises(PatchingError, match=message):
        ScoreRows(scores, forced)
