"""Patch tables are read back by the readers that people use."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from hyena_glt.tracks import BedWriter, ParquetWriter, PatchBatch, Provenance, TsvWriter, scaled_scores

ORIGIN = Provenance(("hyena-glt", "patch", "a b.fa"), {"input_sha256": "00", "entropy_model": {"order": 3}})
BATCHES = [
    PatchBatch("chr1", 0, np.array([3, 1, 4]), np.array([0.5, 1.0, 2.0])),
    PatchBatch("chr1", 8, np.array([2]), np.array([1.5])),
    PatchBatch("chr2", 100, np.array([7]), np.array([9.0])),
]


def written(writer_class, origin=ORIGIN) -> bytes:
    handle = io.BytesIO()
    writer = writer_class(handle, origin)
    for batch in BATCHES:
        writer.write(batch)
    writer.close()
    return handle.getvalue()


def test_bed_has_nine_columns_and_running_names():
    lines = written(BedWriter).decode().splitlines()
    assert lines[0].startswith("##hyena_gltVersion=")
    assert lines[1] == "##hyena_gltCommand=hyena-glt patch 'a b.fa'"
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    assert [row[:4] for row in rows] == [
        ["chr1", "0", "3", "0"],
        ["chr1", "3", "4", "1"],
        ["chr1", "4", "8", "2"],
        ["chr1", "8", "10", "3"],
        ["chr2", "100", "107", "4"],
    ]
    assert all(len(row) == 9 and row[5] == "." and row[6:8] == row[1:3] for row in rows)
    assert all(all(0 <= int(c) <= 255 for c in row[8].split(",")) for row in rows)


def test_a_bed_without_header_is_data_only():
    assert written(BedWriter, None).startswith(b"chr1\t0\t3\t0\t")


def test_scores_run_from_0_at_certainty_to_1000_at_four_bits():
    nats = np.array([0.0, math.log(4), 4 * math.log(2), 99.0])
    assert scaled_scores(nats).tolist() == [0, 500, 1000, 1000]


def test_parquet_and_tsv_hold_the_same_table(tmp_path):
    table = pq.read_table(io.BytesIO(written(ParquetWriter)))
    assert json.loads(table.schema.metadata[b"hyena_glt"])["input_sha256"] == "00"
    text = written(TsvWriter).decode()
    rows = list(csv.DictReader((line for line in text.splitlines() if not line.startswith("##")), delimiter="\t"))
    assert table["contig"].to_pylist() == [row["contig"] for row in rows]
    for column in ("start", "end", "number", "length"):
        assert table[column].to_pylist() == [int(row[column]) for row in rows]
    expected = [float(row["mean_surprise_nats"]) for row in rows]
    assert table["mean_surprise_nats"].to_pylist() == pytest.approx(expected, abs=1e-6)


def test_control_characters_in_a_command_stay_on_their_line():
    text = Provenance(("hyena-glt", "patch", "a\nb\x1b[31m.fa")).as_comments()
    assert text.count(b"\n") == 2
    assert b"\x1b" not in text
