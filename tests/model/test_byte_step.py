"""The compiled step of one byte equals the layers it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.model import byte_step
from hyena_glt.model.byte_embedding import embed_last
from hyena_glt.model.byte_step import ByteStep, bridge_step, normed, pack, product, stack_step, unpack
from hyena_glt.patching import Patcher
from hyena_glt.positions.position_embedding import OffsetEncoding
from hyena_glt.tokens import ByteTokenizer

SINGLE = 1e-5  # of the largest value, in float32


def close(found, expected) -> bool:
    found, expected = (torch.as_tensor(value).flatten() for value in (found, expected))
    return bool((found - expected).abs().max() <= SINGLE * expected.abs().max())


@torch.no_grad()
def test_the_loops_equal_their_layers():
    norm = torch.nn.LayerNorm(12, bias=False)
    norm.weight.uniform_(0.5, 2)
    x, weight = 3 * torch.randn(12) + 1, torch.randn(12, 7)
    assert close(normed(x.numpy(), norm.weight.numpy()), norm(x))
    assert close(product(x.numpy(), weight.numpy()), x @ weight)


@torch.no_grad()
def test_a_byte_goes_through_the_gated_convolutions_as_through_the_layers(small_net):
    net = small_net()
    step, x = ByteStep(net), torch.randn(20, 1, 1, net.config.local_hidden_size)
    expected, state = net.local_decoder.stream(x[0])
    past = np.concatenate([part.values.numpy() for part in state.parts])
    for byte in x[1:]:
        before = past.copy()
        expected, state = net.local_decoder.stream(byte, state)
        found, after = stack_step(byte.flatten().numpy(), step._decoder, past)
        assert close(found, expected)
        assert np.array_equal(past, before)
        past = after


@torch.no_grad()
@pytest.mark.parametrize("num_patches", [0, 1, 5])
def test_a_byte_reads_through_the_bridge_as_through_the_layer(small_net, num_patches):
    net, none = small_net(), np.zeros(0, np.int64)
    dim, states = net.config.local_hidden_size, torch.randn(1, num_patches, net.config.hidden_size)
    _, state = net.bridge.stream(torch.zeros(1, 0, dim), states, none, none, 0)
    x, offset = torch.randn(1, 1, dim), np.full(1, 3)
    expected, _ = net.bridge.stream(x, states[:, :0], offset, none, 7, state)
    step = ByteStep(net)
    query = x.flatten().numpy() + step._offset_vectors[3 * 3 + 7 % 3]
    assert close(bridge_step(query, step._bridge, state.keys.numpy(), state.values.numpy()), expected)


@torch.no_grad()
def test_states_survive_the_way_there_and_back(small_net):
    net = small_net()
    ids = ByteTokenizer().encode("ACGTACGTTGCA")[None]
    encoded, encoder = net.local_encoder.stream(ids)
    _, decoder = net.local_decoder.stream(encoded)
    (context, layers), back = unpack(pack(encoder, decoder))
    assert torch.equal(context, encoder[0])
    for found, expected in ((layers, encoder[1]), (back, decoder)):
        for part, other in zip(found.tensors(), expected.tensors(), strict=True):
            assert torch.equal(part, other)


def test_single_bytes_equal_pairs(small_net, random_dna):
    """A block of one byte and a block of two go different ways in float32; in float64 both go through the layers."""
    net = small_net(Patcher(patching_mode="static", patch_size=4.5))
    alone, pairs = ByteTokenizer().encode(random_dna(61, seed=9)), net.stream()
    stream = net.stream()
    found = torch.cat([stream.feed(alone[i : i + 1]).logits for i in range(61)], dim=1)
    expected = torch.cat([pairs.feed(alone[i : i + 2]).logits for i in range(0, 61, 2)], dim=1)
    assert stream._steps is not None
    assert pairs._steps is None or len(alone) % 2
    assert close(found, expected)


@pytest.mark.parametrize("tabulated", [8, 4096])
def test_long_patches_have_the_offsets_of_the_layer(small_net, random_dna, monkeypatch, tabulated):
    monkeypatch.setattr(byte_step, "TABULATED_OFFSETS", tabulated)
    net = small_net(Patcher(patching_mode="static", patch_size=1000))
    text = random_dna(130)
    stream, rows = net.stream(), []
    for letter in text:
        rows.append(stream.feed(letter).logits)
    assert close(torch.cat(rows, dim=1), net.stream().feed(text).logits)


@given(st.lists(st.integers(0, 259), min_size=1, max_size=14))
@settings(max_examples=50, deadline=None)
def test_the_last_token_is_embedded_as_in_the_row(small_net, ids):
    embedding = small_net().local_encoder.embedding
    with torch.no_grad():
        expected = embedding(torch.tensor([ids]))[0, -1]
        found = torch.from_numpy(embed_last(embedding.table.numpy(), np.array(ids), *embedding.ngram_tables))
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()
    context = None
    for part in (ids[:3], ids[3:]):
        if part:
            vectors, context = embedding.stream(torch.tensor([part]), context)
    assert torch.equal(vectors[0, -1].detach(), expected)


def test_only_single_precision_on_the_cpu_fits(small_net):
    assert ByteStep.fits(small_net())
    assert not ByteStep.fits(small_net(mixed_precision="bf16"))
    assert not ByteStep.fits(small_net().double())
    assert OffsetEncoding.EXACT < byte_step.TABULATED_OFFSETS
