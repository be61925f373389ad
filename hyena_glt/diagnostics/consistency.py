"""Checks of patches and outputs that need no second forward, and what a check gives.

sequence, patches, boundaries, output -> CheckResult by name
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import PatchingError
from hyena_glt.model.outputs import HyenaGLTOutput
from hyena_glt.model.sources import encode_piece
from hyena_glt.positions.position_info import PositionInfo, exclusive_cumsum


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found; true unless it failed."""

    name: str
    passed: bool | None  # None: it does not apply here
    found: str  # what was looked at and what it was; in a failure also what was expected

    def __bool__(self) -> bool:
        return self.passed is not False

    def __str__(self) -> str:
        return f"{VERDICTS[self.passed]}: {self.found}"


VERDICTS = {True: "passed", False: "FAILED", None: "does not apply"}


@dataclass(frozen=True, slots=True, eq=False)
class Patching:
    """A sequence and its patches, as they are to be checked."""

    tokens: Tensor  # (length,) int64 byte tokens
    pieces: list[Tensor] | None  # tokens of each patch; None where lengths alone were given
    lengths: Tensor  # (num_patches,) int64
    boundaries: Tensor  # (num_patches,) int64, 0-based
    num_next: int = 0  # tokens after the sequence that the patches cover as well
    keeps_delimiters: bool = True
    overlaps: bool = False

    @classmethod
    def read(
        cls,
        sequence: Any,
        patches: Any,
        boundaries: Any,
        *,
        include_next_token: bool = False,
        keeps_delimiters: bool = True,
        overlaps: bool = False,
    ) -> Patching:
        """From what a patcher gave.

        Args:
            sequence: str, bytes or 1-D tokens.
            patches: Pieces, each a str, bytes or 1-D tokens; or `(num_patches,)` integers, their lengths.
            boundaries: `(num_patches,)` integers.
            include_next_token: The patches cover one token after the sequence.
            keeps_delimiters: The pieces hold every token of their patch.
            overlaps: Neighbouring patches may share tokens.

        Raises:
            PatchingError: Something that is none of these.
        """
        pieces = None
        if isinstance(patches, Tensor):
            lengths = patches.flatten()
            if lengths.is_floating_point() or lengths.dtype is torch.bool:
                raise PatchingError(f"patches: expected pieces or (num_patches,) integer lengths, got {lengths.dtype}")
            lengths = lengths.cpu().long()
        elif isinstance(patches, Sequence) and not isinstance(patches, str | bytes):
            pieces = [encode_piece(piece).cpu() for piece in patches]
            lengths = torch.tensor([len(piece) for piece in pieces], dtype=torch.int64)
        else:
            raise PatchingError(f"patches: expected a list of pieces or their lengths, got {type(patches).__name__}")
        starts = torch.as_tensor(boundaries)
        if starts.numel() and (starts.is_floating_point() or starts.dtype is torch.bool):
            raise PatchingError(f"boundaries: expected (num_patches,) integers, got {starts.dtype}")
        return cls(
            tokens=encode_piece(sequence).cpu(),
            pieces=pieces,
            lengths=lengths,
            boundaries=starts.flatten().cpu().long(),
            num_next=int(include_next_token),
            keeps_delimiters=keeps_delimiters,
            overlaps=overlaps,
        )


def check_lengths(patching: Patching) -> CheckResult:
    """The patches cover every token once: their lengths sum to the tokens, and the next one where it is included."""
    name = "length_consistency"
    if not patching.keeps_delimiters:
        return CheckResult(name, None, "the patcher leaves delimiters out of the pieces, so they cover less")
    expected = len(patching.tokens) + patching.num_next
    lengths, starts = patching.lengths, patching.boundaries
    covered = int(lengths.sum())
    if patching.overlaps and len(starts) == len(lengths) and len(lengths):
        covered = int(starts.diff().minimum(lengths[:-1]).sum() + lengths[-1])
    empty = int((lengths < 1).sum())
    text = f"{len(lengths)} patches cover {covered} tokens of {expected}"
    text += ", the next token included" * patching.num_next + f"; {empty} patches are empty" * (empty > 0)
    return CheckResult(name, covered == expected and not empty, text)


def check_boundaries(patching: Patching) -> CheckResult:
    """There is one start for each patch, the first is 0, they rise, and each patch ends where the next starts."""
    name, starts, lengths = "boundary_consistency", patching.boundaries, patching.lengths
    if len(starts) != len(lengths):
        return CheckResult(name, False, f"{len(starts)} boundaries for {len(lengths)} patches")
    if not len(starts):
        return CheckResult(name, not len(patching.tokens), "no patch")
    if int(starts[0]) != 0:
        return CheckResult(name, False, f"the first boundary is {int(starts[0])}, expected 0")
    steps = starts.diff()
    if bool((steps <= 0).any()):
        at = int((steps <= 0).nonzero()[0]) + 1
        return CheckResult(name, False, f"boundary {at} is {int(starts[at])}, after {int(starts[at - 1])}")
    gaps = steps - lengths[:-1]
    wrong = gaps > 0 if patching.overlaps else gaps != 0
    if patching.keeps_delimiters and bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        ends = int(starts[at] + lengths[at])
        return CheckResult(name, False, f"patch {at} ends at {ends}, the next starts at {int(starts[at + 1])}")
    return CheckResult(name, True, f"{len(starts)} boundaries rise from 0 to {int(starts[-1])}")


