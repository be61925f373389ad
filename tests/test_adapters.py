"""Whatever cuts sequences, seen as a patcher."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from hyena_glt.adapters import PatcherAdapter
from hyena_glt.config import HyenaGLTConfig
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.model import HyenaGLT
from hyena_glt.patching import Patcher
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

DNA = generate_random_genomic_sequence(300, seed=1)
dna = st.text("ACGT", min_size=1, max_size=60)


class ByteLatent:
    """The call form of BLT's patcher: tokens of equal rows in, `(patch_lengths, scores)` out."""

    threshold = 1.3

    def patch(self, tokens: torch.Tensor, include_next_token=False, preds=None, entropies=None, threshold=None):
        assert tokens.shape[0] == 1
        total = tokens.shape[1] + include_next_token
        lengths = [4] * (total // 4) + [total % 4] * (total % 4 > 0)
        return torch.tensor([[*lengths, 0]], dtype=torch.int32), entropies


class Whole:
    """Takes whatever it is told to give back."""

    def __init__(self, output):
        self.output = output

    def patch(self, sequence):
        return self.output


@pytest.fixture(scope="module")
def tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([DNA, "né à Étretat " * 8], trainer)
    return made


class FastTokenizer:
    """The call form of a fast tokenizer of transformers, which this project does not depend on."""

    is_fast = True

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text, **options):
        assert options.pop("return_offsets_mapping")
        assert options == dict.fromkeys(["add_special_tokens", "truncation", "padding", "verbose"], False)
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        return {"input_ids": encoded.ids, "offset_mapping": encoded.offsets}


# Every way to say: "ACGTA" is "ACG" and "TA".
ANSWERS = {
    "pieces": ["ACG", "TA"],
    "pieces in a tuple": ("ACG", "TA"),
    "pieces of bytes": [b"ACG", b"TA"],
    "pieces of tokens": [torch.tensor([69, 71, 75]), torch.tensor([88, 69])],
    "an empty piece": ["ACG", "", "TA"],
    "pieces and boundaries": (["ACG", "TA"], [0, 3]),
    "pieces and an array": (["ACG", "TA"], np.array([0, 3])),
    "pieces and edges": (["ACG", "TA"], torch.tensor([0, 3, 5])),
    "pieces and None": (["ACG", "TA"], None),
    "lengths": [3, 2],
    "padded lengths": torch.tensor([3, 2, 0, 0]),
    "lengths of one row": torch.tensor([[3, 2]]),
    "lengths and None": (torch.tensor([[3, 2]]), None),
    "lengths in a tuple": (3, 2),
    "starts": [0, 3],
    "starts of one row": np.array([[0, 3]]),
    "edges": torch.tensor([0, 3, 5]),
    "a mask": [True, False, False, True, False],
    "a mask of one row": torch.tensor([[True, False, False, True, False]]),
    "spans": [(0, 3), (3, 5)],
    "spans that leave a byte out": [(0, 2), (3, 5)],
    "spans with an empty one": np.array([[0, 0], [0, 3], [3, 5]]),
    "a mapping of lengths": {"patch_lengths": [3, 2], "scores": None},
    "a mapping of pieces": {"patches": ["ACG", "TA"], "boundaries": [0, 3]},
    "a mapping of starts": {"boundaries": [0, 3]},
    "a mapping of spans": {"input_ids": [7, 8], "offset_mapping": [(0, 3), (3, 5)]},
    "a batch of spans": {"offset_mapping": torch.tensor([[[0, 3], [3, 5]]])},
    "an object with lengths": SimpleNamespace(patch_lengths=torch.tensor([[3, 2]])),
    "an object with spans": SimpleNamespace(offsets=[(0, 3), (3, 5)]),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_every_form_of_an_answer_is_understood(answer):
    adapter = PatcherAdapter(Whole(answer))
    lengths, scores = adapter.patch("ACGTA")
    assert lengths.tolist() == [[3, 2]]
    assert lengths.dtype is torch.int64
    assert scores is None
    pieces, starts = adapter.patch_with_boundaries("ACGTA")
    assert (pieces, starts.tolist()) == (["ACG", "TA"], [0, 3])
    assert adapter.adapt_patcher_output(answer, b"ACGTA")[0] == [b"ACG", b"TA"]
    assert adapter.patch_with_starts("ACGTA").patch_lengths.equal(lengths)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "patcher output: expected patch lengths that sum to the sequence"),
        ("ACGTA", "got 'ACGTA'"),
        ([], r"got \[\]"),
        ([3.0, 2.0], "got"),
        (object(), "got <object"),
        ([[1, 2, 3], [4, 5, 6]], r"numbers of shape \(2, 3\)"),
        ([3, 3], "sum to 5, got a sum of 6"),
        ([3, 0, 2], "sum to 5"),
        ([2, 3, -1, 1], "lengths > 0"),
        ([3, 5], "numbers that are starts begin with 0"),
        ([0, 3, 3], "ascend from 0"),
        ([0, 7], "stay below 5"),
        (["ACG", "T"], "expected 5 bytes together, got 4"),
        (["ACG", "TT"], "other bytes at 4"),
        ((["ACG", "TA"], [0, 2]), "other bytes at 2"),
        ((["ACG", "AT"], [0, 4]), "other bytes at 5"),
        ((["ACG", "TA"], [0]), "one start for each of 2 pieces, got 1"),
        ((["ACG", "TA"], [0.5, 3.5]), "patcher output"),
        ([(3, 5), (0, 3)], "spans: expected"),
        ([(0, 3), (3, 6)], "spans: expected"),
        ({"offset_mapping": [3, 2]}, "numbers of shape"),
        ({"ids": [1]}, "got {'ids'"),
        (([3, 2], [0.5]), "scores: expected 5 numbers or None"),
        (([3, 2], "no"), "scores: expected 5 numbers or None"),
    ],
)
def test_what_is_not_understood_is_one_error(answer, reason):
    adapter = PatcherAdapter(Whole(answer))
    with pytest.raises(PatchingError, match=reason):
        adapter.patch("ACGTA")
    with pytest.raises(PatchingError, match=reason):
        adapter.adapt_patcher_output(answer, "ACGTA")


