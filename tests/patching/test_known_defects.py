"""Every known defect of the documents and of the reference patcher, with the test that it is not repeated.

| defect | test |
| --- | --- |
| static fails with a fractional size | `test_static_with_fractional_size_works` |
| top-k is unreachable: the arguments allow neither `threshold=None` nor the size it needs | `test_top_k_is_reachable` |
| top-k fails where a row has room for less than two patches | `test_top_k_takes_rows_shorter_than_two_patches` |
| space fails where rows have different numbers of patches | `test_rows_are_ragged_in_space_mode` |
| bpe fails with a delimiter in front | `test_a_delimiter_in_front_works_in_bpe_mode` |
| bpe gives a row another result in a batch than alone | `test_rows_are_ragged_in_bpe_mode` |
| a batch is flattened, so rows bleed into each other | `test_rows_never_bleed` |
| rows are cut at 8,192 tokens and begin anew there | `test_long_rows_are_never_reset` |
| short rows are padded to 8,192 tokens for the model | `test_short_rows_are_not_padded_to_the_window` |
| empty rows and rows of one or two tokens fail | `test_empty_and_tiny_rows_work` |
| `max_patch_length <= 0` never ends or is ignored | `test_a_cap_below_one_is_a_named_error` |
| NaN entropies pass silently | `test_nan_entropies_are_a_named_error` |
| wrong shapes pass or fail far from their cause | `test_wrong_shapes_are_a_named_error` |
| PAD inside a row is taken for a byte | `test_pad_inside_a_row_is_a_named_error` |
| `log_time` fails in modes without a step | `test_log_time_works_in_every_mode` |
| lengths have the dtype of the tokens, and overflow | `test_lengths_are_int64_whatever_the_token_dtype` |
| no minimum length, or one that a cut breaks | `test_only_the_last_patch_may_be_shorter_than_the_minimum` |
| a model is needed that nobody has | `test_without_a_model_each_row_is_scored_alone` |
| realtime patching of a model that has seen it all | `test_streaming_without_a_fitted_model_says_so` |
| the text threshold lies just under the ceiling of DNA | `test_text_threshold_on_dna_warns` |
| the same number with `monotonicity` makes 3 patches | `test_text_threshold_with_monotonicity_warns` |
| one threshold serves for a value and for a rise | `test_calibration_separates_the_values_of_the_rules` |
| `threshold_add=0.0` is called a single threshold | `test_a_second_threshold_of_zero_is_the_dual_rule` |
| `monotonicity` silently wins over `threshold_add` | `test_monotonicity_with_threshold_add_warns_once` |
| a first patch of one token, made for a BOS token | `test_the_patch_of_the_bos_token_is_documented` |
| space and bpe give `[1, n - 1]` on bases | `test_bases_without_a_delimiter_warn` |
| `len(patches)` is mixed up with the number of tokens | `test_pieces_and_tokens_are_counted_apart` |
| the coverage check forgets `include_next_token` | `test_the_coverage_check_counts_the_next_token` |
| asserts are the only checks | `test_asserts_do_not_vanish_under_optimisation` |
"""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching import (
    OnlinePatcher,
    Patcher,
    PatcherArgs,
    PatchingWarning,
    ScanRule,
    calculate_entropies,
    calibrate,
    check_patch_lengths,
    split_large_numbers,
)
from hyena_glt.patching.step_clock import STEPS
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.tokens.byte_tokenizer import BPE_ID, PAD_ID

TEXT_THRESHOLD = 1.335442066192627  # nats
DNA = generate_random_genomic_sequence(4096, seed=8)
MODEL = MarkovEntropy.fit([DNA], order=2)
MODES = [
    {"threshold": 0.5},
    {"threshold": 0.2, "monotonicity": True},
    {"threshold": 0.5, "threshold_add": 0.1},
    {"threshold": None, "patch_size": 3},
    {"patching_mode": "bpe"},
    {"patching_mode": "bpe_patcher"},
    {"patching_mode": "space"},
    {"patching_mode": "static", "patch_size": 4.5},
    {"patching_mode": "byte"},
]
ignore_advice = pytest.mark.filterwarnings("ignore::hyena_glt.patching.PatchingWarning")


def given_for(mode, shape):
    """What the mode needs beside the tokens, seeded."""
    random = torch.Generator().manual_seed(shape[1])
    if mode.get("patching_mode") == "bpe_patcher":
        return {"preds": torch.rand(shape, generator=random) < 0.3}
    return {} if "patching_mode" in mode else {"entropies": torch.rand(shape, generator=random)}


