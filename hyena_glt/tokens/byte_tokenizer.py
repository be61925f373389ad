"""Bytes as token ids: byte `b` is token `b + 4`; ids 0 to 3 are special, -1 is padding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hyena_glt.errors import PatchingError

BOE_ID = 0
BOS_ID = 1
EOS_ID = 2
BPE_ID = 3
PAD_ID = -1
OFFSET = 4
VOCAB_SIZE = 256 + OFFSET


class ByteTokenizer:
    """Lossless: every byte has a token, nothing is folded.

    Example:
        >>> ByteTokenizer().encode("AC").tolist()
        [69, 71]
    """

    def encode(self, sequence: str | bytes) -> Tensor:
        """Token ids of the bytes (of the UTF-8 text): `(length,)` int64 in [4, 260)."""
        data = sequence.encode("utf-8") if isinstance(sequence, str) else bytes(sequence)
        return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).astype(np.int64) + OFFSET)

    def decode_bytes(self, tokens: Tensor) -> bytes:
        """The bytes that the tokens stand for; special ids and padding stand for none.

        Raises:
            PatchingError: An id outside [-1, 260), or a tensor that is not one row of integers.
        """
        if tokens.ndim != 1 or tokens.is_floating_point():
            raise PatchingError(f"tokens: expected (length,) integers, got {tokens.dtype} {tuple(tokens.shape)}")
        ids = tokens.detach().cpu().numpy().astype(np.int64)
        if ids.size and (ids.min() < PAD_ID or ids.max() >= VOCAB_SIZE):
            raise PatchingError(f"tokens: expected ids in [-1, {VOCAB_SIZE}), got {ids.min()} to {ids.max()}")
        return (ids[ids >= OFFSET] - OFFSET).astype(np.uint8).tobytes()

    def decode(self, tokens: Tensor) -> str:
        """The text that the tokens stand for; bytes that are no UTF-8 become the replacement character."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")
