from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies import MarkovEntropy, entropy
from hyena_glt.errors import ConfigError, PatchingError, SystemProblem
from hyena_glt.patching import Patcher, PatcherArgs, check_patch_lengths
from hyena_glt.tokens import ByteTokenizer

MODEL = MarkovEntropy.fit(["ACGTTGCAAGCT" * 30, "TTTTACGA" * 20], order=3)
TEXT = st.text("ACGTN acgt,", max_size=50)
ALL_MODES = [
    {"threshold": 1.2, "entropy_model": MODEL},
    {"threshold": 0.1, "monotonicity": True, "entropy_model": MODEL},
    {"threshold": 1.0, "threshold_add": 0.05, "entropy_model": MODEL},
    {"threshold": None, "patch_size": 4, "entropy_model": MODEL},
    {"threshold": 0.4},
    {"patching_mode": "bpe"},
    {"patching_mode": "space"},
    {"patching_mode": "space", "delimiter_chars": [",", " "]},
    {"patching_mode": "static"},
    {"patching_mode": "static", "patch_size": 6, "overlap": 2},
    {"patching_mode": "byte"},
]
LIMITS = [{}, {"max_patch_length": 3}, {"min_patch_length": 3}, {"min_patch_length": 2, "max_patch_length": 5}]

pytestmark = pytest.mark.filterwarnings("ignore::hyena_glt.patching.PatchingWarning")


@pytest.mark.parametrize("mode", ALL_MODES)
@given(st.lists(TEXT, min_size=1, max_size=4), st.sampled_from(LIMITS), st.booleans())
def test_a_row_gives_the_same_alone_and_in_any_batch(mode, texts, limits, include_next):
    patcher = Patcher(**mode, **limits)
    together = patcher.patch_with_starts(texts, include_next)
    ends = torch.tensor([len(text) + include_next for text in texts])
    check_patch_lengths(together.patch_lengths, ends)
    for row, text in enumerate(texts):
        alone = patcher.patch_with_starts([text], include_next)
        lengths = together.patch_lengths[row]
        assert lengths[lengths > 0].tolist() == alone.patch_lengths[0].tolist()
        assert together.known_starts[row, : len(text)].tolist() == alone.known_starts[0].tolist()
        if together.scores is not None:
            assert together.scores[row, : len(text)].tolist() == alone.scores[0].tolist()
            assert not together.scores[row, len(text) :].any()


@pytest.mark.parametrize("mode", ALL_MODES)
@given(texts=st.lists(TEXT, min_size=1, max_size=3), limits=st.sampled_from(LIMITS))
def test_text_bytes_and_padded_tokens_give_the_same(mode, texts, limits):
    patcher = Patcher(**mode, **limits)
    encoded = [ByteTokenizer().encode(text) for text in texts]
    padded = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True, padding_value=-1)
    expected, _ = patcher.patch(texts)
    assert expected.dtype == torch.int64
    for tokens in ([text.encode() for text in texts], encoded, padded, padded.to(torch.int16)):
        assert torch.equal(patcher.patch(tokens)[0], expected)


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize("limits", LIMITS)
def test_the_limits_are_kept(mode, limits):
    random = np.random.default_rng(3)
    texts = ["".join(random.choice(list("ACGT, N"), 400)) for _ in range(3)]
    lengths, _ = Patcher(**mode, **limits).patch_with_starts(texts)[:2]
    for row in lengths:
        used = row[row > 0]
        assert int(used.max()) <= limits.get("max_patch_length", 400)
        if "entropy_model" not in mode and mode != {"threshold": 0.4}:  # these have no forced starts
            assert (used[:-1] >= limits.get("min_patch_length", 1)).all()


def test_the_first_two_tokens_start_patches():
    lengths, _ = Patcher(threshold=9.0, entropy_model=MODEL).patch("ACGTACGT")
    assert lengths.tolist() == [[1, 7]]


