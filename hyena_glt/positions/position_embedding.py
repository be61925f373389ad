"""PositionInfo -> vectors.

`SegmentAwarePositionalEncoding` describes tokens of *complete* patches: it reads the patch length and
the relative position, which are unknown while a patch is open. `OffsetEncoding` is what a causal model
may know earlier: the number of tokens since the start of the patch, and the token's own position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.ops.shifted_sum import compiled_loops_read
from hyena_glt.positions.feature_loops import fill_features
from hyena_glt.positions.position_info import PositionInfo

GENOMIC_PERIODS = (Fraction(3), Fraction(21, 2), Fraction(21), Fraction(147))
GENOMIC_CYCLE = 147  # bases after which all genomic periods have come round
CODON = 3  # bases


def period_phases(positions: Tensor, periods: Sequence[Fraction]) -> Tensor:
    """Fraction of each period that has passed at a position.

    The position is reduced modulo the period in integers first, so the phase loses no digits on a long
    contig: it is as exact at position 2^40 as at 0. A period of 21/2 is 21 half-steps.

    Args:
        positions: `(...)` int64.
        periods: Positive fractions whose terms are below 2^31.

    Returns:
        `(..., len(periods))` float32 in [0, 1).
    """
    numerators = torch.tensor([period.numerator for period in periods], device=positions.device)
    denominators = torch.tensor([period.denominator for period in periods], device=positions.device)
    reduced = positions.unsqueeze(-1) % numerators  # first, so that the product cannot overflow
    return (reduced * denominators % numerators).float() / numerators


def waves(phases: Tensor) -> Tensor:
    """Sine and cosine of each phase: `(..., 2 * periods)`."""
    angles = phases * (2 * math.pi)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class SegmentAwarePositionalEncoding(nn.Module):
    """Vectors of global position, patch length and relative position, mixed by a learned map.

    The global position enters as sines and cosines of its phase in the genomic periods 3 (codon), 10.5
    (turn of the helix), 21 (two turns) and 147 bases (nucleosome), and of the scales 4, 16, 64, ...

    Args:
        dim: Width of the vectors.
        num_scales: How many scales; 16 of them reach 2^32 bases.

    Example:
        >>> info = PositionInfo.from_patch_lengths(torch.tensor([[2, 3]]))
        >>> SegmentAwarePositionalEncoding(8)(info).shape
        torch.Size([1, 5, 8])
    """

    genomic_waves: Tensor
    scales: Tensor

    def __init__(self, dim: int, num_scales: int = 16) -> None:
        super().__init__()
        cycle = waves(period_phases(torch.arange(GENOMIC_CYCLE), GENOMIC_PERIODS))
        self.register_buffer("genomic_waves", cycle, persistent=False)  # (147, 8): a table is faster than 4 moduli
        self.register_buffer("scales", 4 ** torch.arange(1, num_scales + 1), persistent=False)
        self.mix = nn.Linear(cycle.shape[1] + 2 * num_scales + 2, dim)

    def features(self, info: PositionInfo) -> Tensor:
        """What is mixed: waves, log2 of the patch length, relative position; `(batch, length, features)`."""
        positions = info.global_positions
        if compiled_loops_read(info.relative_positions, self.genomic_waves):
            features = info.relative_positions.new_empty(*positions.shape, self.mix.in_features)
            fill_features(
                features.flatten(0, 1).numpy(),
                positions.reshape(-1).numpy(),
                info.token_patch_lengths.reshape(-1).numpy(),
                info.relative_positions.reshape(-1).numpy(),
                self.genomic_waves.numpy(),
                self.scales.numpy(),
            )
            return features
        reduced = positions.unsqueeze(-1) & (self.scales - 1)  # modulo a power of 4, exact at any position
        log_length = (info.token_patch_lengths + 1).float().log2() / 8
        within = torch.stack([log_length, info.relative_positions], dim=-1)
        cycle = F.embedding(positions % GENOMIC_CYCLE, self.genomic_waves)
        return torch.cat([cycle, waves(reduced.float() / self.scales), within], dim=-1)

    def forward(self, info: PositionInfo) -> Tensor:
        """`(batch, length, dim)`; for complete patches only, since it knows where they end."""
        return self.mix(self.features(info).to(self.mix.weight.dtype))


class OffsetEncoding(nn.Module):
    """A learned vector for the tokens since the start of the patch: exact to 32, logarithmic beyond.

    Args:
        dim: Width of the vectors.
        period: Another vector for the global position modulo this many bases is added; 1: none.
    """

    EXACT = 32
    PER_DOUBLING = 4
    ROWS = EXACT + 64

    def __init__(self, dim: int, period: int = 1) -> None:
        super().__init__()
        self.period = period
        self.table = nn.Embedding(self.ROWS, dim)
        nn.init.normal_(self.table.weight, std=0.02)
        self.frames = nn.Embedding(period, dim) if period > 1 else None
        if self.frames is not None:
            nn.init.normal_(self.frames.weight, std=dim**-0.5)  # as long as the vector of a letter

    def bucket(self, offsets: Tensor) -> Tensor:
        """The row of the table for each offset, int64."""
        doublings = (offsets.clamp_min(self.EXACT).float() / self.EXACT).log2()
        coarse = self.EXACT + (doublings * self.PER_DOUBLING).long()
        return torch.where(offsets < self.EXACT, offsets, coarse.clamp_max(self.ROWS - 1))

    def rows(self, offsets: Tensor, positions: Tensor) -> Tensor:
        """The row of `vectors()` for each offset and global position, int64."""
        return self.bucket(offsets) * self.period + positions % self.period

    def vectors(self) -> Tensor:
        """All vectors there are: `(ROWS * period, dim)`."""
        if self.frames is None:
            return self.table.weight
        return (self.table.weight.unsqueeze(1) + self.frames.weight).flatten(0, 1)

    def forward(self, info: PositionInfo) -> Tensor:
        """`(batch, length, dim)`; causal."""
        vectors = self.table(self.bucket(info.offsets))
        return vectors if self.frames is None else vectors + self.frames(info.global_positions % self.period)
