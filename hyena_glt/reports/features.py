"""Which annotated features make the gene lanes of a track.

    Feature records of a GFF -> LaneFeature, one per gene -> columns for the page

A GFF names one gene several times (gene, mRNA, exon, CDS, the tRNA inside its gene). The lane draws it once:
rows of the same place and strand are one feature, with the name of the gene and the kind that says most.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .encoding import visible

if TYPE_CHECKING:
    from hyena_glt.sequences.annotations import Feature

CONTAINERS = frozenset({"region", "chromosome", "contig", "scaffold", "supercontig", "source", "databank_entry"})
PARTS = frozenset({"exon", "intron", "CDS", "start_codon", "stop_codon", "five_prime_UTR", "three_prime_UTR"})
TRANSCRIPTS = frozenset({"mRNA", "transcript", "primary_transcript", "lnc_RNA"})
GENE, TRANSCRIPT, PART = range(3)
VAGUE = frozenset({"gene", "exon", "mRNA", "transcript", "sequence_feature"})


@dataclass(frozen=True, slots=True)
class LaneFeature:
    """One arrow: 0-based half-open on the track, clipped to it."""

    start: int
    end: int
    strand: str
    kind: str
    name: str


def lane_features(features: Iterable[Feature], offset: int, length: int) -> list[LaneFeature]:
    """Return what to draw on a track, sorted by start; features outside it are left out."""
    inside = [f for f in features if f.end > offset and f.start < offset + length and f.kind not in CONTAINERS]
    groups: dict[tuple[int, int, str], list[Feature]] = {}
    for feature in inside:
        groups.setdefault((feature.start, feature.end, feature.strand), []).append(feature)
    wholes = [Wholes([f for f in inside if level(f.kind) < above]) for above in (GENE, TRANSCRIPT, PART)]
    drawn = [group for group in groups.values() if any(not wholes[level(f.kind)].cover(f) for f in group)]
    return sorted((merged(group, offset, length) for group in drawn), key=lambda f: (f.start, f.end, f.strand))


def level(kind: str) -> int:
    """Return how deep a kind stands: genes, and what is no part of one, above transcripts above parts."""
    if kind in PARTS:
        return PART
    return TRANSCRIPT if kind in TRANSCRIPTS or kind.endswith("RNA") else GENE


class Wholes:
    """Features that others may be parts of, asked in logarithmic time."""

    def __init__(self, features: Iterable[Feature]) -> None:
        ordered = sorted((f for f in features if is_whole(f.kind)), key=lambda f: f.start)
        self.starts: dict[str, list[int]] = {}
        self.reach: dict[str, list[int]] = {}  # furthest end of the features up to each start
        for feature in ordered:
            reach = self.reach.setdefault(feature.strand, [])
            self.starts.setdefault(feature.strand, []).append(feature.start)
            reach.append(max(feature.end, reach[-1] if reach else 0))

    def cover(self, feature: Feature) -> bool:
        """Whether one of them holds all of a feature, on its strand."""
        before = bisect_right(self.starts.get(feature.strand, []), feature.start)
        return before > 0 and self.reach[feature.strand][before - 1] >= feature.end


def is_whole(kind: str) -> bool:
    """Whether a kind has parts: a gene (`pseudogene`, `ncRNA_gene`, ...) or a transcript of one."""
    return is_gene(kind) or level(kind) == TRANSCRIPT


def is_gene(kind: str) -> bool:
    """Whether a kind is a gene."""
    return kind.endswith("gene")


def merged(group: list[Feature], offset: int, length: int) -> LaneFeature:
    """Make one arrow of the rows that share a place and strand."""
    named = sorted(group, key=lambda f: (not f.name, not is_gene(f.kind)))
    telling = sorted(group, key=lambda f: (f.kind in VAGUE, f.kind in PARTS))
    start, end = max(0, group[0].start - offset), min(length, group[0].end - offset)
    strand = group[0].strand if group[0].strand in "+-" else "."
    return LaneFeature(start, end, strand, visible(telling[0].kind), visible(named[0].name or ""))


def longest(features: list[LaneFeature], limit: int) -> list[LaneFeature]:
    """Keep the `limit` longest features, in their order."""
    if len(features) <= limit:
        return features
    order = np.argsort([f.start - f.end for f in features], kind="stable")[:limit]
    return [features[i] for i in np.sort(order)]


def features_payload(features: list[LaneFeature]) -> dict[str, Any]:
    """Columns for the page; starts as differences, kinds as indices."""
    kinds = sorted({f.kind for f in features})
    starts = np.array([f.start for f in features], np.int64)
    return {
        "kinds": kinds,
        "kind": [kinds.index(f.kind) for f in features],
        "steps": np.diff(starts, prepend=0).tolist(),
        "lengths": [f.end - f.start for f in features],
        "strands": "".join(f.strand for f in features),
        "names": [f.name for f in features],
    }
