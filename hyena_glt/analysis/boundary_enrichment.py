"""Patch starts and annotated features -> how often boundaries fall on each kind of site, against chance.

    features -> site bits of each base ┐
    patch starts -> boundaries         ┴> observed counts, counts after circular shifts -> rows with ratio, z and p

The place of a boundary is the first base of its patch, on either strand; the start of the contig is no boundary.

Chance is what a circular shift of all boundaries along their contig gives: it keeps the patch lengths and their
order, however clustered they are, and breaks only the tie to the features. Shifts are drawn from all lengths but the
shortest (they would leave boundaries in the gene they were in), not from multiples of three: a shift by a multiple
of three keeps a reading frame wherever two genes have the same one, so the codon positions of the null would still
follow the codons. Among all shifts each residue is as likely as any other, and each codon position expects the same
rate of boundaries.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import IO, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hyena_glt.errors import AnnotationError, ConfigError, PatchingError
from hyena_glt.sequences.annotations import Feature

SITES = (  # one bit each, the first lowest
    "gene_start",  # within the window about the first base of a coding sequence
    "gene_stop",  # within the window about its last base
    "codon_phase_0",  # first base of a codon, in the reading direction of its gene
    "codon_phase_1",
    "codon_phase_2",
    "repeats",
    "coding",
    "noncoding",
)
BIT = {site: np.uint8(1 << place) for place, site in enumerate(SITES)}
PHASE_BITS = np.uint8(BIT["codon_phase_0"] | BIT["codon_phase_1"] | BIT["codon_phase_2"])
IN_SITE = (np.arange(256)[:, None] >> np.arange(len(SITES))) & 1  # (bits, sites)
REPEAT_KINDS = frozenset(
    {
        "repeat_region",
        "dispersed_repeat",
        "tandem_repeat",
        "direct_repeat",
        "inverted_repeat",
        "mobile_genetic_element",
        "transposable_element",
        "long_terminal_repeat",
    }
)
WINDOW = 10  # bases on either side
NUM_SHIFTS = 1000
SHORTEST_SHIFT = 1000  # bases, a gene's length; a quarter of a shorter contig


@dataclass(frozen=True, slots=True)
class EnrichmentRow:
    """Boundaries on one kind of site."""

    site: str  # one of SITES
    bases: int  # that belong to the site
    observed: int  # boundaries on them
    expected: float  # mean over the shifts
    ratio: float | None  # observed / expected; None where nothing is expected
    z: float | None  # (observed - expected) / standard deviation over the shifts; None where that is 0
    p: float  # share of the shifts, and of the observation, that are as far from the mean as the observation


class BoundaryEnrichment:
    """Collects the boundaries of a genome contig by contig; memory grows with the longest contig only.

    Args:
        features: The annotation, such as `read_gff` gives it. Used are `CDS` (not of a `pseudogene`: it has no frame),
            and repeats of the kinds in `REPEAT_KINDS`.
        window: Bases on either side of the first base of a start codon, and of the last base of a stop codon.
        num_shifts: Circular shifts that the null rests on.
        seed: Of the shifts. Each contig has its own, so that the order of the contigs does not matter.

    Example:
        >>> gene = Feature("c", 300, 600, "+", "CDS", "g", 0, 1)
        >>> enrichment = BoundaryEnrichment([gene], window=2)
        >>> enrichment.add("c", 1000, np.arange(0, 1000, 3))
        >>> [row.observed for row in enrichment.table()][2:5]
        [100, 0, 0]
    """

    def __init__(
        self, features: Iterable[Feature], *, window: int = WINDOW, num_shifts: int = NUM_SHIFTS, seed: int = 0
    ) -> None:
        if window < 0 or num_shifts < 1 or seed < 0:
            raise ConfigError(
                f"window, num_shifts, seed: expected at least 0, 1 and 0, got {window}, {num_shifts} and {seed}"
            )
        self.window, self.num_shifts, self.seed = window, num_shifts, seed
        self._added: dict[str, bool] = {}  # contig -> whether it has a feature
        self._features: dict[str, list[Feature]] = defaultdict(list)
        for feature in features:
            self._features[feature.contig].append(feature)
        self._boundaries = 0
        self._bases = np.zeros(len(SITES) + 1, np.int64)  # of each site, and of all contigs
        self._observed = np.zeros(len(SITES), np.int64)
        self._shifted = np.zeros((num_shifts, len(SITES)), np.int64)

    def add(self, contig: str, length: int, starts: NDArray[np.int64]) -> None:
        """Count the boundaries of one contig.

        Args:
            contig: Its name, as in the features.
            length: Bases.
            starts: `(patches,)` int64, 0-based first base of each patch, increasing.

        Raises:
            PatchingError: Starts that are no such array, or a contig that was added before.
            AnnotationError: A feature that begins past the end of the contig, or is longer.
        """
        if contig in self._added:
            raise PatchingError(f"contig: expected each once, got {contig!r} again")
        boundaries = _boundaries(starts, length)
        features = self._features.get(contig)
        if not features:
            self._added[contig] = False
            return
        track = site_bits(features, length, self.window)
        shifts = self._shifts(contig, length)
        self._added[contig] = True
        self._boundaries += boundaries.size
        self._bases += np.append(np.bincount(track, minlength=256) @ IN_SITE, length)
        self._observed += count_shifted(track, boundaries, np.zeros(1, np.int64))[0] @ IN_SITE
        self._shifted += count_shifted(track, boundaries, shifts) @ IN_SITE

    def table(self) -> list[EnrichmentRow]:
        """One row per kind of site, in the order of `SITES`; without those of no base or of every base.

        Raises:
            AnnotationError: No contig had a feature.
        """
        if not self.num_contigs:
            named = ", ".join(list(self._features)[:3]) or "none"
            found = ", ".join(list(self._added)[:3]) or "none"
            raise AnnotationError(f"expected features of the contigs patched ({found}), got those of {named}")
        expected, spread = self._shifted.mean(axis=0), self._shifted.std(axis=0)
        # The slack is for the rounding of the mean: equal counts are equally far from it.
        as_far = np.abs(self._shifted - expected) >= np.abs(self._observed - expected) - 1e-9
        shares = (1 + as_far.sum(axis=0)) / (1 + self.num_shifts)
        rows = []
        for place, site in enumerate(SITES):
            bases, observed = int(self._bases[place]), int(self._observed[place])
            if bases in (0, self._bases[-1]):
                continue
            mean, deviation = float(expected[place]), float(spread[place])
            ratio = observed / mean if mean else None
            z = (observed - mean) / deviation if deviation else None
            rows.append(EnrichmentRow(site, bases, observed, mean, ratio, z, float(shares[place])))
        return rows

    @property
    def num_contigs(self) -> int:
        """Contigs counted."""
        return sum(self._added.values())

    @property
    def num_skipped(self) -> int:
        """Contigs left out because they have no feature."""
        return len(self._added) - self.num_contigs

    def summary(self) -> dict[str, Any]:
        """The table and what it rests on, for JSON."""
        return {
            "window": self.window,
            "num_shifts": self.num_shifts,
            "seed": self.seed,
            "contigs": self.num_contigs,
            "contigs_without_features": self.num_skipped,
            "bases": int(self._bases[-1]),
            "boundaries": self._boundaries,
            "rows": [asdict(row) for row in self.table()],
        }

    def _shifts(self, contig: str, length: int) -> NDArray[np.int64]:
        random = np.random.default_rng([self.seed, zlib.crc32(contig.encode())])
        shortest = max(1, min(SHORTEST_SHIFT, length // 4))
        return random.integers(shortest, max(length - shortest, shortest) + 1, self.num_shifts)


def write_enrichment(rows: Iterable[EnrichmentRow], handle: IO[str]) -> None:
    """Write rows as tab-separated text with a header line; `.` stands for a number that there is not."""
    names = [field.name for field in fields(EnrichmentRow)]
    handle.write("\t".join(names) + "\n")
    for row in rows:
        handle.write("\t".join(_as_text(getattr(row, name)) for name in names) + "\n")


def _as_text(value: str | int | float | None) -> str:
    if value is None:
        return "."
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def site_bits(features: Sequence[Feature], length: int, window: int) -> NDArray[np.uint8]:
    """Which sites each base of a contig belongs to.

    A base that genes read in different frames has no codon position. A feature past the end goes on at the start
    (circular contigs); windows do not.

    Args:
        features: Those of one contig.
        length: Bases.
        window: Bases on either side of starts and stops.

    Returns:
        `(length,)` uint8, the bits of `SITES`.
    """
    for feature in features:
        if feature.start >= length or feature.end - feature.start > length:
            raise AnnotationError(
                f"{feature.kind} {feature.start + 1}-{feature.end} does not fit a contig of {length} bases; is this "
                "the right assembly?",
                line=feature.line,
                record=feature.contig,
            )
    reach = max([length, *(feature.end for feature in features)])
    bits = np.zeros(reach, np.uint8)
    for feature in features:
        if feature.kind in REPEAT_KINDS:
            bits[feature.start : feature.end] |= BIT["repeats"]
    for segments in coding_sequences(features):
        _mark_coding(bits, segments, window)
    bits[: reach - length] |= bits[length:]
    bits = bits[:length]
    frames = bits & PHASE_BITS
    bits[(frames & (frames - np.uint8(1))) > 0] &= ~PHASE_BITS
    bits[(bits & BIT["coding"]) == 0] |= BIT["noncoding"]
    return bits


def _mark_coding(bits: NDArray[np.uint8], segments: list[Feature], window: int) -> None:
    """Set the bits of one coding sequence."""
    for segment in segments:
        bits[segment.start : segment.end] |= BIT["coding"]
        if segment.phase is None or segment.strand not in ("+", "-"):
            continue
        read = bits[segment.start : segment.end][:: 1 if segment.strand == "+" else -1]  # in reading direction
        for place in range(3):
            read[(segment.phase + place) % 3 :: 3] |= BIT[f"codon_phase_{place}"]
    first, last = min(s.start for s in segments), max(s.end for s in segments) - 1
    if segments[0].strand == "-":
        first, last = last, first
    if segments[0].strand in ("+", "-"):
        for site, base in (("gene_start", first), ("gene_stop", last)):
            bits[max(base - window, 0) : base + window + 1] |= BIT[site]


def coding_sequences(features: Sequence[Feature]) -> list[list[Feature]]:
    """The segments of each coding sequence; those of pseudogenes are left out.

    CDS lines of one name and strand are one sequence where they lie in one gene, or follow each other as lines of no
    gene; lines without a name each are one.
    """
    genes = {kind: _Places([f for f in features if f.kind == kind]) for kind in ("gene", "pseudogene")}
    segments: dict[Any, list[Feature]] = {}
    run, previous = 0, None
    for feature in sorted((f for f in features if f.kind == "CDS"), key=lambda f: f.line):
        if genes["pseudogene"].holding(feature) is not None:
            continue
        named = (feature.strand, feature.name)
        run += named != previous or not feature.name
        previous = named
        gene = genes["gene"].holding(feature) if feature.name else None
        segments.setdefault((named, run if gene is None else None, gene), []).append(feature)
    return list(segments.values())


class _Places:
    """Features by strand, asked which one holds another."""

    def __init__(self, features: Iterable[Feature]) -> None:
        ordered = sorted(features, key=lambda f: (f.start, f.end))
        self._by_strand = {
            strand: np.array([(f.start, f.end) for f in ordered if f.strand == strand], np.int64).reshape(-1, 2)
            for strand in ("+", "-")
        }

    def holding(self, feature: Feature) -> tuple[int, int] | None:
        """Place of the last one to start, at or before the feature, if it holds all of it."""
        places = self._by_strand.get(feature.strand)
        if places is None:
            return None
        last = int(np.searchsorted(places[:, 0], feature.start, "right")) - 1
        if last < 0 or places[last, 1] < feature.end:
            return None
        return int(places[last, 0]), int(places[last, 1])


def _boundaries(starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The starts but the first base of the contig."""
    if not isinstance(starts, np.ndarray) or starts.ndim != 1 or not np.issubdtype(starts.dtype, np.integer):
        raise PatchingError("starts: expected a one-dimensional array of integers")
    if starts.size and not (starts[0] >= 0 and starts[-1] < length and (np.diff(starts) > 0).all()):
        raise PatchingError(f"starts: expected increasing numbers from 0 to {length - 1}")
    return np.ascontiguousarray(starts[starts > 0], np.int64)


@njit(cache=True, nogil=True)
def count_shifted(track, places, shifts):
    """How often each number of the track stands at the places, moved along a circle.

    Args:
        track: `(length,)` uint8.
        places: `(n,)` int64 below `length`.
        shifts: `(m,)` int64, 0 ... length.

    Returns:
        `(m, 256)` int64.
    """
    counts = np.zeros((shifts.size, 256), np.int64)
    length = track.size
    for k in range(shifts.size):
        here = counts[k]
        for place in places:
            moved = place + shifts[k]
            here[track[moved - length if moved >= length else moved]] += 1
    return counts
