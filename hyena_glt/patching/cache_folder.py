"""Scores of rows in a folder that several processes may share: one safetensors file for each row.

A file appears whole or not at all, and says what it should hold by a hash; one that is damaged, of another format or
gone in the meantime is no entry. The files that were used longest ago are removed when they take more room than
allowed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import HyenaGLTError
from hyena_glt.sequences.atomic import atomic_write, make_folder

SUFFIX = ".safetensors"
LEAVING_SUFFIX = ".tmp"
LEAVING_AGE_S = 3600.0  # a temporary file as old as this has no writer any more
RESCAN_SHARE = 16  # the folder is measured anew when this process has written a 16th of what it may hold
KEPT_SHARE = 7 / 8  # of the room, after old files have been removed

logger = logging.getLogger(__name__)


class RowScores(NamedTuple):
    """The scores of one row."""

    scores: NDArray[np.float32]  # (length,) nats
    forced: NDArray[np.int64]  # (starts,) places of the starts that the source forces, ascending

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.scores.nbytes + self.forced.nbytes


class CacheFolder:
    """Entries by key (hexadecimal digits), bounded in bytes.

    Args:
        folder: Made if it is not there.
        max_bytes: Of all files together. Each of several processes may exceed it by a sixteenth.

    Raises:
        SystemProblem: The folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int) -> None:
        self.path = make_folder(folder)
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._total = 0  # bytes when the folder was measured last, and those written since
        self._written = max_bytes  # bytes since then; at first the folder has not been measured
        self._has_failed = False

    def read(self, key: str, length: int) -> RowScores | None:
        """The entry of a row of that length; None where there is none that can be trusted."""
        path = self._file(key)
        try:
            row = _unpacked(path.read_bytes(), length)
        except OSError:
            return None
        if row is not None:
            with suppress(OSError):
                os.utime(path)  # used last
        return row

    def write(self, key: str, row: RowScores) -> None:
        """Keep an entry. A disk that is full or read-only costs the entry, not the work: it is logged once."""
        content = _packed(row)
        if len(content) > self.max_bytes:
            return
        with self._lock:
            try:
                make_folder(self._file(key).parent)
                with atomic_write(self._file(key), overwrite=True) as handle:
                    handle.write(content)
            except (HyenaGLTError, OSError) as problem:
                if not self._has_failed:
                    logger.warning("entropy cache: going on without keeping scores on the disk (%s)", problem)
                self._has_failed = True
                return
            self._total += len(content)
            self._written += len(content)
            if self._total > self.max_bytes or self._written * RESCAN_SHARE > self.max_bytes:
                self._make_room()

    def clear(self) -> None:
        """Remove every entry; what another process is just writing stays."""
        with self._lock:
            for file in self._files():
                if not file.is_being_written:
                    with suppress(OSError):
                        os.unlink(file.path)
            self._total, self._written = 0, 0

    @property
    def bytes(self) -> int:
        """Bytes of all entries, measured now."""
        return sum(file.size for file in self._files())

    def _make_room(self) -> None:
        files = sorted(self._files(), key=lambda file: (file.used, file.path))
        total = sum(file.size for file in files)
        allowed = self.max_bytes * KEPT_SHARE if total > self.max_bytes else total
        for file in files:
            if not file.is_being_written and (total > allowed or file.is_temporary):
                with suppress(OSError):  # another process was faster
                    os.unlink(file.path)
                total -= file.size
        self._total, self._written = total, 0

    def _file(self, key: str) -> Path:
        return self.path / key[:2] / f"{key}{SUFFIX}"

    def _files(self) -> Iterator[_File]:
        """Every entry and every temporary file; what vanishes while we look is left out."""
        for folder in _entries(self.path):
            if len(folder.name) == 2 and folder.is_dir(follow_symlinks=False):
                for entry in _entries(folder.path):
                    if entry.name.endswith((SUFFIX, LEAVING_SUFFIX)):
                        with suppress(OSError):
                            status = entry.stat(follow_symlinks=False)
                            yield _File(entry.path, status.st_size, status.st_mtime)


class _File(NamedTuple):
    path: str
    size: int
    used: float  # seconds since the epoch

    @property
    def is_temporary(self) -> bool:
        return self.path.endswith(LEAVING_SUFFIX)

    @property
    def is_being_written(self) -> bool:
        """True for a temporary file that may have a writer still."""
        return self.is_temporary and self.used > time.time() - LEAVING_AGE_S


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _digest(scores: NDArray[np.float32], forced: NDArray[np.int64]) -> NDArray[np.uint8]:
    digest = hashlib.sha256(np.ascontiguousarray(scores).data)
    digest.update(np.ascontiguousarray(forced).data)
    return np.frombuffer(digest.digest(), np.uint8)


def _packed(row: RowScores) -> bytes:
    from safetensors.numpy import save

    return save({"scores": row.scores, "forced": row.forced, "sha256": _digest(*row)})


def _unpacked(content: bytes, length: int) -> RowScores | None:
    """What `_packed` made for a row of that length; None for anything else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        scores, forced, sha256 = arrays["scores"], arrays["forced"], arrays["sha256"]
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None
    is_ours = scores.dtype == np.float32 and scores.shape == (length,) and forced.dtype == np.int64
    if not is_ours or forced.ndim != 1 or not np.array_equal(_digest(scores, forced), sha256):
        return None
    return RowScores(scores, forced)
