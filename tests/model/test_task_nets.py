"""Nets that carry a task head: gradients, batches, saving, learning."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.errors import ConfigError, ModelFileError
from hyena_glt.model import (
    HyenaGLT,
    HyenaGLTForBaseLabels,
    HyenaGLTForSequenceClassification,
    HyenaGLTForSequenceRegression,
)
from hyena_glt.patching import Patcher
from hyena_glt.tokens import ByteTokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

NETS = [HyenaGLTForSequenceClassification, HyenaGLTForSequenceRegression, HyenaGLTForBaseLabels]


def batch_of(rows: list[str]) -> torch.Tensor:
    tokens = [ByteTokenizer().encode(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-1)


def labels_for(kind, tokens: torch.Tensor, num_labels: int) -> torch.Tensor:
    if kind is HyenaGLTForSequenceRegression:
        return torch.linspace(-1, 1, len(tokens) * num_labels).view(-1, num_labels)
    if kind is HyenaGLTForBaseLabels:
        return (tokens % num_labels).masked_fill(tokens < 0, -1)
    return torch.arange(len(tokens)) % num_labels


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("pooling", ["bytes", "patches"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("boundaries", ["patcher", "learned"])
def test_every_parameter_that_wants_a_gradient_gets_one(small_config, random_dna, kind, pooling, causal, boundaries):
    torch.manual_seed(0)
    net = kind(small_config(num_labels=3, head_pooling=pooling, causal=causal, boundaries=boundaries)).train()
    tokens = batch_of([random_dna(60), random_dna(41, seed=1)])
    lengths = torch.tensor([[5] * 12, [5] * 8 + [1, 0, 0, 0]])
    output = net(tokens, lengths if boundaries == "patcher" else None, labels=labels_for(kind, tokens, 3))
    output.loss.backward()
    wanted = {name: weight for name, weight in net.named_parameters() if weight.requires_grad}
    assert [name for name, weight in wanted.items() if weight.grad is None or not weight.grad.any()] == []
    frozen = {name.split(".")[1] for name, weight in net.named_parameters() if not weight.requires_grad}
    averages_patches = pooling == "patches" and kind is not HyenaGLTForBaseLabels
    assert frozen == ({"head", "bridge", "local_decoder"} if averages_patches else {"head"})


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("pooling", ["bytes", "patches"])
@pytest.mark.parametrize("boundaries", ["patcher", "learned"])
def test_an_answer_does_not_depend_on_its_batch(small_config, random_dna, kind, pooling, boundaries):
    torch.manual_seed(0)
    config = small_config(num_labels=3, head_pooling=pooling, boundaries=boundaries, causal=False)
    patcher = Patcher(patching_mode="static", patch_size=4) if boundaries == "patcher" else None
    net = kind(config, patcher).double().eval()
    rows = [random_dna(33), random_dna(9, seed=1)]
    with torch.no_grad():
        together = net(batch_of(rows)).logits
        for row, text in enumerate(rows):
            alone = net.forward_with_patching(text).logits[0]
            found = together[row] if together.ndim == 2 else together[row, : len(text)]
            torch.testing.assert_close(found, alone, atol=1e-7, rtol=0)


@pytest.mark.parametrize("kind", NETS)
def test_a_net_is_saved_and_loaded_with_its_head(small_config, random_dna, tmp_path, kind):
    torch.manual_seed(0)
    weights = None if kind is HyenaGLTForSequenceRegression else (1.0, 2.0, 0.5)
    config = small_config(num_labels=3, head_pooling="patches", class_weights=weights)
    net = kind(config, Patcher(patching_mode="static", patch_size=4)).eval()
    net.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    tokens = batch_of([random_dna(20), random_dna(13, seed=2)])
    labels = labels_for(kind, tokens, 3)
    with torch.no_grad():
        before, after = net(tokens, labels=labels), loaded(tokens, labels=labels)
    assert loaded.config == config
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.loss, after.loss)
    with pytest.raises(ModelFileError, match="tensors"):
        HyenaGLT.from_pretrained(tmp_path)


def test_a_head_is_put_on_a_trained_net(small_net, random_dna):
    backbone = small_net(Patcher(patching_mode="static", patch_size=4))
    net = HyenaGLTForBaseLabels.from_net(backbone, num_labels=5)
    assert net.net is backbone
    assert net.config.num_labels == 5
    tokens = batch_of([random_dna(20)])
    output = net(tokens)
    assert output.logits.shape == (1, 20, 5)
    assert output.loss is None
    assert torch.equal(output.net.logits, backbone(tokens).logits)
    with pytest.raises(ConfigError, match="hidden_size"):
        HyenaGLTForBaseLabels.from_net(backbone, hidden_size=5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_net_learns_what_tells_sequences_apart(small_config, precision):
    torch.manual_seed(0)
    config = small_config(mixed_precision=precision)
    net = HyenaGLTForSequenceClassification(config, Patcher(patching_mode="static", patch_size=4)).train()
    tokens, labels = batch_of(["AACC" * 8, "GGTT" * 6, "ACAC" * 5, "GTTG" * 8]), torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(15):
        output = net(tokens, labels=labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert output.logits.argmax(-1).tolist() == labels.tolist()
