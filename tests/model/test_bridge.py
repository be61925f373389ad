"""From patch states back to bytes."""

from __future__ import annotations

import torch

from hyena_glt.model import CrossAttentionPositionBridge
from hyena_glt.positions import PositionInfo

INFO = PositionInfo.from_patch_lengths(torch.tensor([[4, 3, 5, 2], [6, 6, 0, 0]]))


def bridge_and_inputs(small_config, **changes):
    torch.manual_seed(0)
    config = small_config(**changes)
    bridge = CrossAttentionPositionBridge(config)
    return bridge, torch.randn(2, 14, config.local_hidden_size), torch.randn(2, 4, config.hidden_size)


def test_every_byte_of_a_patch_has_its_own_vector(small_config):
    bridge, x, states = bridge_and_inputs(small_config)
    same_bytes = x[:, :1].expand_as(x)
    read = bridge(same_bytes, states, INFO)[0]
    distances = torch.cdist(read, read)
    for patch in range(4):
        inside = (INFO.patch_ids[0] == patch).nonzero().flatten()
        within = distances[inside][:, inside] + torch.eye(len(inside))
        assert within.min() > 1e-3


def test_a_causal_byte_reads_the_most_recent_complete_patches(small_config):
    bridge, x, states = bridge_and_inputs(small_config, bridge_num_patches=2)
    before = bridge(x, states, INFO)
    readers = {0: range(3, 11), 1: range(6, 14), 2: range(11, 14), 3: range(0)}  # the row's end starts no patch
    for patch, tokens in readers.items():
        changed = states.clone()
        changed[0, patch] = torch.randn(24)
        moved = ((bridge(x, changed, INFO) - before)[0].abs().amax(-1) > 1e-6).tolist()
        assert moved == [token in tokens for token in range(14)]


def test_a_two_sided_byte_reads_its_own_patch_and_its_neighbours(small_config):
    bridge, x, states = bridge_and_inputs(small_config, bridge_num_patches=3, causal=False)
    before = bridge(x, states, INFO)
    for patch in range(4):
        changed = states.clone()
        changed[0, patch] = torch.randn(24)
        moved = (bridge(x, changed, INFO) - before)[0].abs().amax(-1) > 1e-6
        assert moved.equal((INFO.patch_ids[0] - patch).abs() <= 1)


def test_padding_patches_are_never_read(small_config):
    for causal in (True, False):
        bridge, x, states = bridge_and_inputs(small_config, causal=causal)
        changed = states.clone()
        changed[1, 2:] = 1e3
        real = INFO.mask[1]
        assert torch.equal(bridge(x, changed, INFO)[1, real], bridge(x, states, INFO)[1, real])
