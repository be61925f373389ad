"""`hyena-glt evaluate`: figures of fine-tuned nets and of language models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.model import (
    HyenaGLT,
    HyenaGLTForBaseLabels,
    HyenaGLTForSequenceClassification,
    HyenaGLTForSequenceRegression,
)
from hyena_glt.patching import Patcher
from hyena_glt.training.finetuned import FinetunedNet, TaskOptions

SMALL = {"hidden_size": 24, "num_layers": 3, "local_hidden_size": 16, "ngram_table_size": 64, "filter_hidden_size": 8}
NETS = {
    "classification": HyenaGLTForSequenceClassification,
    "regression": HyenaGLTForSequenceRegression,
    "per-base": HyenaGLTForBaseLabels,
}
SEQUENCES = ["ACGTACGTTT", "GGGTTTAC", "ACACACA", "TTGACA"]
LABELS = {
    "classification": ["x", "y", "y", "x"],
    "regression": ["1", "2", "-1", "0.5"],
    "per-base": ["x" * 5 + "y" * 5, "yyyyxxxx", "x?yx?yx", "xyxyxy"],
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tuned(tmp_path):
    """`tuned(kind)`: folder and net of an untrained head, and a table of its labels."""

    def make(kind: str):
        torch.manual_seed(0)
        classes = () if kind == "regression" else ("x", "y")
        config = HyenaGLTConfig(**SMALL, causal=False, num_labels=len(classes) or 1)
        net = NETS[kind](config, Patcher(patching_mode="static", patch_size=4)).eval()
        made = FinetunedNet(net, TaskOptions(kind=kind, classes=classes))
        made.save(tmp_path / kind)
        table = tmp_path / f"{kind}.tsv"
        rows = [f"{sequence}\t{label}\n" for sequence, label in zip(SEQUENCES, LABELS[kind], strict=True)]
        table.write_text("sequence\tlabel\n" + "".join(rows))
        return tmp_path / kind, made, table

    return make


@pytest.mark.parametrize("kind", list(NETS))
def test_figures_and_predictions_are_those_of_the_net(cli, tuned, tmp_path, kind):
    folder, net, table = tuned(kind)
    out, predicted = tmp_path / "m.json", tmp_path / "p.tsv"
    done = cli("evaluate", folder, table, "-o", out, "--predictions", predicted, "--resamples", 20, "--json")
    assert done.code == 0, done.err
    facts, saved = json.loads(done.out), json.loads(out.read_text())
    assert saved == {"provenance": saved["provenance"], **facts}
    assert facts["num_sequences"] == 4
    assert set(facts["metrics"]) > ({"spearman"} if kind == "regression" else {"auroc"})
    lines = predicted.read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("##")]
    assert rows[0][:3] == ["line", "label", "prediction"]
    answers = net.predict([sequence.encode() for sequence in SEQUENCES])
    for place, (row, answer) in enumerate(zip(rows[1:], answers, strict=True)):
        assert row[:2] == [str(place + 2), LABELS[kind][place]]
        if kind == "regression":
            assert float(row[2]) == pytest.approx(float(answer), rel=1e-5)
        else:
            assert row[2] == "".join(np.array(["x", "y"])[np.atleast_1d(answer.argmax(-1))])
        if kind == "classification":
            assert [float(share) for share in row[3:]] == pytest.approx(answer.tolist(), abs=1e-6)
    again = cli("evaluate", folder, table, "-o", out, "--predictions", predicted, "--resamples", 20, "--json")
    assert (again.code, "already done" in again.err, again.out) == (0, True, "")


def test_strands_are_averaged_on_demand(cli, tuned):
    folder, net, table = tuned("classification")
    losses = {}
    for rc in ("none", "avg"):
        done = cli("evaluate", folder, table, "--rc", rc, "--resamples", 0, "--json")
        assert done.code == 0, done.err
        losses[rc] = json.loads(done.out)["metrics"]["loss"]["value"]
    answers = net.predict([sequence.encode() for sequence in SEQUENCES], average_strands=True)
    labels = [0, 1, 1, 0]
    expected = -np.mean([np.log(answer[label]) for answer, label in zip(answers, labels, strict=True)])
    assert losses["avg"] == pytest.approx(expected, rel=1e-5)
    assert losses["avg"] != pytest.approx(losses["none"], rel=1e-5)
    done = cli("evaluate", folder, table)
    assert done.out.startswith("4 sequences\nloss  ")
    assert "[" in done.out


def test_another_net_is_not_already_done(cli, tuned, tmp_path):
    folder, net, table = tuned("classification")
    words = ("evaluate", folder, table, "-o", tmp_path / "m.json")
    assert cli(*words).code == 0
    with torch.no_grad():
        net.net.head.project.bias.add_(1.0)
    net.save(folder)
    done = cli(*words)
    assert (done.code, "--force" in done.err) == (2, True)
    assert cli(*words, "--force").code == 0


def test_a_language_model_gives_bits_per_base(cli, genome, tmp_path):
    torch.manual_seed(0)
    config = HyenaGLTConfig(**SMALL, genomic_vocab_size=4, alphabet="dna")
    HyenaGLT(config, Patcher(patching_mode="static", patch_size=8)).save_pretrained(tmp_path / "lm")
    words = ("evaluate", tmp_path / "lm", genome, "--window", 4096, "--resamples", 50)
    done = cli(*words, "-o", tmp_path / "m.json")
    assert done.code == 0, done.err
    facts = json.loads((tmp_path / "m.json").read_text())
    figure = facts["metrics"]["bits_per_base"]
    assert figure["low"] < figure["value"] < figure["high"]
    assert 1.9 < figure["value"] < 4  # random weights know nothing
    assert f"{facts['num_bases']:,} bases in" in done.out
    refused = cli(*words, "--predictions", tmp_path / "p.tsv")
    assert (refused.code, "is a language model" in refused.err) == (2, True)
    refused = cli(*words, "--mask-rate", 0.2)
    assert (refused.code, "is causal" in refused.err) == (2, True)


def test_a_language_model_that_sees_both_sides_predicts_what_is_hidden(cli, genome, tmp_path):
    torch.manual_seed(0)
    config = HyenaGLTConfig(**SMALL, genomic_vocab_size=4, alphabet="dna", causal=False)
    HyenaGLT(config, Patcher(patching_mode="static", patch_size=8)).save_pretrained(tmp_path / "lm")
    words = ("evaluate", tmp_path / "lm", genome, "--window", 4096, "--resamples", 0)
    done = cli(*words, "--mask-rate", 0.3, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert (facts["objective"], facts["mask_rate"]) == ("masked_byte", 0.3)
    called = sum(line.upper().count(letter) for line in sequence_lines(genome) for letter in "ACGT")
    assert facts["num_bases"] == pytest.approx(0.3 * called, rel=0.05)
    assert 1.9 < facts["metrics"]["bits_per_base"]["value"] < 4
    assert "hidden bases in" in cli(*words).out
    refused = cli(*words, "--mask-rate", 1.5)
    assert (refused.code, "between 0 and 1" in refused.err) == (2, True)


def sequence_lines(path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith(">")]


def test_bad_input_is_one_line(cli, tuned, tmp_path):
    folder, _, table = tuned("classification")
    (tmp_path / "other.tsv").write_text("sequence\tlabel\nACGT\tz\n")
    cases = [
        ((tmp_path / "none", table), 1, "expected the folder of a saved net"),
        ((tmp_path, table), 1, "manifest.json"),
        ((folder, tmp_path / "none.tsv"), 1, "no such file"),
        ((folder, "-"), 2, "standard input"),
        ((folder, table, "-o", table), 2, "named twice"),
        ((folder, tmp_path / "other.tsv"), 1, "other.tsv:2: label: unknown class 'z'"),
        ((folder, table, "--sequence-column", "seq"), 1, "no column 'seq'"),
        ((folder, table, "--mask-rate", 0.3), 2, "--mask-rate"),
        ((folder, table, "--patch-size", 4, "--patcher", table), 2, "--patch-size"),
    ]
    for words, code, message in cases:
        done = cli("evaluate", *words)
        assert (done.code, done.err.count("\n")) == (code, 1), (words, done.err)
        assert message in done.err, (words, done.err)
