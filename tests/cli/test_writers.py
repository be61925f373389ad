"""Files opened by format: what lies beside them, when they appear, and when their content goes out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hyena_glt.cli.writers import open_patch_writer, open_value_writer, write_tabix_index
from hyena_glt.errors import SystemProblem
from hyena_glt.tracks import Provenance
from hyena_glt.tracks.patches import PatchBatch
from hyena_glt.tracks.values import ValueBatch

ORIGIN = Provenance(("hyena-glt", "x"), {"input_sha256": "ab"})
PATCHES = PatchBatch("chr1", 0, np.array([3, 2]), np.array([1.0, 2.0], np.float32))


def values() -> ValueBatch:
    return ValueBatch("chr1", 0, np.array([0.5, 1.0], np.float32), np.zeros(2, np.bool_))


@pytest.mark.parametrize("kind", ["bed", "tsv", "parquet"])
def test_a_table_gets_its_name_when_it_is_whole(tmp_path, kind):
    path = tmp_path / f"p.{kind}"
    with open_patch_writer(path, kind, ORIGIN) as writer:
        writer.write(PATCHES)
        assert not path.exists()
    assert path.stat().st_size


@pytest.mark.parametrize("kind", ["bed", "tsv", "parquet"])
def test_a_table_that_fails_leaves_nothing(tmp_path, kind):
    with pytest.raises(ZeroDivisionError), open_patch_writer(tmp_path / "p", kind, ORIGIN):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_flushed_patches_are_seen_at_once(tmp_path, capfdbinary):
    with open_patch_writer(Path("-"), "bed", None, flush=True) as writer:
        writer.write(PATCHES)
        assert capfdbinary.readouterr().out.count(b"\n") == 2


@pytest.mark.parametrize("header", [ORIGIN, None])
def test_a_bigwig_has_its_contigs_and_its_origin_beside_it(tmp_path, header):
    with open_value_writer(tmp_path / "v.bw", "bigwig", header, ORIGIN, {"chr1": 2, "chr2": 9}) as writer:
        writer.write(values())
    assert (tmp_path / "v.bw.chrom.sizes").read_text() == "chr1\t2\nchr2\t9\n"
    beside = tmp_path / "v.bw.json"
    assert beside.exists() == (header is not None)
    if header is not None:
        assert json.loads(beside.read_text()) == {"provenance": ORIGIN.as_dict()}


def test_a_bigwig_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), open_value_writer(tmp_path / "v.bw", "bigwig", ORIGIN, ORIGIN, {"chr1": 2}):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_an_index_is_written_beside_bgzf(tmp_path):
    with open_patch_writer(tmp_path / "p.bed.gz", "bed", None) as writer:
        writer.write(PATCHES)
    write_tabix_index(tmp_path / "p.bed.gz")
    assert (tmp_path / "p.bed.gz.tbi").exists()
    with pytest.raises(SystemProblem, match=r"none\.bed\.gz\.tbi: cannot write"):
        write_tabix_index(tmp_path / "none.bed.gz")
