"""Scores of finished shards, kept in `OUT.parts/` until the output is whole, so that a run that was cut is taken up."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyena_glt.cli.outputs import STDOUT, write_json
from hyena_glt.errors import HyenaGLTError, SystemProblem, UsageError
from hyena_glt.sequences.atomic import make_folder
from hyena_glt.variants.alleles import UnscoredReason
from hyena_glt.variants.scoring import AlleleEffect
from hyena_glt.variants.vcf_records import VcfRecord
from hyena_glt.variants.vcf_writer import Value

RUN_FILE = "run.json"


class ShardScores:
    """Scores of finished shards in a folder, each trusted by its own hash; None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def load(self, number: int, records: Sequence[VcfRecord]) -> list[list[AlleleEffect]] | None:
        """The effects of a shard, or None if it has not been finished, or is damaged."""
        if self._folder is None:
            return None
        try:
            content = json.loads((self._folder / _part_name(number)).read_text())
            rows = content["effects"]
            if content["sha256"] != _rows_hash(rows, records):
                return None
            return [[_effect(row) for row in record] for record in rows]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, number: int, records: Sequence[VcfRecord], effects: Sequence[Sequence[AlleleEffect]]) -> None:
        """Keep a finished shard."""
        if self._folder is None:
            return
        rows = [[row_of(effect) for effect in record] for record in effects]
        write_json(self._folder / _part_name(number), {"sha256": _rows_hash(rows, records), "effects": rows})


@contextmanager
def kept_shards(output: Path, key: Callable[[], dict[str, Any]], *, force: bool) -> Iterator[ShardScores]:
    """The folder `OUT.parts` of an output; it goes when the run is done or its input refused, and stays when it is cut.

    Raises:
        UsageError: Another run has left it there.
    """
    if output == STDOUT or (output.exists() and not output.is_file()):
        yield ShardScores(None)
        return
    folder = beside(output, ".parts")
    if force:
        shutil.rmtree(folder, ignore_errors=True)
    _claim(folder, key())
    try:
        yield ShardScores(folder)
    except SystemProblem:
        raise
    except HyenaGLTError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _claim(folder: Path, key: dict[str, Any]) -> None:
    try:
        found = json.loads((folder / RUN_FILE).read_text())
        different = [name for name in key if found.get(name) != key[name]]
    except FileNotFoundError:
        found, different = None, []
    except (OSError, ValueError, AttributeError):
        found, different = None, ["damaged"] * folder.is_dir()
    if different:
        raise UsageError(
            f"{folder}: left by an unfinished run with another {', '.join(different)}; finish that one, or give --force"
        )
    if found is None:
        make_folder(folder)
        write_json(folder / RUN_FILE, key)


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


def _rows_hash(rows: Any, records: Sequence[VcfRecord]) -> str:
    """Of the scores together with the records that they belong to."""
    digest = hashlib.sha256(json.dumps(rows, allow_nan=False).encode())
    for record in records:
        digest.update(record.raw)
    return digest.hexdigest()


def _part_name(number: int) -> str:
    return f"{number:08d}.json"


def beside(path: Path, ending: str) -> Path:
    """The file of that ending beside another, as `OUT.vcf.gz.tbi`."""
    return path.with_name(path.name + ending)
