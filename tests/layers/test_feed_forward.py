"""The gated feed-forward layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hyena_glt.layers import FeedForward
from hyena_glt.layers.feed_forward import in_blocks


def test_blocks_of_positions_equal_the_formula(monkeypatch):
    monkeypatch.setattr("hyena_glt.layers.feed_forward.BLOCK_POSITIONS", 3)
    layer = FeedForward(4, 10)
    x = torch.randn(2, 8, 4)
    gate, up = layer.project_in(x).chunk(2, dim=-1)
    torch.testing.assert_close(layer(x), layer.project_out(F.silu(gate) * up))


def test_nothing_in_gives_nothing_out():
    assert FeedForward(4, 10)(torch.zeros(1, 0, 4)).shape == (1, 0, 4)


def test_a_stream_needs_no_state():
    layer, x = FeedForward(4, 10), torch.randn(2, 8, 4)
    y, state = layer.stream(x[:, :3])
    assert state is None
    torch.testing.assert_close(y, layer(x)[:, :3])


@pytest.mark.parametrize("gradients", [True, False])
def test_blocks_see_their_neighbours(gradients):
    x = torch.arange(40.0).view(2, 20, 1)
    mask = torch.arange(20).expand(2, 20) < 17

    def neighbours(part, seen):
        part = part * seen.unsqueeze(-1)
        return F.pad(part, (0, 0, 2, 0))[:, :-2] + F.pad(part, (0, 0, 0, 1))[:, 1:]

    with torch.set_grad_enabled(gradients):
        blocks = in_blocks(neighbours, x, mask, size=2, before=2, after=1)
        assert torch.equal(blocks, neighbours(x, mask))
