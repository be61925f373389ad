"""Patch lengths of one sequence -> its pieces, in the type that the sequence came in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hyena_glt.config import PatchingModeEnum
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.rows import as_bytes
from hyena_glt.patching.space_starts import GOES_ON, delimiter_classes, space_classes
from hyena_glt.patching.static_starts import window_starts
from hyena_glt.tokens.byte_tokenizer import OFFSET

Pieces = list[str] | list[bytes] | list[Tensor]
ASCII_END = 128


def cut_pieces(sequence: Any, patch_lengths: Tensor, args: PatcherArgs) -> tuple[Pieces, Tensor]:
    """Cut a sequence where its patches begin.

    Args:
        sequence: str, byte array or 1-D token tensor.
        patch_lengths: `(num_patches,)` int64 that sum to its tokens.
        args: `overlap`, `delimiter_chars`, `preserve_delimiters` and `encoding` are used.

    Returns:
        `(pieces, boundaries)`; `boundaries` is `(num_patches,)` int64, the 0-based first token of each piece.
    """
    starts = patch_lengths.cumsum(0) - patch_lengths
    ends = starts + patch_lengths
    if args.overlap:
        length, size = int(patch_lengths.sum()), int(args.static_patch_size)
        starts = window_starts(length, size, args.overlap)
        ends = (starts + size).clamp(max=length)
    if isinstance(sequence, Tensor):
        spans = zip(starts.tolist(), ends.tolist(), strict=True)
        return [sequence[start:end] for start, end in spans], starts
    pieces = _byte_pieces(sequence, starts, ends, args)
    if isinstance(sequence, str):
        return [piece.decode(args.encoding, errors="surrogateescape") for piece in pieces], starts
    return pieces, starts


def _byte_pieces(sequence: Any, starts: Tensor, ends: Tensor, args: PatcherArgs) -> list[bytes]:
    data = as_bytes(sequence, args.encoding).tobytes()
    pieces = [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    if args.preserve_delimiters or args.patching_mode is not PatchingModeEnum.space:
        return pieces
    dropped = delimiter_bytes(args)
    return [piece.translate(None, dropped) for piece in pieces]


def delimiter_bytes(args: PatcherArgs) -> bytes:
    """The bytes that count as delimiters in space mode: `delimiter_chars`, else the ASCII separators."""
    if args.delimiter_chars is not None:
        classes = delimiter_classes(args.delimiter_chars, args.encoding)[OFFSET:]
    else:
        classes = space_classes()[OFFSET:].clone()
        classes[ASCII_END:] = GOES_ON
    return bytes(torch.nonzero(classes != GOES_ON).flatten().tolist())
