"""`hyena-glt profile`: the stages of a forward on the user's own sequence."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.diagnostics.stages import STAGES

SMALL = ("--untrained", "-@", "1", "--window", "1024", "--batches", "2")


@pytest.fixture
def folder(tmp_path):
    """A saved net that brings its patcher."""
    net = HyenaGLT(HyenaGLTConfig.preset("tiny"), Patcher(patching_mode="static", patch_size=8))
    net.save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def test_every_stage_has_a_line(cli, genome):
    done = cli("profile", genome, *SMALL)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "untrained tiny net, seed 0; cpu, 1 thread(s)"
    assert lines[1].startswith("2 batch(es) of at most 1 x 1,024 bases: 2,048 bases in ")
    names = [line[:22].strip() for line in lines[4 : 4 + len(STAGES) + 1]]
    assert names == [*STAGES, "all"]
    assert "random" in done.err


def test_the_json_adds_up(cli, genome):
    found = json.loads(cli("profile", genome, *SMALL, "--batch-size", "2", "--json").out)
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert list(stages) == list(STAGES)
    assert sum(stage["cpu_s"] for stage in stages.values()) == pytest.approx(found["cpu_s"], rel=0.1)
    assert sum(stage["share"] for stage in stages.values()) == pytest.approx(1)
    assert found["num_bases"] == 4096
    assert found["num_batches"] == 2
    assert stages["read"]["wall_s"] > 0
    assert stages["logits"]["flops_per_base"] == 2 * 64 * 9  # DNA letters: a vocabulary of 9
    assert found["flops_per_base"] == pytest.approx(sum(s["flops_per_base"] or 0 for s in stages.values()))
    origin = found["provenance"]
    assert origin["weights"] == "untrained tiny net, seed 0"
    assert origin["patching"]["patching_mode"] == "entropy"
    assert 12 < found["num_bases"] / found["num_patches"] < 20  # calibrated to 16
    assert len(origin["input_sha256"]) == 64


def test_a_saved_net_cuts_as_it_was_saved(cli, genome, folder):
    words = ("-@", "1", "--window", "1024", "--batches", "1", "--json", "--model", folder)
    found = json.loads(cli("profile", genome, *words).out)
    assert found["provenance"]["patching"] == "the net's own"
    assert found["provenance"]["weights"].startswith("net, sha256 ")
    assert (found["num_bases"], found["num_patches"]) == (1024, 128)
    other = json.loads(cli("profile", genome, *words, "--target-length", "4").out)
    assert other["provenance"]["patching"]["patching_mode"] == "entropy"


def test_a_saved_patcher_cuts(cli, genome, tmp_path):
    Patcher(patching_mode="static", patch_size=32).save(tmp_path / "cut")
    found = json.loads(cli("profile", genome, *SMALL, "--json", "--patcher", tmp_path / "cut").out)
    assert found["num_bases"] / found["num_patches"] == 32


def test_the_trace_is_written_whole_and_only_over_its_own(cli, genome, tmp_path):
    path = tmp_path / "trace.json"
    words = (*SMALL, "--trace", path)
    assert cli("profile", genome, *words).code == 0
    content = json.loads(path.read_text())
    assert content["provenance"]["weights"] == "untrained tiny net, seed 0"
    assert any(event.get("name") == "stage: trunk" for event in content["traceEvents"])
    assert cli("profile", genome, *words).code == 0
    path.write_text("mine")
    refused = cli("profile", genome, *words)
    assert refused.code == 2
    assert "--force" in refused.err
    assert path.read_text() == "mine"
    assert cli("profile", genome, *words, "--force").code == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["trace.json"]


def test_stdin_and_short_records(cli):
    done = cli("profile", "-", *SMALL, stdin=b">a\n" + b"ACGTTGCA" * 30 + b"\n>b\n" + b"GATTACAT" * 20 + b"\n")
    assert done.code == 0, done.err
    assert "400 bases in" in done.out.splitlines()[1]


def test_fewer_windows_than_asked_for_are_said(cli, genome):
    done = cli("profile", genome, "--untrained", "-@", "1", "--window", "8192", "--batches", "6")
    assert done.code == 0
    assert "fewer than the 6 asked for" in done.err


@pytest.mark.parametrize(
    ("text", "words", "code", "said"),
    [
        (b">a\n" + b"N" * 400 + b"\n", (), 1, "at least half is called"),
        (b">a\nACGT*ACGT\n", (), 1, "'*'"),
        (b">a\nACGTACGT\n", ("--model", "x"), 2, "exclude each other"),
        (b">a\nACGTACGT\n", ("--trace", "x.txt"), 2, ".json"),
        (b">a\nACGTACGT\n", ("--patcher", "x", "--target-length", "4"), 2, "--patcher brings"),
        (b">a\nACGTACGT\n", ("--device", "cuda"), 3, "no CUDA"),
        (b">a\nACGTACGT\n", ("--window", "3"), 2, "--window"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(cli, tmp_path, text, words, code, said):
    path = tmp_path / "in.fa"
    path.write_bytes(text)
    done = cli("profile", path, "--untrained", *words)
    assert done.code == code, done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last
    assert done.out == ""


@pytest.mark.parametrize("command", ["profile", "bench"])
def test_help_imports_nothing_heavy(command):
    code = [sys.executable, "-X", "importtime", "-m", "hyena_glt", command, "--help"]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"torch", "numpy", "numba", "pyarrow", "scipy"}
    assert "Examples" in done.stdout
