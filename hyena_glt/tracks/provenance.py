"""Where an output came from: version, command, model, input; the same record in every format."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from typing import Any

from hyena_glt.__about__ import __version__


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a reader needs to make the same file again."""

    command: tuple[str, ...]  # as typed, without the program's path
    details: dict[str, Any] = field(default_factory=dict)  # model, threshold, input hash and the like

    def extended(self, details: dict[str, Any]) -> Provenance:
        """The same with more details."""
        return Provenance(self.command, {**self.details, **details})

    def as_dict(self) -> dict[str, Any]:
        """For JSON and Parquet metadata."""
        return {"hyena_glt_version": __version__, "command": shlex.join(self.command), **self.details}

    def as_comments(self) -> bytes:
        """`##key=value` lines for text formats, as bcftools writes them; values on one line each."""
        lines = [f"##hyena_gltVersion={__version__}", f"##hyena_gltCommand={shlex.join(self.command)}"]
        lines += [f"##hyena_glt_{key}={_one_line(value)}" for key, value in self.details.items()]
        return "".join(f"{_printable(line)}\n" for line in lines).encode()


def _one_line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _printable(line: str) -> str:
    """The line with control characters (a newline in a file name, say) escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
