"""Public names that load their module on first use, so that `import hyena_glt` stays fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` for a package whose names live in submodules (PEP 562).

    Args:
        package: The package's `__name__`.
        modules: Public name -> relative module that defines it, as in `{"Patcher": ".patcher"}`.

    Returns:
        `(__getattr__, __dir__)`, to be assigned at the package's top level.
    """

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return __getattr__, __dir__
