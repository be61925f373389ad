"""The net of a command: which one, and what its weights are called."""

from __future__ import annotations

import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.cli.nets import open_net
from hyena_glt.errors import ModelFileError, SystemProblem, UsageError
from hyena_glt.model import shipped


@pytest.fixture
def folder(tmp_path):
    patcher = Patcher(patching_mode="static", patch_size=8)
    HyenaGLT(HyenaGLTConfig.preset("tiny", genomic_vocab_size=4), patcher).save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def test_a_saved_net_has_the_label_of_its_weights_and_its_patcher(folder, capsys):
    net, label = open_net(folder)
    assert label == shipped.weights_label(folder)
    assert label in capsys.readouterr().err
    assert net.external_patcher.patch_size == 8
    assert not net.training
    other, _ = open_net(folder, patcher=Patcher(patching_mode="static", patch_size=4))
    assert other.external_patcher.patch_size == 4


def test_random_weights_follow_the_seed_and_leave_the_other_draws_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    nets = [open_net(None, untrained=True, seed=seed, causal=False, alphabet="rna")[0] for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(2), expected)
    weights = [net.head.project.weight for net in nets]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not nets[0].config.causal
    assert nets[0].config.alphabet_name == "rna"


def test_without_a_folder_it_is_the_net_that_ships(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "SHIPPED_FOLDER", folder)
    assert open_net(None)[1] == shipped.weights_label(folder)
    with pytest.raises(UsageError, match="DNA"):
        open_net(None, alphabet="protein")
    monkeypatch.setattr(shipped, "SHIPPED_FOLDER", tmp_path / "nowhere")
    with pytest.raises(ModelFileError, match="--untrained"):
        open_net(None)


def test_what_cannot_be_is_refused(folder):
    with pytest.raises(UsageError, match="exclude"):
        open_net(folder, untrained=True)
    if not torch.cuda.is_available():
        with pytest.raises(SystemProblem, match="CUDA"):
            open_net(folder, device="cuda")
