"""JSON files that are saved with a patcher: read strictly, with references by hash to the files beside them."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

from hyena_glt.checks import parse_json
from hyena_glt.errors import ModelFileError
from hyena_glt.sequences.atomic import sha256_file


def read_saved_json(
    path: Path, *, kind: str, file_format: str, keys: Set[str], mapping: str, largest: int
) -> dict[str, Any]:
    """One JSON object with the keys that it must have.

    Args:
        path: The file.
        kind: What it holds, for messages: "a saved patcher".
        file_format: What its `format` must be.
        keys: All its keys, no more and no fewer.
        mapping: The key whose value must be an object.
        largest: Bytes of the longest file that is read.

    Raises:
        ModelFileError: Missing, too long, no JSON object, of another format, or with other keys.
    """
    if not path.is_file():
        raise ModelFileError(f"expected {kind}, found no such file", path=path)
    if path.stat().st_size > largest:
        raise ModelFileError(f"expected {kind} of at most {largest} bytes", path=path)
    content = parse_json(path.read_bytes(), path=path)
    if content.get("format") != file_format:
        raise ModelFileError(f"format: expected {file_format!r}, got {content.get('format')!r}", path=path)
    if set(content) != keys or not isinstance(content[mapping], dict):
        wrong = ", ".join(sorted(set(content) ^ keys)) or mapping
        raise ModelFileError(f"expected the keys {', '.join(sorted(keys))}; wrong: {wrong}", path=path)
    return content


def reference_to(place: Path) -> dict[str, str]:
    """How a file beside is named: `path`, its name alone, and `sha256`."""
    return {"path": place.name, "sha256": sha256_file(place)}


def named_beside(source: Path, reference: Any, *, key: str = "", suffix: str = "") -> tuple[Path, str]:
    """The file beside `source` that a reference names, and the hash that it should have; neither is looked at.

    Args:
        source: The file that holds the reference.
        reference: What `reference_to` gave.
        key: Under which it is held, for messages.
        suffix: How the name must end.

    Raises:
        ModelFileError: No reference, or a name that leaves the folder.
    """
    if not isinstance(reference, dict) or set(reference) != {"path", "sha256"}:
        where = f"{key}: " if key else ""
        raise ModelFileError(f"{where}expected a reference with path and sha256", path=source)
    name = str(reference["path"])
    if not name.endswith(suffix) or Path(name).name != name or name in ("", ".", ".."):
        wanted = f"a {suffix} file" if suffix else "a file"
        raise ModelFileError(
            f"{key or 'path'}: expected the name of {wanted} in the same folder, got {name!r}", path=source
        )
    return source.with_name(name), str(reference["sha256"])
