"""`hyena-glt finetune`: a folder with a net and figures, one-line errors, and what interrupts leave behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.model import HyenaGLT
from hyena_glt.patching import Patcher
from hyena_glt.training.finetuned import FinetunedNet

SMALL = {"hidden_size": 24, "num_layers": 3, "local_hidden_size": 16, "ngram_table_size": 64, "filter_hidden_size": 8}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved net of a few thousand weights, patches of four bases."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    config = HyenaGLTConfig(**SMALL, causal=False, genomic_vocab_size=4, alphabet="dna")
    HyenaGLT(config, Patcher(patching_mode="static", patch_size=4)).save_pretrained(folder)
    return folder


def write_table(path, seed: int = 0, num: int = 30):
    rng = np.random.default_rng(seed)
    rows = ["sequence\tlabel\tvalue\tbases"]
    for row in range(num):
        share = 0.05 if row % 2 else 0.6
        sequence = "".join(rng.choice(list("ACGT"), 24, p=[(1 - share) / 3, (1 - share) / 3, share, (1 - share) / 3]))
        bases = "".join("g" if base == "G" else "o" for base in sequence)
        rows.append(f"{sequence}\t{'rich' if row % 2 == 0 else 'poor'}\t{share * 10:g}\t{bases}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("table") / "t.tsv")


QUICK = ("--epochs", 1, "--batch-size", 8, "--threads", 1, "--resamples", 20)


@pytest.mark.parametrize(
    ("words", "metric"),
    [
        (("--mode", "full", "--rc", "both"), "mcc"),
        (("--mode", "lora", "--lora-rank", 2, "--no-merge"), "mcc"),
        (("--mode", "frozen", "--task", "regression", "--label-column", "value"), "spearman"),
        (("--task", "per-base", "--label-column", "bases", "--class-weights", "balanced"), "f1"),
    ],
)
def test_a_net_is_fine_tuned_and_its_folder_is_whole(cli, model, table, tmp_path, words, metric):
    out = tmp_path / "tuned"
    done = cli("finetune", table, "-o", out, "--model", model, *QUICK, "--valid-share", 0.3, *words, "--json")
    assert done.code == 0, done.err
    facts, saved = json.loads(done.out), json.loads((out / "metrics.json").read_text())
    assert saved == {"provenance": saved["provenance"], **facts}
    assert metric in facts["valid"]
    assert facts["num_train"] + facts["num_valid"] == 30
    assert 0 < facts["num_trained"] < facts["num_weights"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train", "evaluation"]
    tuned = FinetunedNet.load(out)
    assert tuned.task.average_strands is ("both" in words)
    assert len(tuned.predict([b"ACGT"])) == 1
    assert tuned.net.external_patcher.args.patch_size == 4


def test_the_same_command_gives_the_same_net_and_is_done_once(cli, table, tmp_path):
    words = ("--untrained", "tiny", "--patch-size", 8, *QUICK, "--valid", write_table(tmp_path / "v.tsv", 1, 8))
    for name in ("a", "b"):
        done = cli("finetune", table, "-o", tmp_path / name, *words)
        assert done.code == 0, done.err
        assert done.out.startswith("validation: 8 of 38 sequences\nloss")
        assert "best epoch 1 of 1" in done.err
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    again = cli("finetune", table, "-o", tmp_path / "a", *words)
    assert (again.code, "already done" in again.err) == (0, True)
    other = cli("finetune", table, "-o", tmp_path / "a", *words, "--seed", 1)
    assert (other.code, "--force" in other.err) == (2, True)
    refused = cli("finetune", table, "-o", tmp_path / "a", *words, "--metric", "r2", "--force")
    assert (refused.code, cli("finetune", table, "-o", tmp_path / "a", *words).code) == (1, 0)  # nothing was removed
    (tmp_path / "a" / "metrics.json").unlink()  # as a run that was ended after the net was saved
    assert cli("finetune", table, "-o", tmp_path / "a", *words, "--seed", 1).code == 2
    assert cli("finetune", table, "-o", tmp_path / "a", *words).code == 0
    for name in ("metrics.json", "task.json"):  # ended a moment earlier
        (tmp_path / "a" / name).unlink()
    assert cli("finetune", table, "-o", tmp_path / "a", *words).code == 0
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == weights[0]


@pytest.mark.parametrize(("words", "sizes"), [((), ()), (("--ngrams",), (3, 6, 10)), (("--no-ngrams",), ())])
def test_n_grams_are_a_choice(cli, table, tmp_path, words, sizes):
    out = tmp_path / "tuned"
    done = cli("finetune", table, "-o", out, "--untrained", "tiny", "--patch-size", 8, *QUICK, *words)
    assert done.code == 0, done.err
    net = FinetunedNet.load(out).net
    assert tuple(net.config.ngram_sizes) == sizes
    assert len(net.net.local_encoder.embedding.table) == net.config.vocab_size + 4096 * len(sizes)


def test_no_ngrams_takes_them_from_a_trained_net(cli, model, table, tmp_path):
    out = tmp_path / "tuned"
    assert cli("finetune", table, "-o", out, "--model", model, *QUICK, "--no-ngrams").code == 0
    assert tuple(FinetunedNet.load(out).net.config.ngram_sizes) == ()
    assert HyenaGLT.from_pretrained(model).config.ngram_sizes


def test_repeated_and_leaking_sequences_are_said(cli, model, tmp_path):
    rows = "sequence\tlabel\nAAACC\ta\nAAACC\tb\nGGTTT\ta\nCCCAA\tb\n"
    (tmp_path / "t.tsv").write_text(rows)
    (tmp_path / "v.tsv").write_text("sequence\tlabel\nTTGGG\tb\nACACA\ta\n")
    words = ("finetune", tmp_path / "t.tsv", "--valid", tmp_path / "v.tsv", "--model", model, *QUICK)
    done = cli(*words, "-o", tmp_path / "tuned", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert (facts["repeated"], facts["contradicting"], facts["leaking"]) == (2, 1, 1)
    assert f"{tmp_path / 't.tsv'}:3: 2 rows repeat" in done.err
    assert f"{tmp_path / 't.tsv'}:5: 1 rows have a sequence" in done.err
    strict = cli(*words, "-o", tmp_path / "other", "--strict")
    assert (strict.code, strict.err.count("\n")) == (1, 1)
    assert "t.tsv:3" in strict.err


def test_regions_of_a_genome_are_learned(cli, model, genome, tmp_path):
    from hyena_glt.sequences.indexed_fasta import IndexedFasta

    with IndexedFasta(genome) as fasta:
        name = fasta.names[0]
    (tmp_path / "r.bed").write_text(
        "".join(f"{name}\t{50 * row}\t{50 * row + 40}\tc{row % 2}\t0\t{'+-'[row % 2]}\n" for row in range(20))
    )
    words = ("finetune", tmp_path / "r.bed", "--fasta", genome, "--model", model, *QUICK)
    done = cli(*words, "-o", tmp_path / "tuned", "--valid-share", 0)
    assert done.code == 0, done.err
    assert done.out == "validation: nothing\n"
    done = cli(*words, "-o", tmp_path / "x", "--label-column", "name")
    assert (done.code, "--label-column" in done.err) == (2, True)


def test_bad_input_is_one_line_and_leaves_nothing(cli, model, table, tmp_path):
    out = tmp_path / "tuned"
    cases = [
        ((table, "-o", out), 2, "--model FOLDER (hyena-glt-dna: the net that ships) and --untrained"),
        ((table, "-o", out, "--untrained", "tiny"), 2, "--patch-size"),
        ((table, "-o", out, "--untrained", "huge", "--patch-size", 8), 2, "huge"),
        ((table, "-o", out, "--model", tmp_path / "none"), 1, "manifest.json"),
        ((table, "-o", model, "--model", model), 2, "named twice"),
        ((table, "-o", out, "--model", model, "--valid", table, "--valid-share", 0.2), 2, "--valid-share"),
        ((table, "-o", out, "--model", model, "--valid", table), 2, "named twice"),
        ((table, "-o", out, "--model", model, "--label-column", "lable"), 1, "did you mean 'label'"),
        ((table, "-o", out, "--model", model, "--separator", "ab"), 2, "separator"),
        ((table, "-o", out, "--model", model, "--task", "regression"), 1, "t.tsv:2: label: expected a finite number"),
        ((table, "-o", out, "--model", model, "--task", "per-base"), 1, "t.tsv:2: label: expected 24 labels"),
        ((table, "-o", out, "--model", model, "--class-weights", "x"), 2, "--class-weights"),
        ((table, "-o", out, "--model", model, "--learning-rate", 0), 2, "learning_rate"),
        ((table, "-o", out, "--model", model, "--metric", "r2"), 1, "metric"),
        ((table, "-o", out, "--model", model, "--device", "abacus"), 2, "--device"),
        (("-", "-o", out, "--model", model), 2, "standard input"),
        ((tmp_path / "none.tsv", "-o", out, "--model", model), 1, "no such file"),
        ((table, "--model", model), 2, "--output"),
    ]
    for words, code, message in cases:
        done = cli("finetune", *words, "--threads", 1)
        assert (done.code, done.err.count("\n")) == (code, 1), (words, done.err)
        assert message in done.err, (words, done.err)
    assert not out.exists()
    done = cli("finetune", table, "-o", model.parent / model.name, "--untrained", "tiny", "--patch-size", 8)
    assert (done.code, "holds a net already" in done.err) == (2, True)


def test_a_terminated_run_exits_143_and_is_not_taken_for_done(table, tmp_path):
    words = ["--untrained", "tiny", "--patch-size", "8", "--epochs", "10000", "--threads", "1"]
    command = [sys.executable, "-m", "hyena_glt", "finetune", str(table), "-o", str(tmp_path / "tuned"), *words]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        log = tmp_path / "tuned" / "metrics.jsonl"
        until = time.monotonic() + 120
        while time.monotonic() < until and not (log.exists() and log.stat().st_size):
            time.sleep(0.1)
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 143, err
    assert err == "error: terminated\n"
    assert not {"manifest.json", "metrics.json"} & {path.name for path in (tmp_path / "tuned").iterdir()}


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_files(cli, model, table, tmp_path):
    words = ["--model", str(model), "--epochs", "150", "--batch-size", "8", "--threads", "1", "--resamples", "20"]
    command = [sys.executable, "-m", "hyena_glt", "finetune", str(table), "-o", str(tmp_path / "cut"), *words]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and not list(tmp_path.glob("cut/checkpoints/step-*")):
            time.sleep(0.1)
    finally:
        run.kill()
        run.wait()
    assert list(tmp_path.glob("cut/checkpoints/step-*"))
    refused = cli("finetune", table, "-o", tmp_path / "cut", *words, "--seed", 1)
    assert (refused.code, "begun with other options" in refused.err) == (1, True)
    again = cli("finetune", table, "-o", tmp_path / "cut", *words)
    assert (again.code, "going on after epoch" in again.err) == (0, True)
    whole = cli("finetune", table, "-o", tmp_path / "whole", *words)
    assert whole.code == 0
    assert not (tmp_path / "cut" / "checkpoints").exists()
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("cut", "whole")
    ]
    for line in (*lines[0], *lines[1]):
        line.pop("timings")
    assert lines[0] == lines[1]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert weights[0] == weights[1]
