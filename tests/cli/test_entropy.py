"""`hyena-glt entropy`: the values of the model, at their bases."""

from __future__ import annotations

import numpy as np
import pyBigWig
import pytest

from hyena_glt import MarkovEntropy
from hyena_glt.sequences.fasta import read_records


@pytest.fixture
def model(cli, genome, tmp_path) -> MarkovEntropy:
    path = tmp_path / "model.safetensors"
    done = cli("entropy", genome, "-o", tmp_path / "e.bw", "--save-model", path)
    assert done.code == 0, done.err
    return MarkovEntropy.load(path)


def test_bigwig_holds_the_model_s_entropies(model, genome, tmp_path):
    with pyBigWig.open(str(tmp_path / "e.bw")) as track:
        for record in read_records(genome):
            values = np.array(track.values(record.name, 0, len(record.sequence)))
            called = np.frombuffer(record.sequence.upper(), np.uint8) != ord("N")
            assert np.isnan(values[~called]).all()
            assert np.array_equal(values[called].astype(np.float32), model.entropies(record.sequence)[called])
    sizes = (tmp_path / "e.bw.chrom.sizes").read_text().split()
    assert sizes[:2] == ["sim_chr1", "30000"]


def test_a_saved_model_gives_the_same_track(model, cli, genome, tmp_path):
    fresh = cli("entropy", genome, "-o", "-", "--no-version").out
    saved = cli("entropy", genome, "-o", "-", "--no-version", "--entropy-model", tmp_path / "model.safetensors").out
    assert fresh == saved
    assert fresh.startswith("track type=bedGraph")


def test_reads_that_share_a_name_are_refused_in_bigwig(cli, tmp_path):
    reads = tmp_path / "r.fq"
    reads.write_text(("@r\n" + "ACGT" * 9 + "\n+\n" + "I" * 36 + "\n") * 2)
    done = cli("entropy", reads, "-o", tmp_path / "e.bw")
    assert done.code == 1
    assert "write bedGraph instead" in done.err
    assert not (tmp_path / "e.bw").exists()
    assert cli("entropy", reads, "-o", tmp_path / "e.bedgraph").code == 0


def test_bigwig_to_stdout_is_refused(cli, genome):
    done = cli("entropy", genome, "-o", "-", "-O", "bigwig")
    assert done.code == 3
    assert "regular file" in done.err


def test_a_finished_bigwig_is_known_by_its_sidecar(cli, genome, tmp_path):
    words = ("entropy", genome, "-o", tmp_path / "e.bw")
    assert cli(*words).code == 0
    assert "already done" in cli(*words).err
    assert cli(*words, "--order", "3").code == 2
