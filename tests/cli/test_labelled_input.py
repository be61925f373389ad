"""What `finetune` and `evaluate` share."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyena_glt.cli.labelled_input import LabelledInput, check_files, input_provenance, print_estimates
from hyena_glt.errors import UsageError


def reader(**changes) -> LabelledInput:
    options = {"fasta": None, "sequence_column": "sequence", "label_column": None, "separator": None, "alphabet": "dna"}
    return LabelledInput(**{**options, **changes})


def test_a_table_and_a_bed_are_read_by_their_options(tmp_path):
    (tmp_path / "t.data").write_text("s;l\nAC;x\n")
    assert reader(sequence_column="s", label_column="l", separator=";").read(tmp_path / "t.data").labels == ("x",)
    with pytest.raises(UsageError, match="suffix"):
        reader().read(tmp_path / "t.data")
    (tmp_path / "g.fa").write_text(">c\nACGT\n")
    (tmp_path / "r.bed").write_text("c\t1\t3\tx\ty\n")
    assert reader(fasta=tmp_path / "g.fa").read(tmp_path / "r.bed").labels == ("x",)
    assert reader(fasta=tmp_path / "g.fa", label_column="5").read(tmp_path / "r.bed").labels == ("y",)
    with pytest.raises(UsageError, match="from 4"):
        reader(fasta=tmp_path / "g.fa", label_column="1").read(tmp_path / "r.bed")


def test_the_hash_covers_every_input_and_the_net(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "manifest.json").write_text("1")

    def found(*names, model=None) -> str:
        return input_provenance([tmp_path / name for name in names], model).as_dict()["input_sha256"]

    hashes = [found("a"), found("a", "b"), found("b", "a"), found("a", model=folder)]
    (folder / "manifest.json").write_text("2")
    hashes.append(found("a", model=folder))
    assert len(set(hashes)) == 5
    assert all(len(digest) == 64 for digest in hashes)
    with pytest.raises(UsageError, match="standard input"):
        check_files([None, Path("-")])


def test_figures_are_printed_one_a_line(capsys):
    none = {"low": None, "high": None}
    print_estimates(
        {"mcc": {"value": 0.5, "low": 0.25, "high": 0.75}, "r2": {"value": 1, **none}, "x": {"value": None, **none}}
    )
    assert capsys.readouterr().out.splitlines() == [
        "mcc               0.5000  [0.2500, 0.7500]",
        "r2                1.0000",
        "x                 not defined",
    ]
