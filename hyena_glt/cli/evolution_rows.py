"""Finished work of a long comparison, kept beside its output until that is whole: rows, or profiles by a net."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

from hyena_glt.cli.parts import Parts, open_parts, parts_folder
from hyena_glt.sequences.atomic import is_stream

if TYPE_CHECKING:
    from hyena_glt.evolution.net_profiles import NetProfile


class RowFolder:
    """Rows by the hash of their genome; what `compare_genomes` calls a store."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def find(self, key: str) -> np.ndarray | None:
        """The row of a genome, if it is there and sound."""
        content = self._parts.find(key)
        return None if content is None else safetensors.numpy.load(content)["row"]

    def put(self, key: str, row: np.ndarray) -> None:
        """Write a row, whole or not at all."""
        self._parts.put(key, safetensors.numpy.save({"row": np.ascontiguousarray(row)}))


class ProfileFolder:
    """Profiles by the hash of their genome; what `compare_with_net` calls a store."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def find(self, key: str) -> NetProfile | None:
        """The profile of a genome, if it is there and sound."""
        from hyena_glt.evolution.net_profiles import NetProfile

        content = self._parts.find(key)
        return None if content is None else NetProfile(**safetensors.numpy.load(content))

    def put(self, key: str, profile: NetProfile) -> None:
        """Write a profile, whole or not at all."""
        arrays = {name: np.ascontiguousarray(getattr(profile, name)) for name in profile.__slots__}
        self._parts.put(key, safetensors.numpy.save(arrays))


@contextmanager
def kept_rows(output: Path, run: dict[str, Any], force: bool) -> Iterator[RowFolder | None]:
    """Where the rows of this run are kept while it lasts, as `open_parts` says; None for standard output."""
    with _kept(output, run, force, "rows") as parts:
        yield None if parts is None else RowFolder(parts)


@contextmanager
def kept_profiles(output: Path, run: dict[str, Any], force: bool) -> Iterator[ProfileFolder | None]:
    """Where the profiles of this run are kept while it lasts, as `open_parts` says; None for standard output."""
    with _kept(output, run, force, "profiles") as parts:
        yield None if parts is None else ProfileFolder(parts)


@contextmanager
def _kept(output: Path, run: dict[str, Any], force: bool, what: str) -> Iterator[Parts | None]:
    if is_stream(output):
        yield None
        return
    with open_parts(parts_folder(output), run, force=force, what=what) as parts:
        yield parts
