"""Finished rows of a long comparison, kept beside its output until that is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from hyena_glt.cli.outputs import STDOUT
from hyena_glt.cli.parts import Parts, open_parts, parts_folder


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


@contextmanager
def kept_rows(output: Path, run: dict[str, Any], force: bool) -> Iterator[RowFolder | None]:
    """Where the rows of this run are kept while it lasts, as `open_parts` says; None for standard output."""
    if output == STDOUT:
        yield None
        return
    with open_parts(parts_folder(output), run, force=force, what="rows") as parts:
        yield RowFolder(parts)
