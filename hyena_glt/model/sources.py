"""Sequences, or ready patches, -> tokens with patch lengths: the seam between a net and its patcher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hyena_glt.checks import build_config
from hyena_glt.config import HyenaGLTConfig, PatcherFields
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.model.inputs import PatchedTokens
from hyena_glt.positions.position_info import exclusive_cumsum
from hyena_glt.tokens.byte_tokenizer import PAD_ID, ByteTokenizer

Piece = str | bytes | Tensor


def resolve_patcher(config: HyenaGLTConfig, external: Any | None, options: Any | None) -> Any:
    """The patcher that a call uses: built from `options` if given, else the external one, else the net's own.

    Args:
        config: Of the net.
        external: The patcher that the net was given.
        options: `PatcherArgs`, `AdvancedPatcherConfig`, a mapping of their fields, or None. The entropy
            model of the external patcher is kept unless the options name another.

    Raises:
        ConfigError: There is no patcher.
    """
    if options is not None:
        return _build_patcher(options, external)
    if external is not None:
        return external
    if config.use_external_patcher:
        raise ConfigError(
            "external_patcher: expected a patcher, got none; use HyenaGLT(config, external_patcher=...), "
            "pass patcher_config, or set use_external_patcher=False for the net's own"
        )
    own = {"threshold": config.patcher_threshold, "monotonicity": config.patcher_monotonicity}
    return _build_patcher(own, None)


def _build_patcher(options: Any, external: Any | None) -> Any:
    from hyena_glt.patching import PatcherArgs

    if hasattr(options, "build"):
        return options.build()
    fields = options if isinstance(options, PatcherFields) else build_config(PatcherFields, options)
    return PatcherArgs.from_config(fields, entropy_model=getattr(external, "entropy_model", None)).build()


def encode_rows(sequences: Piece | Sequence[Piece]) -> Tensor:
    """Byte tokens of one sequence or of several: `(batch, length)` int64, PAD tails."""
    if isinstance(sequences, Tensor):
        return sequences.long() if sequences.ndim == 2 else sequences.long().unsqueeze(0)
    if isinstance(sequences, str | bytes | bytearray):
        return encode_piece(sequences).unsqueeze(0)
    return pad_rows([encode_piece(row) for row in sequences], PAD_ID)


def encode_piece(piece: Any) -> Tensor:
    """Byte tokens of a text, of bytes, or the tokens themselves: `(length,)` int64.

    Surrogate escapes in a text are bytes of a character that a patcher has cut.

    Raises:
        PatchingError: Anything else.
    """
    if isinstance(piece, str):
        try:
            piece = piece.encode("utf-8", errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise PatchingError(f"sequence: expected text that UTF-8 can write, got {error.reason}") from None
    if isinstance(piece, bytes | bytearray):
        return ByteTokenizer().encode(bytes(piece))
    if isinstance(piece, Tensor) and piece.ndim == 1 and not piece.is_floating_point():
        return piece.long()
    raise PatchingError(f"sequence: expected str, bytes or 1-D tokens, got {type(piece).__name__}")


def patch_rows(patcher: Any, tokens: Tensor) -> PatchedTokens:
    """Let a patcher cut the rows.

    Args:
        patcher: Has `patch_with_starts(tokens)`, giving `patch_lengths` and `known_starts`, or
            `patch(tokens)`, giving `(patch_lengths, scores)`.
        tokens: `(batch, length)` int64.

    Raises:
        PatchingError: It has neither.
    """
    if getattr(patcher, "overlap", 0):
        return stack_rows([join_patches(*patcher.patch_with_boundaries(row[row != PAD_ID])) for row in tokens])
    if hasattr(patcher, "patch_with_starts"):
        rows = patcher.patch_with_starts(tokens)
        return PatchedTokens(tokens=tokens, patch_lengths=rows.patch_lengths, known_starts=rows.known_starts)
    if not hasattr(patcher, "patch"):
        raise PatchingError(f"patcher: expected a method patch(tokens), got {type(patcher).__name__}")
    return PatchedTokens(tokens=tokens, patch_lengths=patcher.patch(tokens)[0])


def join_patches(patches: Sequence[Piece], boundaries: Any | None, offset: int = 0) -> PatchedTokens:
    """Patches of one sequence -> tokens with patch lengths; overlapping patches keep their own positions.

    Args:
        patches: The pieces in order.
        boundaries: `(num_patches,)` start of each piece, counted from 0 or from `offset`; None: they
            follow each other.
        offset: Global position of the first token.

    Raises:
        PatchingError: Counts differ, starts do not ascend, or the first is neither 0 nor `offset`.
    """
    pieces = [encode_piece(piece) for piece in patches]
    tokens = torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.int64)
    lengths = torch.tensor([len(piece) for piece in pieces], dtype=torch.int64)
    starts = None if boundaries is None else _relative_starts(boundaries, len(pieces), offset)
    if bool((lengths == 0).any()):
        raise PatchingError(f"patches: expected no empty patch, got one at {int((lengths == 0).nonzero()[0])}")
    return PatchedTokens(
        tokens=tokens.unsqueeze(0),
        patch_lengths=lengths.unsqueeze(0),
        patch_starts=None if starts is None else starts.unsqueeze(0),
    )


def stack_rows(rows: Sequence[PatchedTokens]) -> PatchedTokens:
    """One batch of single rows, padded to the longest; where a row knows no patch starts, patches follow each other."""
    starts = [exclusive_cumsum(row.patch_lengths) if row.patch_starts is None else row.patch_starts for row in rows]
    return PatchedTokens(
        tokens=pad_rows([row.tokens[0] for row in rows], PAD_ID),
        patch_lengths=pad_rows([row.patch_lengths[0] for row in rows], 0),
        patch_starts=pad_rows([row[0] for row in starts], 0),
    )


def pad_rows(rows: Sequence[Tensor], value: int) -> Tensor:
    """Rows of unequal lengths side by side, `(batch, longest)` int64."""
    if not rows:
        return torch.zeros(0, 0, dtype=torch.int64)
    return pad_sequence(list(rows), batch_first=True, padding_value=value)


def _relative_starts(boundaries: Any, count: int, offset: int) -> Tensor:
    try:
        starts = torch.as_tensor(boundaries)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PatchingError(f"boundaries: expected (num_patches,) integers, {error}") from None
    if starts.numel() and (starts.is_floating_point() or starts.dtype is torch.bool):
        raise PatchingError(f"boundaries: expected (num_patches,) integers, got {starts.dtype}")
    starts = starts.long().flatten().cpu()
    if len(starts) != count:
        raise PatchingError(f"boundaries: expected one start for each of {count} patches, got {len(starts)}")
    if count and int(starts[0]) not in (0, offset):
        raise PatchingError(f"boundaries: expected the first to be 0 or the offset {offset}, got {int(starts[0])}")
    if bool((starts.diff() <= 0).any()):
        raise PatchingError("boundaries: expected ascending starts; sort the patches by position")
    return starts - starts[:1] if count else starts
