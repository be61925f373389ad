"""Shared fixtures: where the real data lies, and the marks that are off by default."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


def data_folder() -> Path | None:
    """`$HYENA_GLT_DATA`, else `../shared/data` beside the checkout, else None."""
    named = os.environ.get("HYENA_GLT_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def data():
    """`data("genomes/x.fa")` gives the path of a real file, or skips the test with the reason."""

    def find(name: str) -> Path:
        folder = data_folder()
        if folder is None:
            pytest.skip("real data not found: set HYENA_GLT_DATA or put it in ../shared/data")
        path = folder / name
        if not path.exists():
            pytest.skip(f"real data file not found: {name}")
        return path

    return find


@pytest.fixture(scope="module")
def one_thread():
    """Nets as small as those of tests lose time to a second thread, and sums depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_configure() -> None:
    """Processes that share the tests share the cores."""
    if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)
