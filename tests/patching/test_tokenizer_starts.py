from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from hyena_glt.errors import ConfigError, ModelFileError, PatchingError
from hyena_glt.patching import Patcher
from hyena_glt.patching.tokenizer_starts import _faults_named

TEXT = "ACGTACGTTTACGAACGT" * 3


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([TEXT, "né à Étretat " * 8], trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def pieces_of(path, text):
    encoded = Tokenizer.from_file(str(path)).encode(text)
    return [text[start:end] for start, end in encoded.offsets]


@pytest.mark.parametrize("text", [TEXT, "ACG", "A", "", "ACGNNNACG"])
def test_patches_are_the_tokens_of_the_tokenizer(tokenizer_file, text):
    patcher = Patcher(patching_mode="bpe", model_name=str(tokenizer_file))
    assert patcher.patch_with_boundaries(text)[0] == pieces_of(tokenizer_file, text)
    assert not patcher.is_causal


def test_a_folder_names_its_tokenizer(tokenizer_file):
    patcher = Patcher(patching_mode="bpe", model_name=str(tokenizer_file.parent))
    assert len(patcher.patch(TEXT)[0][0]) == len(pieces_of(tokenizer_file, TEXT))


def test_rows_do_not_touch_each_other(tokenizer_file):
    patcher = Patcher(patching_mode="bpe", model_name=str(tokenizer_file))
    texts = [TEXT, "", "AC", "né à Étretat"]
    lengths, _ = patcher.patch(texts, include_next_token=True)
    for row, text in zip(lengths, texts, strict=True):
        alone, _ = patcher.patch([text], include_next_token=True)
        assert row[row > 0].tolist() == alone[0].tolist()


def test_offsets_of_characters_become_offsets_of_bytes(tokenizer_file):
    text = "né à Étretat"
    patcher = Patcher(patching_mode="bpe", model_name=str(tokenizer_file))
    lengths, _ = patcher.patch(text)
    assert int(lengths.sum()) == len(text.encode())
    assert "".join(patcher.patch_with_boundaries(text)[0]) == text
    latin = Patcher(patching_mode="bpe", model_name=str(tokenizer_file), encoding="latin-1")
    assert int(latin.patch(text)[0].sum()) == len(text)


def test_special_tokens_are_patches_of_their_own(tokenizer_file):
    patcher = Patcher(patching_mode="bpe", model_name=str(tokenizer_file))
    inner = [ord(letter) + 4 for letter in "ACGT"]
    lengths, _ = patcher.patch(torch.tensor([[1, *inner, 2]]))
    assert lengths[0, 0] == 1
    assert lengths[0, -1] == 1
    assert lengths[0, 1:-1].tolist() == patcher.patch("ACGT")[0][0].tolist()


def test_the_cap_cuts_tokens(tokenizer_file):
    patcher = Patcher(patching_mode="bpe", model_name=str(tokenizer_file), max_patch_length=2)
    assert int(patcher.patch(TEXT)[0].max()) <= 2


def test_names_that_lie_nowhere_say_that_nothing_is_downloaded():
    for name in ("no/such-model", "nosuch", "a b c//d", ""):
        with pytest.raises(ConfigError, match="nothing is downloaded"):
            Patcher(patching_mode="bpe", model_name=name)


@pytest.mark.parametrize("content", [b"{}", b"not json", b"\xff\xfe", b'{"model": {"type": "BPE"}}'])
def test_files_that_are_no_tokenizer_are_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"tokenizer\.json: not a tokenizer"):
        Patcher(patching_mode="bpe", model_name=str(path)).patch("ACGT")


def test_bytes_that_are_no_text_are_refused(tokenizer_file):
    with pytest.raises(PatchingError, match="expected utf-8 text for a tokenizer, got byte 0xff in row 1"):
        Patcher(patching_mode="bpe", model_name=str(tokenizer_file)).patch([b"AC", b"A\xff"])


def test_a_panic_of_the_library_is_an_error_of_ours(tmp_path):
    PanicException = type("PanicException", (BaseException,), {})
    with pytest.raises(ModelFileError, match="panicked: boom"), _faults_named(tmp_path / "t.json"):
        raise PanicException("boom")
    with pytest.raises(KeyboardInterrupt), _faults_named(tmp_path / "t.json"):
        raise KeyboardInterrupt


def test_a_saved_patcher_brings_its_tokenizer(tmp_path, tokenizer_file):
    patcher = Patcher(patching_mode="bpe", model_name=str(tokenizer_file))
    patcher.save(tmp_path)
    loaded = Patcher.load(tmp_path)
    assert loaded.model_name == str(tmp_path / "patcher.tokenizer.json")
    assert torch.equal(loaded.patch(TEXT)[0], patcher.patch(TEXT)[0])
    (tmp_path / "patcher.tokenizer.json").write_text("{}")
    with pytest.raises(ModelFileError, match="sha256"):
        Patcher.load(tmp_path)


def test_a_tokenizer_that_drops_characters_is_refused(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE({"A": 0, "C": 1, "AC": 2}, [("A", "C")])).save(str(tmp_path / "tokenizer.json"))
    patcher = Patcher(patching_mode="bpe", model_name=str(tmp_path / "tokenizer.json"))
    assert patcher.patch(["ACAC"])[0].tolist() == [[2, 2]]
    with pytest.raises(PatchingError, match="has no token for some character of row 1"):
        patcher.patch(["ACAC", "ACNAC"])
