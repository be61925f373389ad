"""Chunks of any size against the whole sequence, in every mode that can be decided online."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching import OnlinePatcher, Patcher
from hyena_glt.patching.stream_starts import ClassStarts, TokenStarts
from hyena_glt.sequences.fasta import read_records
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.tokens.byte_tokenizer import BPE_ID, OFFSET

# Space and bpe modes say so where they find nothing to split at.
pytestmark = pytest.mark.filterwarnings("ignore::hyena_glt.patching.PatchingWarning")

MODEL = MarkovEntropy.fit([generate_random_genomic_sequence(4_000, seed=4)], order=3)
SCORE_RULES = [
    {"threshold": 1.385},
    {"threshold": 0.001, "monotonicity": True},
    {"threshold": 1.38, "threshold_add": 0.0005},
]
TOKEN_RULES = [
    {"patching_mode": "static", "patch_size": 4.5},
    {"patching_mode": "static", "patch_size": 3},
    {"patching_mode": "byte"},
    {"patching_mode": "space"},
    {"patching_mode": "space", "delimiter_chars": ["A", "N"]},
    {"patching_mode": "bpe"},
]
LIMITS = [{}, {"max_patch_length": 5}, {"min_patch_length": 3}, {"min_patch_length": 3, "max_patch_length": 7}]
cuts = st.lists(st.integers(0, 90), max_size=8)  # twice the same place is an empty chunk
limits = st.sampled_from(LIMITS)
texts = st.one_of(
    st.lists(st.one_of(st.text("ACGT", max_size=20), st.text("N", max_size=4)), max_size=8).map("".join),
    st.text("AC N,;9é", max_size=40),
)


def pieces(values, places):
    """`values` cut at `places`; "each" cuts after every one."""
    if places == "each":
        places = range(len(values))
    edges = [0, *sorted(min(place, len(values)) for place in places), len(values)]
    return [values[first:stop] for first, stop in pairwise(edges)]


def online_lengths(patcher, chunks, **given_chunks):
    """Patch lengths of one sequence through `feed` and `finish`."""
    online = OnlinePatcher(patcher)
    parts = []
    for index, chunk in enumerate(chunks):
        parts.append(online.feed(chunk, **{name: values[index] for name, values in given_chunks.items()}))
        assert parts[-1].dtype == torch.int64
        assert parts[-1].dim() == 1
    parts.append(online.finish())
    assert online.open_length == 0
    return torch.cat(parts).tolist()


def whole_lengths(patcher, sequence, **given_rows):
    lengths = patcher.patch([sequence], **{name: row[None] for name, row in given_rows.items()})[0][0].tolist()
    assert sum(lengths) == len(sequence)
    return lengths


@pytest.mark.parametrize("rule", SCORE_RULES + TOKEN_RULES, ids=str)
@given(text=texts, places=st.one_of(cuts, st.just("each")), limit=limits)
def test_chunks_of_text_give_the_patches_of_the_whole(rule, text, places, limit):
    patcher = Patcher(entropy_model=MODEL, **rule, **limit)
    expected = whole_lengths(patcher, text.encode())
    assert online_lengths(patcher, pieces(text, places)) == expected
    assert online_lengths(patcher, pieces(text.encode(), places)) == expected


@pytest.mark.parametrize("rule", TOKEN_RULES, ids=str)
@given(tokens=st.lists(st.integers(0, 300), max_size=60), places=cuts, limit=limits)
def test_chunks_of_tokens_give_the_patches_of_the_whole(rule, tokens, places, limit):
    patcher, tokens = Patcher(**rule, **limit), torch.tensor(tokens, dtype=torch.int64)
    assert online_lengths(patcher, pieces(tokens, places)) == whole_lengths(patcher, tokens)


@pytest.mark.parametrize("rule", [*SCORE_RULES, {"patching_mode": "track", "threshold": 1.0}], ids=str)
@given(data=st.data(), places=st.one_of(cuts, st.just("each")), limit=limits)
def test_given_scores_give_the_patches_of_the_whole(rule, data, places, limit):
    threshold = rule["threshold"]
    steps = [threshold, np.nextafter(np.float32(threshold), np.float32(9)), 0.0, 2 * threshold, threshold + 0.0005]
    values = data.draw(st.lists(st.one_of(st.sampled_from(steps), st.floats(0, 2, width=32)), max_size=60))
    scores = torch.tensor(values, dtype=torch.float64)
    tokens = torch.full((len(values),), 70)
    patcher = Patcher(**rule, **limit)
    expected = whole_lengths(patcher, tokens, entropies=scores)
    assert online_lengths(patcher, pieces(tokens, places), entropies=pieces(scores, places)) == expected
    as_arrays = pieces(scores.numpy(), places)
    assert online_lengths(patcher, pieces(tokens.numpy(), places), entropies=as_arrays) == expected


@given(data=st.data(), places=cuts, limit=limits)
def test_predictions_give_the_patches_of_the_whole(data, places, limit):
    found = torch.tensor(data.draw(st.lists(st.booleans(), max_size=60)), dtype=torch.bool)
    tokens = torch.full((len(found),), 70)
    logits = torch.zeros(len(found), 6)
    logits[:, BPE_ID] = torch.where(found, 1.0, -1.0)
    patcher = Patcher(patching_mode="bpe_patcher", **limit)
    expected = whole_lengths(patcher, tokens, preds=found)
    for preds in (found, found.long(), logits):
        assert online_lengths(patcher, pieces(tokens, places), preds=pieces(preds, places)) == expected


@given(seed=st.integers(0, 99), length=st.integers(0, 60), places=cuts)
def test_logits_in_entropy_mode_give_the_patches_of_the_whole(seed, length, places):
    logits = torch.randn(length, 260, generator=torch.Generator().manual_seed(seed))
    tokens = torch.full((length,), 70)
    patcher = Patcher(threshold=5.1, max_patch_length=9)
    expected = whole_lengths(patcher, tokens, preds=logits)
    assert online_lengths(patcher, pieces(tokens, places), preds=pieces(logits, places)) == expected


@pytest.mark.parametrize("rule", SCORE_RULES, ids=str)
@pytest.mark.parametrize("place", range(9, 17))
def test_runs_of_n_at_the_edges_of_chunks_are_patches_of_their_own(rule, place):
    text = "ACGTTGCATGNNNNACGTAC"
    patcher = Patcher(entropy_model=MODEL, min_patch_length=3, **rule)
    lengths = online_lengths(patcher, [text[:place], text[place:]])
    assert lengths == whole_lengths(patcher, text)
    assert {10, 14} <= set(np.cumsum(lengths).tolist())


def test_a_score_equal_to_the_threshold_starts_no_patch():
    patcher = Patcher(threshold=1.0)
    scores = np.array([0, 0, 1.0, np.nextafter(np.float32(1), np.float32(2)), 0], np.float32)
    assert online_lengths(patcher, [b"ACGTA"[i : i + 1] for i in range(5)], entropies=scores.reshape(5, 1)) == [1, 3, 1]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "utf-8-sig", "utf-7"])
def test_text_is_encoded_across_chunks(encoding):
    text = "AéC é"
    patcher = Patcher(patching_mode="space", encoding=encoding)
    assert online_lengths(patcher, list(text)) == patcher.patch([text])[0][0].tolist()


@pytest.fixture(scope="module")
def golden_cases(data):
    with gzip.open(data("patcher_golden.json.gz")) as file:
        return [case for case in json.load(file)["cases"] if not case["include_next_token"]]


GOLDEN_MODES = [
    "entropy_threshold",
    "entropy_monotonicity",
    "entropy_dual",
    "static",
    "byte",
    "space",
    "bpe",
    "bpe_patcher",
]


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("mode", GOLDEN_MODES)
def test_against_the_reference_in_chunks(golden_cases, mode, size):
    chosen = [case for case in golden_cases if case["mode"] == mode]
    assert chosen
    for case in chosen:
        fields = {name: case[name] for name in ("threshold", "threshold_add", "monotonicity", "max_patch_length")}
        fields |= {} if case["patch_size"] is None else {"patch_size": case["patch_size"]}
        patcher = Patcher(patching_mode=mode.split("_")[0] if mode.startswith("entropy") else mode, **fields)
        for row, expected in enumerate(case["patch_lengths"]):
            places = range(size, len(case["tokens"][row]), size)
            chunks = pieces(torch.tensor(case["tokens"][row]), places)
            values = {}
            for name, key in (("entropies", "entropies"), ("preds", "bpe_pred")):
                if case[key] is not None:
                    values[name] = pieces(torch.tensor(case[key][row]), places)
            assert online_lengths(patcher, chunks, **values) == [length for length in expected if length], case["id"]


@pytest.fixture(scope="module")
def megabase(data):
    """1.2 Mb of E. coli, a patcher for it, and the patches of the whole."""
    (record,) = read_records(data("genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz"))
    text = record.sequence[:1_200_000]
    model = MarkovEntropy.fit([text])
    threshold = float(np.quantile(model.entropies(text), 0.93))
    patcher = Patcher(entropy_model=model, threshold=threshold, min_patch_length=4, max_patch_length=64)
    return text, patcher, whole_lengths(patcher, text)


@pytest.mark.parametrize("size", [pytest.param(7, marks=pytest.mark.slow), 64, 4096, "random"])
def test_a_megabase_in_chunks_gives_the_patches_of_the_whole(megabase, size):
    text, patcher, expected = megabase
    random_places = np.random.default_rng(0).integers(0, 9_000, 400).cumsum().tolist()
    places = random_places if size == "random" else range(size, len(text), size)
    assert online_lengths(patcher, pieces(text, places)) == expected


REFUSED = [
    ({"threshold": None, "patch_size": 4}, ConfigError, "top-k needs the whole sequence"),
    ({}, ConfigError, "'auto' .* needs the whole sequence"),
    ({"entropy_model": lambda tokens: torch.zeros(*tokens.shape, 260)}, ConfigError, "give entropies="),
    ({"patching_mode": "static", "patch_size": 8, "overlap": 2}, ConfigError, "overlap"),
    ({"patching_mode": "bpe_patcher"}, ConfigError, "preds: expected predictions with every chunk"),
    ({"patching_mode": "track"}, PatchingError, "entropies: expected the track's scores"),
]


@pytest.mark.parametrize(("fields", "error", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_cannot_be_decided_online_is_refused(fields, error, message):
    with pytest.raises(error, match=message):
        OnlinePatcher(Patcher(**fields)).feed("ACGT")


def test_top_k_is_refused_with_entropies_as_well():
    online = OnlinePatcher(Patcher(threshold=None, patch_size=4))
    with pytest.raises(ConfigError, match="top-k"):
        online.feed("ACGT", entropies=np.zeros(4, np.float32))


def test_the_merges_of_a_tokenizer_are_refused(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    path = tmp_path / "tokenizer.json"
    Tokenizer(BPE({"A": 0, "C": 1, "AC": 2}, [("A", "C")])).save(str(path))
    with pytest.raises(ConfigError, match="merges depend on what follows"):
        OnlinePatcher(Patcher(patching_mode="bpe", model_name=str(path))).feed("ACAC")


def test_auto_and_a_callable_take_given_entropies():
    scores = np.array([0, 0, 9, 0], np.float32)
    for source in (None, "auto", lambda tokens: tokens):
        patcher = Patcher(entropy_model=source, threshold=1.0)
        assert online_lengths(patcher, [b"AC", b"GT"], entropies=[scores[:2], scores[2:]]) == [1, 2, 1]


BAD_CHUNKS = [
    (torch.tensor([70, -1, 71]), {}, "no PAD"),
    (torch.tensor([[70, 71]]), {}, "1-D integer tokens"),
    (torch.tensor([1.0]), {}, "1-D integer tokens"),
    (["ACGT"], {}, "expected str, bytes or 1-D tokens, got list"),
    ("AC\udc80", {}, "expected characters of utf-8"),
    ("ACG", {"entropies": [1.0, 2.0]}, "one entry for each of the 3 tokens"),
    ("ACG", {"entropies": np.array([1, 2, 3])}, "floating point"),
    ("ACG", {"entropies": np.zeros((1, 3))}, "floating point"),
    ("ACG", {"entropies": [1.0, float("nan"), 2.0]}, "NaN at token 9"),
    ("ACG", {"preds": torch.zeros(2, 260)}, "one entry for each of the 3 tokens"),
]


@pytest.mark.parametrize(("chunk", "values", "message"), BAD_CHUNKS, ids=lambda value: str(value)[:30])
def test_a_chunk_that_is_refused_changes_nothing(chunk, values, message):
    patcher = Patcher(entropy_model=MODEL, threshold=1.385)
    good = [{}, {}]
    if "entropies" in values:
        good = [{"entropies": np.array([0, 2, 1, 0, 3, 0, 0, 0], np.float32)}, {"entropies": [0.0, 0.0, 2.0, 1.0]}]
    elif "preds" in values:
        good = [{"preds": torch.zeros(8, 260)}, {"preds": torch.eye(4, 260) * 99}]
    disturbed, calm = OnlinePatcher(patcher), OnlinePatcher(patcher)
    lengths = [online.feed("ACGTTGCA", **good[0]).tolist() for online in (disturbed, calm)]
    with pytest.raises(PatchingError, match=message):
        disturbed.feed(chunk, **values)
    assert disturbed.open_length == calm.open_length == 8 - sum(lengths[0])
    for online, before in zip((disturbed, calm), lengths, strict=True):
        before += online.feed("NACG", **good[1]).tolist() + online.finish().tolist()
    assert lengths[0] == lengths[1]
    assert sum(lengths[0]) == 12


def test_scores_come_from_one_place_within_a_sequence():
    online = OnlinePatcher(Patcher(entropy_model=MODEL, threshold=1.385))
    online.feed("ACGT")
    with pytest.raises(PatchingError, match="expected scores from model"):
        online.feed("ACGT", entropies=np.zeros(4, np.float32))
    online.finish()
    online.feed("ACGT", entropies=np.zeros(4, np.float32))


def test_finish_begins_a_new_sequence_with_the_options_of_now():
    patcher = Patcher(entropy_model=MODEL, threshold=1.385)
    online = OnlinePatcher(patcher)
    assert online.finish().tolist() == []
    for text in ("ACGTTGCATTAGC", "", "GGGNNNTTACGA"):
        lengths = [*online.feed(text).tolist(), *online.finish().tolist()]
        assert lengths == whole_lengths(patcher, text)
    online.feed("ACGTTGCATTAGC")
    patcher.max_patch_length = 1
    assert online.feed("ACGTTGCATTAGC").sum() + online.finish().sum() <= 26
    assert [*online.feed("ACGT").tolist(), *online.finish().tolist()] == [1, 1, 1, 1]


def test_the_open_patch_is_counted():
    online = OnlinePatcher(Patcher(patching_mode="static", patch_size=4))
    assert (online.feed("ACG").tolist(), online.open_length) == ([], 3)
    assert (online.feed("ACG").tolist(), online.open_length) == ([4], 2)


def test_class_starts_are_those_of_the_mask_in_any_pieces():
    kinds = np.random.default_rng(0).integers(0, 3, 50).astype(np.uint8)
    whole = ClassStarts(always=2).feed(kinds)
    stream = ClassStarts(always=2)
    assert np.array_equal(np.concatenate([stream.feed(kinds[i : i + 3]) for i in range(0, 50, 3)]), whole)
    args = Patcher(patching_mode="space").args
    text = np.frombuffer(b"AC, ;9 G", np.uint8)
    assert np.array_equal(TokenStarts(args).feed(text), TokenStarts(args).feed(text.astype(np.int64) + OFFSET))


def test_the_state_does_not_grow_with_the_sequence():
    import pickle

    online = OnlinePatcher(Patcher(patching_mode="space", max_patch_length=16))
    sizes = []
    for _ in range(3):
        for _ in range(50):
            online.feed("ACGT ACGT" * 100)
        state = online._sequence
        sizes.append(len(pickle.dumps((state._scanner, state._token_starts))))
    assert max(sizes) - min(sizes) < 64
