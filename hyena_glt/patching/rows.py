"""What a caller hands to a patcher -> rows of tokens with their real lengths.

First step of patching. Text becomes byte tokens; rows of unequal length are right-padded with PAD; PAD
anywhere but in a row's tail is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.errors import PatchingError
from hyena_glt.patching import scan_kernels as kernels
from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID

BYTE_TYPES = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Sequences of unequal length side by side."""

    tokens: Tensor  # (batch, length) int64, PAD after each row's end
    lengths: NDArray[np.int64]  # (batch,) tokens of each row
    is_ragged: bool  # a row is shorter than the tensor

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows, without padding."""
        return int(self.lengths.sum())

    def on_cpu(self) -> NDArray[np.int64]:
        """The tokens as a numpy array, `(batch, length)`."""
        return self.tokens.detach().cpu().numpy()

    def row(self, index: int) -> NDArray[np.int64]:
        """The tokens of one row, without padding, `(row length,)` int64."""
        return self.tokens[index, : int(self.lengths[index])].detach().cpu().numpy()

    def lengths_tensor(self, num_next: int = 0) -> Tensor:
        """`(batch,)` int64 on the device of the tokens, each with `num_next` more."""
        return torch.from_numpy(self.lengths + num_next).to(self.tokens.device)


def read_rows(sequences: Any, encoding: str = "utf-8", device: torch.device | None = None) -> TokenRows:
    """Rows of tokens from whatever a caller hands in.

    Args:
        sequences: `(batch, length)` integer tokens (tensor or array), one str or bytes, or a list of str,
            byte arrays (bytes, bytearray, memoryview, 1-D uint8 array) and 1-D token tensors.
        encoding: Of text.
        device: Where the tokens go; None leaves tensors where they are.

    Raises:
        PatchingError: Another type, shape or dtype, PAD inside a row, or text that the encoding cannot write.
    """
    if isinstance(sequences, Tensor | np.ndarray):
        tokens = torch.as_tensor(sequences)
        check_tokens(tokens)
        return _rows_of_tensor(tokens.to(device, torch.int64))
    if isinstance(sequences, str | BYTE_TYPES):
        sequences = [sequences]
    if not isinstance(sequences, Sequence):
        raise PatchingError(
            "tokens: expected integers (batch, length), a str, bytes or a list of those, "
            f"got {type(sequences).__name__}"
        )
    return _rows_of_sequences(sequences, encoding, device)


def check_tokens(tokens: Tensor) -> None:
    """Raise a PatchingError unless the tensor is `(batch, length)` integers."""
    wrong_kind = tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool
    if tokens.dim() != 2 or wrong_kind:
        raise PatchingError(
            f"tokens: expected integers (batch, length), got {tokens.dtype} {tuple(tokens.shape)}"
            + ("; one row is tokens[None]" if tokens.dim() == 1 else "")
        )


def _rows_of_tensor(tokens: Tensor) -> TokenRows:
    batch, length = tokens.shape
    if _has_negative(tokens):
        return TokenRows(tokens, padded_lengths(tokens), is_ragged=True)
    return TokenRows(tokens, np.full(batch, length, np.int64), is_ragged=False)


def padded_lengths(tokens: Tensor) -> NDArray[np.int64]:
    """Tokens of each row before its PAD tail, `(batch,)` int64.

    Raises:
        PatchingError: PAD before the end of a row, or another negative id.
    """
    lowest = int(tokens.min())
    if lowest < PAD_ID:
        raise PatchingError(f"tokens: expected ids >= 0 or PAD ({PAD_ID}), got {lowest}")
    padding = tokens == PAD_ID
    inside = padding[:, :-1] & ~padding[:, 1:]
    if bool(inside.any()):
        row, column = (int(place) for place in inside.nonzero()[0])
        raise PatchingError(
            f"tokens: expected PAD ({PAD_ID}) after a row's end only, got it in row {row} at token {column}"
        )
    return (tokens.shape[1] - padding.sum(dim=1)).cpu().numpy()


def _has_negative(tokens: Tensor) -> bool:
    if tokens.device.type == "cpu":
        return kernels.has_negative(tokens.numpy())
    return bool((tokens < 0).any())


def _rows_of_sequences(sequences: Sequence[Any], encoding: str, device: torch.device | None) -> TokenRows:
    rows = [sequence_tokens(sequence, encoding) for sequence in sequences]
    lengths = np.fromiter((row.size for row in rows), np.int64, len(rows))
    if len(rows) == 1:
        tokens = rows[0][None]
    else:
        tokens = np.full((len(rows), int(lengths.max(initial=0))), PAD_ID, np.int64)
        inside = np.arange(tokens.shape[1]) < lengths[:, None]
        tokens[inside] = np.concatenate([np.zeros(0, np.int64), *rows])
    is_ragged = bool((lengths != tokens.shape[1]).any())
    return TokenRows(torch.from_numpy(tokens).to(device or "cpu"), lengths, is_ragged)


def sequence_tokens(sequence: Any, encoding: str = "utf-8") -> NDArray[np.int64]:
    """Tokens of one sequence: text and byte arrays are bytes, a tensor holds tokens already; `(length,)` int64.

    Raises:
        PatchingError: Another type, shape or dtype, a negative id, or text that the encoding cannot write.
    """
    if isinstance(sequence, Tensor):
        check_tokens(sequence[None] if sequence.dim() == 1 else sequence[..., None, None])
        tokens = sequence.detach().cpu().numpy().astype(np.int64)
        if tokens.size and tokens.min() < 0:
            raise PatchingError(f"tokens: expected ids >= 0 in a list of rows, got {tokens.min()}")
        return tokens
    return as_bytes(sequence, encoding).astype(np.int64) + OFFSET


def as_bytes(sequence: Any, encoding: str = "utf-8") -> NDArray[np.uint8]:
    """The bytes of one text or byte array, `(length,)` uint8.

    Raises:
        PatchingError: Another type, or text that the encoding cannot write.
    """
    if isinstance(sequence, str):
        try:
            sequence = sequence.encode(encoding)
        except UnicodeEncodeError as problem:
            raise PatchingError(
                f"text: expected characters of {encoding}, got {sequence[problem.start]!r} at {problem.start}"
            ) from None
    if isinstance(sequence, BYTE_TYPES):
        return np.frombuffer(sequence, np.uint8)
    if isinstance(sequence, np.ndarray) and sequence.ndim == 1 and sequence.dtype == np.uint8:
        return sequence
    raise PatchingError(
        f"sequence: expected str, bytes, a 1-D uint8 array or a 1-D token tensor, got {type(sequence).__name__}"
    )
