"""Finished pieces of a long run, kept beside its output until that is whole: `OUT.parts/`.

    run.json        what the pieces belong to: input, weights, options
    KEY-SHA256.EXT  a piece, under the hash of its own content
    lock            held by the process that works on it

A piece is used again only if `run.json` says the same and the content has the hash of its name.
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

from hyena_glt.cli.outputs import write_json
from hyena_glt.cli.runtime import note
from hyena_glt.errors import HyenaGLTError, OutputExistsError, SystemProblem
from hyena_glt.sequences.atomic import atomic_write, make_folder, sole_process

RUN_FILE, LOCK_FILE = "run.json", "lock"
PIECE_NAME = re.compile(r"([0-9a-f]+)-([0-9a-f]{64})\.(safetensors|json)")
OUR_NAMES = re.compile(rf"{PIECE_NAME.pattern}|run\.json|lock|\..*\.tmp")


class Parts:
    """The finished pieces of one run, by key: digits of a number, or of a hash.

    Args:
        folder: Where they lie.
        ending: Of their names: `safetensors` or `json`.
    """

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder, self._ending = folder, ending

    def __len__(self) -> int:
        return len(self.listed())

    def listed(self) -> list[str]:
        """Keys of the pieces that are there, sorted."""
        return sorted(match[1] for name in os.listdir(self.folder) if (match := PIECE_NAME.fullmatch(name)))

    def remove(self, key: str) -> None:
        """Remove a piece, if it is there."""
        for path in self.folder.glob(f"{key}-*.{self._ending}"):
            path.unlink()

    def find(self, key: str) -> bytes | None:
        """The content of a piece, if it is there and sound; a damaged one is removed."""
        for path in self.folder.glob(f"{key}-*.{self._ending}"):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == path.stem.partition("-")[2]:
                return content
            note(f"{path}: does not have the hash of its name, so it is made again")
            path.unlink()
        return None

    def put(self, key: str, content: bytes) -> None:
        """Write a piece, whole or not at all."""
        path = self.folder / f"{key}-{hashlib.sha256(content).hexdigest()}.{self._ending}"
        with atomic_write(path, overwrite=True) as handle:
            handle.write(content)


def parts_folder(output: Path) -> Path:
    """`OUT.parts`."""
    return output.with_name(f"{output.name}.parts")


@contextmanager
def open_parts(
    folder: Path, run: dict[str, Any], *, force: bool, ending: str = "safetensors", what: str = "shards"
) -> Iterator[Parts]:
    """The pieces of a run, those of an interrupted one included.

    The folder is gone when the block ends well, or with an error that the same command would meet again; after an
    interruption, or a fault of the machine, what is finished stays.

    Args:
        folder: `OUT.parts`.
        run: What the pieces belong to, as JSON has it.
        force: Drop pieces that belong to something else.
        ending: Of the names of the pieces.
        what: They are called.

    Raises:
        OutputExistsError: The pieces there belong to another run; the first difference is named.
        SystemProblem: Another process works on them, or the disk cannot be written.
    """
    if not folder.parent.is_dir():
        raise SystemProblem(f"{folder.parent}: cannot write: no such folder; make it first")
    make_folder(folder)
    with sole_process(folder, LOCK_FILE):
        parts = Parts(folder, ending)
        _claim(parts, json.loads(json.dumps(run)), force, what)
        try:
            yield parts
        except BaseException as problem:
            met_again = isinstance(problem, HyenaGLTError) and not isinstance(problem, SystemProblem)
            if met_again or not len(parts):
                clear(folder)
            else:
                note(f"{len(parts)} finished {what} are kept in {folder}; the same command goes on from there")
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
    """Remove the pieces of a run that was killed after its output got its name."""
    folder = parts_folder(output)
    if (folder / RUN_FILE).is_file():
        with sole_process(folder, LOCK_FILE):
            clear(folder)


def _claim(parts: Parts, run: dict[str, Any], force: bool, what: str) -> None:
    """Take over what an interrupted run of the same kind left, and say in `run.json` whose the folder is."""
    path = parts.folder / RUN_FILE
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        found = None
    if found == run:
        if len(parts):
            note(f"{len(parts)} finished {what} found in {parts.folder}; going on from there")
        return
    if isinstance(found, dict) and not force and len(parts):
        key = next(key for key in {**run, **found} if found.get(key) != run.get(key))
        raise OutputExistsError(
            f"{parts.folder}: holds an interrupted run whose {key} was {_short(found.get(key))}, "
            f"now {_short(run.get(key))}; give --force to drop it"
        )
    for old in parts.folder.iterdir():
        if old.name != LOCK_FILE and OUR_NAMES.fullmatch(old.name):
            old.unlink()
    write_json(path, run)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
