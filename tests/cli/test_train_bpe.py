"""`hyena-glt train-bpe`: a tokenizer that patches with, whole or not at all, never over another file."""

from __future__ import annotations

import hashlib
import json

import pytest
from tokenizers import Tokenizer

from hyena_glt import Patcher
from hyena_glt.sequences.fasta import read_records


def test_the_tokenizer_patches_and_loses_nothing(cli, genome, tmp_path):
    saved = tmp_path / "tokenizer.json"
    done = cli("train-bpe", genome, "--vocab-size", "200", "-o", saved, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["vocab_size"] == 200 == Tokenizer.from_file(str(saved)).get_vocab_size()
    assert facts["symbols"] == sum(len(record.sequence) for record in read_records(genome))
    assert 0 < facts["trained_symbols"] < facts["symbols"]  # runs of N are left out
    patcher = Patcher(patching_mode="bpe", model_name=str(saved))
    for record in read_records(genome):
        pieces, _ = patcher.patch_with_boundaries(record.sequence.decode())
        assert "".join(pieces).encode() == record.sequence
        assert max(map(len, pieces)) <= facts["longest_entry"]
    assert done.err.count("\n") == 1


def test_provenance_lies_beside_it(cli, genome, tmp_path):
    saved = tmp_path / "tokenizer.json"
    assert cli("train-bpe", genome, "--vocab-size", "64", "-o", saved, "--seed", "3").code == 0
    about = json.loads((tmp_path / "tokenizer.json.provenance.json").read_text())
    assert about["tokenizer_sha256"] == hashlib.sha256(saved.read_bytes()).hexdigest()
    origin = about["provenance"]
    assert origin["input_sha256"] == hashlib.sha256(genome.read_bytes()).hexdigest()
    assert "train-bpe" in origin["command"]
    assert "--seed 3" in origin["command"]
    assert origin["vocab_size"] == 64


def test_the_same_command_is_done_already_and_another_is_refused(cli, genome, tmp_path):
    saved = tmp_path / "tokenizer.json"
    command = ("train-bpe", genome, "--vocab-size", "64", "-o", saved)
    assert cli(*command).code == 0
    content = saved.read_bytes()
    again = cli(*command)
    assert again.code == 0
    assert "already done" in again.err
    other = cli("train-bpe", genome, "--vocab-size", "65", "-o", saved)
    assert other.code == 2
    assert "tokenizer.json: exists already; give --force" in other.err
    assert saved.read_bytes() == content
    assert cli("train-bpe", genome, "--vocab-size", "65", "-o", saved, "--force").code == 0
    assert saved.read_bytes() != content
    saved.write_bytes(content)  # not what the last command wrote
    assert cli("train-bpe", genome, "--vocab-size", "65", "-o", saved).code == 2
    saved.unlink()
    assert cli(*command).code == 0
    assert saved.read_bytes() == content


def test_several_files_stdin_and_stdout(cli, tmp_path):
    for name, text in (("a", ">a\nACGACGACG\n"), ("b", ">b\nACGACGTTT\n>c\nTTTTTT\n")):
        (tmp_path / f"{name}.fa").write_text(text)
    both = cli("train-bpe", tmp_path / "a.fa", tmp_path / "b.fa", "--vocab-size", "20", "-o", tmp_path / "t.json")
    assert both.code == 0, both.err
    about = json.loads((tmp_path / "t.json.provenance.json").read_text())["provenance"]
    assert [len(digest) for digest in about["input_sha256"]] == [64, 64]
    assert (about["symbols"], about["pieces"]) == (24, 3)
    text = b">a\nACGACGACG\n>b\nACGACGTTT\n>c\nTTTTTT\n"
    piped = cli("train-bpe", "-", "--vocab-size", "20", "-o", "-", stdin=text)
    assert piped.code == 0
    assert piped.out == (tmp_path / "t.json").read_text()


@pytest.mark.parametrize(
    ("words", "stdin", "code", "message"),
    [
        (["-", "-"], b">a\nA\n", 2, "standard input is named twice"),
        (["-", "-o", "-", "--json"], b">a\nA\n", 2, "both would write to stdout"),
        (["-"], b">a\nNNNN\n", 1, "no letter of alphabet dna"),
        (["-"], b">a\nAC*GT\n", 1, "<stdin>"),
        (["-", "--vocab-size", "5"], b">a\nACGT\n", 2, "vocab_size: expected at least 16"),
        (["-", "--max-symbols", "5"], b">a\nACGT\n", 2, "max_symbols: expected at least one piece of 256"),
        (["none.fa"], None, 1, "none.fa: no such file"),
        ([], None, 2, "GENOME"),
    ],
)
def test_faults_are_one_line(cli, tmp_path, words, stdin, code, message):
    output = [] if "-o" in words else ["-o", tmp_path / "t.json"]
    done = cli("train-bpe", *words, *output, stdin=stdin)
    assert done.code == code
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_input_is_not_written_over(cli, genome):
    done = cli("train-bpe", genome, "-o", genome)
    assert done.code == 2
    assert "named twice" in done.err


def test_protein(cli, data, tmp_path):
    faa = data("protein_rna/arabidopsis_chloroplast_proteins_NC_000932.faa")
    done = cli("train-bpe", faa, "--alphabet", "protein", "--vocab-size", "256", "-o", tmp_path / "t.json", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["vocab_size"] == 256
