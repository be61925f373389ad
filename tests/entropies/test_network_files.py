"""Networks in files: any network, its description word for word, and a hash that only the weights change."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hyena_glt.entropies.network_files import KEY, load_network, read_description, save_network, weights_sha256
from hyena_glt.errors import HyenaGLTError, ModelFileError

ABOUT = {"format": "test/1", "network": {"inputs": 3}, "note": "é", "bits": 1.5, "nothing": None}


def make(options: dict[str, int]) -> nn.Linear:
    return nn.Linear(options["inputs"], 2)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 2)


def test_network_and_description_come_back(network, tmp_path):
    save_network(tmp_path / "n.safetensors", network, ABOUT)
    loaded, about = load_network(tmp_path / "n.safetensors", "test/1", make)
    assert about == ABOUT == read_description(tmp_path / "n.safetensors")
    assert not loaded.training
    assert torch.equal(loaded.weight, network.weight)
    assert weights_sha256(loaded) == weights_sha256(network)
    save_network(tmp_path / "again.safetensors", loaded, dict(reversed(ABOUT.items())))
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "n.safetensors").read_bytes()


def test_the_hash_changes_with_every_weight_and_name(network):
    before = weights_sha256(network)
    renamed = nn.Module()
    renamed.other, renamed.bias = network.weight, network.bias
    assert weights_sha256(renamed) != before
    with torch.no_grad():
        network.bias[1] += 1e-6
    assert weights_sha256(network) != before


def test_a_file_that_is_there_stays_where_it_is_not_to_be_replaced(network, tmp_path):
    path = tmp_path / "n.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(HyenaGLTError, match="exists"):
        save_network(path, network, ABOUT, overwrite=False)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ('{"format": "other/1"}', "format: expected 'test/1', got 'other/1'"),
        ('{"format": "test/1"}', "no network"),
        ('{"format": "test/1", "network": 3}', "no network"),
        ('{"format": "test/1", "network": {"inputs": 4}}', r"tensor weight: expected .*\(2, 4\), got .*\(2, 3\)"),
        ("[]", "expected a JSON object"),
        ("{", "not JSON"),
    ],
)
def test_a_description_that_does_not_fit_is_named(network, tmp_path, about, message):
    path = tmp_path / "n.safetensors"
    save_file(dict(network.state_dict()), path, metadata={KEY: about})
    with pytest.raises(ModelFileError, match=message) as caught:
        load_network(path, "test/1", make)
    assert caught.value.path == str(path)


def test_a_file_of_another_program_has_no_description(network, tmp_path):
    save_file(dict(network.state_dict()), tmp_path / "n.safetensors")
    assert read_description(tmp_path / "n.safetensors") == {}
    with pytest.raises(ModelFileError, match="no such file"):
        read_description(tmp_path / "none.safetensors")