@pytest.mark.parametrize("mode", ALL_MODES)
def test_empty_and_tiny_rows_work(mode):
    patcher = Patcher(**mode)
    texts = ["", "A", "AC"]
    lengths, _ = patcher.patch(texts)
    assert lengths.sum(dim=1).tolist() == [0, 1, 2]
    assert patcher.patch(texts, include_next_token=True)[0].sum(dim=1).tolist() == [1, 2, 3]
    assert patcher.patch([])[0].shape == (0, 0)
    assert patcher.patch("")[0].shape == (1, 0)
    assert patcher.patch(torch.zeros(2, 0, dtype=torch.int64))[0].shape == (2, 0)


def test_lengths_are_trimmed_to_the_widest_row():
    lengths, _ = Patcher(patching_mode="static", patch_size=2).patch(["AAAAA", "AAA"])
    assert lengths.tolist() == [[2, 2, 1], [2, 1, 0]]


def test_given_entropies_take_the_place_of_the_model():
    entropies = torch.tensor([[0.0, 2.0, 0.0, 2.0]], dtype=torch.float64)
    lengths, scores = Patcher(threshold=1.0).patch("ACGT", entropies=entropies)
    assert lengths.tolist() == [[1, 1, 2]]
    assert scores.dtype == torch.float32
    assert torch.equal(Patcher(threshold=1.0).patch("ACGT", entropies=entropies.numpy())[0], lengths)


def test_given_entropies_bring_no_forced_starts():
    text = "ACGTACNNNNACGT"
    patcher = Patcher(threshold=9.0, entropy_model=MODEL)
    assert patcher.patch(text)[0].tolist() == [[1, 5, 4, 4]]
    assert patcher.patch(text, entropies=torch.zeros(1, 14))[0].tolist() == [[1, 13]]


def test_edges_of_n_runs_are_known_only_with_their_token():
    patched = Patcher(threshold=9.0, entropy_model=MODEL).patch_with_starts(["ACGTACNNNNACGT", "AC"])
    assert (~patched.known_starts).nonzero().tolist() == [[0, 6], [0, 10]]


def test_given_entropies_in_padding_are_ignored():
    entropies = torch.full((2, 4), torch.nan)
    entropies[0], entropies[1, :2] = 0.0, 0.0
    lengths, scores = Patcher(threshold=1.0).patch(["ACGT", "AC"], entropies=entropies)
    assert lengths.tolist() == [[1, 3], [1, 1]]
    assert not scores.any()


def test_logits_stand_for_their_entropy():
    logits = torch.randn(2, 7, 260, generator=torch.Generator().manual_seed(4))
    patcher = Patcher(threshold=4.9)
    tokens = torch.full((2, 7), 70)
    lengths, scores = patcher.patch(tokens, preds=logits)
    assert torch.equal(scores, entropy(logits))
    assert torch.equal(lengths, patcher.patch(tokens, entropies=entropy(logits))[0])


def test_a_threshold_can_be_given_with_the_tokens():
    entropies = torch.tensor([[0.0, 2.0, 0.0, 2.0]])
    patcher = Patcher(threshold=9.0)
    assert patcher.patch("ACGT", entropies=entropies, threshold=1.0)[0].tolist() == [[1, 1, 2]]
    assert patcher.threshold == 9.0


def test_a_callable_scores_rows_without_seeing_padding():
    def network(tokens):
        assert tokens.min() >= 0
        logits = torch.zeros(*tokens.shape, 260)
        logits[..., 0] = torch.where(tokens == ord("A") + 4, 0.0, 50.0)
        return logits

    lengths, scores = Patcher(threshold=1.0, entropy_model=network).patch(["CCACC", "CA"])
    assert lengths.tolist() == [[1, 2, 2], [1, 1, 0]]
    assert scores[1, 2:].tolist() == [0.0, 0.0, 0.0]


