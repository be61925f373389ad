"""`hyena-glt bench`: does patching pay on this file?"""

from __future__ import annotations

import json

import pytest

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.cli.bench import numbers
from hyena_glt.errors import UsageError

QUICK = ("-@", "1", "--lengths", "512,1024", "--patch-lengths", "8,16", "--repeats", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved net that brings its patcher."""
    place = tmp_path_factory.mktemp("saved") / "net"
    HyenaGLT(HyenaGLTConfig.preset("tiny"), Patcher(patching_mode="static", patch_size=8)).save_pretrained(place)
    return place


def test_the_table_and_the_answer(cli, genome):
    done = cli("bench", genome, "--untrained", *QUICK)
    assert done.code == 0, done.err
    titles = [line for line in done.out.splitlines() if line.endswith(" bases")]
    assert titles == [f"{task}, {n} bases" for task in ("forward", "training step") for n in ("512", "1,024")]
    assert done.out.count("patches of 16 ") == 4
    assert "bits/base" not in done.out
    last = done.out.splitlines()[-1]
    assert last.startswith("Does it pay for me? ")
    assert "at 1,024 bases" in last
    assert "random weights cannot tell" in last


def test_the_json_holds_what_the_table_shows(cli, genome):
    done = cli("bench", genome, "--untrained", "--json", "--no-training", *QUICK)
    found = json.loads(done.out)
    assert [(row["task"], row["length"], row["mode"]) for row in found["rows"]] == [
        ("forward", length, mode) for length in (512, 1024) for mode in ("byte", "patches of 8", "patches of 16")
    ]
    assert all(row["wall_s"] > 0 and row["cpu_s"] > 0 and row["peak_bytes"] >= 0 for row in found["rows"])
    assert found["rows"][0]["mean_patch_length"] == 1.0
    assert found["rows"][2]["mean_patch_length"] > found["rows"][1]["mean_patch_length"] > 4
    assert found["bits_per_base"] is None
    assert set(found["provenance"]["thresholds"]) == {"8", "16"}
    assert found["weights"] == found["provenance"]["weights"] == "untrained tiny net, seed 0"


def test_trained_weights_give_bits_per_base(cli, genome, folder, tmp_path):
    path = tmp_path / "bench.json"
    done = cli("bench", genome, "--model", folder, "--no-training", *QUICK, "-o", path)
    assert done.code == 0, done.err
    found = json.loads(path.read_text())
    assert list(found["bits_per_base"]) == ["byte", "own patcher", "patches of 8", "patches of 16"]
    assert all(4 < bits < 12 for bits in found["bits_per_base"].values())  # random weights over 260 symbols
    assert "bits per base" in found["verdict"]
    own = next(row for row in found["rows"] if row["mode"] == "own patcher")
    assert own["mean_patch_length"] == 8.0
    assert "bits/base" in done.out
    assert f"{found['bits_per_base']['own patcher']:.4f}" in done.out
    assert "Bits per base are of these weights" in done.out
    assert done.out.splitlines()[-1] == found["verdict"]


@pytest.mark.parametrize("suffix", ["json", "html"])
def test_the_output_is_whole_and_done_once(cli, genome, tmp_path, suffix):
    path = tmp_path / f"bench.{suffix}"
    words = ("bench", genome, "--untrained", "--no-training", *QUICK, "-o", path)
    assert cli(*words).code == 0
    before = path.read_bytes()
    again = cli(*words)
    assert again.code == 0
    assert "already done" in again.err
    assert again.out == ""
    assert path.read_bytes() == before
    path.write_text("mine")
    assert cli(*words).code == 2
    assert cli(*words, "--force").code == 0
    assert "Does it pay for me?" in path.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_page_is_closed_and_escaped(cli, genome, tmp_path):
    strange = tmp_path / "<img src=x>.fa"
    strange.write_bytes(genome.read_bytes())
    page = tmp_path / "b.html"
    assert cli("bench", strange, "--untrained", "--no-training", *QUICK, "-o", page).code == 0
    text = page.read_text()
    assert "<img" not in text
    assert "&lt;img" in text
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
    assert "<script" not in text
    assert text.count("<table>") == 2


def test_runs_that_take_too_long_are_left_out_and_said(cli, genome):
    words = ("-@", "1", "--lengths", "1024", "--patch-lengths", "16", "--repeats", "1", "--no-training")
    done = cli("bench", genome, "--untrained", "--size", "small", "--longest", "0.1", *words)
    assert done.code == 0, done.err
    assert "forward, 1,024 bases, byte: left out, expected to take" in done.err
    assert "That cannot be said" in done.out


def test_lengths_that_do_not_fit_are_left_out(cli, genome):
    words = ("-@", "1", "--patch-lengths", "16", "--repeats", "1", "--no-training")
    done = cli("bench", genome, "--untrained", "--lengths", "512", "--lengths", "1000000", *words)
    assert done.code == 0, done.err
    assert "1,000,000 bases: left out" in done.err
    none = cli("bench", genome, "--untrained", "--lengths", "1000000", *words)
    assert none.code == 1
    assert "the longest record has 30,000 symbols" in none.err.splitlines()[-1]


def test_a_net_with_learned_boundaries_cuts_by_itself(cli, genome, tmp_path):
    HyenaGLT(HyenaGLTConfig.preset("tiny", boundaries="learned")).save_pretrained(tmp_path / "net")
    done = cli("bench", genome, "--model", tmp_path / "net", "--json", "--no-training", *QUICK)
    assert done.code == 0, done.err
    assert {row["mode"] for row in json.loads(done.out)["rows"]} == {"byte", "own patcher"}
    assert "cuts by itself" in done.err


def test_a_net_that_sees_both_sides_has_no_bits(cli, genome, tmp_path):
    HyenaGLT(HyenaGLTConfig.preset("tiny", causal=False)).save_pretrained(tmp_path / "net")
    done = cli("bench", genome, "--model", tmp_path / "net", "--json", "--no-training", *QUICK)
    assert done.code == 0, done.err
    assert json.loads(done.out)["bits_per_base"] is None
    assert "no bits per base" in done.err


def test_numbers_are_read_in_every_spelling():
    assert numbers("--x", ["8192", "32768"], least=64, whole=True) == [8192, 32768]
    assert numbers("--x", ["4,8, 16 32"], least=1) == [4, 8, 16, 32]
    for words in (["4,x"], ["0.5"], [""], ["nan"], ["inf"], ["1e99"]):
        with pytest.raises(UsageError, match="--x: expected numbers of at least 1"):
            numbers("--x", words, least=1)
    with pytest.raises(UsageError, match="whole numbers"):
        numbers("--x", ["64.5"], least=64, whole=True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--lengths", "12"), 2, "at least 64"),
        (("--patch-lengths", "a"), 2, "got 'a'"),
        (("-o", "x.txt"), 2, "the suffix tells no format"),
        (("--model", "nowhere"), 2, "exclude each other"),
        (("--device", "cuda"), 3, "no CUDA"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(cli, genome, words, code, said):
    done = cli("bench", genome, "--untrained", *words)
    assert done.code == code, done.err
    assert done.err.splitlines()[-1].startswith("error: ")
    assert said in done.err
    assert done.out == ""