@settings(max_examples=60, deadline=None)
@given(st.lists(dna, min_size=1, max_size=5))
def test_a_row_gives_the_same_alone_and_in_any_batch(rows):
    adapter = PatcherAdapter(lambda sequence: sequence.replace("A", "A ").split())
    lengths, _ = adapter.patch(rows)
    for row, together in zip(rows, lengths.tolist(), strict=True):
        alone = adapter.patch([row])[0][0].tolist()
        assert together == alone + [0] * (len(together) - len(alone))
        assert sum(alone) == len(row)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30).filter(lambda text: text.isprintable()), st.integers(1, 5))
def test_pieces_of_any_text_add_up_to_it(text, size):
    adapter = PatcherAdapter(lambda sequence: list(range(0, len(sequence), size)))
    pieces, starts = adapter.patch_with_boundaries(text)
    assert "".join(pieces) == text
    assert all(len(piece) == size for piece in pieces[:-1])  # numbers count characters, boundaries bytes
    assert starts.tolist() == [len("".join(pieces[:index]).encode()) for index in range(len(pieces))]


def test_a_byte_latent_patcher_gets_its_tokens_row_by_row():
    adapter = PatcherAdapter(ByteLatent())
    assert (adapter.takes, adapter.threshold, adapter.is_causal, adapter.overlap) == ("tokens", 1.3, False, 0)
    lengths, scores = adapter.patch(["ACGTACG", "ACGT", ""], entropies=torch.arange(21.0).view(3, 7))
    assert lengths.tolist() == [[4, 3], [4, 0], [0, 0]]
    assert scores.tolist() == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 0, 0, 0], [0] * 7]
    assert adapter(["ACGT"], include_next_token=True)[0].tolist() == [[4, 1]]
    with pytest.raises(PatchingError, match="entropies"):
        adapter.patch(["ACGT"], entropies=torch.zeros(3))