def test_track_mode_takes_the_scores_of_the_caller():
    patcher = Patcher(patching_mode="track", threshold=0.5)
    assert patcher.patch("ACGT", entropies=torch.tensor([[0.0, 0.9, 0.1, 0.0]]))[0].tolist() == [[1, 1, 2]]
    with pytest.raises(PatchingError, match="track's scores"):
        patcher.patch("ACGT")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"entropies": torch.zeros(1, 3)}, r"expected \(batch, length\) \(1, 4\) as in tokens"),
        ({"entropies": torch.zeros(4)}, "expected floating point"),
        ({"entropies": torch.zeros(1, 4, dtype=torch.int64)}, "expected floating point"),
        ({"entropies": torch.zeros(1, 4, 2)}, "expected floating point"),
        ({"entropies": torch.tensor([[0, 1, torch.nan, 0]])}, "NaN at row 0, token 2"),
        ({"entropies": torch.zeros(1, 4), "threshold": float("nan")}, "threshold: expected nats, got NaN"),
        ({"preds": torch.zeros(1, 4)}, "preds: expected floating point"),
        ({"preds": torch.zeros(1, 5, 260)}, r"preds: expected \(batch, length\) \(1, 4\)"),
    ],
)
def test_scores_that_do_not_fit_are_refused(given, message):
    with pytest.raises(PatchingError, match=message):
        Patcher(threshold=1.0).patch("ACGT", **given)


def test_a_patcher_is_callable_and_shows_its_arguments():
    args = PatcherArgs(patching_mode="static", patch_size=2, max_patch_length=9)
    patcher = args.build()
    assert (patcher.patch_size, patcher.max_patch_length, patcher.args) == (2, 9, args)
    assert torch.equal(patcher("ACGTA")[0], patcher.patch("ACGTA")[0])
    with pytest.raises(AttributeError, match="no attribute 'stride'"):
        _ = patcher.stride


def test_a_patcher_follows_its_arguments():
    args = PatcherArgs(patching_mode="static", patch_size=2)
    patcher = args.build()
    args.patch_size = 4
    assert patcher.patch("ACGTA")[0].tolist() == [[4, 1]]
    patcher.max_patch_length = 3
    assert args.max_patch_length == 3
    assert patcher.patch("ACGTA")[0].tolist() == [[3, 1, 1]]
    scored = Patcher(threshold=1.0, entropy_model=MODEL)
    before = scored.patch("ACGTTGCAAGCT")[1]
    scored.entropy_model = MarkovEntropy.fit(["AAAACCCC" * 20], order=1)
    assert not torch.equal(scored.patch("ACGTTGCAAGCT")[1], before)


@pytest.mark.parametrize("mode", [*ALL_MODES, {"patching_mode": "byte", "min_patch_length": 2}])
def test_the_log_keeps_seconds_and_tokens_in_every_mode(mode):
    patcher = Patcher(**mode)
    patcher.patch(["ACGT", "AC"])
    assert patcher.log["tokens"] == 0
    patcher.args.log_time = True
    patcher.patch(["ACGT", "AC"])
    assert patcher.log["tokens"] == 6
    steps = {
        "calculate_entropies",
        "find_entropy_patch_start_ids",
        "patch_lengths_from_start_ids",
        "postprocessing_patch_lengths",
    }
    assert patcher.log.keys() == steps | {"tokens"}
    assert all(patcher.log[step] > 0 for step in steps)


def test_the_timing_context_switches_the_log_on_for_its_block():
    patcher = Patcher(patching_mode="byte")
    with patcher.timing_context() as log:
        patcher.patch("ACG")
    patcher.patch("ACG")
    assert log is patcher.log
    assert log["tokens"] == 3
    assert patcher.log_time is False


