"""Hugging Face causal language models as entropy sources: from the disk only, one token a letter."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from hyena_glt.entropies import NeuralEntropy
from hyena_glt.entropies.causal_lm import CausalLmNetwork, letter_ids, unknown_id
from hyena_glt.entropies.neural import ENTROPY_STEP
from hyena_glt.errors import ConfigError, MissingExtraError, ModelFileError
from hyena_glt.patching import Patcher
from hyena_glt.sequences.alphabets import DNA, PROTEIN

LETTERS = {"[UNK]": 0, "A": 1, "C": 2, "G": 3, "T": 4, "N": 5}


class CharacterTokenizer:
    """One token a character, but for the merges that it is given."""

    unk_token_id = 0

    def __init__(self, vocab, merges=()):
        self.vocab, self.merges = vocab, merges

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        ids = []
        while text:
            size = next((len(merge) for merge in self.merges if text.startswith(merge)), 1)
            ids.append(self.vocab.get(text[:size], self.unk_token_id))
            text = text[size:]
        return {"input_ids": ids}


class Echo(torch.nn.Module):
    """Logits that say which id came."""

    def forward(self, input_ids, use_cache):
        class Output:
            logits = torch.nn.functional.one_hot(input_ids, 6).float()

        return Output


def test_letters_and_others_become_the_model_s_ids():
    tokenizer = CharacterTokenizer(LETTERS)
    ids = letter_ids(tokenizer, DNA, "m")
    assert ids == [1, 2, 3, 4]
    assert unknown_id(tokenizer, ids, DNA) == 5
    assert unknown_id(tokenizer, ids, PROTEIN) == 0
    network = CausalLmNetwork(Echo(), ids, 5, DNA, 64)
    tokens = torch.tensor([[ord(base) + 4 for base in "ACGTN"]])
    assert network(tokens)[0].argmax(-1)[:4].tolist() == [0, 1, 2, 3]
    assert network(tokens)[0, 4].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("tokenizer", "why"),
    [
        (CharacterTokenizer({**LETTERS, "AC": 6}, ["AC"]), "merges letters"),
        (CharacterTokenizer({**LETTERS, "GTA": 6}, ["GTA"]), "merges letters"),
        (CharacterTokenizer({"[UNK]": 0, "A": 1, "C": 2}), "not one token of its own"),
    ],
)
def test_a_tokenizer_that_is_not_one_token_a_letter_is_refused(tokenizer, why):
    with pytest.raises(ConfigError, match=why):
        letter_ids(tokenizer, DNA, "m")


def test_a_model_that_is_not_there_says_what_to_use_instead(tmp_path):
    for name in ("someone/some-model", str(tmp_path), "no such: name"):
        with pytest.raises(ConfigError, match=r"nothing is downloaded.*MarkovEntropy\.fit"):
            NeuralEntropy.from_pretrained(name)


def test_without_the_extra_the_message_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hyena-glt\[hf\]'"):
        NeuralEntropy.from_pretrained(str(tmp_path))
    with pytest.raises(MissingExtraError, match="transformers"):
        Patcher(model_name=str(tmp_path), threshold=1.0).patch("ACGT")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A tiny GPT-2 with random weights and a tokenizer of one token a base."""
    transformers = pytest.importorskip("transformers", reason="needs the extra [hf] (transformers)")
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("lm")
    tokenizer = Tokenizer(models.WordLevel(LETTERS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(""), "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    torch.manual_seed(2)
    config = transformers.GPT2Config(vocab_size=6, n_positions=48, n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


def test_a_local_language_model_scores_and_patches(language_model):
    model = NeuralEntropy.from_pretrained(str(language_model))
    assert (model.plan.window, model.plan.overlap) == (48, 24)
    text = "ACGTTGCANNAC" * 12
    entropies = model.entropies(text)
    assert entropies.shape == (len(text),)
    tokens = torch.tensor([[LETTERS[base] for base in text[:40]]])
    logits = model.network.model(input_ids=tokens).logits[0, :, 1:5].double().log_softmax(-1)
    expected = -(logits.exp() * logits).sum(-1).detach().numpy()
    expected[[base == "N" for base in text[:40]]] = 0
    assert np.abs(entropies[:40] - expected).max() <= ENTROPY_STEP
    stream = model.stream()
    parts = [stream.feed(text[start : start + 13]).entropies for start in range(0, len(text), 13)]
    assert np.array_equal(np.concatenate(parts), entropies)
    threshold = float(np.median(entropies))
    by_name = Patcher(model_name=str(language_model), threshold=threshold)
    assert by_name.patch(text)[0].tolist() == Patcher(entropy_model=model, threshold=threshold).patch(text)[0].tolist()


def test_weights_that_are_no_safetensors_are_not_read(language_model, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((language_model / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelFileError, match="not a causal language model that can be read"):
        NeuralEntropy.from_pretrained(str(tmp_path))


def test_a_language_model_is_not_saved_again(language_model, tmp_path):
    model = NeuralEntropy.from_pretrained(str(language_model))
    with pytest.raises(ConfigError, match="expected a ByteNetwork to save, got CausalLmNetwork"):
        model.save(tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="expected a ByteNetwork"):
        Patcher(entropy_model=model, threshold=1.0).save(tmp_path)
    named = Patcher(model_name=str(language_model), threshold=1.0)
    named.save(tmp_path / "named")
    assert Patcher.load(tmp_path / "named").model_name == str(language_model)