def real_lengths(row):
    return [length for length in row.tolist() if length]


def alone_and_together(patcher, rows, include_next_token):
    """Lengths of each row by itself, and of each row in the batch."""
    alone = [real_lengths(patcher.patch([row], include_next_token)[0][0]) for row in rows]
    together = [real_lengths(row) for row in patcher.patch(rows, include_next_token)[0]]
    return alone, together


def warnings_of(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(warning.message) for warning in caught if issubclass(warning.category, PatchingWarning)]


def test_static_with_fractional_size_works():
    lengths = Patcher(patching_mode="static", patch_size=4.5).patch("A" * 90)[0][0].tolist()
    assert lengths == [4, 5] * 10


def test_top_k_is_reachable():
    entropies = torch.tensor([[0.0, 0.1, 0.9, 0.2, 0.8, 0.3, 0.0, 0.0]])
    lengths = PatcherArgs(threshold=None, patch_size=2).build().patch("ACGTACGT", entropies=entropies)[0]
    assert lengths.tolist() == [[1, 2, 2, 3]]  # 8 // 2 patches: the first two, and after the highest two


@pytest.mark.parametrize("length", range(1, 8))
def test_top_k_takes_rows_shorter_than_two_patches(length):
    patcher = Patcher(threshold=None, patch_size=4)
    lengths = patcher.patch("A" * length, entropies=torch.zeros(1, length))[0][0].tolist()
    assert lengths == ([1, length - 1] if length > 1 else [1])


@given(st.lists(st.text("xz ,.\n", max_size=30), min_size=1, max_size=5), st.booleans())
def test_rows_are_ragged_in_space_mode(texts, include_next_token):
    alone, together = alone_and_together(Patcher(patching_mode="space"), texts, include_next_token)
    assert together == alone
    assert [sum(row) for row in together] == [len(text) + include_next_token for text in texts]


def test_a_delimiter_in_front_works_in_bpe_mode():
    tokens = torch.tensor([[BPE_ID, 70, 71, BPE_ID, 72, 73]])
    assert Patcher(patching_mode="bpe").patch(tokens)[0].tolist() == [[1, 3, 2]]


@given(st.lists(st.lists(st.sampled_from([BPE_ID, 9, 200]), max_size=20), min_size=1, max_size=5), st.booleans())
def test_rows_are_ragged_in_bpe_mode(rows, include_next_token):
    rows = [torch.tensor(row, dtype=torch.int64) for row in rows]
    alone, together = alone_and_together(Patcher(patching_mode="bpe"), rows, include_next_token)
    assert together == alone
    assert [sum(row) for row in together] == [len(row) + include_next_token for row in rows]


def last_two_network(tokens):
    """A causal network that looks at a token and the one before."""
    table = torch.randn(300, 7, generator=torch.Generator().manual_seed(1))
    logits = table[tokens]
    logits[:, 1:] += 0.5 * table[tokens[:, :-1]]
    return logits


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_rows_never_bleed(batch_size):
    rows = [DNA[:50], DNA[50:57], "", DNA[57:400]]
    patcher = Patcher(entropy_model=last_two_network, threshold=1.2, patching_batch_size=batch_size)
    alone, together = alone_and_together(patcher, rows, include_next_token=False)
    assert together == alone
    changed = patcher.patch(["T" * 50, *rows[1:]])[0]
    assert [real_lengths(row) for row in changed[1:]] == alone[1:]


def network_that_counts(tokens):
    """A causal network whose entropy falls with the number of tokens that it has seen."""
    logits = torch.zeros(*tokens.shape, 4)
    logits[..., 0] = torch.arange(tokens.shape[1]) * 1e-3
    return logits


def test_long_rows_are_never_reset():
    tokens = torch.full((1, 20_000), 70)
    entropies = calculate_entropies(tokens, network_that_counts, 1)
    fresh = calculate_entropies(tokens[:, :4096], network_that_counts, 1)[0, -1]
    assert (entropies[0, 4096:] < fresh).all()  # every later token has at least half a window behind it


def test_short_rows_are_not_padded_to_the_window():
    seen = []

    def network(tokens):
        seen.append(tuple(tokens.shape))
        return torch.zeros(*tokens.shape, 4)

    Patcher(entropy_model=network, threshold=1.0, patching_batch_size=4).patch([DNA[:30], DNA[:10]])
    assert seen == [(2, 30)]


