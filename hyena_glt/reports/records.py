"""What a report is made of: a track per contig, embeddings, and the facts of the run.

    patch lengths, entropies, features -> ContigTrack, Embeddings -> ReportData -> render_report

Coordinates are 0-based half-open. Features and ambiguous runs count from the start of the *contig*, the
arrays of a track from its `offset` on that contig.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError, PatchingError

if TYPE_CHECKING:
    from hyena_glt.sequences.annotations import Feature

TOTALS = ("contigs", "bases", "patches")


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How much detail one page carries; what exceeds it is summarised, and the page says so.

    The defaults keep the page of a whole chromosome below 3 MB. Shares of the contigs are even: what a contig
    does not need goes to the others.
    """

    contigs: int = 200  # contigs with a track of their own, largest first
    bins: int = 49_152  # overview bins in all
    patches: int = 500_000  # patches with their own length and score in all, from the start of each contig
    bases: int = 200_000  # bases with their own entropy in all, from the start of each contig
    base_contigs: int = 20  # contigs that share the bases, largest first
    features: int = 10_000  # annotated features in all, longest first
    runs: int = 5_000  # ambiguous runs in all, longest first
    points: int = 5_000  # embedded points, evenly spaced over those given

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ConfigError(f"budget.{name}: expected at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ContigTrack:
    """Patches and scores along one contig, or along the part of it that starts at `offset`.

    Raises:
        PatchingError: An array has the wrong shape or type, or the patches do not cover the track exactly.
    """

    name: str
    length: int  # bases of the track
    patch_lengths: NDArray[np.int64]  # (num_patches,), each at least 1, sums to `length`
    patch_scores: NDArray[np.float32]  # (num_patches,) mean surprise in nats per base; NaN where unknown
    entropies: NDArray[np.float32] | None = None  # (length,) nats, of the prediction made after each base
    offset: int = 0  # 0-based place of the first base on the contig
    features: Sequence[Feature] = ()
    ambiguous: NDArray[np.int64] | None = None  # (num_runs, 2) half-open runs of N, see `ambiguous_runs`

    def __post_init__(self) -> None:
        check_lengths(self)
        check_shape(self, "patch_scores", self.patch_lengths.shape)
        if self.entropies is not None:
            check_shape(self, "entropies", (self.length,))
        if self.ambiguous is not None:
            check_shape(self, "ambiguous", (len(self.ambiguous), 2))
            check_runs(self, self.ambiguous)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Embeddings:
    """Records as points in two dimensions.

    Raises:
        ConfigError: Labels, groups and points differ in number, or a point is not finite.
    """

    labels: Sequence[str]  # (n,)
    points: NDArray[np.floating]  # (n, 2)
    groups: Sequence[str] | None = None  # (n,), coloured alike
    explained: tuple[float, float] | None = None  # fractions of the variance, in [0, 1]
    note: str = ""  # shown with the plot, as in "untrained weights"

    def __post_init__(self) -> None:
        expected = (len(self.labels), 2)
        if self.points.shape != expected or not np.isfinite(self.points).all():
            raise ConfigError(f"points: expected {expected} finite numbers, got shape {self.points.shape}")
        if self.groups is not None and len(self.groups) != len(self.labels):
            raise ConfigError(f"groups: expected {len(self.labels)}, one per label, got {len(self.groups)}")


class EntropyModelFacts(TypedDict, total=False):
    """What the header tells of the entropy source."""

    name: str
    order: int | None
    bits_per_base: float | None  # without it the page shows the mean of the patch scores


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReportData:
    """All that a page shows. `contigs` may be a generator: one track is held at a time.

    Raises:
        ConfigError: A total that the page does not know, or a threshold that is no number.
    """

    title: str
    contigs: Iterable[ContigTrack]
    threshold: float | None = None  # nats; None where no single number decides, then no line is drawn
    target_length: float | None = None  # wanted mean patch length, in bases
    entropy_model: EntropyModelFacts | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    embeddings: Embeddings | None = None
    totals: Mapping[str, int] = field(default_factory=dict)  # of the whole input, where more than `contigs`
    score_name: str = "mean surprise"  # what `patch_scores` measures, in nats per base

    def __post_init__(self) -> None:
        if self.threshold is not None and not np.isfinite(self.threshold):
            raise ConfigError(f"threshold: expected a finite number of nats or None, got {self.threshold}")
        if not self.score_name:
            raise ConfigError("score_name: expected words for the axis of the patch scores, got none")
        for key in self.totals:
            if key not in TOTALS:
                raise ConfigError(f"totals: expected keys among {', '.join(TOTALS)}, got {key!r}")


def ambiguous_runs(mask: NDArray[np.bool_], offset: int = 0) -> NDArray[np.int64]:
    """Return the runs of True, `(num_runs, 2)` int64 half-open, counted from `offset`.

    Example:
        >>> ambiguous_runs(np.array([False, True, True, False]), offset=10).tolist()
        [[11, 13]]
    """
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return edges.reshape(-1, 2).astype(np.int64) + offset


def check_lengths(track: ContigTrack) -> None:
    """Refuse patches that do not cover the track once and completely."""
    lengths = track.patch_lengths
    name = f"patch_lengths of {track.name!r}"
    if lengths.ndim != 1 or not np.issubdtype(lengths.dtype, np.integer):
        raise PatchingError(f"{name}: expected integers (num_patches,), got {lengths.dtype} {lengths.shape}")
    if lengths.size and int(lengths.min()) < 1:
        raise PatchingError(f"{name}: expected at least 1 each, got {lengths.min()}; drop the padding")
    if int(lengths.sum()) != track.length:
        raise PatchingError(f"{name}: expected a sum of {track.length} bases, got {lengths.sum()}")


def check_shape(track: ContigTrack, name: str, expected: tuple[int, ...]) -> None:
    """Refuse an array of another shape, or one that holds no numbers."""
    array = getattr(track, name)
    if array.shape != expected or array.dtype.kind not in "iuf":
        raise PatchingError(f"{name} of {track.name!r}: expected numbers {expected}, got {array.dtype} {array.shape}")


def check_runs(track: ContigTrack, runs: NDArray[np.int64]) -> None:
    """Refuse ambiguous runs that are empty, overlap, are unsorted or leave the track."""
    edges = np.concatenate([[track.offset], runs.ravel(), [track.offset + track.length]])
    if (np.diff(edges) < 0).any() or (runs[:, 0] >= runs[:, 1]).any():
        place = f"[{track.offset}, {track.offset + track.length})"
        wanted = f"expected sorted runs within {place}; build them with ambiguous_runs"
        raise PatchingError(f"ambiguous of {track.name!r}: {wanted}")
