"""`hyena-glt train-bpe-patcher`: a network that a patcher takes, and figures of unseen sequence."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models

from hyena_glt import Patcher

QUICK = ("--steps", 3, "--width", 8, "--layers", 1)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Tokens A C G T N AC GT."""
    vocab = {token: index for index, token in enumerate(["A", "C", "G", "T", "N", "AC", "GT"])}
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    Tokenizer(models.BPE(vocab=vocab, merges=[("A", "C"), ("G", "T")])).save(str(path))
    return path


def test_the_network_is_written_and_taken_by_a_patcher(cli, genome, tokenizer, tmp_path):
    saved = tmp_path / "n.safetensors"
    done = cli("train-bpe-patcher", genome, "--tokenizer", tokenizer, "-o", saved, *QUICK, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["steps"] == 3
    assert 0 < facts["held_out"]["true_rate"] < 1
    assert set(facts["held_out"]["baseline_f1"]) == {"always", "random", "none"}
    assert "wrote" in done.err
    beside = json.loads((tmp_path / "n.safetensors.json").read_text())
    assert beside["held_out"] == facts["held_out"]
    assert len(beside["provenance"]["input_sha256"]) == len(beside["provenance"]["tokenizer_sha256"]) == 64
    patcher = Patcher(patching_mode="bpe_patcher", entropy_model=str(saved))
    assert int(patcher.patch("ACGTGTACCA" * 9)[0].sum()) == 90


def test_the_same_seed_gives_the_same_file(cli, genome, tokenizer, tmp_path):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        words = ("--seed", seed, "--held-out", 0.3, *QUICK)
        done = cli("train-bpe-patcher", genome, "--tokenizer", tokenizer, "-o", tmp_path / name, *words)
        assert done.code == 0, done.err
        assert "precision" in done.out
        assert "F1 without looking: always" in done.out
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


def test_what_is_done_is_not_done_again(cli, genome, tokenizer, tmp_path):
    words = ("train-bpe-patcher", genome, "--tokenizer", tokenizer, "-o", tmp_path / "n.safetensors", *QUICK)
    assert cli(*words).code == 0
    again = cli(*words)
    assert again.code == 0
    assert "already done" in again.err
    other = cli(*words, "--seed", 9)
    assert other.code == 2
    assert "--force" in other.err
    assert cli(*words, "--seed", 9, "--force").code == 0


def test_without_held_out_sequence_there_is_no_figure(cli, genome, tokenizer, tmp_path):
    words = ("--tokenizer", tokenizer, "-o", tmp_path / "n", "--held-out", 0, *QUICK)
    done = cli("train-bpe-patcher", "-", *words, stdin=genome.read_bytes())
    assert done.code == 0, done.err
    assert done.out == "held out: nothing\n"


def test_bad_input_is_one_line(cli, genome, tokenizer, tmp_path):
    out = tmp_path / "n.safetensors"
    cases = [
        (("--tokenizer", tmp_path / "none.json", "-o", out), 1, "no such file"),
        (("--tokenizer", genome.with_suffix(".gff3"), "-o", out), 1, "not a tokenizer"),
        (("--tokenizer", tokenizer, "-o", tokenizer), 2, "named twice"),
        (("--tokenizer", tokenizer, "-o", out, "--steps", 0), 2, "steps"),
        (("--tokenizer", tokenizer, "-o", out, "--device", "abacus"), 1, "device: expected auto"),
        (("-o", out), 2, "--tokenizer"),
    ]
    for words, code, message in cases:
        done = cli("train-bpe-patcher", genome, *words)
        assert (done.code, done.err.count("\n")) == (code, 1), done.err
        assert message in done.err
    assert not out.exists()
    (tmp_path / "n.fa").write_text(">x\nNNNN\n")
    done = cli("train-bpe-patcher", tmp_path / "n.fa", "--tokenizer", tokenizer, "-o", out)
    assert done.code == 1
    assert "no target" in done.err
