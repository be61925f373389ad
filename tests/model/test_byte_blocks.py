"""Bridge, decoder and logits a block at a time against the three modules one after the other."""

from __future__ import annotations

import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig
from hyena_glt.model import byte_blocks
from hyena_glt.tokens.byte_tokenizer import PAD_ID

LENGTH = 700


@pytest.fixture
def tokens():
    """Three rows: full, half, one token."""
    rows = torch.randint(69, 90, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    rows[1, LENGTH // 2 :] = PAD_ID
    rows[2, 1:] = PAD_ID
    return rows


@pytest.fixture
def lengths():
    rows = torch.zeros(3, LENGTH // 7, dtype=torch.int64)
    rows[0] = 7
    rows[1, : LENGTH // 14] = 7
    rows[2, 0] = 1
    return rows


def make_net(**changes):
    torch.manual_seed(0)
    return HyenaGLT(HyenaGLTConfig(hidden_size=32, num_layers=2, local_hidden_size=16, **changes)).eval()


@torch.no_grad()
@pytest.mark.parametrize("block", [1, 100, 4096])
@pytest.mark.parametrize("changes", [{}, {"causal": False}, {"num_local_decoder_layers": 3}, {"genomic_vocab_size": 4}])
def test_blocks_give_what_the_modules_give(tokens, lengths, block, changes, monkeypatch):
    monkeypatch.setattr(byte_blocks, "BLOCK_BYTES", block)
    net = make_net(**changes)
    tokens = tokens.clamp_max(69) if "genomic_vocab_size" in changes else tokens
    found, whole = net(tokens, lengths), net(tokens, lengths, debug_mode=True)
    assert "bridge" in whole.debug
    assert not found.debug
    for name in ("logits", "byte_hidden_state", "last_hidden_state"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_learned_boundaries_go_through_blocks_too(tokens):
    net = make_net(boundaries="learned", target_patch_length=8.0)
    found, whole = net(tokens), net(tokens, debug_mode=True)
    torch.testing.assert_close(found.logits, whole.logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["local_encoder", "bridge", "local_decoder", "head"])
def test_a_hooked_module_is_called_whole(tokens, lengths, name):
    net, seen = make_net(), []
    without = net(tokens, lengths).logits
    getattr(net, name).register_forward_hook(lambda module, inputs, output: seen.append(output.shape[:2]))
    torch.testing.assert_close(net(tokens, lengths).logits, without, atol=1e-5, rtol=1e-5)
    assert seen == [(3, LENGTH)]


def test_gradients_go_through_the_modules(tokens, lengths):
    net = make_net()
    net(tokens, lengths).logits.sum().backward()
    assert net.head.project.weight.grad is not None
