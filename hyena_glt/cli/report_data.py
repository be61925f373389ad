"""What a report shows, gathered from a genome contig by contig."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hyena_glt.cli.plan import PatchPlan
from hyena_glt.cli.runtime import note, progress
from hyena_glt.cli.source import GenomeSource
from hyena_glt.patching.genome import PatchedBlock, patch_blocks
from hyena_glt.reports import ContigTrack, Embeddings, ReportData, ambiguous_runs
from hyena_glt.sequences.annotations import Feature, read_gff
from hyena_glt.tracks.provenance import Provenance


def report_data(
    source: GenomeSource,
    plan: PatchPlan,
    origin: Provenance,
    title: str,
    gff: Path | None,
    embeddings: Embeddings | None,
) -> ReportData:
    """Everything on the page; the contigs are patched while the page is written, one at a time."""
    model = plan.model
    return ReportData(
        title=title,
        contigs=_tracks(source, plan, _features(gff, plan)),
        threshold=plan.threshold,
        target_length=plan.target_length,
        entropy_model={"order": None, "bits_per_base": None, **model.describe()},
        provenance=_as_text(origin),
        embeddings=embeddings,
    )


def _features(gff: Path | None, plan: PatchPlan) -> dict[str, list[Feature]]:
    """The features of each contig; says so if the annotation belongs to other contigs."""
    by_contig: dict[str, list[Feature]] = {}
    for feature in read_gff(gff) if gff is not None else []:
        by_contig.setdefault(feature.contig, []).append(feature)
    known = plan.survey.contig_lengths if plan.survey else {}
    if by_contig and not by_contig.keys() & known.keys():
        there, here = next(iter(by_contig)), next(iter(known), "none")
        note(f"{gff}: no feature lies on a contig of the input (it names {there!r}, the input {here!r})")
    return by_contig


def _tracks(source: GenomeSource, plan: PatchPlan, features: dict[str, list[Feature]]) -> Iterator[ContigTrack]:
    symbols = plan.survey.symbols if plan.survey else None
    parts: list[PatchedBlock] = []
    with progress("patching", symbols) as advance:
        for patched in patch_blocks(source.blocks(), source.alphabet, plan.model, plan.args):
            parts.append(patched)
            advance(len(patched.block.sequence))
            if patched.block.last:
                yield _track(parts, features.get(patched.block.name, []))
                parts = []


def _track(parts: list[PatchedBlock], features: list[Feature]) -> ContigTrack:
    first, ambiguous = parts[0].block, np.concatenate([part.ambiguous for part in parts])
    end = first.start + ambiguous.size
    return ContigTrack(
        name=first.name,
        length=ambiguous.size,
        offset=first.start,
        patch_lengths=np.concatenate([part.lengths for part in parts]),
        patch_scores=np.concatenate([part.mean_surprises for part in parts]).astype(np.float32),
        entropies=np.concatenate([part.entropies for part in parts]),
        features=[f for f in features if f.start < end and f.end > first.start],
        ambiguous=ambiguous_runs(ambiguous, offset=first.start),
    )


def _as_text(origin: Provenance) -> dict[str, str]:
    facts: dict[str, Any] = origin.as_dict()
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
