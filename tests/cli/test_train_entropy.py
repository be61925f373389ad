"""`hyena-glt train-entropy`: a model that every command and patcher takes, and figures of unseen sequence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from hyena_glt import Patcher, PatcherArgs
from hyena_glt.entropies import MarkovEntropy, NeuralEntropy
from hyena_glt.sequences.fasta import read_records

QUICK = ("--steps", 4, "--batch-size", 2, "--window", 64, "--width", 8, "--layers", 1)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Two contigs of 600 and 300 bases, the first with a run of N."""
    path = tmp_path_factory.mktemp("short") / "short.fa"
    path.write_text(">a\n" + "ACGTTGCATTAGCGGA" * 30 + "N" * 20 + "GATTACAT" * 13 + "\n>b\n" + "GGCATC" * 50 + "\n")
    return path


def test_the_figures_are_those_of_the_saved_model_and_of_a_table_of_the_same_sequence(cli, short, tmp_path):
    saved = tmp_path / "n.safetensors"
    done = cli("train-entropy", short, "-o", saved, *QUICK, "--held-out", 0.25, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert (facts["num_symbols"], facts["steps"]) == (904, 4)
    contigs = [record.sequence for record in read_records(short)]
    learned = [contig[: len(contig) - round(len(contig) * 0.25)] for contig in contigs]
    ends = [contig[len(part) :] for contig, part in zip(contigs, learned, strict=True)]
    table = MarkovEntropy.fit(learned)
    assert facts["held_out"] == {
        "bits_per_base": NeuralEntropy.load(saved).bits_per_base(ends),
        "num_symbols": sum(map(len, ends)),
        "markov": {"order": table.order, "bits_per_base": table.bits_per_base(ends)},
    }
    beside = json.loads((tmp_path / "n.safetensors.json").read_text())
    assert beside["held_out"] == facts["held_out"]
    assert beside["provenance"]["entropy_model"] == NeuralEntropy.load(saved).describe()
    assert len(beside["provenance"]["input_sha256"]) == 64


def test_patchers_and_commands_take_the_model(cli, bed, short, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    saved = folder / "n.safetensors"
    assert cli("train-entropy", short, "-o", saved, *QUICK).code == 0
    by_folder = PatcherArgs(entropy_model_checkpoint_dir=str(folder), threshold=1.38).build()
    lengths, scores = by_folder.patch("ACGTTGCATTAGC" * 9)
    assert scores[0].tolist() == NeuralEntropy.load(saved).entropies("ACGTTGCATTAGC" * 9).tolist()
    assert torch.equal(lengths, Patcher(entropy_model=str(saved), threshold=1.38).patch("ACGTTGCATTAGC" * 9)[0])

    patched = cli("patch", short, "--entropy-model", saved, "--target-length", 4, "--no-version")
    assert patched.code == 0, patched.err
    assert [end for _, _, end, *_ in bed(patched.out)][-1] == 300
    calibrated = tmp_path / "p.json"
    made = cli("calibrate", short, "--entropy-model", saved, "--target-length", 4, "-o", calibrated)
    assert made.code == 0, made.err
    assert cli("patch", short, "--patcher", calibrated, "--no-version").out == patched.out
    track = cli("entropy", short, "--entropy-model", saved, "--no-version")
    assert track.code == 0, track.err
    assert "neural" in track.err


def test_the_same_seed_gives_the_same_file(cli, short, tmp_path):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        done = cli("train-entropy", short, "-o", tmp_path / name, "--seed", seed, *QUICK)
        assert done.code == 0, done.err
        assert done.out.startswith("held out (90 symbols): ")
        assert "context model of order 3 on the same: " in done.out
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


def test_what_is_done_is_not_done_again(cli, short, tmp_path):
    words = ("train-entropy", short, "-o", tmp_path / "n.safetensors", *QUICK)
    assert cli(*words).code == 0
    content = (tmp_path / "n.safetensors").read_bytes()
    again = cli(*words)
    assert again.code == 0
    assert "already done" in again.err
    other = cli(*words, "--seed", 9)
    assert other.code == 2
    assert "--force" in other.err
    assert (tmp_path / "n.safetensors").read_bytes() == content
    assert cli(*words, "--seed", 9, "--force").code == 0
    assert (tmp_path / "n.safetensors").read_bytes() != content


def test_a_run_that_breaks_off_leaves_no_model_under_another_ones_provenance(cli, short, tmp_path, monkeypatch):
    words = ("train-entropy", short, "-o", tmp_path / "n.safetensors", *QUICK)
    assert cli(*words).code == 0

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hyena_glt.cli.outputs.write_json", fail)
        assert cli(*words, "--seed", 9, "--force").code == 130
    assert cli(*words).code == 2  # the model of the other seed is there now, and nothing says that it is this one


def test_several_genomes_are_one_training_set(cli, short, tmp_path):
    more = tmp_path / "more.fa"
    more.write_text(">c\n" + "TTGACCA" * 40 + "\n")
    done = cli("train-entropy", short, more, "-o", tmp_path / "n", *QUICK, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["num_symbols"] == 904 + 280
    assert cli("train-entropy", short, "-", "-o", tmp_path / "m", *QUICK, stdin=b"").code == 2


def test_without_held_out_sequence_there_is_no_figure(cli, short, tmp_path):
    words = ("-o", tmp_path / "n", "--held-out", 0, *QUICK)
    done = cli("train-entropy", "-", *words, stdin=short.read_bytes())
    assert done.code == 0, done.err
    assert done.out == "held out: nothing\n"
    assert NeuralEntropy.load(tmp_path / "n").held_out_bits is None


def test_the_time_ends_a_training_too(cli, short, tmp_path):
    done = cli("train-entropy", short, "-o", tmp_path / "n", *QUICK[2:], "--seconds", 0.2, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["steps"] >= 1
    assert facts["elapsed_s"] >= 0.2


def test_a_protein_model_is_for_proteins(cli, short, tmp_path):
    proteins = tmp_path / "p.fa"
    proteins.write_text(">x\n" + "MKTAYIAKQRQISFVKSHFSRQ" * 20 + "\n")
    saved = tmp_path / "n.safetensors"
    done = cli("train-entropy", proteins, "-o", saved, "--alphabet", "protein", *QUICK)
    assert done.code == 0, done.err
    assert NeuralEntropy.load(saved).alphabet.name == "protein"
    refused = cli("patch", short, "--entropy-model", saved)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "the entropy model is for protein" in refused.err


def test_bad_input_is_one_line(cli, short, tmp_path):
    out = tmp_path / "n.safetensors"
    empty = tmp_path / "n.fa"
    empty.write_text(">x\nNNNN\n")
    cases = [
        ((short, "-o", "-"), 2, "give -o FILE"),
        ((short, "-o", short), 2, "named twice"),
        ((short, "-o", out, "--steps", 0), 2, "steps"),
        ((short, "-o", out, "--seconds", "-1"), 2, "seconds: expected a number above 0"),
        ((short, "-o", out, "--seconds", "nan"), 2, "seconds: expected a number above 0"),
        ((short, "-o", out, "--learning-rate", 0), 2, "learning_rate: expected a number above 0"),
        ((short, "-o", out, "--learning-rate", 1e30), 2, "learning_rate, weight_decay: expected at most 1e+15"),
        ((short, "-o", out, "--held-out", 1), 2, "held-out"),
        ((short, "-o", out, "--device", "abacus"), 2, "device: expected auto"),
        ((short, "-o", out, *QUICK, "--learning-rate", 1e15, "--steps", 20), 1, "take a smaller one"),
        ((empty, "-o", out), 1, "no target"),
        ((tmp_path / "none.fa", "-o", out), 1, "none.fa: no such file"),
    ]
    for words, code, message in cases:
        done = cli("train-entropy", *words)
        assert (done.code, done.err.count("\n")) == (code, 1), done.err
        assert message in done.err
    assert not out.exists()


@pytest.mark.slow
def test_real_sequence_is_learned(cli, data, tmp_path):
    genome = data("genomes/lambda_NC_001416.1.fa")
    done = cli("train-entropy", genome, "-o", tmp_path / "n.safetensors", "--steps", 150, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["held_out"]["bits_per_base"] < 2.0  # what letters drawn evenly cost


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_run_goes_on_to_the_same_model(cli, short, tmp_path, number, code):
    """A signal finishes the batch and saves; what is killed goes on from what it saved last."""
    words = ("--steps", 60, *QUICK[2:])
    assert cli("train-entropy", short, "-o", tmp_path / "whole", *words).code == 0
    script = f"""
import os, sys
import hyena_glt.cli.train_entropy as command
from hyena_glt.cli.main import main

keep = command.Keeper.__call__

def watched(self, step, state):
    if step == 9:
        self._saved_at = float("-inf")
        if {int(number)} != {int(signal.SIGKILL)}:
            os.kill(os.getpid(), {int(number)})
    if step == 11:
        os.kill(os.getpid(), {int(signal.SIGKILL)})
    keep(self, step, state)

command.Keeper.__call__ = watched
sys.argv = ["hyena-glt", *sys.argv[1:]]
sys.exit(main(sys.argv[1:]))
"""
    given = [str(word) for word in ("train-entropy", short, "-o", tmp_path / "m", *words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", script, *given], env=environment, check=False).returncode == code
    assert not (tmp_path / "m").exists()
    assert len(list((tmp_path / "m.parts").glob("*.safetensors"))) == 1
    other = cli(*given, "--seed", 5)
    assert (other.code, "--force" in other.err) == (2, True)
    done = cli(*given)
    assert (done.code, "going on from there" in done.err) == (0, True)
    assert (tmp_path / "m").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "m.parts").exists()
