"""Windows of contigs -> positions on the contigs: offsets that survive the edges of windows.

positions(patch_lengths) of the window that begins here, then advance(length, overlap=...) to the next
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hyena_glt.errors import PatchingError
from hyena_glt.positions.position_info import PositionInfo

LARGEST_POSITION = 2**63 - 1


@dataclass(slots=True)
class _Place:
    start: int  # position of the next window's first base
    end: int  # position after the last base that a window has covered


class PositionTracker:
    """Knows where the next window of each contig begins, and how much of it earlier windows covered.

    Positions are 0-based. A contig begins at 0, or where `begin` puts it, and each has its own place, so that windows
    of several contigs may come in any order.

    Args:
        contig: The contig that is meant where a method names none, until `begin` or `advance` names another.

    Example:
        >>> tracker = PositionTracker()
        >>> tracker.advance(1000, overlap=100)
        0
        >>> tracker.position, tracker.num_covered
        (900, 100)
        >>> tracker.positions(torch.tensor([2, 1])).global_positions.tolist()
        [[900, 901, 902]]
    """

    def __init__(self, contig: str = "") -> None:
        self._places: dict[str, _Place] = {}
        self._contig = contig

    @property
    def contig(self) -> str:
        """The contig that is meant where a method names none."""
        return self._contig

    @property
    def contigs(self) -> list[str]:
        """Every contig begun so far, in order."""
        return list(self._places)

    @property
    def position(self) -> int:
        """Position of the next window's first base."""
        return self._place(self._contig).start

    @property
    def end(self) -> int:
        """Position after the last base that a window has covered."""
        return self._place(self._contig).end

    @property
    def num_covered(self) -> int:
        """How many of the next window's first bases earlier windows covered: leave them out, and none is doubled."""
        place = self._place(self._contig)
        return place.end - place.start

    def begin(self, contig: str, position: int = 0) -> None:
        """Go to a contig that has not begun yet, whose first window starts at `position`.

        Raises:
            PatchingError: It has begun, or the position is negative or beyond 63 bits.
        """
        if contig in self._places:
            raise PatchingError(f"contig: expected one that has not begun, got {contig!r}; reset it first")
        if not 0 <= position <= LARGEST_POSITION:
            raise PatchingError(f"position: expected 0 to 2^63 - 1, got {position}")
        self._places[contig] = _Place(position, position)
        self._contig = contig

    def advance(self, length: int, *, overlap: int = 0, contig: str | None = None) -> int:
        """Leave a window behind.

        Args:
            length: Its bases.
            overlap: How many of its last bases the next window shows again; less than `length`.
            contig: Which contig it is of; None: the same as before.

        Returns:
            The position of its first base.

        Raises:
            PatchingError: A negative length, or an overlap that the window does not have or that leaves no way forward.
        """
        if length < 0 or not 0 <= overlap < max(length, 1):
            raise PatchingError(
                f"overlap, length: expected 0 <= overlap < length, got {overlap} and {length}; "
                "windows that share all their bases never end"
            )
        self._contig = self._contig if contig is None else contig
        place = self._place(self._contig)
        if place.start + length > LARGEST_POSITION:
            raise PatchingError(f"length: expected positions below 2^63, got {place.start} + {length}")
        first = place.start
        last = first + length
        self._places[self._contig] = _Place(last - overlap, max(place.end, last))
        return first

    def positions(
        self, patch_lengths: Tensor, contig: str | Sequence[str] | None = None, starts: Tensor | None = None
    ) -> PositionInfo:
        """Where the tokens of the next window sit; the tracker does not move.

        Args:
            patch_lengths: `(num_patches,)` or `(batch, num_patches)` integers, right-padded with 0.
            contig: Which contig the window is of, or one name for each row; None: the same as before.
            starts: As in `PositionInfo.from_patch_lengths`, for patches that overlap.

        Raises:
            PatchingError: A contig for more than one row, as they would share their positions, or wrong lengths.
        """
        if patch_lengths.ndim == 1:
            patch_lengths = patch_lengths.unsqueeze(0)
            starts = starts if starts is None else starts.view(1, -1)
        contig = self._contig if contig is None else contig
        names = [contig] if isinstance(contig, str) else list(contig)
        if patch_lengths.ndim == 2 and (len(names) != len(patch_lengths) or len(set(names)) != len(names)):
            raise PatchingError(
                f"contig: expected a different contig for each of {len(patch_lengths)} rows, got {names}; "
                "windows of one contig come one after the other"
            )
        offsets = torch.tensor([self._place(name).start for name in names], dtype=torch.int64)
        return PositionInfo.from_patch_lengths(patch_lengths, offsets.to(patch_lengths.device), starts=starts)

    def reset(self, contig: str | None = None) -> None:
        """Forget where one contig is, or all of them: it begins at 0 again."""
        if contig is None:
            self._places.clear()
        else:
            self._places.pop(contig, None)

    def _place(self, contig: str) -> _Place:
        return self._places.get(contig, _Place(0, 0))