def check_content(patching: Patching) -> CheckResult:
    """Every piece is what the sequence holds at its boundary."""
    name = "content_consistency"
    if patching.pieces is None or not patching.keeps_delimiters:
        return CheckResult(name, None, "the pieces are not the whole sequence, or lengths alone were given")
    for index, (piece, start) in enumerate(zip(patching.pieces, patching.boundaries.tolist(), strict=False)):
        if not torch.equal(patching.tokens[start : start + len(piece)], piece[: len(piece) - _beyond(patching, index)]):
            return CheckResult(name, False, f"piece {index} is not the sequence from {start} on")
    return CheckResult(name, True, f"{len(patching.pieces)} pieces are those of the sequence")


def _beyond(patching: Patching, index: int) -> int:
    return patching.num_next if index == len(patching.lengths) - 1 else 0


def check_shapes(patching: Patching, output: HyenaGLTOutput, config: HyenaGLTConfig) -> CheckResult:
    """One state per patch, one row of logits per token, of the widths of the configuration, for these very patches."""
    patches, tokens = len(patching.lengths), int(patching.lengths.sum())
    expected = {
        "last_hidden_state": (1, patches, config.hidden_size),
        "byte_hidden_state": (1, tokens, config.local_hidden_size),
        "logits": (1, tokens, config.vocab_size),
        "patch_lengths": (1, patches),
    }
    for part, shape in expected.items():
        got = tuple(getattr(output, part).shape)
        if got != shape:
            return CheckResult("shape_consistency", False, f"{part} is {got}, expected {shape}")
    if output.patch_lengths[0].tolist() != patching.lengths.tolist():
        return CheckResult("shape_consistency", False, "the output's patch lengths are not those of the patches")
    return CheckResult("shape_consistency", True, f"{patches} patch states, {tokens} byte states and rows of logits")


def check_finite(output: HyenaGLTOutput) -> CheckResult:
    """No NaN and no infinity in states and logits."""
    for part in ("last_hidden_state", "byte_hidden_state", "logits"):
        bad = ~getattr(output, part).detach().isfinite()
        if bool(bad.any()):
            place = tuple(int(index) for index in bad.nonzero()[0])
            return CheckResult("finite_values", False, f"{part}: {int(bad.sum())} values not finite, first at {place}")
    return CheckResult("finite_values", True, "all states and logits are finite")


def check_positions(patching: Patching, output: HyenaGLTOutput, offset: int = 0) -> CheckResult:
    """Every token has its own position on the contig: offset + boundary + place in the patch."""
    name = "position_tracking"
    positions = output.patch_info.get("global_positions")
    if positions is None:
        return CheckResult(name, None, "the output was asked to leave positions out")
    if len(patching.boundaries) != len(patching.lengths):
        return CheckResult(name, False, "no boundary for each patch, so no position can be told")
    within = torch.arange(int(patching.lengths.sum())) - exclusive_cumsum(patching.lengths[None])[0].repeat_interleave(
        patching.lengths
    )
    expected = patching.boundaries.repeat_interleave(patching.lengths) + within + offset
    got = positions.cpu().flatten()
    if got.shape != expected.shape:
        return CheckResult(name, False, f"{len(got)} positions for {len(expected)} tokens")
    wrong = got != expected
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        text = f"{int(wrong.sum())} of {len(got)} positions differ; token {at} has {int(got[at])}"
        return CheckResult(name, False, f"{text}, expected {int(expected[at])}")
    return CheckResult(name, True, f"{len(got)} positions, from {offset} on" if len(got) else "no token")


def check_round_trip(output: HyenaGLTOutput) -> CheckResult:
    """Patch lengths -> patch of each token and place in it -> the same tokens and the same patch lengths."""
    name, info = "position_round_trip", output.positions
    length = info.patch_ids.shape[1]
    derived = PositionInfo.from_patch_lengths(info.patch_lengths, 0, length)
    for part in ("patch_ids", "offsets", "relative_positions"):
        got, expected = getattr(info, part), getattr(derived, part)
        if got.shape != expected.shape or not torch.equal(got, expected):
            return CheckResult(name, False, f"{part} do not follow from the patch lengths")
    ids = info.patch_ids.clamp_max(max(info.patch_lengths.shape[1] - 1, 0))
    index = (info.patch_starts.gather(1, ids) if ids.numel() and info.patch_lengths.shape[1] else ids) + info.offsets
    tokens = torch.arange(length, device=index.device).expand_as(index)
    if not torch.equal(index[info.mask], tokens[info.mask]):
        return CheckResult(name, False, "start of the patch + place in it is not the token's own index")
    return CheckResult(name, True, f"{length} tokens -> {int(info.patch_mask.sum())} patches -> the same tokens")
