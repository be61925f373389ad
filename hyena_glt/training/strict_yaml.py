"""YAML as recipes write it: one mapping of plain data, each key once; what is wrong is named by its line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from hyena_glt.errors import ModelFileError

BARE_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+\Z")


class _StrictLoader(yaml.SafeLoader):
    """Plain data only: no aliases, and `1e-3` is a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", mark)
        return super().compose_node(parent, index)


_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", BARE_FLOAT, list("-+0123456789."))


def parse_yaml(text: bytes | str, *, path: str) -> dict[str, Any]:
    """Read one YAML mapping strictly.

    Raises:
        ModelFileError: Anything else, a key twice, an alias, NaN or infinity; with the line where it is known.
    """
    value = _load(text, path)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ModelFileError(f"expected a YAML mapping of sections, got {type(value).__name__}", path=path)
    return value


def parse_yaml_value(text: str, *, place: str) -> Any:
    """Read one YAML value, such as `3`, `1e-3`, `[a, b]` or a name.

    Raises:
        ModelFileError: No YAML, NaN or infinity.
    """
    return _load(text, place)


def line_of(text: bytes | str, key: str) -> str:
    """`:LINE` of a key path in YAML that `parse_yaml` has read, or of the longest part of it; empty where none is."""
    loader = _StrictLoader(text)
    try:
        line = _line(loader.get_single_node(), key)
    finally:
        loader.dispose()
    return "" if line is None else f":{line}"


def _load(text: bytes | str, path: str) -> Any:
    try:
        loader = _StrictLoader(text)
        try:
            node = loader.get_single_node()
            _check_keys(node)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ModelFileError(f"not a recipe: {error.problem}", path=path, line=line) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ModelFileError(f"not YAML: {str(error).splitlines()[0]}", path=path) from None
    for key in _not_finite(value):
        raise ModelFileError(f"{key or 'value'}: expected finite numbers", path=path, line=_line(node, key))
    return value


def _line(node: yaml.Node | None, key: str) -> int | None:
    """The line of the longest part of a key path; None where not even its first part is there."""
    line = None
    for part in key.split("."):
        pairs: list[Any] = []
        if isinstance(node, yaml.MappingNode):
            pairs = [(key.start_mark, value) for key, value in node.value if key.value == part]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            pairs = [(node.value[int(part)].start_mark, node.value[int(part)])]
        if not pairs:
            break
        mark, node = pairs[0]
        line = mark.line + 1
    return line


def _check_keys(node: yaml.Node | None, prefix: str = "") -> None:
    """Refuse keys that are no names, and names that a mapping has twice."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _check_keys(item, f"{prefix}{index}.")
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            fault = "expected a name as key" if key.tag != "tag:yaml.org,2002:str" else None
            if fault is None and key.value in seen:
                fault = "the key appears more than once"
            if fault is not None:
                text = f"{prefix}{key.value}: {fault}"
                raise yaml.constructor.ConstructorError(None, None, text, key.start_mark)
            seen.add(key.value)
            _check_keys(value, f"{prefix}{key.value}.")


def _not_finite(value: Any, prefix: str = "") -> Iterator[str]:
    """Key paths of NaN and infinite numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        yield prefix
    elif isinstance(value, Mapping | list):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in pairs:
            yield from _not_finite(inner, f"{prefix}.{key}" if prefix else str(key))
