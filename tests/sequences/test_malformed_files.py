"""The table of `docs/reliability.md` is what the readers do."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from hyena_glt.errors import DataError
from hyena_glt.sequences.fasta import read_blocks, read_records

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
ROW = re.compile(r"\| `(?P<file>[^`]+)` \| (?P<odd>.+?) \| (?:`(?P<message>.+)`|(?P<parsed>parsed, .+)) \|")
TABLE = {match["file"]: match for match in map(ROW.fullmatch, PAGE.read_text().splitlines()) if match}


def outcome(name: str) -> str:
    try:
        return f"parsed, {len(list(read_records(name)))} records"
    except DataError as error:
        return str(error)


@pytest.fixture
def folder(data, monkeypatch):
    monkeypatch.chdir(data("malformed"))


def test_the_table_has_every_fasta_and_fastq_file(folder):
    assert set(TABLE) == {name for name in os.listdir() if re.search("fasta|fastq|fna", name)}


@pytest.mark.parametrize("name", TABLE)
def test_the_outcome_is_the_one_of_the_table(folder, name):
    assert outcome(name) == (TABLE[name]["message"] or TABLE[name]["parsed"])


@pytest.mark.parametrize("name", TABLE)
def test_messages_are_one_short_line_with_the_file(folder, name):
    message = TABLE[name]["message"]
    if message:
        assert message.startswith(name)
        assert message.isprintable()
        assert len(message) <= 300


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("block_size", [1, 64])
def test_the_outcome_is_the_same_in_small_blocks(folder, name, block_size):
    try:
        found = f"parsed, {sum(block.last for block in read_blocks(name, block_size=block_size))} records"
    except DataError as error:
        found = str(error)
    assert found == outcome(name)