@ignore_advice
@pytest.mark.parametrize("include_next_token", [False, True])
@pytest.mark.parametrize("limits", [{}, {"max_patch_length": 1}, {"min_patch_length": 3}], ids=str)
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_empty_and_tiny_rows_work(mode, limits, include_next_token):
    patcher = Patcher(**mode, **limits)
    for length in (0, 1, 2):
        tokens = torch.full((2, length), 70)
        lengths = patcher.patch(tokens, include_next_token, **given_for(mode, tokens.shape))[0]
        assert lengths.sum(dim=1).tolist() == [length + include_next_token] * 2
    assert patcher.patch(torch.zeros(0, 5, dtype=torch.int64), **given_for(mode, (0, 5)))[0].shape[0] == 0


@pytest.mark.parametrize("cap", [0, -1, -16])
def test_a_cap_below_one_is_a_named_error(cap):
    with pytest.raises(ConfigError, match="max_patch_length"):
        PatcherArgs(max_patch_length=cap)
    patcher = Patcher(patching_mode="byte")
    with pytest.raises(ConfigError, match="max_patch_length"):
        patcher.max_patch_length = cap
    with pytest.raises(PatchingError, match="m: expected a largest patch length of at least 1"):
        split_large_numbers([3, 4], cap)
    with pytest.raises(PatchingError, match="m: expected a largest patch length of at least 1"):
        split_large_numbers(torch.tensor([[3, 4]]), cap)


@pytest.mark.parametrize("mode", MODES[:4], ids=str)
@pytest.mark.parametrize("place", [0, 1, 4, 9])
def test_nan_entropies_are_a_named_error(mode, place):
    entropies = torch.zeros(2, 10)
    entropies[1, place] = float("nan")
    with pytest.raises(PatchingError, match=f"entropies: expected numbers, got NaN at row 1, token {place}"):
        Patcher(**mode).patch(torch.full((2, 10), 70), entropies=entropies)


@pytest.mark.parametrize(
    ("tokens", "more", "message"),
    [
        (torch.zeros(5, dtype=torch.int64), {}, "tokens: expected integers"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), {}, "tokens: expected integers"),
        (torch.zeros(1, 5), {}, "tokens: expected integers"),
        (torch.zeros(1, 5, dtype=torch.int64), {"entropies": torch.zeros(1, 4)}, "entropies: expected"),
        (torch.zeros(1, 5, dtype=torch.int64), {"entropies": torch.zeros(5)}, "entropies: expected"),
        (torch.zeros(2, 5, dtype=torch.int64), {"entropies": torch.zeros(1, 5)}, "entropies: expected"),
        (torch.zeros(1, 5, dtype=torch.int64), {"preds": torch.zeros(1, 5)}, "preds: expected"),
        (torch.zeros(1, 5, dtype=torch.int64), {"preds": torch.zeros(1, 4, 260)}, "preds: expected"),
        (7, {}, "tokens: expected integers"),
    ],
)
def test_wrong_shapes_are_a_named_error(tokens, more, message):
    with pytest.raises(PatchingError, match=message):
        Patcher(threshold=1.0).patch(tokens, **more)


@ignore_advice
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_pad_inside_a_row_is_a_named_error(mode):
    tokens = torch.tensor([[70, 71, 72, 73], [70, PAD_ID, 72, PAD_ID]])
    with pytest.raises(PatchingError, match=r"PAD \(-1\) after a row's end only, got it in row 1 at token 1"):
        Patcher(**mode).patch(tokens, **given_for(mode, tokens.shape))


@ignore_advice
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_log_time_works_in_every_mode(mode):
    patcher = Patcher(log_time=True, **mode)
    tokens = torch.full((2, 300), 70)
    patcher.patch(tokens, **given_for(mode, tokens.shape))
    assert patcher.log["tokens"] == 600
    assert all(patcher.log[step] > 0 for step in STEPS)


@ignore_advice
@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_lengths_are_int64_whatever_the_token_dtype(mode, kind):
    tokens = torch.full((1, 70_000), 70, dtype=kind)  # longer than 16 bits count
    quiet = {name: torch.zeros_like(value) for name, value in given_for(mode, tokens.shape).items()}
    lengths = Patcher(**mode).patch(tokens, **quiet)[0]
    assert lengths.dtype == torch.int64
    assert lengths.sum() == 70_000


