"""`hyena-glt generate`: FASTA that depends on prompts, options and seed alone."""

from __future__ import annotations

import json

import pytest

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.sequences.fasta import read_records


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "prompts.fa"
    path.write_text(">one first\nACGTACGTTT\n>two\nCCNGA\n")
    return path


def test_prompts_of_a_file_are_continued(cli, fasta, tmp_path):
    output = tmp_path / "new.fa"
    done = cli("generate", fasta, "--untrained", "-n", "20", "-o", output, "--seed", "3")
    assert done.code == 0, done.err
    assert "random" in done.err
    records = list(read_records(output))
    assert [record.name for record in records] == ["one", "two"]
    assert [len(record.sequence) for record in records] == [30, 25]
    assert records[1].sequence.startswith(b"CCNGA")
    assert set(records[0].sequence[10:]) <= set(b"ACGT")
    assert records[0].description.startswith("prompt=10 new=20 mean_logprob=-")
    said = json.loads((tmp_path / "new.fa.json").read_text())["provenance"]
    assert said["weights"] == "untrained tiny net, seed 3"
    assert said["temperature"] == 1.0


def test_the_seed_and_nothing_else_makes_the_draws(cli, fasta):
    words = ("generate", fasta, "--untrained", "-n", "12", "--count", "2")
    first, again = cli(*words, "-@", "1"), cli(*words, "-@", "2")
    assert first.code == 0, first.err
    assert first.out == again.out
    assert [line for line in first.out.splitlines() if line.startswith(">")][1].startswith(">one_2 ")
    assert cli(*words, "--seed", "9").out != first.out


def test_a_saved_model_brings_its_patcher(cli, tmp_path):
    net = HyenaGLT(HyenaGLTConfig.preset("tiny", genomic_vocab_size=4), Patcher(patching_mode="static", patch_size=8))
    net.save_pretrained(tmp_path / "net")
    words = ("--model", tmp_path / "net", "--prompt", "ACGT", "-n", "9", "--temperature", "0")
    done = cli("generate", *words, "--new-only")
    assert done.code == 0, done.err
    assert "random" not in done.err
    assert "".join(done.out.splitlines()[1:]) == net.eval().generate("ACGT", 9, temperature=0.0)[4:]


def test_a_patcher_file_replaces_the_models(cli, genome, tmp_path):
    assert cli("calibrate", genome, "-o", tmp_path / "patcher.json").code == 0
    words = ("--untrained", "--prompt", "ACGTTTGACC", "-n", "5", "--patcher", tmp_path / "patcher.json")
    done = cli("generate", *words)
    assert done.code == 0, done.err
    assert len("".join(done.out.splitlines()[1:])) == 15


def test_rna_and_protein_have_their_letters(cli):
    for name, letters in (("rna", "ACGU"), ("protein", "ACDEFGHIKLMNPQRSTVWY")):
        done = cli("generate", "--untrained", "--alphabet", name, "--prompt", "ACG", "-n", "30", "--new-only")
        assert done.code == 0, done.err
        assert set("".join(done.out.splitlines()[1:])) <= set(letters)


def test_what_is_done_is_not_done_again(cli, fasta, tmp_path):
    words = ("generate", fasta, "--untrained", "-n", "4", "-o", tmp_path / "new.fa.gz")
    assert cli(*words).code == 0
    assert "already done" in cli(*words).err
    other = cli(*words, "--seed", "2")
    assert other.code == 2
    assert "--force" in other.err
    assert cli(*words, "--seed", "2", "--force").code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--model", "net", "--untrained", "--prompt", "ACGT"), 2, "exclude"),
        (("--untrained",), 2, "--prompt"),
        (("--untrained", "--prompt", "ACGT", "--top-p", "2"), 2, "--top-p"),
        (("--untrained", "--prompt", "ACGT", "--temperature", "-1"), 2, "temperature"),
        (("--untrained", "--prompt", "ACGT", "--alphabet", "bytes"), 2, "FASTA"),
        (("--untrained", "--prompt", "AC-T"), 1, "gap"),
        (("--untrained", "--prompt", ""), 1, "empty"),
        (("--model", "no/such/net", "--prompt", "ACGT"), 1, "net"),
        (("--untrained", "no_such.fa"), 1, "no such file"),
    ],
)
def test_mistakes_are_one_line_and_a_code(cli, words, code, said):
    done = cli("generate", *words)
    assert done.code == code, done.err
    assert said in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("error:")]) == 1


def test_the_net_that_ships_is_the_default(cli, tmp_path, monkeypatch):
    from hyena_glt.model import shipped

    net = HyenaGLT(HyenaGLTConfig.preset("tiny", genomic_vocab_size=4), Patcher(patching_mode="static", patch_size=8))
    net.save_pretrained(tmp_path / "net")
    words = ("--prompt", "ACGT", "-n", "9", "--temperature", "0")
    monkeypatch.setattr(shipped, "SHIPPED_FOLDER", tmp_path / "net")
    assert cli("generate", *words).out == cli("generate", *words, "--model", tmp_path / "net").out
    assert cli("generate", *words, "--alphabet", "protein").code == 2
    monkeypatch.setattr(shipped, "SHIPPED_FOLDER", tmp_path / "nowhere")
    done = cli("generate", *words)
    assert done.code == 1
    assert "--untrained" in done.err


def test_a_causal_model_is_needed(cli, tmp_path):
    net = HyenaGLT(HyenaGLTConfig.preset("tiny", causal=False), Patcher(patching_mode="static", patch_size=8))
    net.save_pretrained(tmp_path / "net")
    done = cli("generate", "--model", tmp_path / "net", "--prompt", "ACGT")
    assert done.code == 1
    assert "causal" in done.err
