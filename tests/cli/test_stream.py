"""`hyena-glt stream`: one pass, any chunk size, the patches of `hyena-glt patch`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

RULES = [
    ["--threshold", 1.37, "--max-patch-length", 40],
    ["--threshold", 0.01, "--monotonicity", "--min-patch-length", 3],
    ["--threshold", 1.37, "--threshold-add", 0.001],
]


@pytest.fixture(scope="module")
def model(genome, tmp_path_factory):
    """An entropy model fitted on the genome."""
    from hyena_glt.cli.main import main

    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    assert main(["entropy", str(genome), "-o", str(path.with_name("e.bedgraph")), "--save-model", str(path)]) == 0
    return path


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("chunk", [7, 64, 4096])
def test_a_stream_gives_the_patches_of_patch(cli, genome, model, rule, chunk):
    words = [*rule, "--entropy-model", model, "--no-version"]
    whole = cli("patch", genome, *words)
    assert whole.code == 0, whole.err
    streamed = cli("stream", genome, "--chunk", chunk, *words)
    assert streamed.code == 0, streamed.err
    assert streamed.out == whole.out


def test_static_mode_needs_no_model(cli, genome, bed):
    rows = bed(cli("stream", genome, "--mode", "static", "--patch-size", 8).out)
    assert {end - start for _, start, end, _, _ in rows[:50]} == {8}


def test_a_saved_patcher_says_it_all(cli, genome, tmp_path):
    patcher, stats = tmp_path / "patcher.json", tmp_path / "stats.json"
    assert cli("calibrate", genome, "-o", patcher).code == 0
    done = cli("stream", "-", "--patcher", patcher, "--stats", stats, stdin=genome.read_bytes())
    assert done.code == 0, done.err
    assert json.loads(stats.read_text())["bases"] == 40_000


@pytest.mark.parametrize("words", [[], ["--threshold", 1.3], ["--entropy-model", "mix"]])
def test_a_rule_that_has_to_be_learned_is_refused(cli, genome, words):
    done = cli("stream", genome, *words)
    assert done.code == 2
    assert "a stream is read once" in done.err


def test_patches_appear_while_the_input_is_still_open(genome):
    words = [sys.executable, "-m", "hyena_glt", "stream", "--mode", "static", "--patch-size", "8", "--chunk", "1000"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(genome.read_bytes()[:20_000])
        process.stdin.flush()
        killer = threading.Timer(60, process.kill)
        killer.start()
        lines = [process.stdout.readline() for _ in range(200)]
        process.stdin.close()
        process.stdout.read()
        killer.cancel()
        assert process.wait() == 0
    assert len([line for line in lines if line and not line.startswith(b"#")]) > 100
