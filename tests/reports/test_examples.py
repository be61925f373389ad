from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

MODULES = ("bins", "contigs", "encoding", "features", "histogram", "page", "records", "scatter", "track")
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "report.md"


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(import_module(f"hyena_glt.reports.{name}")).failed == 0


def test_the_example_of_the_guide_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = doctest.testfile(str(GUIDE), module_relative=False)
    assert results.failed == 0
    assert results.attempted > 3
    assert (tmp_path / "report.html").exists()
