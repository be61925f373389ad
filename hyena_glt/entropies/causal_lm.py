"""A Hugging Face causal language model as a network over byte tokens, read from the disk only.

The model must have one token for each letter: patches are cut between bytes, so there has to be a prediction after
each of them. Weights are read from safetensors, no code of the model's own is run, nothing is downloaded.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hyena_glt.errors import ConfigError, MissingExtraError, ModelFileError
from hyena_glt.sequences.alphabets import Alphabet
from hyena_glt.tokens.byte_tokenizer import OFFSET

CONFIG_FILE = "config.json"
LONGEST = 8192  # tokens at once, where the model names no limit


class CausalLmNetwork(nn.Module):
    """Byte tokens in, one logit per letter out.

    Args:
        model: `(rows, length)` ids to an object with `logits` `(rows, length, ids)`.
        ids: The model's id of each letter of the alphabet, in its order.
        unknown: Its id for everything else.
        alphabet: The letters.
        max_length: Tokens that the model takes at once.
    """

    def __init__(self, model: nn.Module, ids: list[int], unknown: int, alphabet: Alphabet, max_length: int) -> None:
        super().__init__()
        self.model, self.max_length = model, max_length
        of_token = torch.full((256 + OFFSET,), unknown, dtype=torch.int64)
        letters = torch.tensor([ord(letter) + OFFSET for letter in alphabet.letters])
        of_token[letters] = torch.tensor(ids)
        self.register_buffer("_id_of_token", of_token, persistent=False)
        self.register_buffer("_letter_ids", torch.tensor(ids), persistent=False)
        self._id_of_token: Tensor
        self._letter_ids: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        """`(rows, length, letters)` logits from `(rows, length)` int64 byte tokens."""
        logits = self.model(input_ids=self._id_of_token[tokens], use_cache=False).logits
        return logits.index_select(-1, self._letter_ids).float()


def causal_lm_network(model_name: str, alphabet: Alphabet) -> CausalLmNetwork:
    """Open a causal language model.

    Args:
        model_name: A folder with its files, or the name of a model in the local Hugging Face cache.
        alphabet: The letters that it is to predict.

    Raises:
        ConfigError: No such model on this machine, or a tokenizer that is not one token a letter.
        MissingExtraError: transformers is not installed.
        ModelFileError: Files that cannot be read.
    """
    if not has_causal_lm(model_name):
        raise ConfigError(
            f"model_name: expected a folder with a causal language model or one in the local cache, got "
            f"{model_name!r}; nothing is downloaded. A table needs no weights: fit one with "
            "MarkovEntropy.fit(sequences) and pass it as entropy_model"
        )
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as problem:
        raise MissingExtraError(
            f"model_name: a language model needs the package transformers ({problem}); install it with "
            "pip install 'hyena-glt[hf]'"
        ) from None
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_name, **options)
        model = AutoModelForCausalLM.from_pretrained(model_name, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as problem:
        reason = str(problem).strip().partition("\n")[0]
        raise ModelFileError(f"not a causal language model that can be read: {reason}", path=model_name) from None
    ids = letter_ids(tokenizer, alphabet, model_name)
    limit = getattr(model.config, "max_position_embeddings", None) or LONGEST
    return CausalLmNetwork(model.float().eval(), ids, unknown_id(tokenizer, ids, alphabet), alphabet, int(limit))


def has_causal_lm(model_name: str) -> bool:
    """Whether a folder or the local cache holds a model's configuration."""
    if (Path(model_name) / CONFIG_FILE).is_file():
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(model_name, CONFIG_FILE), str)
    except (HFValidationError, OSError, ValueError):
        return False


def letter_ids(tokenizer: Any, alphabet: Alphabet, model_name: str) -> list[int]:
    """The token of each letter of an alphabet.

    Raises:
        ConfigError: A letter that is no token of its own, or letters that are merged.
    """
    singles = [_encode(tokenizer, letter) for letter in alphabet.letters]
    ids = [tokens[0] for tokens in singles if len(tokens) == 1]
    if len(set(ids)) != alphabet.size:
        raise ConfigError(_refusal(model_name, alphabet, "a letter is not one token of its own"))
    for length in (2, 3):
        words = itertools.islice(itertools.product(range(alphabet.size), repeat=length), 20_000)
        order = list(itertools.chain.from_iterable(words))
        if _encode(tokenizer, "".join(alphabet.letters[index] for index in order)) != [ids[index] for index in order]:
            raise ConfigError(_refusal(model_name, alphabet, "it merges letters, or adds tokens between them"))
    return ids


def unknown_id(tokenizer: Any, ids: list[int], alphabet: Alphabet) -> int:
    """The token that stands for whatever is no letter: N (X for proteins), else the unknown token, else a letter."""
    tokens = _encode(tokenizer, "X" if alphabet.name == "protein" else "N")
    if len(tokens) == 1:
        return tokens[0]
    unknown = getattr(tokenizer, "unk_token_id", None)
    return ids[0] if unknown is None else int(unknown)


def _encode(tokenizer: Any, text: str) -> list[int]:
    return [int(index) for index in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _refusal(model_name: str, alphabet: Alphabet, why: str) -> str:
    return (
        f"model_name: expected a tokenizer with one token for each letter of {alphabet.name}, got that of "
        f"{model_name!r}: {why}; patches are cut between bytes, so a prediction is needed after each"
    )
