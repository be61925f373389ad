"""Scores of finished shards, kept in `OUT.parts/` until the output is whole, so that a run that was cut is taken up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyena_glt.cli.outputs import STDOUT
from hyena_glt.cli.parts import Parts, open_parts, parts_folder
from hyena_glt.variants.alleles import UnscoredReason
from hyena_glt.variants.scoring import AlleleEffect
from hyena_glt.variants.vcf_records import VcfRecord
from hyena_glt.variants.vcf_writer import Value


class ShardScores:
    """Scores of finished shards; None keeps nothing."""

    def __init__(self, parts: Parts | None) -> None:
        self._parts = parts

    def load(self, number: int, records: Sequence[VcfRecord]) -> list[list[AlleleEffect]] | None:
        """The effects of a shard, or None if it has not been finished, or is damaged, or is of other records."""
        content = None if self._parts is None else self._parts.find(_key(number))
        found = {} if content is None else json.loads(content)
        if found.get("records") != _hash(records):
            return None
        return [[_effect(row) for row in record] for record in found["effects"]]

    def save(self, number: int, records: Sequence[VcfRecord], effects: Sequence[Sequence[AlleleEffect]]) -> None:
        """Keep a finished shard."""
        if self._parts is None:
            return
        rows = [[row_of(effect) for effect in record] for record in effects]
        content = json.dumps({"records": _hash(records), "effects": rows}, allow_nan=False)
        self._parts.put(_key(number), content.encode())


@contextmanager
def kept_shards(output: Path, run: Callable[[], dict[str, Any]], *, force: bool) -> Iterator[ShardScores]:
    """Where the scores of this run are kept while it lasts, as `open_parts` says; nowhere for what is no file."""
    if output == STDOUT or (output.exists() and not output.is_file()):
        yield ShardScores(None)
        return
    with open_parts(parts_folder(output), run(), force=force, ending="json") as parts:
        yield ShardScores(parts)


def row_of(effect: AlleleEffect) -> list[Value]:
    """The numbers and the reason, in the order of the INFO keys."""
    return [*effect.numbers, None if effect.reason is None else str(effect.reason)]


def _effect(row: Sequence[Any]) -> AlleleEffect:
    *numbers, reason = row
    effect = AlleleEffect(reason=None if reason is None else UnscoredReason(reason))
    if reason is not None:
        return effect
    difference, distance, patches, variance, compression = map(float, numbers)
    return replace(
        effect,
        log_likelihood_difference=difference,
        cosine_distance=distance,
        patch_change=patches,
        length_variance_change=variance,
        compression_change=compression,
    )


def _hash(records: Sequence[VcfRecord]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.raw)
    return digest.hexdigest()


def _key(number: int) -> str:
    return f"{number:08d}"


def beside(path: Path, ending: str) -> Path:
    """The file of that ending beside another, as `OUT.vcf.gz.tbi`."""
    return path.with_name(path.name + ending)
