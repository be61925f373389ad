"""Finished pieces of a long run, kept beside its output until that is whole: `OUT.parts/`.

    run.json                    what the pieces belong to: input, weights, options
    000000-SHA256.safetensors   rows of the first shard, under the hash of its own content
    lock                        held by the process that works on it

A piece is used again only if `run.json` says the same and the content has the hash of its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.numpy
from safetensors import SafetensorError

from hyena_glt.cli.outputs import write_json
from hyena_glt.cli.runtime import note
from hyena_glt.errors import DataError, HyenaGLTError, OutputExistsError, SystemProblem
from hyena_glt.processing.embedding import EmbeddingRows
from hyena_glt.sequences.atomic import atomic_write, make_folder, sha256_file, try_lock

RUN_FILE, LOCK_FILE = "run.json", "lock"
SHARD_NAME = re.compile(r"(\d{6,})-([0-9a-f]{64})\.safetensors")
OUR_NAMES = re.compile(rf"{SHARD_NAME.pattern}|run\.json|lock|\..*\.tmp")


class Shards:
    """The finished shards of one run.

    Args:
        folder: Where they lie.
        run: What they belong to, as JSON has it.
    """

    def __init__(self, folder: Path, run: dict[str, Any]) -> None:
        self.folder, self.run = folder, run
        self._paths: dict[int, Path] = {}

    def find(self, index: int) -> int | None:
        """The number of rows of a shard that is finished and sound; None where it has to be made."""
        path = self._paths.get(index)
        if path is None:
            return None
        if sha256_file(path) != path.name.partition("-")[2].removesuffix(".safetensors"):
            note(f"{path}: does not have the hash of its name, so it is made again")
            path.unlink()
            del self._paths[index]
            return None
        return len(self.read(index))

    def write(self, index: int, rows: EmbeddingRows) -> None:
        """Put a shard on the disk, whole."""
        packed = safetensors.numpy.save({name: getattr(rows, name) for name in rows.__slots__})
        path = self.folder / f"{index:06d}-{hashlib.sha256(packed).hexdigest()}.safetensors"
        with atomic_write(path, overwrite=True) as handle:
            handle.write(packed)
        self._paths[index] = path

    def read(self, index: int) -> EmbeddingRows:
        """The rows of a shard.

        Raises:
            DataError: The file was changed meanwhile.
        """
        path = self._paths[index]
        try:
            return EmbeddingRows(**safetensors.numpy.load_file(path))
        except (OSError, SafetensorError, TypeError) as problem:
            raise DataError(f"not a shard of embeddings: {problem}", path=path) from None

    def look(self) -> None:
        """Learn which shards are there."""
        for path in sorted(self.folder.iterdir()):
            if match := SHARD_NAME.fullmatch(path.name):
                self._paths[int(match[1])] = path

    def __len__(self) -> int:
        return len(self._paths)


@contextmanager
def open_shards(folder: Path, run: dict[str, Any], force: bool) -> Iterator[Shards]:
    """The shards of a run, those of an interrupted one included.

    The folder is gone when the block ends well, or with an error that the same command would meet again; after an
    interruption, or a fault of the machine, what is finished stays.

    Args:
        folder: `OUT.parts`.
        run: What the shards belong to.
        force: Drop shards that belong to something else.

    Raises:
        OutputExistsError: The shards there belong to another run; the first difference is named.
        SystemProblem: Another process works on them, or the disk cannot be written.
    """
    make_folder(folder)
    with _locked(folder):
        shards = Shards(folder, json.loads(json.dumps(run)))
        _claim(shards, force)
        try:
            yield shards
        except HyenaGLTError as problem:
            if not isinstance(problem, SystemProblem) or not len(shards):
                clear(folder)
            raise
        except BaseException:
            if len(shards):
                note(f"{len(shards)} finished shards are kept in {folder}; the same command goes on from there")
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


def clear_leavings(folder: Path) -> None:
    """Remove the shards of a run that was killed after its output got its name."""
    if (folder / RUN_FILE).is_file():
        with _locked(folder):
            clear(folder)


def replace_folder(temporary: Path, target: Path) -> None:
    """Give a finished folder its name; the one that had it before is removed.

    Between the two renames the name is free for a moment: at no time does it belong to half a folder.
    """
    _fsync_tree(temporary)
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        os.rename(target, old)
    os.rename(temporary, target)
    _fsync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _claim(shards: Shards, force: bool) -> None:
    """Take over what an interrupted run of the same kind left, and say in `run.json` whose the folder is."""
    path = shards.folder / RUN_FILE
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        found = None
    if found == shards.run:
        shards.look()
        if len(shards):
            note(f"{len(shards)} finished shards found in {shards.folder}; going on from there")
        return
    if isinstance(found, dict) and not force and any(map(SHARD_NAME.fullmatch, os.listdir(shards.folder))):
        key = next(key for key in {**shards.run, **found} if found.get(key) != shards.run.get(key))
        raise OutputExistsError(
            f"{shards.folder}: holds an interrupted run whose {key} was {_short(found.get(key))}, "
            f"now {_short(shards.run.get(key))}; give --force to drop it"
        )
    for old in shards.folder.iterdir():
        if old.name != LOCK_FILE and OUR_NAMES.fullmatch(old.name):
            old.unlink()
    write_json(path, shards.run)


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


def _fsync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            _fsync(Path(place, name))
        _fsync(Path(place))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
