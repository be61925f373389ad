"""Which module a loss that is no number began in."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from hyena_glt.training.nan_report import (
    REPORT_FILE,
    all_finite,
    first_module_not_finite,
    gradients_not_finite,
    write_nan_report,
)


class Pair(nn.Module):
    """Returns a tuple, as some layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x):
        return self.inner(x), torch.tensor([1])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(2, 2), Pair(), nn.Linear(2, 2)

    def forward(self, x):
        return self.last(self.second(self.first(x))[0])


@pytest.mark.parametrize("name", ["first", "second.inner", "last"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_and_innermost_module_is_named(name, value):
    net = Net()
    with torch.no_grad():
        net.get_submodule(name).weight[0, 0] = value
    assert first_module_not_finite(net, lambda: net(torch.ones(1, 2))) == name
    assert not any(module._forward_hooks for module in net.modules())


def test_a_sound_net_has_none():
    net = Net()
    assert first_module_not_finite(net, lambda: net(torch.ones(1, 2))) is None


def test_hooks_go_when_the_forward_fails():
    net = Net()
    with pytest.raises(RuntimeError):
        first_module_not_finite(net, lambda: net(torch.ones(1, 5)))
    assert not any(module._forward_hooks for module in net.modules())


def test_gradients_are_named():
    net = nn.Linear(2, 2)
    net.weight.grad = torch.full((2, 2), float("inf"))
    assert gradients_not_finite(net.named_parameters()) == ["weight"]
    assert all_finite(torch.tensor([1.0, -1.0]))
    assert not all_finite(torch.tensor([1.0, float("nan")]))


def test_the_report_is_json(tmp_path):
    path = write_nan_report(tmp_path, {"step": 3, "loss_sum": "nan"})
    assert path.name == REPORT_FILE
    assert json.loads(path.read_text()) == {"step": 3, "loss_sum": "nan"}
    with pytest.raises(ValueError, match="JSON"):
        write_nan_report(tmp_path, {"loss": float("nan")})
    assert json.loads(path.read_text())["step"] == 3
