"""The files a command writes: their format, whether they are there already, and what stands in their header."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from hyena_glt.cli.runtime import note
from hyena_glt.errors import ConfigError, OutputExistsError, UsageError
from hyena_glt.sequences.atomic import atomic_write, is_stream
from hyena_glt.tracks.provenance import Provenance

STDOUT = Path("-")
LEFT_OUT_OF_COMMAND = {"--force", "--debug"}
HEADER_LINES = 40  # of a text output, that are searched for its provenance
HEAD_CHARACTERS = 1 << 16  # of a report


def format_of(path: Path, wanted: str | None, formats: dict[str, str], default: str) -> str:
    """The format of an output: `-O` if given, else by suffix (`.gz` aside), else the default for stdout or a pipe.

    Args:
        path: Output, `-` for stdout.
        wanted: What `-O` said.
        formats: Suffix without dot -> format.
        default: Format of stdout, pipes and `/dev/null`.

    Raises:
        UsageError: Neither says a known format.
    """
    known = sorted(set(formats.values()))
    if wanted is not None:
        if wanted not in known:
            raise UsageError(f"-O: expected one of {', '.join(known)}, got {wanted!r}")
        return wanted
    if is_stream(path):
        return default
    suffixes = [s.lstrip(".") for s in path.suffixes if s not in (".gz", ".bgz")]
    if not suffixes or suffixes[-1] not in formats:
        raise UsageError(f"{path}: the suffix tells no format; give -O {'|'.join(known)}")
    return formats[suffixes[-1]]


def check_plot(plot: Path | None) -> None:
    """Refuse a figure that cannot be made before the genome is read.

    Raises:
        UsageError: Another suffix than .png, .svg or .pdf.
        MissingExtraError: matplotlib is not installed.
    """
    from hyena_glt.sequences.figure_files import check_figure_path

    try:
        if plot is not None:
            check_figure_path(plot)
    except ConfigError as problem:
        raise UsageError(f"--plot {problem}") from None


def command_line() -> tuple[str, ...]:
    """The command as typed, without what does not change its result."""
    return ("hyena-glt", *(word for word in sys.argv[1:] if word not in LEFT_OUT_OF_COMMAND))


def already_done(outputs: Sequence[Path], provenance: Callable[[], Provenance], force: bool) -> bool:
    """Whether every output is there and was made by this command from this input.

    Args:
        outputs: What the command writes.
        provenance: What it would say of them; asked only where an output is there, since it hashes the input.
        force: Replace whatever is there.

    Raises:
        OutputExistsError: An output is there that was not, and `force` is not set.
    """
    files = [path for path in outputs if not is_stream(path)]
    if force or not files:
        return False
    there = [path for path in files if path.exists()]
    same = [path for path in there if _same_origin(path, provenance())]
    if there != same:
        other = next(path for path in there if path not in same)
        raise OutputExistsError(f"{other}: exists already; give --force to replace it")
    if len(there) == len(files) == len(outputs):
        note(f"already done: {', '.join(map(str, files))}")
        return True
    return False


def _same_origin(path: Path, provenance: Provenance) -> bool:
    found = read_provenance(path)
    return bool(found) and provenance.is_same(found)


def read_provenance(path: Path) -> dict[str, Any]:
    """The provenance that an output of ours carries; empty if it carries none."""
    sidecar = path.with_name(f"{path.name}.json")
    try:
        if path.suffix == ".parquet":
            return _parquet_provenance(path)
        if path.suffix == ".json":
            return json.loads(path.read_text())["provenance"]
        if path.suffix == ".html":
            return _html_provenance(path)
        if sidecar.exists():
            return json.loads(sidecar.read_text())["provenance"]
        return _header_provenance(path)
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _parquet_provenance(path: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    return json.loads((pq.read_schema(path).metadata or {})[b"hyena_glt"])


def _html_provenance(path: Path) -> dict[str, Any]:
    """What `<meta name="hyena-glt">` in the head of a report holds."""

    class Head(HTMLParser):
        content = "{}"

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            named = dict(attributes)
            if tag == "meta" and named.get("name") == "hyena-glt":
                self.content = named.get("content") or "{}"

    head = Head()
    with open(path, encoding="utf-8") as handle:
        head.feed(handle.read(HEAD_CHARACTERS))
    return json.loads(head.content)


def _header_provenance(path: Path) -> dict[str, Any]:
    names = {"hyena_gltVersion": "hyena_glt_version", "hyena_gltCommand": "command"}
    found: dict[str, Any] = {}
    opener = gzip.open if path.suffix in (".gz", ".bgz") else open
    with opener(path, "rb") as handle:
        for line, _ in zip(handle, range(HEADER_LINES), strict=False):
            if not line.startswith(b"##"):
                break
            key, _, value = line.decode().strip("#\n").partition("=")
            found[names.get(key, key.removeprefix("hyena_glt_"))] = value
    return found


def write_json(path: Path, content: dict[str, Any], *, overwrite: bool = True) -> None:
    """Write indented JSON, whole or not at all; `-` is stdout."""
    with atomic_write(path, "w", overwrite=overwrite) as handle:
        json.dump(content, handle, indent=2, allow_nan=False)
        handle.write("\n")


def same_file(paths: Iterable[Path | None]) -> None:
    """Refuse to write two outputs under one name, or one over the input.

    Raises:
        UsageError: A name that is given twice.
    """
    seen: set[str] = set()
    for path in paths:
        if path is None:
            continue
        name = "-" if path == STDOUT else os.path.realpath(path)
        if name in seen:
            raise UsageError(f"{path}: named twice among input and outputs")
        seen.add(name)
