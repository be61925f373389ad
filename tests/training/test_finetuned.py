"""A fine-tuned net in its folder: saved, loaded, and refused where it is damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ModelFileError
from hyena_glt.model import (
    HyenaGLTForBaseLabels,
    HyenaGLTForSequenceClassification,
    HyenaGLTForSequenceRegression,
)
from hyena_glt.patching import Patcher
from hyena_glt.training.finetuned import TASK_FILE, AdapterOptions, FinetunedNet, TaskOptions, is_finetuned
from hyena_glt.training.low_rank import adapted_layers, add_adapters

SMALL = {"hidden_size": 24, "num_layers": 3, "local_hidden_size": 16, "ngram_table_size": 64, "filter_hidden_size": 8}
SEQUENCES = [b"ACGTTGCA" * 4, b"GGT"]
KINDS = {
    "classification": (HyenaGLTForSequenceClassification, {"classes": ("a", "b", "c")}),
    "regression": (HyenaGLTForSequenceRegression, {"mean": 5.0, "deviation": 2.0}),
    "per-base": (HyenaGLTForBaseLabels, {"classes": ("a", "b", "c")}),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def tuned_net(kind: str, **options) -> FinetunedNet:
    torch.manual_seed(0)
    net_class, task = KINDS[kind]
    config = HyenaGLTConfig(**SMALL, causal=False, num_labels=len(task.get("classes", "1")))
    net = net_class(config, Patcher(patching_mode="static", patch_size=4)).eval()
    return FinetunedNet(net, TaskOptions(kind=kind, **task, **options))


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_net_comes_back_with_its_task_and_answers_the_same(kind, tmp_path):
    tuned = tuned_net(kind, average_strands=True)
    tuned.save(tmp_path, {"command": "x"})
    loaded = FinetunedNet.load(tmp_path)
    assert loaded.task == tuned.task
    assert type(loaded.net) is KINDS[kind][0]
    assert is_finetuned(tmp_path)
    for before, after in zip(tuned.predict(SEQUENCES), loaded.predict(SEQUENCES), strict=True):
        assert np.array_equal(before, after)
    assert json.loads((tmp_path / TASK_FILE).read_text())["provenance"] == {"command": "x"}


def test_answers_have_the_shape_of_their_task():
    assert [answer.shape for answer in tuned_net("classification").predict(SEQUENCES)] == [(3,), (3,)]
    assert [answer.shape for answer in tuned_net("per-base").predict(SEQUENCES)] == [(32, 3), (3, 3)]
    values = tuned_net("regression").predict(SEQUENCES)
    assert [answer.shape for answer in values] == [(), ()]
    unscaled = FinetunedNet(tuned_net("regression").net, TaskOptions(kind="regression")).predict(SEQUENCES)
    np.testing.assert_allclose(values, np.array(unscaled) * 2 + 5, rtol=1e-12)
    for answer in tuned_net("per-base").predict(SEQUENCES):
        np.testing.assert_allclose(answer.sum(-1), 1.0)


def test_adapters_that_are_kept_apart_come_back_apart(tmp_path):
    tuned = tuned_net("classification", adapters=AdapterOptions(pattern="trunk.*", rank=2, alpha=3.0))
    add_adapters(tuned.net.net, "trunk.*", rank=2, alpha=3.0)
    with torch.no_grad():
        for _, layer in adapted_layers(tuned.net):
            layer.adapter_b.normal_()
    tuned.save(tmp_path)
    loaded = FinetunedNet.load(tmp_path)
    assert len(list(adapted_layers(loaded.net))) == len(list(adapted_layers(tuned.net))) > 0
    assert np.array_equal(loaded.predict(SEQUENCES)[0], tuned.predict(SEQUENCES)[0])
    with pytest.raises(ModelFileError, match="unexpected tensors"):
        HyenaGLTForSequenceClassification.from_pretrained(tmp_path)


def test_a_damaged_folder_is_refused(tmp_path):
    tuned_net("classification").save(tmp_path)
    text = (tmp_path / TASK_FILE).read_text()
    cases = [
        (text[:-20], "not JSON"),
        (text.replace("hyena-glt/task/1", "hyena-glt/task/9"), "format"),
        (text.replace('"kind": "classification"', '"kind": "clustering"'), "kind"),
        (text.replace('"c"', '"c", "d"'), "expected 3 classes, got 4"),
        (text.replace("manifest.json", "../manifest.json"), "manifest"),
    ]
    for damaged, words in cases:
        assert damaged != text
        (tmp_path / TASK_FILE).write_text(damaged)
        with pytest.raises(ModelFileError, match=words):
            FinetunedNet.load(tmp_path)
    (tmp_path / TASK_FILE).write_text(text)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(ModelFileError, match="is not the one that was saved"):
        FinetunedNet.load(tmp_path)
    (tmp_path / TASK_FILE).unlink()
    assert not is_finetuned(tmp_path)
    with pytest.raises(ModelFileError, match="no such file"):
        FinetunedNet.load(tmp_path)
