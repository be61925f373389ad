"""Commands run in this process, as the console script would run them."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hyena_glt.cli.main import main
from hyena_glt.sequences.simulate import simulate_genome


class Outcome(NamedTuple):
    """What a command leaves behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capfd) -> Callable[..., Outcome]:
    """`cli("patch", path, "-o", out, stdin=b"...")` runs a command line."""

    def run(*words: object, stdin: bytes | None = None) -> Outcome:
        arguments = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["hyena-glt", *arguments])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        code = main(arguments)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def genome(tmp_path_factory) -> Path:
    """A simulated genome of two contigs with runs of N; its genes are beside it as genome.gff3."""
    fasta, _ = simulate_genome(seed=7, length=40_000).write_genome(tmp_path_factory.mktemp("genome"))
    return fasta


def read_bed(text: str) -> list[tuple[str, int, int, int, int]]:
    """`(contig, start, end, name, score)` of each data line."""
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    assert all(len(row) == 9 for row in rows)
    return [(row[0], int(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in rows]


@pytest.fixture
def bed() -> Callable[[str], list[tuple[str, int, int, int, int]]]:
    """Reads BED9 text."""
    return read_bed
