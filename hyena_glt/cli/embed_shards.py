"""Vectors of finished shards, kept until the table is whole; and a folder that takes the place of another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import safetensors.numpy
from safetensors import SafetensorError

from hyena_glt.cli.parts import Parts
from hyena_glt.errors import DataError
from hyena_glt.processing.embedding import EmbeddingRows


class Shards:
    """The finished shards of one run, by number.

    Args:
        parts: Where they are kept.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def find(self, index: int) -> EmbeddingRows | None:
        """The rows of a shard that is finished and sound; None where it has to be made."""
        content = self._parts.find(_key(index))
        try:
            return None if content is None else EmbeddingRows(**safetensors.numpy.load(content))
        except (SafetensorError, TypeError) as problem:
            raise DataError(f"not a shard of embeddings: {problem}", path=self._parts.folder) from None

    def write(self, index: int, rows: EmbeddingRows) -> None:
        """Put a shard on the disk, whole."""
        self._parts.put(_key(index), safetensors.numpy.save({name: getattr(rows, name) for name in rows.__slots__}))

    def read(self, index: int) -> EmbeddingRows:
        """The rows of a shard that was found or written.

        Raises:
            DataError: The file was changed meanwhile.
        """
        rows = self.find(index)
        if rows is None:
            raise DataError(f"shard {index} was changed while it was needed", path=self._parts.folder)
        return rows


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


def _key(index: int) -> str:
    return f"{index:06d}"


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
