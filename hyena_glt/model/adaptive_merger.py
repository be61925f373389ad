"""Byte states -> patch boundaries that are learned with the net, in place of a patcher (H-Net, arXiv:2507.07955).

A token starts a patch where its state differs from the state before it. The cut itself is a yes or no, so the
gradient takes two other ways to the probabilities: the patch states are smoothed by the certainty of their
start, and what a byte reads of them is weighted by the certainty of the decision about that byte (1 in the
forward pass, straight through in the backward pass). A ratio loss draws the mean length to a target.

Unlike a patcher's, a start is decided by the token that starts: the byte before it does not know of it, and
reads the patch's state one byte later. Only a start that the cap forces is known in advance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.model.inputs import PatchedTokens, check_tokens
from hyena_glt.model.sources import Piece, encode_rows
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.patch_lengths import lay_out_rows, patch_lengths_from_start_mask, split_large_numbers
from hyena_glt.patching.pieces import Pieces, cut_pieces
from hyena_glt.positions.position_info import PositionInfo, patch_ids_from_lengths
from hyena_glt.tokens.byte_tokenizer import PAD_ID

if TYPE_CHECKING:
    from hyena_glt.model.hyena_glt import HyenaGLT

SMOOTHING_WINDOW = 64  # patches; weights are at least 1/2, so what lies further back counts for less than 2^-64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LearnedCut:
    """Where a merger cut a batch."""

    patch_lengths: Tensor  # (batch, num_patches) int64, right-padded with 0
    known_starts: Tensor  # (batch, length) bool, False at a start that its own token decided
    next_starts_patch: Tensor  # (batch,) bool, True where the cap forces the token after the row to start a patch


class AdaptiveTokenMerger(nn.Module):
    """Boundaries from the dissimilarity of neighbouring byte states.

    p_t = (1 - cos(q_t, k_{t-1})) / 2 with q and k linear in the normalised states, p_0 = 1; a patch starts where
    p_t >= 1/2. Unlike the paper, the states are normalised and q and k have a bias, so that the mean of the
    probabilities can move without turning the states.

    Args:
        dim: Width of the byte states.
        target_patch_length: Tokens, > 1; the mean length at which the ratio loss is smallest.
        min_patch_length: Tokens; a start is ignored while the open patch is shorter.
        max_patch_length: Tokens; a longer patch is cut.

    Raises:
        ConfigError: A target of at most 1 token, a limit below 1, or a minimum above the cap.

    Example:
        >>> merger = AdaptiveTokenMerger(8, target_patch_length=4, max_patch_length=6)
        >>> mask = torch.ones(1, 10, dtype=torch.bool)
        >>> cut = merger.cut(merger(torch.randn(1, 10, 8), mask), mask)
        >>> int(cut.patch_lengths.sum())
        10
    """

    def __init__(
        self,
        dim: int,
        target_patch_length: float = 16.0,
        min_patch_length: int | None = None,
        max_patch_length: int | None = None,
    ) -> None:
        super().__init__()
        self.target_patch_length = target_patch_length
        self.shortest, self.cap = min_patch_length or 1, max_patch_length
        if not target_patch_length > 1 or self.shortest < 1 or self.shortest > (self.cap or self.shortest):
            raise ConfigError(
                "expected target_patch_length > 1 and 1 <= min_patch_length <= max_patch_length, got "
                f"{target_patch_length:g}, {min_patch_length} and {max_patch_length}"
            )
        self.norm = nn.LayerNorm(dim, bias=False)
        self.to_query = nn.Linear(dim, dim)
        self.to_key = nn.Linear(dim, dim)
        for layer in (self.to_query, self.to_key):
            nn.init.eye_(layer.weight)  # the states themselves are compared at first, as in the paper
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Probability that each token starts a patch.

        Always in the precision of the weights, whatever autocast says: a boundary jumps where the probability
        passes 1/2.

        Args:
            x: `(batch, length, dim)` byte states.
            mask: `(batch, length)` bool, False in padding.

        Returns:
            `(batch, length)` in [0, 1]; 1 at the first token of a row, 0 in padding.
        """
        with torch.autocast(x.device.type, enabled=False):
            states = self.norm(x.to(self.to_query.weight.dtype))
            query, key = F.normalize(self.to_query(states), dim=-1), F.normalize(self.to_key(states), dim=-1)
            before = torch.cat([key[:, :1], key[:, :-1]], dim=1)
            probabilities = ((1 - (query * before).sum(-1)) / 2).clamp(0, 1)
        first = torch.arange(x.shape[1], device=x.device) == 0
        return probabilities.masked_fill(first, 1.0).masked_fill(~mask, 0.0)

    @torch.no_grad()
    def cut(self, probabilities: Tensor, mask: Tensor) -> LearnedCut:
        """Start patches at probabilities of at least 1/2, within the limits; the cap always wins.

        Args:
            probabilities: `(batch, length)`, as `forward` gives them.
            mask: `(batch, length)` bool, False in padding, which is at the ends of rows.
        """
        lengths = self._lengths(probabilities >= 0.5, mask.sum(1))
        ids = patch_ids_from_lengths(lengths, mask.shape[1])
        starts = mask & (ids != F.pad(ids, (1, 0), value=-1)[:, :-1])
        is_full = F.pad(lengths == (self.cap or -1), (1, 1))  # (batch, num_patches + 2): entry p + 1 is patch p
        last = (lengths > 0).sum(1, keepdim=True)
        return LearnedCut(
            patch_lengths=lengths,
            known_starts=~starts | (ids == 0) | is_full.gather(1, ids),
            next_starts_patch=is_full.gather(1, last).squeeze(1),
        )

    def ratio_loss(self, probabilities: Tensor, patch_lengths: Tensor) -> Tensor:
        """How far the cuts are from the target length: H-Net's ratio loss, over all tokens of the batch.

        With F the share of tokens that start a patch and G the mean probability, N/(N-1) ((N-1) F G + (1-F)(1-G)).
        It falls with G while patches are too short and rises with it while they are too long; it is 1 at the
        target, where F = G = 1/N. F is of the cuts made, limits included, and has no gradient.

        Args:
            probabilities: `(batch, length)`, 0 in padding.
            patch_lengths: `(batch, num_patches)` int64.

        Returns:
            A scalar; 0 for an empty batch.
        """
        num_tokens = patch_lengths.sum()
        if not int(num_tokens):
            return probabilities.sum()
        target = self.target_patch_length
        share = (patch_lengths > 0).sum() / num_tokens
        mean = probabilities.sum() / num_tokens
        return target / (target - 1) * ((target - 1) * share * mean + (1 - share) * (1 - mean))

    def _lengths(self, starts: Tensor, row_lengths: Tensor) -> Tensor:
        """Patch lengths under the limits; only a minimum needs the tokens in order."""
        if not starts.numel():
            return starts.new_zeros((len(starts), 0), dtype=torch.int64)
        starts = starts | (torch.arange(starts.shape[1], device=starts.device) == 0)
        if self.shortest == 1:
            lengths = patch_lengths_from_start_mask(starts, row_lengths)
            return lengths if self.cap is None else split_large_numbers(lengths, self.cap)
        from hyena_glt.patching.batch_lengths import close_rows, no_columns  # brings numba
        from hyena_glt.patching.scan_kernels import NO_CAP

        ends = row_lengths.cpu().numpy()
        marks = np.ascontiguousarray(starts.cpu().numpy())
        nothing = no_columns(len(ends))
        patches = close_rows(marks, nothing, ends, self.shortest, self.cap or NO_CAP, nothing)
        flat, counts = (torch.from_numpy(part).to(starts.device) for part in patches)
        rows = torch.arange(len(counts), device=starts.device).repeat_interleave(counts)
        return lay_out_rows(flat, counts, rows, fill=0)


