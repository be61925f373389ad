"""Regions -> windows of equal length, those of mostly N left out, and which of their bases are learned.

Regions -> WindowTable -> WindowLoader
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.model.masked_bytes import letter_mask
from hyena_glt.sequences.alphabets import Alphabet, get_alphabet
from hyena_glt.training.corpus import Regions

SHORTEST = 2  # bases; a shorter window has nothing to predict


class WindowTable:
    """Windows side by side over each region, from its first base to its last.

    The last window of a region ends with it and may be shorter; a region that is shorter than a window is one. With
    `stride=None` each base of the regions is in exactly one window, unless that one is left out.

    Args:
        regions: Where windows may lie; none reaches beyond its region.
        window: Bases, at least 2.
        stride: Bases from the start of one window to the next; None: `window`.
        max_ambiguous_share: Windows with a larger share of N and other ambiguity symbols are left out.

    Raises:
        ConfigError: A number out of range.
        DataError: No window is left.

    Example:
        >>> from hyena_glt.training import Corpus
        >>> table = WindowTable(Regions.whole(Corpus.from_sequences({"a": "ACGTNNNNNNAC"})), 5)
        >>> table.windows.tolist(), table.num_left_out
        ([[0, 0, 5], [0, 10, 12]], 1)
    """

    windows: NDArray[np.int64]  # (windows, 3): contig, 0-based start, end
    num_left_out: int  # windows, for their ambiguity symbols or because they are shorter than 2 bases
    num_bases_left_out: int  # of those windows

    def __init__(
        self,
        regions: Regions,
        window: int,
        stride: int | None = None,
        max_ambiguous_share: float = 0.5,
    ) -> None:
        stride = window if stride is None else stride
        if window < SHORTEST or stride < 1:
            raise ConfigError(
                f"window, stride: expected at least {SHORTEST} bases and 1 base, got {window} and {stride}"
            )
        if not 0 <= max_ambiguous_share <= 1:
            raise ConfigError(f"max_ambiguous_share: expected a share in [0, 1], got {max_ambiguous_share}")
        self.corpus, self.regions = regions.corpus, regions
        self.window, self.stride, self.max_ambiguous_share = window, stride, max_ambiguous_share
        every = tile(regions.spans, window, stride)
        lengths = every[:, 2] - every[:, 1]
        first = self.corpus.starts[every[:, 0]]
        ambiguous = self.corpus.count_ambiguous(first + every[:, 1], first + every[:, 2])
        is_kept = (ambiguous <= max_ambiguous_share * lengths) & (lengths >= SHORTEST)
        self.windows = every[is_kept]
        self.num_left_out = len(every) - len(self.windows)
        self.num_bases_left_out = int(lengths[~is_kept].sum())
        if not len(self.windows):
            raise DataError(
                f"no window is left: {self.num_left_out} of {len(every)} are mostly ambiguity symbols (share above "
                f"{max_ambiguous_share}) or shorter than {SHORTEST} bases; raise max_ambiguous_share or give more "
                "sequence"
            )

    def __len__(self) -> int:
        return len(self.windows)

    def __repr__(self) -> str:
        return f"WindowTable({len(self)} windows of {self.window} bases, {self.num_left_out} left out)"

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bases of each window, `(windows,)`."""
        return self.windows[:, 2] - self.windows[:, 1]

    def moved(self, ids: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
        """Some of the windows, `shift` bases nearer to the end of their region, or at its end where that is nearer.

        Args:
            ids: `(n,)` rows of the table.
            shift: Bases, from 0 on.

        Returns:
            `(n, 3)` int64 contig, start, end; lengths stay.
        """
        windows = self.windows[ids]
        spans = self.regions.spans
        first = self.corpus.starts
        span = np.searchsorted(first[spans[:, 0]] + spans[:, 1], first[windows[:, 0]] + windows[:, 1], side="right") - 1
        moves = np.minimum(shift, spans[span, 2] - windows[:, 2])
        windows[:, 1:] += moves[:, None]
        return windows

    @property
    def num_bases(self) -> int:
        """Bases of all windows; with a stride below the window some count more than once."""
        return int(self.lengths.sum())

    @property
    def sha256(self) -> str:
        """Hash of the corpus and the windows, 64 hexadecimal digits."""
        digest = hashlib.sha256(self.corpus.sha256.encode())
        digest.update(np.ascontiguousarray(self.windows, "<i8").tobytes())
        return digest.hexdigest()


def tile(spans: NDArray[np.int64], window: int, stride: int) -> NDArray[np.int64]:
    """Every window of each span, `(windows, 3)` int64; a window begins only where it reaches something new.

    Args:
        spans: `(spans, 3)` contig, start, end.
        window: Bases.
        stride: Bases from one start to the next.
    """
    lengths = spans[:, 2] - spans[:, 1]
    shared = max(window - stride, 0)
    counts = np.where(lengths > 0, np.maximum(-(-(lengths - shared) // stride), 1), 0)
    span = np.repeat(np.arange(len(spans)), counts)
    place = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    starts = spans[span, 1] + place * stride
    return np.stack([spans[span, 0], starts, np.minimum(starts + window, spans[span, 2])], axis=1)


def learned_targets(tokens: Tensor, alphabet: str | Alphabet = "dna") -> Tensor:
    """Which tokens are worth predicting: False at N, other ambiguity symbols, special ids and padding.

    Args:
        tokens: `(batch, length)` byte tokens, rows padded with -1 at the end.
        alphabet: What letters are, either case; with `"bytes"` every byte is one.

    Returns:
        `(batch, length)` bool, on the device of the tokens.

    Example:
        >>> import torch
        >>> learned_targets(torch.tensor([[69, 82, 75, -1]])).tolist()  # A N G and padding
        [[True, False, True, False]]
    """
    return letter_mask(tokens, get_alphabet(alphabet))