def test_options_that_the_object_does_not_take_are_refused():
    with pytest.raises(ConfigError, match="entropies: expected nothing"):
        PatcherAdapter(Whole([3, 2])).patch("ACGTA", entropies=torch.zeros(1, 5))
    with pytest.raises(ConfigError, match="include_next_token: expected nothing"):
        PatcherAdapter(Whole([3, 2])).patch("ACGTA", include_next_token=True)
    assert PatcherAdapter(lambda sequence, **options: [options["size"]]).patch("ACG", size=3)[0].tolist() == [[3]]


def text_annotated(sequence: str):
    assert isinstance(sequence, str)
    return [len(sequence)]


def bytes_annotated(sequence: bytes):
    assert isinstance(sequence, bytes)
    return [len(sequence)]


def tokens_annotated(sequence: torch.Tensor):
    return [sequence.shape[1]]


def tokens_named(tokens):
    return [tokens.shape[1]]


class Starts(torch.nn.Module):
    def forward(self, x: torch.Tensor):
        return x == 69


@pytest.mark.parametrize("function", [text_annotated, bytes_annotated, tokens_annotated, tokens_named])
def test_the_signature_says_what_goes_in(function):
    assert PatcherAdapter(function).patch(["ACGTA", "AC"])[0].tolist() == [[5], [2]]


def test_a_module_is_a_callable_of_tokens():
    assert PatcherAdapter(Starts()).patch("ACGTAC")[0].tolist() == [[4, 2]]


def test_takes_rules_over_the_signature():
    adapter = PatcherAdapter(lambda sequence: torch.tensor([sequence.shape[1]]), takes="tokens")
    assert adapter.patch("ACG")[0].tolist() == [[3]]
    with pytest.raises(ConfigError, match="takes: expected"):
        PatcherAdapter(len, takes="letters")


def test_what_it_gets_is_its_own():
    def spoil(tokens):
        tokens.zero_()
        return [tokens.shape[1]]

    rows = torch.tensor([[69, 71]])
    PatcherAdapter(spoil).patch(rows)
    assert rows.tolist() == [[69, 71]]


@pytest.mark.parametrize("wrap", [lambda tokenizer: tokenizer, FastTokenizer], ids=["tokenizers", "transformers"])
@pytest.mark.parametrize("text", [DNA, "né à Étretat né", "A"])
def test_patches_are_the_tokens_of_a_tokenizer(tokenizer, wrap, text):
    pieces, starts = PatcherAdapter(wrap(tokenizer)).patch_with_boundaries(text)
    offsets = sorted({start for start, _ in tokenizer.encode(text).offsets})
    assert starts.tolist() == [len(text[:start].encode()) for start in offsets]
    assert "".join(pieces) == text


def test_a_tokenizer_gives_what_bpe_mode_gives(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    native = Patcher(patching_mode="bpe", model_name=str(path))
    assert PatcherAdapter(tokenizer).patch([DNA, "ACGT"])[0].equal(native.patch([DNA, "ACGT"])[0])


def test_a_tokenizer_that_truncates_is_used_whole_and_left_as_it_is(tokenizer):
    short = Tokenizer.from_str(tokenizer.to_str())
    short.enable_truncation(4)
    short.enable_padding()
    assert PatcherAdapter(short).patch(DNA)[0].equal(PatcherAdapter(tokenizer).patch(DNA)[0])
    assert short.truncation["max_length"] == 4


@pytest.mark.parametrize(
    ("patcher", "reason"),
    [
        (7, "got int"),
        (None, "got NoneType"),
        ("gpt2", "got str; a tokenizer by its name is Patcher"),
        (Patcher, "got the class Patcher"),
        (SimpleNamespace(is_fast=False), "got a slow one"),
        (SimpleNamespace(threshold=1.0), "got SimpleNamespace"),
    ],
)
def test_what_is_no_patcher_is_refused(patcher, reason):
    with pytest.raises(ConfigError, match=f"patcher: .*{reason}"):
        PatcherAdapter(patcher)


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (torch.tensor([[1, 69]]), "expected bytes \\(ids >= 4\\) for a patcher of text, got 1"),
        ([b"AC\xff"], "expected UTF-8 for a patcher of text, got byte 0xff at 2"),
        (torch.tensor([[69, -1, 69]]), "PAD"),
        (5, "got int"),
    ],
)
def test_rows_that_the_object_cannot_take_are_refused(tokens, reason):
    with pytest.raises(PatchingError, match=reason):
        PatcherAdapter(Whole([1])).patch(tokens)