@pytest.mark.parametrize(
    ("fields", "causal"),
    [
        ({"entropy_model": MODEL}, True),
        ({"entropy_model": MODEL, "threshold": None, "patch_size": 4}, False),
        ({}, False),
        ({"entropy_model": "auto"}, False),
        ({"entropy_model": lambda tokens: tokens}, True),
        ({"patching_mode": "track"}, True),
        ({"model_name": "someone/some-model"}, True),
        ({"patching_mode": "space"}, True),
        ({"patching_mode": "bpe"}, True),
        ({"patching_mode": "static"}, True),
    ],
)
def test_causality_is_known(fields, causal):
    assert Patcher(**fields).is_causal is causal


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize("option", ["device", "patching_device"])
def test_a_missing_gpu_is_named_only_where_it_was_asked_for(option):
    Patcher(**{option: "auto"})
    with pytest.raises(SystemProblem, match=f"{option}: expected a CUDA device"):
        Patcher(**{option: "cuda"})
    with pytest.raises(ConfigError, match=f"{option}: expected auto"):
        Patcher(**{option: "abacus"})


def test_a_language_model_name_says_what_to_use_instead():
    patcher = Patcher(model_name="someone/some-model")
    assert patcher.patch("ACGT", entropies=torch.zeros(1, 4))[0].tolist() == [[1, 3]]
    with pytest.raises(ConfigError, match=r"MarkovEntropy\.fit"):
        patcher.patch("ACGT")


def test_real_dna_keeps_its_length(data):
    lines = data("genomes/phix174_NC_001422.1.fna").read_text().splitlines()
    genome = "".join(lines[1:])
    lengths, scores = Patcher(threshold=1.37).patch(genome)
    assert int(lengths.sum()) == len(genome) == 5386
    assert scores.shape == (1, 5386)


def test_the_package_loads_without_torch():
    code = "import sys, hyena_glt.patching as p; dir(p); assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    import hyena_glt.patching as package

    assert all(getattr(package, name) is not None for name in package.__all__)
    assert {"entropy", "calculate_entropies", "Patcher"} <= set(dir(package))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("mode", [*ALL_MODES, {"threshold": None, "patch_size": 3}])
@pytest.mark.parametrize("limits", LIMITS)
def test_a_gpu_gives_what_the_cpu_gives(mode, limits):
    random = np.random.default_rng(3)
    texts = ["".join(random.choice(list("ACGT, N"), size)) for size in (400, 0, 37)]
    expected = Patcher(device="cpu", **mode, **limits).patch(texts, include_next_token=True)[0]
    found = Patcher(device="cuda", **mode, **limits).patch(texts, include_next_token=True)[0]
    assert found.device.type == "cuda"
    assert torch.equal(found.cpu(), expected)


@settings(deadline=None, max_examples=60)
@given(
    scores=st.lists(st.lists(st.sampled_from([0.0, 0.4, 0.5, 0.6, 1.2]), max_size=40), min_size=1, max_size=4),
    rule=st.sampled_from([{}, {"monotonicity": True, "threshold": 0.1}, {"threshold_add": 0.05}]),
    limits=st.sampled_from([(None, None), (None, 3), (3, None), (2, 5)]),
    include_next=st.booleans(),
)
def test_one_pass_gives_what_the_starts_give(scores, rule, limits, include_next):
    width = max(map(len, scores))
    tokens = torch.full((len(scores), width), -1)
    given_scores = torch.zeros(len(scores), width)
    for row, values in enumerate(scores):
        tokens[row, : len(values)] = 70
        given_scores[row, : len(values)] = torch.tensor(values)
    fields = {"threshold": 0.5, **rule}
    patcher = Patcher(min_patch_length=limits[0], max_patch_length=limits[1], **fields)
    at_once, _ = patcher.patch(tokens, include_next_token=include_next, entropies=given_scores)
    by_starts = patcher.patch_with_starts(tokens, include_next_token=include_next, entropies=given_scores)
    assert torch.equal(at_once, by_starts.patch_lengths)
