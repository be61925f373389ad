"""Imports point down: the layer line of the package, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hyena_glt"

# From the bottom up; folders of one line stand side by side and do not import each other.
LAYERS = [
    {"errors", "_lazy", "__about__"},
    {"checks", "config"},
    {"sequences", "ops", "process_group"},
    {"tracks", "tokens", "layers"},
    {"entropies", "variants"},
    {"patching"},
    {"adapters", "positions"},
    {"model"},
    {"training", "processing", "evolution"},
    {"multimodal", "analysis", "diagnostics"},
    {"reports", "integration"},
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# checks < config, though they share a line
ALLOWED_BESIDE = {("config", "checks"), ("checks", "config")}


def part_of(module: str) -> str:
    """`hyena_glt.patching.args` -> `patching`; the package itself -> `__init__`."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else "__init__"


def imports_of(path: Path) -> set[str]:
    """Modules of this package that a file imports anywhere, relative imports resolved."""
    package = ["hyena_glt", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("hyena_glt")}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "hyena_glt":
                found |= {f"hyena_glt.{alias.name}" for alias in node.names if alias.name in LEVEL}
            elif module.startswith("hyena_glt."):
                found.add(module)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = part_of("hyena_glt." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    for module in imports_of(path):
        other = part_of(module)
        if other == own or (own, other) in ALLOWED_BESIDE:
            continue
        assert LEVEL[other] < LEVEL[own], f"{path} ({own}) imports {module} ({other})"


@pytest.mark.parametrize("words", [["-c", "import hyena_glt"], ["-m", "hyena_glt", "--help"]])
def test_nothing_heavy_is_imported_for_help(words):
    code = [sys.executable, "-X", "importtime", *words]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"torch", "numpy", "numba", "pandas", "pyarrow", "pydantic", "scipy"}
