"""Finished rows of a long comparison, kept beside its output until that is whole: `OUT.parts/`.

    run.json                   what the rows belong to: genomes, metric, options
    SHA256-SHA256.safetensors  the row of the genome of the first hash, under the hash of its own content
    lock                       held by the process that works on it

A row is used again only if `run.json` says the same and the content has the hash of its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from hyena_glt.cli.outputs import write_json
from hyena_glt.cli.runtime import note
from hyena_glt.errors import OutputExistsError, SystemProblem
from hyena_glt.sequences.atomic import atomic_write, make_folder, try_lock

RUN_FILE, LOCK_FILE = "run.json", "lock"
ROW_NAME = re.compile(r"([0-9a-f]{64})-([0-9a-f]{64})\.safetensors")
OUR_NAMES = re.compile(rf"{ROW_NAME.pattern}|run\.json|lock|\..*\.tmp")


class RowFolder:
    """Rows by the hash of their genome; what `compare_genomes` calls a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return sum(1 for name in os.listdir(self.folder) if ROW_NAME.fullmatch(name))

    def find(self, key: str) -> np.ndarray | None:
        """The row of a genome, if it is there and sound; a damaged one is removed."""
        for path in self.folder.glob(f"{key}-*.safetensors"):
            content = path.read_bytes()
            with suppress(SafetensorError, KeyError):
                if hashlib.sha256(content).hexdigest() == path.stem.partition("-")[2]:
                    return safetensors.numpy.load(content)["row"]
            note(f"{path}: does not have the hash of its name, so it is made again")
            path.unlink()
        return None

    def put(self, key: str, row: np.ndarray) -> None:
        """Write a row, whole or not at all."""
        content = safetensors.numpy.save({"row": np.ascontiguousarray(row)})
        path = self.folder / f"{key}-{hashlib.sha256(content).hexdigest()}.safetensors"
        with atomic_write(path, overwrite=True) as handle:
            handle.write(content)


def rows_folder(output: Path) -> Path:
    """`OUT.parts`."""
    return output.with_name(f"{output.name}.parts")


@contextmanager
def kept_rows(output: Path, run: dict[str, Any], force: bool) -> Iterator[RowFolder | None]:
    """Where the rows of this run are kept while it lasts; None for standard output.

    After the block the folder goes; after an interruption or a fault of the machine it stays, if a row is in it.

    Args:
        output: The file that the rows are for.
        run: What the rows belong to, as JSON has it.
        force: Drop rows that belong to something else.

    Raises:
        OutputExistsError: Rows of another run lie there; the first difference is named.
        SystemProblem: Another process works on them, or the disk cannot be written.
    """
    if str(output) == "-":
        yield None
        return
    folder = make_folder(rows_folder(output))
    with _locked(folder):
        rows = RowFolder(folder)
        _claim(rows, json.loads(json.dumps(run)), force)
        try:
            yield rows
        except BaseException:
            if len(rows):
                note(f"{len(rows)} finished rows are kept in {folder}; the same command goes on from there")
            else:
                clear(folder)
            raise
        clear(folder)


def clear(folder: Path) -> None:
    """Remove the folder with what this module puts there; anything else stays, and the folder with it."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if OUR_NAMES.fullmatch(path.name):
            path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def clear_leavings(output: Path) -> None:
    """Remove the rows of a run that was killed after its output got its name."""
    folder = rows_folder(output)
    if (folder / RUN_FILE).is_file():
        with _locked(folder):
            clear(folder)


def _claim(rows: RowFolder, run: dict[str, Any], force: bool) -> None:
    path = rows.folder / RUN_FILE
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        found = None
    if found == run:
        if len(rows):
            note(f"{len(rows)} finished rows found in {rows.folder}; going on from there")
        return
    if isinstance(found, dict) and not force and len(rows):
        key = next(key for key in {**run, **found} if found.get(key) != run.get(key))
        raise OutputExistsError(
            f"{rows.folder}: holds an interrupted run whose {key} was {_short(found.get(key))}, "
            f"now {_short(run.get(key))}; give --force to drop it"
        )
    for old in rows.folder.iterdir():
        if old.name != LOCK_FILE and OUR_NAMES.fullmatch(old.name):
            old.unlink()
    write_json(path, run)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        raise SystemProblem(f"{folder}: cannot write: {problem.strerror}") from problem
    try:
        if not try_lock(descriptor):
            raise SystemProblem(f"{folder}: another process works on this output; wait for it or end it")
        yield
    finally:
        os.close(descriptor)
