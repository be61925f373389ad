"""Formats by suffix, and which existing outputs are the ones a command would write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyena_glt.cli.outputs import already_done, check_plot, format_of, read_provenance, same_file, write_json
from hyena_glt.cli.writers import PATCH_FORMATS, open_patch_writer
from hyena_glt.errors import OutputExistsError, UsageError
from hyena_glt.tracks import Provenance

ORIGIN = Provenance(("hyena-glt", "patch", "x.fa"), {"input_sha256": "ab"})


@pytest.mark.parametrize(
    ("name", "wanted", "kind"),
    [
        ("x.bed", None, "bed"),
        ("x.bed.gz", None, "bed"),
        ("x.v1.parquet", None, "parquet"),
        ("x.tsv.bgz", None, "tsv"),
        ("-", None, "bed"),
        ("whatever", "tsv", "tsv"),
        ("x.bed", "parquet", "parquet"),
    ],
)
def test_the_format_follows_the_suffix_unless_told(name, wanted, kind):
    assert format_of(Path(name), wanted, PATCH_FORMATS, "bed") == kind


@pytest.mark.parametrize(("name", "wanted"), [("x.txt", None), ("x", None), ("x.bed", "vcf")])
def test_an_unknown_format_is_wrong_usage(name, wanted):
    with pytest.raises(UsageError):
        format_of(Path(name), wanted, PATCH_FORMATS, "bed")


@pytest.mark.parametrize("name", ["p.bed", "p.bed.gz", "p.tsv", "p.parquet"])
def test_every_table_carries_its_provenance(tmp_path, name):
    path = tmp_path / name
    with open_patch_writer(path, format_of(path, None, PATCH_FORMATS, "bed"), ORIGIN):
        pass
    found = read_provenance(path)
    assert (found["command"], found["input_sha256"]) == ("hyena-glt patch x.fa", "ab")
    assert already_done([path], lambda: ORIGIN, force=False)
    other = Provenance(ORIGIN.command, {"input_sha256": "cd"})
    with pytest.raises(OutputExistsError):
        already_done([path], lambda: other, force=False)
    assert not already_done([path], lambda: other, force=True)


def test_what_is_no_file_is_never_there_already(tmp_path):
    """And a pipe is not opened to look: that would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("/dev/null", tmp_path / "pipe"):
        assert not already_done([Path(name)], lambda: ORIGIN, force=False)


def test_work_goes_on_while_one_output_is_missing(tmp_path):
    stats = tmp_path / "s.json"
    write_json(stats, {"provenance": ORIGIN.as_dict()})
    assert not already_done([stats, tmp_path / "p.bed"], lambda: ORIGIN, force=False)
    assert already_done([stats], lambda: ORIGIN, force=False)
    assert not already_done([Path("-"), stats], lambda: ORIGIN, force=False)


def test_a_file_of_another_program_has_no_provenance(tmp_path):
    for name, content in (("a.bed", b"chr1\t0\t9\n"), ("a.json", b"[1"), ("a.parquet", b"x"), ("a.html", b"\xff")):
        (tmp_path / name).write_bytes(content)
        assert read_provenance(tmp_path / name) == {}


def test_one_name_cannot_be_input_and_output(tmp_path):
    same_file([tmp_path / "a", None, tmp_path / "b"])
    with pytest.raises(UsageError, match="named twice"):
        same_file([tmp_path / "a", tmp_path / "x" / ".." / "a"])


@pytest.mark.parametrize("name", ["tree.jpg", "tree"])
def test_a_figure_of_another_kind_is_refused_beforehand(name):
    with pytest.raises(UsageError, match=rf"--plot {name}: expected a name that ends with .png, .svg or .pdf"):
        check_plot(Path(name))


def test_no_figure_or_one_that_can_be_drawn_is_fine():
    check_plot(None)
    check_plot(Path("tree.PNG"))
