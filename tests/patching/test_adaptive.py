"""The threshold that follows its entropies: causal, chunked, and true to the mean length that was asked for."""

from __future__ import annotations

import gzip
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching import Scanner, ScanRule, calibrate_threshold
from hyena_glt.patching.adaptive import SPREAD, AdaptiveThreshold

LIMITS = st.sampled_from([(None, None), (None, 40), (3, None), (2, 40)])


@st.composite
def drifting(draw):
    """Entropies whose level and spread change from piece to piece, and forced starts and unheard tokens among them."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(0, 120), min_size=1, max_size=5))
    parts = [random.choice([0.0, 1.0, 1.3]) + random.choice([0.0, 0.3]) * random.random(size) for size in sizes]
    entropies = np.concatenate(parts).astype(np.float32)
    forced, ignored = random.random((2, entropies.size)) < random.choice([0.0, 0.1], (2, 1))
    return entropies, forced, ignored


def follow_slowly(entropies, forced, ignored, target, start, half_life, shortest, cap):
    """The recursion as the module's text has it, with the starts as a list of tokens."""
    threshold, starts, decisions = start, [0], []
    for i, entropy in enumerate(entropies.tolist()):
        begun = 1 if i == 0 else 0
        if forced[i] and starts[-1] != i:
            starts.append(i)
            begun += 1
        decision = entropy > threshold and not ignored[i]
        decisions.append(decision)
        length = i + 1 - starts[-1]
        if ((decision or i == 0) and length >= (shortest or 1)) or length >= (cap or math.inf):
            starts.append(i + 1)
            begun += 1
        if not ignored[i]:
            threshold += SPREAD * math.log(2) / half_life * (begun - 1 / target)
    return decisions, starts, threshold


def patches(decisions, forced, limits):
    """Starts as the scanner makes them of the decisions."""
    scanner = Scanner(ScanRule("threshold", 0.0, None, None, *limits))
    lengths = np.concatenate([scanner.feed(decisions, forced), scanner.finish()])
    return np.cumsum(lengths) - lengths


@given(drifting(), LIMITS, st.floats(3, 30), st.sampled_from([5.0, 100.0]))
def test_it_is_the_recursion_that_it_says(row, limits, target, half_life):
    entropies, forced, ignored = row
    adaptive = AdaptiveThreshold(
        target, start=1.1, half_life=half_life, min_patch_length=limits[0], max_patch_length=limits[1]
    )
    decisions = adaptive.feed(entropies, forced, ignored)
    expected, starts, threshold = follow_slowly(entropies, forced, ignored, target, 1.1, half_life, *limits)
    assert decisions.tolist() == expected
    assert adaptive.threshold == pytest.approx(threshold, abs=1e-9)
    within = [start for start in starts if start < entropies.size]
    assert patches(decisions, forced, limits).tolist() == within


@given(drifting(), LIMITS, st.lists(st.integers(0, 600), max_size=6))
def test_any_chunking_decides_the_same(row, limits, cuts):
    def make():
        return AdaptiveThreshold(8, start=1.2, half_life=20, min_patch_length=limits[0], max_patch_length=limits[1])

    whole, parts = make(), make()
    expected = whole.feed(*row)
    places = [0, *sorted(min(cut, row[0].size) for cut in cuts), row[0].size]
    found = [parts.feed(*(part[a:b] for part in row)) for a, b in pairwise(places)]
    assert np.array_equal(np.concatenate(found), expected)
    assert parts.threshold == whole.threshold


@given(drifting(), st.integers(0, 600))
def test_a_decision_rests_on_the_past_alone(row, place):
    entropies, forced, ignored = row
    changed = entropies.copy()
    changed[place:] += 0.7
    one, other = (AdaptiveThreshold(6, start=1.2, half_life=9).feed(e, forced, ignored) for e in (entropies, changed))
    assert np.array_equal(one[:place], other[:place])


@given(drifting(), LIMITS, st.floats(4, 30))
def test_patches_number_what_was_asked_for_but_for_the_way_of_the_threshold(row, limits, target):
    entropies, forced, _ = row
    if not entropies.size:
        return
    adaptive = AdaptiveThreshold(
        target, start=1.2, half_life=20, min_patch_length=limits[0], max_patch_length=limits[1]
    )
    count = patches(adaptive.feed(entropies, forced), forced, limits).size
    expected = entropies.size / target + (adaptive.threshold - 1.2) / adaptive.step
    assert expected - 1 - 1e-6 <= count <= expected + 1e-6  # the start after the last token is none of these patches


@given(drifting(), st.floats(4, 30))
def test_the_threshold_stays_with_the_entropies(row, target):
    entropies, _, _ = row
    adaptive = AdaptiveThreshold(target, start=1.2, half_life=3)
    for chunk in np.array_split(entropies, 9):
        adaptive.feed(chunk)
        top, bottom = max(1.2, entropies.max(initial=0.0)), min(1.2, entropies.min(initial=9.0))
        assert bottom - adaptive.step - 1e-9 <= adaptive.threshold <= top + 2 * adaptive.step + 1e-9


