"""Bad records are counted and named, in a table that is whole or not there."""

from __future__ import annotations

import os

import pytest

from hyena_glt.errors import DataError, OutputExistsError, VariantFormatError
from hyena_glt.variants.skipped import RecordTally, SkippedRecords


def fault(message: str, record: str | None = "1:5") -> VariantFormatError:
    return VariantFormatError(message, path="x.vcf", line=7, record=record)


def test_the_table_has_one_header_line_and_one_line_a_record(tmp_path):
    path = tmp_path / "out.skipped.tsv"
    with SkippedRecords(path) as skipped:
        skipped.add(fault("POS: bad"))
        skipped.add(fault("blank", None))
        assert not path.exists()
    assert path.read_text() == "line\treason\n7\t(1:5) POS: bad\n7\tblank\n"
    assert skipped.num_skipped == 2


def test_it_is_there_when_nothing_was_skipped_and_absent_when_the_run_failed(tmp_path):
    with SkippedRecords(tmp_path / "none.tsv"):
        pass
    assert (tmp_path / "none.tsv").read_text() == "line\treason\n"
    skipped = SkippedRecords(tmp_path / "failed.tsv").__enter__()
    skipped.add(fault("x"))
    error = RuntimeError("the run failed")
    skipped.__exit__(RuntimeError, error, None)
    assert os.listdir(tmp_path) == ["none.tsv"]


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "a\tb", "a\nb", "\x1b[31m", "x" * 1000])
def test_hostile_names_stay_text_in_one_cell(tmp_path, name):
    with SkippedRecords(tmp_path / "t.tsv") as skipped:
        skipped.add(fault("bad", name))
    lines = (tmp_path / "t.tsv").read_text().splitlines()
    assert len(lines) == 2
    line, reason = lines[1].split("\t")
    assert line == "7"
    assert reason.startswith("(")
    assert reason.isprintable()
    assert len(reason) <= 300


def test_an_existing_table_is_kept_unless_told(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("old")
    with pytest.raises(OutputExistsError), SkippedRecords(path):
        pass
    with SkippedRecords(path, overwrite=True):
        pass
    assert path.read_text() == "line\treason\n"


def test_counts_add_up_and_are_told():
    tally = RecordTally(num_scored=1000, num_kept=3, num_skipped=2, num_failed=1)
    assert tally.num_records == 1006
    assert str(tally) == "scored 1,000, kept without a score 3, skipped 2, failed 1 of 1,006 records"
    tally.check("x.vcf")
    RecordTally(0, 0, 0, 0).check("x.vcf")
    RecordTally(1, 0, 1, 0).check("x.vcf")


@pytest.mark.parametrize(("counts", "words"), [((1, 0, 2, 0), "over half"), ((0, 3, 0, 0), "no record was scored")])
def test_a_run_that_says_little_is_an_error(counts, words):
    with pytest.raises(DataError, match=words):
        RecordTally(*counts).check("x.vcf")
