"""The small byte network: strictly causal, saved and read back whole, files that cannot be trusted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from hyena_glt.entropies.byte_network import FORMAT, ByteNetwork, ByteNetworkConfig
from hyena_glt.entropies.network_files import cpu_weights, weights_sha256
from hyena_glt.errors import ConfigError, ModelFileError

SMALL = {"width": 8, "conv_taps": 3, "filter_taps": 6}


def network_of(**sizes):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return ByteNetwork(**{**SMALL, "outputs": 5, **sizes}).eval()


def tokens_of(rows, length, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(4, 260, (rows, length)))


@pytest.mark.parametrize("sizes", [{}, {"layers": 0}, {"conv_layers": 0}, {"filter_taps": 64}])
def test_a_changed_token_changes_no_bit_before_it(sizes):
    network, tokens = network_of(**sizes), tokens_of(2, 70)
    before = network(tokens)
    assert before.shape == (2, 70, 5)
    for place in range(70):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 100) % 260
        after = network(changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.equal(after[:, place], before[:, place])


@pytest.mark.parametrize("sizes", [{"filter_kind": "implicit"}, {"filter_taps": 200}])
def test_long_filters_let_only_rounding_through(sizes):
    network, tokens = network_of(**sizes), tokens_of(1, 300)
    before = network(tokens)
    changed = tokens.clone()
    changed[:, 150:] = 7
    assert torch.allclose(network(changed)[:, :150], before[:, :150], atol=1e-5)
    assert not torch.allclose(network(changed)[:, 150:], before[:, 150:], atol=1e-3)


@pytest.mark.parametrize("sizes", [{}, {"layers": 1, "conv_layers": 1, "filter_taps": 3}])
def test_the_reach_is_how_far_a_token_is_seen(sizes):
    network, tokens = network_of(**sizes).double(), tokens_of(1, 64)
    place = 20
    changed = tokens.clone()
    changed[:, place] += 1
    moved = (network(changed) != network(tokens)).any(dim=-1)[0].nonzero()[:, 0]
    assert moved.min() == place
    assert moved.max() == place + network.reach
    assert network_of(filter_kind="implicit").reach is None


def test_rows_do_not_see_each_other():
    network, tokens = network_of(), tokens_of(3, 40)
    alone = torch.cat([network(row[None]) for row in tokens])
    assert torch.allclose(network(tokens), alone, atol=1e-6)


def test_every_weight_gets_a_gradient():
    network = network_of().train()
    network(tokens_of(2, 64)).square().sum().backward()
    assert all(bool((weight.grad != 0).any()) for weight in network.parameters())


@pytest.mark.parametrize("sizes", [{}, {"filter_kind": "implicit", "vocab_size": 300}])
def test_a_saved_network_says_the_same(tmp_path, sizes):
    network = network_of(**sizes)
    network.save(tmp_path / "n.safetensors")
    again = ByteNetwork.load(tmp_path / "n.safetensors")
    assert again.config == network.config
    assert not again.training
    assert weights_sha256(again) == weights_sha256(network)
    assert torch.equal(again(tokens_of(2, 30)), network(tokens_of(2, 30)))


@pytest.mark.parametrize("sizes", [{"width": 0}, {"filter_kind": "other"}, {"depth": 3}, {"layers": 10_000}])
def test_sizes_out_of_range_are_refused(sizes):
    with pytest.raises(ValidationError):
        ByteNetworkConfig(**sizes)
    with pytest.raises(ConfigError, match=next(iter(sizes))):
        ByteNetwork(**sizes)


def spoil(path, change_tensors=lambda tensors: tensors, **changes):
    tensors = load_file(path)
    about = {"format": FORMAT, "network": network_of().config.model_dump(), **changes}
    save_file(change_tensors(tensors), path, {"hyena_glt": json.dumps(about)})


def without_one(tensors):
    return {name: tensor for name, tensor in tensors.items() if name != "head.bias"}


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        (without_one, {}, "1 missing tensors, such as head.bias"),
        (lambda t: {**t, "more": torch.zeros(1)}, {}, "1 unexpected tensors, such as more"),
        (lambda t: {**t, "head.bias": torch.zeros(6)}, {}, r"head.bias: expected torch.float32 \(5,\), got"),
        (lambda t: {**t, "head.bias": torch.zeros(5).double()}, {}, "got torch.float64"),
        (lambda t: {**t, "head.bias": torch.full((5,), float("nan"))}, {}, "expected finite weights"),
        (dict, {"network": {"width": -1}}, "damaged description .network.width"),
        (dict, {"network": {"wide": 1}}, "damaged description .network.wide"),
        (dict, {"network": {"width": 1024, "layers": 48}}, "missing tensors"),
        (dict, {"network": 3}, "no network"),
        (dict, {"format": "another"}, "format: expected 'hyena-glt/byte-network/1', got 'another'"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, change, fields, message):
    path = tmp_path / "n.safetensors"
    network_of().save(path)
    spoil(path, change, **fields)
    with pytest.raises(ModelFileError, match=message) as caught:
        ByteNetwork.load(path)
    assert str(path) in str(caught.value)


def test_what_is_no_such_file_is_named(tmp_path):
    path = tmp_path / "n.safetensors"
    with pytest.raises(ModelFileError, match="no such file"):
        ByteNetwork.load(path)
    path.write_bytes(b"\x00" * 64)
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        ByteNetwork.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ModelFileError, match="format: expected"):
        ByteNetwork.load(path)
    save_file({"x": torch.zeros(1)}, path, {"hyena_glt": "{nonsense"})
    with pytest.raises(ModelFileError, match="not JSON"):
        ByteNetwork.load(path)


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "n.safetensors"
    network_of().save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        ByteNetwork.load(path)


def test_broken_weights_are_not_saved(tmp_path):
    network = network_of()
    with torch.no_grad():
        network.head.bias[0] = float("inf")
    with pytest.raises(ModelFileError, match=r"head\.bias: expected finite"):
        network.save(tmp_path / "n.safetensors")
    assert not (tmp_path / "n.safetensors").exists()
    assert cpu_weights(network)["head.bias"].isinf().any()
