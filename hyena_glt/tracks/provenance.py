"""Where an output came from: version, command, model, input; the same record in every format."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyena_glt.__about__ import __version__
from hyena_glt.sequences.atomic import sha256_file

DECISIVE = ("hyena_glt_version", "command", "input_sha256", "beside_sha256")  # what makes two outputs the same


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a reader needs to make the same file again."""

    command: tuple[str, ...]  # as typed, without the program's path
    details: dict[str, Any] = field(default_factory=dict)  # model, threshold, input hash and the like

    def extended(self, details: dict[str, Any]) -> Provenance:
        """The same with more details."""
        return Provenance(self.command, {**self.details, **details})

    def is_same(self, found: Mapping[str, Any]) -> bool:
        """Whether an output that carries `found` was made by this version and command from files like these."""
        expected = self.as_dict()
        return all(found.get(key) == expected.get(key) for key in DECISIVE)

    def as_dict(self) -> dict[str, Any]:
        """For JSON and Parquet metadata."""
        return {"hyena_glt_version": __version__, "command": shlex.join(self.command), **self.details}

    def as_comments(self) -> bytes:
        """`##key=value` lines for text formats, as bcftools writes them; values on one line each."""
        lines = [f"##hyena_gltVersion={__version__}", f"##hyena_gltCommand={shlex.join(self.command)}"]
        lines += [f"##hyena_glt_{key}={_one_line(value)}" for key, value in self.details.items()]
        return "".join(f"{_printable(line)}\n" for line in lines).encode()


def beside_details(paths: Iterable[Path | None]) -> dict[str, str]:
    """What a provenance says of files and folders that are read beside the input: patchers, models, regions.

    Returns:
        `{"beside_sha256": ...}`, a hash over the hashes of all that are there, in order; empty without any.
    """
    files = [file for path in paths if path is not None for file in _files_of(path)]
    if not files:
        return {}
    return {"beside_sha256": hashlib.sha256(" ".join(map(sha256_file, files)).encode()).hexdigest()}


def _files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path] * path.is_file()


def _one_line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _printable(line: str) -> str:
    """The line with control characters (a newline in a file name, say) escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
