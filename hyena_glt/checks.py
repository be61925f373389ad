"""Checks of options and of the JSON they come from, with messages that name the key and the way out.

Used wherever a user's options enter: configurations, side-cars of saved models, the command line. No torch.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hyena_glt.errors import ConfigError, ModelFileError, SystemProblem

Model = TypeVar("Model", bound=BaseModel)
PLAIN_WORDS = {  # for what pydantic says of Python's types
    "model_type": "expected a section of options",
    "model_attributes_type": "expected a section of options",
    "dict_type": "expected a section of options",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
}
LARGEST_RATE = 1e15  # of learning or decay: far above any use, and their product is below what float32 holds


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely meant, or None when nothing is close."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def build_config(model: type[Model], options: Mapping[str, Any], *, place: str | None = None) -> Model:
    """Build `model` from `options`, and say what is wrong in one line when that fails.

    Args:
        model: A pydantic class, such as `HyenaGLTConfig`.
        options: Its fields by name.
        place: Where the options came from (a file, `--config`); put in front of the message.

    Raises:
        ConfigError: An unknown key (with the nearest known one), a wrong type, or a value out of range.

    Example:
        >>> from hyena_glt.config import PatcherFields
        >>> build_config(PatcherFields, {"threshold": 1.37}).threshold
        1.37
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise config_error(error, model, place=place) from None


def load_config(model: type[Model], path: str | os.PathLike[str]) -> Model:
    """Read a configuration file: one JSON object with the fields of `model`.

    Raises:
        ModelFileError: The file is no such object, or has a key twice or a NaN.
        ConfigError: Unknown or wrong fields; the message names file and key.
        SystemProblem: The file cannot be read.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise SystemProblem(f"{os.fspath(path)}: {error.strerror}") from error
    return build_config(model, parse_json(text, path=path), place=os.fspath(path))


def config_error(error: ValidationError, model: type[BaseModel], *, place: str | None = None) -> ConfigError:
    """Turn pydantic's report into a `ConfigError` of one line: every key path, what it expected and got."""
    known = list(model.model_fields)
    faults = [_fault(dict(item), known) for item in error.errors()]
    prefix = f"{place}: " if place else ""
    return ConfigError(prefix + "; ".join(faults))


def _fault(item: dict[str, Any], known: list[str]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        meant = nearest_name(str(item["loc"][-1]), known)
        return f"{path}: unknown key" + (f"; did you mean {meant}?" if meant else "")
    message = PLAIN_WORDS.get(item["type"]) or item["msg"].removeprefix("Value error, ")
    if not path:
        return message
    return f"{path}: {message[:1].lower()}{message[1:]}, got {_shown(item['input'])}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse_json(text: str | bytes, *, path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Read one JSON object strictly: no duplicate keys, no NaN or Infinity, nothing but an object.

    Raises:
        ModelFileError: The text is no such object; the message carries `path:line` where the parser knows it.
    """

    refuse, unique = _refuse_constants(path), _refuse_duplicates(path)
    try:
        value = json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ModelFileError(f"not JSON: {error.msg}", path=path, line=error.lineno) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise ModelFileError(f"not JSON text: {type(error).__name__}", path=path) from None
    if not isinstance(value, dict):
        raise ModelFileError(f"expected a JSON object, got {type(value).__name__}", path=path)
    return value


def _refuse_constants(path: str | os.PathLike[str] | None) -> Callable[[str], None]:
    def refuse(constant: str) -> None:
        raise ModelFileError(f"expected finite numbers, got {constant}", path=path)

    return refuse


def _refuse_duplicates(
    path: str | os.PathLike[str] | None,
) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        twice = next((key for key, count in counts.items() if count > 1), None)
        if twice is not None:
            raise ModelFileError(f"key {twice!r} appears more than once", path=path)
        return dict(pairs)

    return unique