def start_weights(probabilities: Tensor, info: PositionInfo) -> Tensor:
    """How much of a patch's own state stays when it is smoothed: the probability of its start.

    A start that the probabilities did not choose (the cap, patches given by the caller) is certain.

    Args:
        probabilities: `(batch, length)`.
        info: Positions of the same tokens.

    Returns:
        `(batch, num_patches)` in [1/2, 1]; 1 in padding and at the first patch.
    """
    if not probabilities.shape[1]:
        return probabilities.new_ones(info.patch_lengths.shape)
    first_tokens = info.patch_starts.clamp_max(probabilities.shape[1] - 1)
    weights = probabilities.gather(1, first_tokens)
    return torch.where((weights >= 0.5) & info.patch_mask, weights, 1.0)


def smooth_states(states: Tensor, weights: Tensor) -> Tensor:
    """z_p = w_p s_p + (1 - w_p) z_{p-1}: a patch whose start was doubtful keeps some of the patches before it.

    By doubling: every step joins neighbouring stretches, six of them reach `SMOOTHING_WINDOW` patches back.

    Args:
        states: `(batch, num_patches, hidden)`.
        weights: `(batch, num_patches)` in [1/2, 1], 1 at the first patch.

    Returns:
        The shape and dtype of `states`.
    """
    keep = weights.to(states.dtype).unsqueeze(-1)
    smoothed, carried = states * keep, 1 - keep
    step = 1
    while step < min(states.shape[1], SMOOTHING_WINDOW):
        later = smoothed[:, step:] + carried[:, step:] * smoothed[:, :-step]
        smoothed = torch.cat([smoothed[:, :step], later], dim=1)
        carried = torch.cat([carried[:, :step], carried[:, step:] * carried[:, :-step]], dim=1)
        step *= 2
    return smoothed