def test_a_patcher_of_ours_is_used_as_it_is(tmp_path):
    fitted = Patcher(entropy_model=MarkovEntropy.fit([DNA], order=2), threshold=1.35, max_patch_length=9)
    adapter = PatcherAdapter(fitted)
    rows = [DNA, "ACNNNNGT"]
    assert adapter.patch(rows)[0].equal(fitted.patch(rows)[0])
    assert adapter.patch_with_starts(rows).known_starts.equal(fitted.patch_with_starts(rows).known_starts)
    assert adapter.patch_with_boundaries(DNA)[0] == fitted.patch_with_boundaries(DNA)[0]
    assert (adapter.is_causal, adapter.max_patch_length, adapter.entropy_model) == (True, 9, fitted.entropy_model)
    adapter.save(tmp_path)
    assert (tmp_path / "patcher.json").is_file()
    with pytest.raises(AttributeError):
        PatcherAdapter(Whole([1])).save  # noqa: B018


def test_only_what_says_so_is_causal():
    for said, expected in ((True, True), (False, False), (lambda: True, False)):
        whole = Whole([1])
        whole.is_causal = said
        assert PatcherAdapter(whole).is_causal is expected


class Windows:
    """Pieces of four bases that share two."""

    overlap = 2

    def patch_with_boundaries(self, sequence: str):
        starts = range(0, max(len(sequence) - 2, 1), 2)
        return [sequence[start : start + 4] for start in starts], list(starts)


def test_overlapping_pieces_stay_whole_and_are_cut_at_their_starts():
    adapter, native = PatcherAdapter(Windows()), Patcher(patching_mode="static", patch_size=4, overlap=2)
    for text in ("ACGTAC", "ACGTACG", "AC"):
        assert adapter.patch_with_boundaries(text)[0] == native.patch_with_boundaries(text)[0]
        assert adapter.patch(text)[0].equal(native.patch(text)[0])


@pytest.mark.parametrize("wrapped", [ByteLatent(), Windows(), lambda sequence: [len(sequence)]])
def test_a_net_takes_it_as_its_patcher(wrapped):
    torch.manual_seed(0)
    adapter = PatcherAdapter(wrapped)
    net = HyenaGLT(HyenaGLTConfig.preset("tiny", causal=False, num_layers=1), external_patcher=adapter).eval()
    patches, boundaries = adapter.patch_with_boundaries("ACGTACGT")
    with torch.no_grad():
        output = net.forward_with_patching("ACGTACGT", global_position_offset=100)
        pieces = net.forward_with_patching(patches=patches, boundaries=boundaries, global_position_offset=100)
    assert output.patch_info["boundaries"].tolist() == (boundaries + 100).tolist()
    assert torch.equal(output.logits, pieces.logits)


def test_a_causal_net_warns_of_it():
    net = HyenaGLT(HyenaGLTConfig.preset("tiny", num_layers=1), external_patcher=PatcherAdapter(ByteLatent()))
    with pytest.warns(UserWarning, match="can depend on the future"):
        net.forward_with_patching("ACGT")