@given(
    st.integers(0, 99), st.integers(1, 8), st.one_of(st.none(), st.integers(1, 12)), st.sampled_from([*MODES[:3], {}])
)
def test_only_the_last_patch_may_be_shorter_than_the_minimum(seed, shortest, cap, mode):
    cap = None if cap is None else max(cap, shortest)
    patcher = Patcher(min_patch_length=shortest, max_patch_length=cap, **(mode or {"patching_mode": "byte"}))
    entropies = torch.rand(1, 120, generator=torch.Generator().manual_seed(seed))
    lengths = real_lengths(patcher.patch("A" * 120, entropies=entropies)[0][0])
    assert sum(lengths) == 120
    assert min(lengths[:-1], default=shortest) >= shortest
    assert cap is None or max(lengths) <= cap


def test_without_a_model_each_row_is_scored_alone():
    rows = [DNA[:900], "ACGT" * 50, DNA[2000:2700].lower(), ""]
    patcher = Patcher(threshold=1.36, max_patch_length=32)
    alone, together = alone_and_together(patcher, rows, include_next_token=False)
    assert together == alone
    assert len(together[0]) > 30


def test_streaming_without_a_fitted_model_says_so():
    online = OnlinePatcher(Patcher(threshold=1.36))
    with pytest.raises(ConfigError, match=r"'auto' .* needs the whole sequence; .* MarkovEntropy fitted beforehand"):
        online.feed(DNA)


def test_text_threshold_on_dna_warns():
    assert PatcherArgs().threshold == TEXT_THRESHOLD
    with pytest.warns(PatchingWarning, match="default for text; on DNA .* calibrate"):
        Patcher(entropy_model=MODEL).patch(DNA)
    args = calibrate([DNA], entropy_model=MODEL, target_mean_length=16)
    assert args.calibration.mean_length == pytest.approx(16, rel=0.25)
    assert args.threshold > TEXT_THRESHOLD
    assert warnings_of(lambda: args.build().patch(DNA)) == []


def test_text_threshold_with_monotonicity_warns():
    patcher = Patcher(entropy_model=MODEL, monotonicity=True)
    with pytest.warns(PatchingWarning, match=r"compared with a difference .* rule='monotonicity'"):
        lengths = patcher.patch(DNA)[0]
    assert lengths.tolist() == [[1, 1, 4094]]  # the number is kept, as BLT's cases need; the warning says what to do


def test_calibration_separates_the_values_of_the_rules():
    model = MarkovEntropy.fit([DNA], order=4)
    by_value = calibrate([DNA], entropy_model=model, target_mean_length=8)
    by_rise = calibrate([DNA], entropy_model=model, target_mean_length=8, rule="monotonicity")
    assert by_rise.monotonicity
    assert by_rise.threshold < 0.5 < by_value.threshold
    for args in (by_value, by_rise):
        assert args.build().patch(DNA)[0].shape[1] == pytest.approx(len(DNA) / 8, rel=0.05)


def test_a_second_threshold_of_zero_is_the_dual_rule():
    assert PatcherArgs().threshold_add is None
    modes = [ScanRule.from_args(PatcherArgs(threshold=1.0, threshold_add=add)).mode for add in (None, 0.0)]
    assert modes == ["threshold", "dual"]
    entropies = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0, 2.0]])
    single, dual = (Patcher(threshold=1.0, threshold_add=add) for add in (None, 0.0))
    assert single.patch("ACGTACGT", entropies=entropies)[0].tolist() == [[1, 3, 1, 1, 2]]
    assert dual.patch("ACGTACGT", entropies=entropies)[0].tolist() == [[1, 1, 2, 4]]
    assert "None: one threshold" in str(PatcherArgs.model_fields["threshold_add"].description)


def test_monotonicity_with_threshold_add_warns_once():
    entropies = torch.rand(1, 60, generator=torch.Generator().manual_seed(0))
    built = []
    made = warnings_of(lambda: built.append(Patcher(threshold=0.2, threshold_add=0.5, monotonicity=True)))
    assert len(made) == 1
    assert "monotonicity runs" in made[0]
    lengths = []
    for _ in range(2):
        assert warnings_of(lambda: lengths.append(built[0].patch("A" * 60, entropies=entropies)[0])) == []
    expected = Patcher(threshold=0.2, monotonicity=True).patch("A" * 60, entropies=entropies)[0]
    assert all(torch.equal(found, expected) for found in lengths)


