"""What one forward gives back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from hyena_glt.positions.position_info import PositionInfo


@dataclass(frozen=True, kw_only=True, eq=False)
class HyenaGLTOutput:
    """States, predictions and positions of a batch. Padding holds zeros."""

    last_hidden_state: Tensor  # (batch, num_patches, hidden), trunk states as the bytes read them
    byte_hidden_state: Tensor  # (batch, length, local)
    logits: Tensor  # (batch, length, vocab); causal: row i predicts token i + 1; otherwise token i
    positions: PositionInfo
    loss: Tensor | None = None  # nats per predicted token, plus the weighted ratio loss where the net cut itself
    debug: dict[str, Any] = field(default_factory=dict)  # stage -> shape, mean_abs, finite; with debug_mode
    with_position_info: bool = True
    ratio_loss: Tensor | None = None  # scalar; only where the net cut by itself
    boundary_probabilities: Tensor | None = None  # (batch, length), of a start at each token; learned boundaries only
    known_starts: Tensor | None = None  # (batch, length) bool, as the forward used them; None: all known
    next_starts_patch: Tensor | None = None  # (batch,) bool, as the forward used it; None: unknown

    @property
    def patch_lengths(self) -> Tensor:
        """`(batch, num_patches)` int64, tokens per patch, right-padded with 0."""
        return self.positions.patch_lengths

    @property
    def compression_ratio(self) -> float:
        """Tokens divided by patches over the batch, padding left out; 0.0 for an empty batch."""
        num_patches = int(self.positions.patch_mask.sum())
        return int(self.patch_lengths.sum()) / num_patches if num_patches else 0.0

    @property
    def boundaries(self) -> list[Tensor]:
        """Per row: `(num_patches,)` int64, global position of each patch's first token."""
        first = self.positions.offsets == 0
        rows = zip(self.positions.global_positions, first & self.positions.mask, strict=True)
        return [positions[starts] for positions, starts in rows]

    def row(self, index: int) -> HyenaGLTOutput:
        """The output of one sequence of the batch, `(1, ...)` without padding or losses, in memory of its own."""
        patches, tokens = int(self.positions.patch_mask[index].sum()), int(self.patch_lengths[index].sum())

        def cut(values: Tensor, length: int) -> Tensor:
            return values[index : index + 1, :length].clone()

        places = ("patch_ids", "offsets", "global_positions", "relative_positions")
        known, following, probabilities = self.known_starts, self.next_starts_patch, self.boundary_probabilities
        return replace(
            self,
            last_hidden_state=cut(self.last_hidden_state, patches),
            byte_hidden_state=cut(self.byte_hidden_state, tokens),
            logits=cut(self.logits, tokens),
            positions=PositionInfo(
                patch_lengths=cut(self.patch_lengths, patches),
                **{name: cut(getattr(self.positions, name), tokens) for name in places},
            ),
            loss=None,
            ratio_loss=None,
            boundary_probabilities=None if probabilities is None else cut(probabilities, tokens),
            known_starts=None if known is None else cut(known, tokens),
            next_starts_patch=None if following is None else following[index : index + 1].clone(),
        )

    @property
    def patch_info(self) -> dict[str, Any]:
        """`patch_lengths` and `boundaries`, and unless switched off `global_positions`, `relative_positions`.

        `boundaries` is one tensor for a batch of one sequence, else a list of them.
        """
        boundaries = self.boundaries
        info = {
            "patch_lengths": self.patch_lengths,
            "boundaries": boundaries[0] if len(boundaries) == 1 else boundaries,
        }
        if self.with_position_info:
            info["global_positions"] = self.positions.global_positions
            info["relative_positions"] = self.positions.relative_positions
        return info


def describe(tensor: Tensor) -> dict[str, Any]:
    """Shape, mean absolute value, and whether all values are finite."""
    values = tensor.detach().float()
    mean_abs = float(values.abs().mean()) if values.numel() else 0.0
    return {"shape": tuple(tensor.shape), "mean_abs": mean_abs, "finite": bool(values.isfinite().all())}