def test_equal_entropies_make_patches_of_the_wanted_length():
    adaptive = AdaptiveThreshold(16, start=1.3, half_life=100)
    starts = patches(adaptive.feed(np.full(40_000, 1.0, np.float32)), None, (None, None))
    lengths = np.diff(starts[starts > 20_000])
    assert lengths.mean() == pytest.approx(16, rel=0.01)
    assert lengths.max() <= 17


def test_half_of_an_error_is_gone_after_a_half_life():
    entropies = 1.3 + SPREAD * np.random.default_rng(0).random(30_000)  # as dense as SPREAD says
    wanted = 1.3 + SPREAD * 15 / 16
    adaptive = AdaptiveThreshold(16, start=wanted - 0.02, half_life=10_000)
    for left in (0.5, 0.25, 0.125):
        adaptive.feed(entropies[:10_000].astype(np.float32))
        assert (wanted - adaptive.threshold) / 0.02 == pytest.approx(left, abs=0.05)
        entropies = entropies[10_000:]


def test_sequences_follow_each_other_with_one_threshold():
    entropies = np.random.default_rng(3).random(3000, np.float32)
    adaptive = AdaptiveThreshold(10, start=0.5, half_life=50)
    adaptive.feed(entropies)
    carried = adaptive.threshold
    adaptive.end_sequence()
    other = AdaptiveThreshold(10, start=carried, half_life=50)
    assert np.array_equal(adaptive.feed(entropies), other.feed(entropies))


def test_unheard_tokens_move_nothing():
    adaptive = AdaptiveThreshold(10, start=1.0, half_life=5)
    assert not adaptive.feed(np.full(500, 9.0, np.float32), ignored=np.ones(500, bool)).any()
    assert adaptive.threshold == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_mean_length": 0.5}, "target_mean_length: expected tokens between the limits 1 and none, got 0.5"),
        ({"target_mean_length": math.nan}, "got nan"),
        ({"target_mean_length": 70, "max_patch_length": 64}, "between the limits 1 and 64, got 70"),
        ({"target_mean_length": 3, "min_patch_length": 4}, "between the limits 4 and none"),
        ({"max_patch_length": 0}, "max_patch_length: expected at least 1"),
        ({"half_life": 0}, "half_life: expected at least 1 token"),
        ({"half_life": math.inf}, "half_life"),
        ({"start": math.nan}, "start: expected finite nats"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        AdaptiveThreshold(**{"target_mean_length": 16, "start": 1.0, **options})


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ((np.zeros((2, 2), np.float32),), r"expected \(n,\), got shape \(2, 2\)"),
        ((np.array([1, np.nan], np.float32),), "NaN at token 1"),
        ((np.zeros(3, np.float32), np.zeros(2, bool)), r"forced: expected bool \(3,\)"),
        ((np.zeros(3, np.float32), None, np.zeros(3, np.int64)), "ignored: expected bool"),
    ],
)
def test_bad_chunks_leave_the_state_as_it_was(chunk, message):
    adaptive = AdaptiveThreshold(4, start=1.0, half_life=5)
    adaptive.feed(np.full(7, 2.0, np.float32))
    before = adaptive.threshold
    with pytest.raises(PatchingError, match=message):
        adaptive.feed(*chunk)
    assert adaptive.threshold == before


def letters(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as handle:
        return b"".join(line.strip() for line in handle if not line.startswith(b">"))


def mean_lengths(decisive, sizes, rule):
    """Tokens per patch of each piece of the whole."""
    scanner = Scanner(rule)
    lengths = np.concatenate([scanner.feed(decisive), scanner.finish()])
    counts, _ = np.histogram(np.cumsum(lengths) - lengths, np.cumsum([0, *sizes]))
    return np.array(sizes) / counts


@pytest.mark.parametrize("cap", [None, 64])
def test_the_mean_holds_where_a_fixed_threshold_drifts(data, cap):
    pieces = [
        letters(data("genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz"))[:1_000_000],
        letters(data("human/hg38_chr22_32.0-32.3Mb.fa.gz")),
        letters(data("genomes/mgenitalium_NC_000908.2.fa.gz")),
        letters(data("genomes/lambda_NC_001416.1.fa")),
    ]
    model = MarkovEntropy.fit(pieces)
    entropies = [model.entropies(piece) for piece in pieces]
    threshold = calibrate_threshold(entropies[:1], target_mean_length=16, max_patch_length=cap)
    sizes, whole = [len(piece) for piece in pieces], np.concatenate(entropies)
    fixed = mean_lengths(whole, sizes, ScanRule("threshold", threshold, max_patch_length=cap))
    adaptive = AdaptiveThreshold(16, start=threshold, half_life=5_000, max_patch_length=cap)
    followed = mean_lengths(adaptive.feed(whole), sizes, ScanRule("threshold", 0.0, max_patch_length=cap))
    assert np.abs(np.log(fixed / 16)).max() > np.log(1.25)
    assert np.abs(np.log(followed / 16)).max() < np.log(1.1)
