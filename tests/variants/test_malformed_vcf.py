"""The table of `docs/variants.md` is what the reader does."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from hyena_glt.errors import DataError
from hyena_glt.variants.skipped import SkippedRecords
from hyena_glt.variants.vcf_reader import VcfReader

PAGE = Path(__file__).resolve().parents[2] / "docs" / "variants.md"
ROW = re.compile(
    r"\| `(?P<file>[^`]+\.vcf(?:\.gz)?)` \| (?P<odd>.+?) \| (?:`(?P<message>.+)`|(?P<parsed>parsed, .+)) \|"
)
TABLE = {match["file"]: match for match in map(ROW.fullmatch, PAGE.read_text().splitlines()) if match}


def outcome(name: str, **options) -> str:
    try:
        with VcfReader(name, **options) as reader:
            number = len(list(reader))
    except DataError as error:
        return str(error)
    return f"parsed, {number} records" + ("" if reader.is_sorted else ", not in order")


@pytest.fixture
def folder(data, monkeypatch):
    monkeypatch.chdir(data("malformed"))


def test_the_table_has_every_vcf_file(folder):
    assert set(TABLE) == {name for name in os.listdir() if ".vcf" in name}


@pytest.mark.parametrize("name", TABLE)
def test_the_outcome_is_the_one_of_the_table(folder, name):
    assert outcome(name) == (TABLE[name]["message"] or TABLE[name]["parsed"])


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("block_size", [1, 64])
def test_the_outcome_is_the_same_in_small_blocks(folder, name, block_size):
    assert outcome(name, block_size=block_size) == outcome(name)


def test_messages_are_one_short_line_with_file_and_line():
    for name, row in TABLE.items():
        if row["message"]:
            assert re.match(re.escape(name) + r":\d+( \([^)]+\))?: ", row["message"])
            assert row["message"].isprintable()
            assert len(row["message"]) <= 300


@pytest.mark.parametrize("name", [name for name in TABLE if "body_" in name and TABLE[name]["message"]])
def test_a_bad_record_can_be_skipped(folder, name):
    with SkippedRecords() as skipped:
        assert outcome(name, skipped=skipped).startswith("parsed, 0")
    assert skipped.num_skipped == 1


@pytest.mark.parametrize("name", [name for name in TABLE if "not in order" in (TABLE[name]["parsed"] or "")])
def test_order_can_be_required(folder, name):
    assert "out of order" in outcome(name, require_sorted=True)
