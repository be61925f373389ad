"""From bytes to patch states."""

from __future__ import annotations

import math

import pytest
import torch

from hyena_glt.model import LocalEncoder, PatchPooling, local_encoder
from hyena_glt.model.local_encoder import last_tokens, patch_blocks
from hyena_glt.positions import PositionInfo

LENGTHS = torch.tensor([[3, 1, 4], [2, 2, 0]])


@pytest.mark.parametrize("reading_frame", [True, False])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_pooling_equals_a_loop_over_patches(small_config, reading_frame, with_gradients):
    torch.manual_seed(0)
    config = small_config(reading_frame=reading_frame)
    pooling = PatchPooling(config)
    info = PositionInfo.from_patch_lengths(LENGTHS, offset=2**35)
    x = torch.randn(2, 8, config.local_hidden_size)
    states = pooling.norm(x + pooling.positions(info))
    with torch.set_grad_enabled(with_gradients):  # without them compiled loops pool
        result = pooling(x, info)
    for row, lengths in enumerate(LENGTHS.tolist()):
        start = 0
        for patch, length in enumerate(lengths):
            part = states[row, start : start + length]
            if length:
                weights = pooling.to_score(part).softmax(0)
                values = pooling.to_value(part).view(length, pooling.num_heads, -1)
                pooled = (values * weights[..., None]).sum(0).flatten()
                parts = [pooled, part[-1]]
                if reading_frame:
                    angles = 2 * math.pi / 3 * torch.tensor([(2**35 + start + place) % 3 for place in range(length)])
                    turned = [wave[:, None] * pooling.to_turned(part) for wave in (angles.cos(), angles.sin())]
                    parts += [each.sum(0) / length**0.5 for each in turned]
                expected = pooling.project_out(torch.cat(parts))
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


def whole_and_in_blocks(run, monkeypatch, block):
    """What a stage gives without gradients in one piece, the plain way, and in blocks."""
    with torch.no_grad():
        monkeypatch.setattr(local_encoder, "BLOCK_TOKENS", block)
        in_blocks = run()
        monkeypatch.setattr(local_encoder, "BLOCK_TOKENS", 1 << 30)
        monkeypatch.setattr(local_encoder, "compiled_loops_read", lambda *tensors: False)
        return run(), in_blocks


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("block", [1, 150])
def test_the_encoder_in_blocks_equals_the_whole(small_config, monkeypatch, causal, block):
    torch.manual_seed(0)
    encoder = LocalEncoder(small_config(causal=causal)).double()
    ids = torch.randint(4, 260, (2, 300))
    mask = torch.arange(300) < torch.tensor([[300], [211]])
    whole, blocks = whole_and_in_blocks(lambda: encoder(ids, None if causal else mask), monkeypatch, block)
    torch.testing.assert_close(blocks, whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("block", [1, 4, 1000])
def test_pooling_in_blocks_equals_the_whole(small_config, monkeypatch, block):
    torch.manual_seed(0)
    config = small_config()
    pooling = PatchPooling(config)
    lengths = torch.tensor([[3, 1, 9, 2, 1], [2, 5, 0, 0, 0], [0, 0, 0, 0, 0]])
    info = PositionInfo.from_patch_lengths(lengths, offset=torch.tensor([0, 2**35, 7]))
    x = torch.randn(3, 16, config.local_hidden_size)
    whole, blocks = whole_and_in_blocks(lambda: pooling(x, info), monkeypatch, block)
    torch.testing.assert_close(blocks[info.patch_mask], whole[info.patch_mask], atol=1e-6, rtol=1e-5)
    assert blocks.isfinite().all()


def test_blocks_are_whole_patches_that_follow_each_other():
    blocks = list(patch_blocks(torch.tensor([3, 1, 9, 2, 2, 0]), 4))
    assert blocks == [
        (slice(0, 2), slice(0, 4)),
        (slice(2, 3), slice(4, 13)),
        (slice(3, 5), slice(13, 17)),
    ]
