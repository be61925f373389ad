"""Heads for sequences and bases: shapes, losses, padding, and nets that carry them."""

from __future__ import annotations

import math

import pytest
import torch

from hyena_glt.errors import ConfigError, DataError, ModelFileError
from hyena_glt.model import (
    BaseLabelHead,
    HyenaGLT,
    HyenaGLTForBaseLabels,
    HyenaGLTForSequenceClassification,
    HyenaGLTForSequenceRegression,
    SequenceClassificationHead,
    SequenceRegressionHead,
)
from hyena_glt.model.task_heads import class_loss, masked_mean
from hyena_glt.patching import Patcher
from hyena_glt.tokens import ByteTokenizer

NETS = [HyenaGLTForSequenceClassification, HyenaGLTForSequenceRegression, HyenaGLTForBaseLabels]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Nets this small lose time to a second thread, most of it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch_of(rows: list[str]) -> torch.Tensor:
    tokens = [ByteTokenizer().encode(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-1)


def labels_for(kind, tokens: torch.Tensor, num_labels: int) -> torch.Tensor:
    if kind is HyenaGLTForSequenceRegression:
        return torch.linspace(-1, 1, len(tokens) * num_labels).view(-1, num_labels)
    if kind is HyenaGLTForBaseLabels:
        return (tokens % num_labels).masked_fill(tokens < 0, -1)
    return torch.arange(len(tokens)) % num_labels


def test_the_mean_leaves_padding_out():
    states, mask = torch.randn(2, 4, 3), torch.tensor([[True] * 4, [True, False, False, False]])
    torch.testing.assert_close(masked_mean(states, mask)[0], states[0].mean(0))
    torch.testing.assert_close(masked_mean(states, mask)[1], states[1, 0])
    assert not masked_mean(states, torch.zeros(2, 4, dtype=torch.bool)).any()


@pytest.mark.parametrize("head", [SequenceClassificationHead(6, 3), SequenceRegressionHead(6, 3), BaseLabelHead(6, 3)])
def test_padding_changes_no_answer(head):
    states, mask = torch.randn(2, 5, 6), torch.tensor([[True] * 5, [True, True, False, False, False]])
    padded = torch.cat([states, torch.randn(2, 4, 6)], dim=1)
    longer = torch.cat([mask, torch.zeros(2, 4, dtype=torch.bool)], dim=1)
    short, long = head(states, mask), head(padded, longer)
    torch.testing.assert_close(short, long if long.ndim == 2 else long[:, :5])
    alone = head(states[1:, :2], mask[1:, :2])
    torch.testing.assert_close(short[1:] if short.ndim == 2 else short[1:, :2], alone)
    if long.ndim == 3:
        assert not long[~longer].any()


def test_the_loss_of_classes_is_torchs_where_labels_are_there():
    logits, labels = torch.randn(4, 5, 3), torch.randint(-1, 3, (4, 5))
    weights = torch.tensor([1.0, 0.25, 2.0])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), weights, ignore_index=-1)
    torch.testing.assert_close(class_loss(logits, labels, weights), expected)
    head = BaseLabelHead(6, 3, weights.tolist())
    torch.testing.assert_close(head.loss(logits, labels), expected)
    assert class_loss(logits, torch.full((4, 5), -1)) == 0
    assert class_loss(torch.zeros(1, 3), torch.tensor([2])).item() == pytest.approx(math.log(3))
    assert class_loss(torch.zeros(1, 3), torch.tensor([0]), torch.tensor([0.0, 1, 1])) == 0


def test_the_loss_of_values_leaves_nan_out():
    head, values = SequenceRegressionHead(6, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    labels = torch.tensor([[0.0, math.nan], [math.nan, 6.0]])
    loss = head.loss(values, labels)
    loss.backward()
    assert loss.item() == pytest.approx((1 + 4) / 2)
    assert values.grad.tolist() == [[1.0, 0.0], [0.0, -2.0]]
    assert head.loss(values, torch.full((2, 2), math.nan)) == 0
    assert SequenceRegressionHead(6).loss(torch.zeros(3, 1), torch.ones(3)) == 1


def test_labels_that_do_not_fit_are_refused():
    classes, values = SequenceClassificationHead(6, 3), SequenceRegressionHead(6)
    wrong = [torch.tensor([0, 3]), torch.tensor([-2, 0]), torch.tensor([0.0, 1.0]), torch.tensor([0])]
    for labels in wrong:
        with pytest.raises(DataError, match="labels"):
            classes.loss(torch.zeros(2, 3), labels)
    for labels in (torch.tensor([1, 2]), torch.tensor([math.inf, 0.0]), torch.zeros(3)):
        with pytest.raises(DataError, match="labels"):
            values.loss(torch.zeros(2, 1), labels)
    for weights in ([1.0, 2.0], [1.0, 1.0, -1.0]):
        with pytest.raises(ConfigError, match="class_weights"):
            BaseLabelHead(6, 3, weights)


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