def smooth_states_reference(states: Tensor, weights: Tensor) -> Tensor:
    """The definition of `smooth_states`, one patch after the other."""
    smoothed = [states[:, 0]]
    for patch in range(1, states.shape[1]):
        keep = weights[:, patch].unsqueeze(-1)
        smoothed.append(keep * states[:, patch] + (1 - keep) * smoothed[-1])
    return torch.stack(smoothed, dim=1)


def weigh_by_confidence(x: Tensor, bridged: Tensor, probabilities: Tensor, info: PositionInfo) -> Tensor:
    """`bridged`, with a gradient to how certain each byte's decision was.

    What a byte read is `bridged - x`. It is weighted by the probability of a start at a start, else by that of
    none; straight through, so the weight is 1 in the forward pass.

    Args:
        x: `(batch, length, dim)` byte states before the bridge.
        bridged: `(batch, length, dim)` after it.
        probabilities: `(batch, length)`.
        info: Positions of the bytes.

    Returns:
        `(batch, length, dim)`, equal to `bridged`.
    """
    confidence = torch.where(info.offsets == 0, probabilities, 1 - probabilities).to(bridged.dtype)
    return bridged + (confidence - confidence.detach()).unsqueeze(-1) * (bridged - x)


class LearnedPatcher:
    """A net's own boundaries behind the interface of a patcher.

    Args:
        net: A net with `boundaries="learned"`.

    Raises:
        ConfigError: The net has no merger.
    """

    overlap = 0

    def __init__(self, net: HyenaGLT) -> None:
        if net.merger is None:
            raise ConfigError("net: expected boundaries='learned', got a net that needs a patcher")
        self.net = net

    @property
    def is_causal(self) -> bool:
        """Whether a boundary depends on its token and the tokens before it alone."""
        return self.net.config.causal

    def patch(self, tokens: Piece | Sequence[Piece]) -> tuple[Tensor, Tensor | None]:
        """Cut rows.

        Args:
            tokens: `(batch, length)` byte tokens with PAD tails, a text, bytes, or a list of rows.

        Returns:
            `(batch, num_patches)` int64 patch lengths, and `(batch, length)` probabilities of a start.
        """
        rows, probabilities = self._probabilities(tokens)
        return cut_tokens(self.net.merger, rows, probabilities).patch_lengths, probabilities

    def patch_with_starts(self, tokens: Piece | Sequence[Piece]) -> PatchedTokens:
        """As `patch`, with the starts that the byte before could know of."""
        return cut_tokens(self.net.merger, *self._probabilities(tokens))

    def patch_with_boundaries(self, sequence: Piece) -> tuple[Pieces, Tensor]:
        """The pieces of one sequence, and where they begin; as `Patcher.patch_with_boundaries`.

        Raises:
            PatchingError: No str, bytes or 1-D tokens.
        """
        if isinstance(sequence, list | tuple):
            raise PatchingError("sequence: expected one str, bytes or 1-D tokens, got a list; use patch for many")
        return cut_pieces(sequence, self.patch([sequence])[0][0].cpu(), PatcherArgs())

    def _probabilities(self, tokens: Piece | Sequence[Piece]) -> tuple[Tensor, Tensor | None]:
        rows = encode_rows(tokens).to(self.net.device)
        check_tokens(rows)
        with torch.no_grad():
            return rows, self.net.encode_bytes(rows)[1]


def cut_tokens(merger: AdaptiveTokenMerger | None, tokens: Tensor, probabilities: Tensor | None) -> PatchedTokens:
    """Tokens `(batch, length)` with the patches that a merger gives them."""
    assert merger is not None
    assert probabilities is not None
    cut = merger.cut(probabilities, tokens != PAD_ID)
    return PatchedTokens(
        tokens=tokens,
        patch_lengths=cut.patch_lengths,
        known_starts=cut.known_starts,
        next_starts_patch=cut.next_starts_patch,
    )