def test_the_patch_of_the_bos_token_is_documented():
    entropies = torch.zeros(1, 10)
    assert Patcher(threshold=1.0).patch("ACGTACGTAC", entropies=entropies)[0].tolist() == [[1, 9]]
    words = " ".join(str(Patcher.__doc__).split())
    assert "BOS token; without one the first base is a patch of its own" in words


@pytest.mark.parametrize("mode", ["space", "bpe"])
def test_bases_without_a_delimiter_warn(mode):
    patcher = Patcher(patching_mode=mode)
    with pytest.warns(PatchingWarning, match=r"nothing to split bases at: .* use entropy or static mode"):
        lengths = patcher.patch(DNA)[0]
    assert lengths.tolist() == [[1, 4095]]


@ignore_advice
@pytest.mark.parametrize("sequence", ["ACG TTA, CCG", b"ACG TTA, CCG", torch.arange(4, 16)], ids=str)
@pytest.mark.parametrize("mode", MODES[-3:], ids=str)
def test_pieces_and_tokens_are_counted_apart(mode, sequence):
    patcher = Patcher(**mode)
    pieces, boundaries = patcher.patch_with_boundaries(sequence)
    sizes = [len(piece) for piece in pieces]
    assert len(pieces) == boundaries.numel() == patcher.patch([sequence])[0].shape[1]
    assert sum(sizes) == len(sequence) == 12
    assert boundaries.tolist() == np.cumsum([0, *sizes[:-1]]).tolist()


@ignore_advice
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_the_coverage_check_counts_the_next_token(mode):
    tokens = torch.full((2, 40), 70)
    tokens[1, 25:] = PAD_ID
    more = given_for(mode, tokens.shape)
    for extra in (0, 1):
        lengths = Patcher(**mode).patch(tokens, bool(extra), **more)[0]
        check_patch_lengths(lengths, torch.tensor([40, 25]) + extra)
        with pytest.raises(PatchingError, match="expected rows that sum to"):
            check_patch_lengths(lengths, torch.tensor([40, 25]) + 1 - extra)


BAD_INPUTS = """
import torch
from hyena_glt.errors import HyenaGLTError
from hyena_glt.patching import *

tokens, nan = torch.full((1, 4), 70), torch.full((1, 4), float("nan"))
gap = torch.tensor([[2, 0, 2]])
calls = [
    lambda: Patcher(patching_mode="byte", max_patch_length=0),
    lambda: Patcher(threshold=1.0).patch(tokens, entropies=nan),
    lambda: Patcher(threshold=1.0).patch(tokens, entropies=nan[:, :3]),
    lambda: Patcher(patching_mode="byte").patch(torch.tensor([[70, -1, 70]])),
    lambda: Patcher(patching_mode="byte").patch(torch.tensor([[70, -7]])),
    lambda: check_patch_lengths(gap, torch.tensor([4])),
    lambda: check_patch_lengths(torch.tensor([[2, 3]]), torch.tensor([4])),
    lambda: check_patch_lengths(torch.tensor([[5, -1]]), torch.tensor([4])),
    lambda: patch_lengths_from_start_ids(torch.tensor([[0, 3, 2]]), 5),
    lambda: patch_lengths_from_start_mask(torch.tensor([[False, True]])),
    lambda: split_large_numbers([3], 0),
    lambda: find_entropy_patch_start_ids(nan, threshold=1.0),
    lambda: patch_start_mask_from_entropy_with_monotonicity(torch.zeros(4), 1.0),
    lambda: calculate_entropies(tokens, lambda t: torch.zeros(1, 3, 5), 1),
]
assert False, "asserts are off"
for call in calls:
    try:
        call()
        print("passed")
    except HyenaGLTError as error:
        print("refused", type(error).__name__)
"""


def test_asserts_do_not_vanish_under_optimisation():
    done = subprocess.run([sys.executable, "-O", "-c", BAD_INPUTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = done.stdout.split("\n")[:-1]
    assert len(outcomes) == 14
    assert all(outcome.startswith("refused") for outcome in outcomes), outcomes


def test_every_test_named_in_the_table_is_there_and_every_test_is_named():
    named = {line.split("`")[-2] for line in str(__doc__).splitlines() if line.endswith("` |")}
    here = {name for name in globals() if name.startswith("test_")}
    assert named == here - {"test_every_test_named_in_the_table_is_there_and_every_test_is_named"}
