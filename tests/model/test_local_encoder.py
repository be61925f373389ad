"""From bytes to patch states."""

from __future__ import annotations

import torch

from hyena_glt.model import LocalEncoder, PatchPooling
from hyena_glt.model.local_encoder import last_tokens
from hyena_glt.positions import PositionInfo

LENGTHS = torch.tensor([[3, 1, 4], [2, 2, 0]])


def test_pooling_equals_a_loop_over_patches(small_config):
    torch.manual_seed(0)
    config = small_config()
    pooling = PatchPooling(config)
    info = PositionInfo.from_patch_lengths(LENGTHS, offset=2**35)
    x = torch.randn(2, 8, config.local_hidden_size)
    states = pooling.norm(x + pooling.positions(info))
    result = pooling(x, info)
    for row, lengths in enumerate(LENGTHS.tolist()):
        start = 0
        for patch, length in enumerate(lengths):
            part = states[row, start : start + length]
            if length:
                weights = pooling.to_score(part).softmax(0)
                values = pooling.to_value(part).view(length, pooling.num_heads, -1)
                pooled = (values * weights[..., None]).sum(0).flatten()
                expected = pooling.project_out(torch.cat([pooled, part[-1]]))
                torch.testing.assert_close(result[row, patch], expected, atol=1e-6, rtol=1e-5)
            start += length


def test_the_order_of_bytes_in_a_patch_matters(small_config):
    torch.manual_seed(0)
    config = small_config()
    pooling, encoder = PatchPooling(config), LocalEncoder(config)
    info = PositionInfo.from_patch_lengths(torch.tensor([[4]]))
    forward, backward = (pooling(encoder(ids), info) for ids in torch.tensor([[[5, 6, 7, 5]], [[5, 7, 6, 5]]]))
    assert (forward - backward).abs().max() > 1e-3


def test_the_global_position_reaches_the_patch_state(small_config):
    torch.manual_seed(0)
    config = small_config()
    pooling = PatchPooling(config)
    x = torch.randn(1, 4, config.local_hidden_size)
    here, there = (pooling(x, PositionInfo.from_patch_lengths(torch.tensor([[4]]), p)) for p in (0, 50))
    assert (here - there).abs().max() > 1e-3


def test_last_tokens_are_indices_into_the_flat_batch():
    info = PositionInfo.from_patch_lengths(LENGTHS)
    assert last_tokens(info).tolist() == [2, 3, 7, 9, 11, 0]
