"""Starts at the tokens of a trained BPE tokenizer (`tokenizer.json`), read from the disk only.

A merge can depend on what follows, so these boundaries are not causal.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.errors import ConfigError, ModelFileError, PatchingError
from hyena_glt.patching.rows import TokenRows
from hyena_glt.tokens.byte_tokenizer import OFFSET

FILE_NAME = "tokenizer.json"


def find_tokenizer_file(model_name: str) -> Path:
    """Where the tokenizer of that name lies: a file, a folder that holds one, or the local Hugging Face cache.

    Raises:
        ConfigError: None of these; nothing is downloaded.
    """
    place = Path(model_name)
    if place.is_file():
        return place
    if (place / FILE_NAME).is_file():
        return place / FILE_NAME
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model_name, FILE_NAME)
    except (HFValidationError, OSError, ValueError):
        cached = None
    if isinstance(cached, str):
        return Path(cached)
    raise ConfigError(
        f"model_name: expected a {FILE_NAME}, a folder that holds one or a model in the local cache, "
        f"got {model_name!r}; nothing is downloaded: fetch the file first"
    )


def load_tokenizer(path: Path) -> Any:
    """Read a tokenizer file.

    Raises:
        ModelFileError: Not such a file.
    """
    from tokenizers import Tokenizer

    with _faults_named(path):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def tokenizer_start_mask(rows: TokenRows, tokenizer: Any, encoding: str, path: Path) -> Tensor:
    """True where a token of the tokenizer begins; special ids are patches of their own.

    Args:
        rows: `(batch, length)` byte tokens.
        tokenizer: What `load_tokenizer` gave.
        encoding: How the bytes are read as text: UTF-8 or one byte per character.
        path: The tokenizer's file, for messages.

    Returns:
        `(batch, length + 1)` bool; the last column, about the token after the row, is False.

    Raises:
        PatchingError: Bytes that are no text in the encoding, or a character that the tokenizer drops.
        ModelFileError: The tokenizer fails.
    """
    kept = [np.flatnonzero(rows.row(index) >= OFFSET) for index in range(rows.lengths.size)]
    texts = [_text(rows.row(index)[places] - OFFSET, encoding, index) for index, places in enumerate(kept)]
    with _faults_named(path):
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    mask = np.zeros((len(kept), rows.tokens.shape[1] + 1), np.bool_)
    for index, (places, text, tokens) in enumerate(zip(kept, texts, encoded, strict=True)):
        if tokenizer.pre_tokenizer is None and sum(end - start for start, end in tokens.offsets) != len(text):
            raise PatchingError(
                f"tokens: the tokenizer {path} has no token for some character of row {index} and drops it, so that "
                "its boundaries have no place; give it an unknown token"
            )
        firsts = np.fromiter((start for start, _ in tokens.offsets), np.int64, len(tokens.offsets))
        mask[index, places[_byte_offsets(text, encoding)[firsts]]] = True
        mask[index, 1 : rows.lengths[index]] |= rows.row(index)[:-1] < OFFSET
        mask[index, : rows.lengths[index]] |= rows.row(index) < OFFSET
    mask[:, :1] = True
    return torch.from_numpy(mask).to(rows.tokens.device)


def _text(data: NDArray[np.int64], encoding: str, row: int) -> str:
    try:
        return data.astype(np.uint8).tobytes().decode(encoding)
    except UnicodeDecodeError as problem:
        raise PatchingError(
            f"tokens: expected {encoding} text for a tokenizer, "
            f"got byte {problem.object[problem.start]:#04x} in row {row}"
        ) from None


def _byte_offsets(text: str, encoding: str) -> NDArray[np.int64]:
    """Offset of each character among the bytes, `(characters + 1,)`."""
    data = np.frombuffer(text.encode(encoding), np.uint8)
    if data.size == len(text):
        return np.arange(data.size + 1)
    if codecs.lookup(encoding).name != "utf-8":
        raise ConfigError(f"encoding: expected utf-8 or one byte per character with a tokenizer, got {encoding}")
    return np.append(np.flatnonzero((data & 0b1100_0000) != 0b1000_0000), data.size)


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """Turn what the tokenizers library raises, its Rust panics included, into a `ModelFileError`."""
    try:
        yield
    except Exception as problem:
        raise ModelFileError(f"not a tokenizer that can be used: {problem}", path=path) from None
    except BaseException as problem:
        if type(problem).__name__ != "PanicException":
            raise
        raise ModelFileError(f"the tokenizer panicked: {problem}", path=path) from None
