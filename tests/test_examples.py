"""Every example in a docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from hyena_glt.errors import MissingExtraError

PACKAGE = Path(__file__).resolve().parents[1] / "hyena_glt"
WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_examples_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    try:
        module = importlib.import_module(name)
    except (MissingExtraError, ModuleNotFoundError) as missing:
        pytest.skip(str(missing))
    assert doctest.testmod(module).failed == 0
