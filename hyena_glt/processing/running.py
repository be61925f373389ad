"""What every processor begins with: sequences as a list, a patcher that the net can use, a net in evaluation mode."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hyena_glt.adapters import PatcherAdapter
from hyena_glt.errors import ConfigError
from hyena_glt.model import HyenaGLT
from hyena_glt.model.batching import encode_each
from hyena_glt.model.sources import Piece, encode_piece
from hyena_glt.tokens.byte_tokenizer import PAD_ID


def usable_patcher(net: HyenaGLT, patcher: Any | None) -> Any:
    """The patcher of a processor: the given one, adapted if it is foreign, or the net's own.

    Raises:
        ConfigError: There is none, or it is not recognised.
    """
    if patcher is None or patcher is net.external_patcher:
        return net.patcher()
    patcher = patcher if hasattr(patcher, "patch_with_starts") else PatcherAdapter(patcher)
    if net.config.causal and not getattr(patcher, "is_causal", True):
        warnings.warn(
            "the processor's patcher does not say that it is causal, so the outputs of a causal net can depend on the "
            "future",
            stacklevel=3,
        )
    return patcher


def as_pieces(sequences: Piece | Iterable[Piece]) -> list[Piece]:
    """One sequence, or many, as a list; nothing is encoded yet, as tokens take eight times the memory of text.

    Raises:
        PatchingError: Something that is neither.
    """
    if isinstance(sequences, Iterable) and not isinstance(sequences, str | bytes | bytearray | Tensor):
        return list(sequences)
    return list(encode_each(sequences)) if isinstance(sequences, Tensor) else [*_one(sequences)]


def count_tokens(piece: Piece) -> int:
    """Tokens of a sequence, padding left out.

    Raises:
        PatchingError: Something that is no sequence.
    """
    if isinstance(piece, bytes | bytearray) or (isinstance(piece, str) and piece.isascii()):
        return len(piece)
    return int((encode_piece(piece) != PAD_ID).sum())


@contextmanager
def evaluating(net: HyenaGLT) -> Iterator[None]:
    """Run a net in evaluation mode, where rows do not depend on each other, and leave it as it was."""
    if not net.training:
        yield
        return
    net.eval()
    try:
        yield
    finally:
        net.train()


def check_batch_size(batch_size: int) -> int:
    """The batch size itself.

    Raises:
        ConfigError: Below 1, or no whole number.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size: expected a whole number of at least 1, got {batch_size}")
    return batch_size


def _one(sequence: Any) -> Sequence[Piece]:
    encode_each(sequence)
    return [sequence]
