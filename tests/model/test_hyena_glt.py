"""The whole chain in one forward."""

from __future__ import annotations

import warnings

import pytest
import torch

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import AlphabetError, ConfigError
from hyena_glt.patching import Patcher
from hyena_glt.tokens import ByteTokenizer

CONFIGURATIONS = [
    {},
    {"causal": False},
    {"long_filter": "exponential"},
    {"long_filter": "both", "causal": False},
    {"ngram_sizes": ()},
    {"genomic_vocab_size": 4},
    {"trunk_layout": ("medium",), "num_layers": 1},
    {"bridge_num_patches": 1, "num_local_encoder_layers": 1},
    {"mixed_precision": "bf16"},
]


def tokens_and_lengths(rows: list[list[int]], seed: int = 0):
    """Random DNA tokens for rows of given patch lengths, padded."""
    width, length = max(map(len, rows)), max(map(sum, rows))
    lengths = torch.zeros(len(rows), width, dtype=torch.int64)
    tokens = torch.full((len(rows), length), -1)
    for index, row in enumerate(rows):
        lengths[index, : len(row)] = torch.tensor(row)
        generator = torch.Generator().manual_seed(seed + index)
        letters = ByteTokenizer().encode("ACGT")
        tokens[index, : sum(row)] = letters[torch.randint(0, 4, (sum(row),), generator=generator)]
    return tokens, lengths


ROWS = [[3, 5, 1, 4, 7, 2], [6, 6], [1], []]


@pytest.mark.parametrize("changes", CONFIGURATIONS)
def test_every_parameter_has_a_gradient(small_net, changes):
    net = small_net(**changes).train()
    tokens, lengths = tokens_and_lengths([[3, 5, 1, 4, 7, 2] * 4, [6, 6]])
    net(tokens, lengths, labels=tokens).loss.backward()
    idle = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []
    assert all(weight.grad.isfinite().all() for weight in net.parameters())


@pytest.mark.parametrize("changes", [*CONFIGURATIONS, {"boundaries": "learned", "target_patch_length": 4}])
@torch.inference_mode()
def test_the_last_hidden_state_is_that_of_the_forward(small_net, changes):
    net = small_net(**changes)
    tokens, lengths = tokens_and_lengths(ROWS[:3])
    if "boundaries" in changes:
        lengths = None
    output = net(tokens, lengths, global_position_offset=7)
    for layer in (-1, net.config.num_layers):
        states, info = net.hidden_states(tokens, lengths, layer=layer, global_position_offset=7)
        assert torch.equal(states, output.last_hidden_state)
        assert torch.equal(info.patch_lengths, output.patch_lengths)
        assert torch.equal(info.global_positions, output.positions.global_positions)


@torch.inference_mode()
def test_hidden_states_before_the_trunk_are_the_pooled_patches(small_net):
    net = small_net(causal=False)
    tokens, lengths = tokens_and_lengths(ROWS[:2])
    states, info = net.hidden_states(tokens, lengths, layer=0)
    encoded, _ = net.encode_bytes(tokens)
    pooled = net.pooling(encoded, info)
    assert torch.equal(states[info.patch_mask], pooled[info.patch_mask])
    assert not states[~info.patch_mask].any()
    first, _ = net.hidden_states(tokens, lengths, layer=1)
    assert not torch.equal(first, states)
    with pytest.raises(ConfigError, match="layer"):
        net.hidden_states(tokens, lengths, layer=9)


@pytest.mark.parametrize("changes", CONFIGURATIONS)
def test_every_parameter_is_in_the_graph_of_one_token(small_net, changes):
    net = small_net(**changes).train()
    net(torch.tensor([[69]]), torch.tensor([[1]])).logits.sum().backward()
    assert [name for name, weight in net.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("changes", CONFIGURATIONS[:-1])
def test_neither_padding_nor_neighbours_change_a_row(small_net, changes):
    net = small_net(**changes).double()  # in float32 the length of the FFT changes the rounding
    tokens, lengths = tokens_and_lengths(ROWS)
    tokens = torch.cat([tokens, torch.full((4, 9), -1)], dim=1)
    lengths = torch.cat([lengths, torch.zeros(4, 3, dtype=torch.int64)], dim=1)
    with torch.no_grad():
        batch = net(tokens, lengths)
        for row, patches in enumerate(ROWS):
            length, count = sum(patches), len(patches)
            alone = net(tokens[row : row + 1, :length], lengths[row : row + 1, :count])
            for name, size in (("logits", length), ("byte_hidden_state", length), ("last_hidden_state", count)):
                together = getattr(batch, name)[row, :size]
                torch.testing.assert_close(together, getattr(alone, name)[0], atol=1e-7, rtol=0)
            assert not batch.byte_hidden_state[row, length:].any()
            assert not batch.last_hidden_state[row, count:].any()


@pytest.mark.parametrize("causal", [True, False])
def test_rounding_alone_tells_a_row_in_a_batch_from_the_row_alone(small_net, causal):
    net = small_net(causal=causal)
    short, long = tokens_and_lengths([[4, 4]]), tokens_and_lengths([[4, 4], [9, 9, 9]])
    with torch.no_grad():
        alone, together = net(*short).logits[0], net(*long).logits[0, :8]
    assert (together - alone).abs().max() < 1e-5 * alone.abs().max()


def test_shapes_are_as_promised(small_net):
    output = small_net()(*tokens_and_lengths(ROWS))
    assert output.logits.shape == (4, 22, 260)
    assert output.last_hidden_state.shape == (4, 6, 24)
    assert output.byte_hidden_state.shape == (4, 22, 16)
    assert output.compression_ratio == pytest.approx(35 / 9)
    assert output.loss is None


@pytest.mark.parametrize(("shape", "patches"), [((0, 0), 0), ((1, 0), 0), ((2, 3), 0), ((1, 0), 2)])
@pytest.mark.parametrize("causal", [True, False])
def test_rows_without_tokens_work(small_net, shape, patches, causal):
    tokens, lengths = torch.full(shape, -1), torch.zeros(shape[0], patches, dtype=torch.int64)
    output = small_net(causal=causal)(tokens, lengths)
    assert output.logits.shape == (*shape, 260)
    assert output.compression_ratio == 0.0


def test_every_byte_of_a_patch_has_its_own_vector(small_net):
    tokens = torch.full((1, 40), 69)
    states = small_net()(tokens, torch.tensor([[8] * 5])).byte_hidden_state[0]
    for start in range(0, 40, 8):
        inside = states[start : start + 8]
        assert (torch.cdist(inside, inside) + torch.eye(8)).min() > 1e-3


def test_the_patching_changes_the_outputs(small_net):
    net = small_net()
    tokens, _ = tokens_and_lengths([[12]])
    first, second = (net(tokens, torch.tensor([lengths])).logits for lengths in ([4, 4, 4], [3, 5, 4]))
    assert (first - second).abs().max() > 1e-3


def test_the_loss_is_the_mean_over_the_next_bytes(small_net):
    net = small_net()
    tokens, lengths = tokens_and_lengths([[3, 5], [4]])
    output = net(tokens, lengths, compute_loss=True)
    log_probabilities = output.logits.log_softmax(-1)
    losses = [-log_probabilities[row, i, tokens[row, i + 1]] for row, size in ((0, 8), (1, 4)) for i in range(size - 1)]
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())
    torch.testing.assert_close(net(tokens, lengths, labels=tokens).loss, output.loss)


def test_a_two_sided_net_is_scored_on_given_labels(small_net):
    net = small_net(causal=False)
    tokens, lengths = tokens_and_lengths([[3, 5]])
    labels = torch.full_like(tokens, -1)
    labels[0, 4] = 71
    output = net(tokens, lengths, labels=labels)
    torch.testing.assert_close(output.loss, -output.logits.log_softmax(-1)[0, 4, 71])
    with pytest.raises(ConfigError, match="compute_loss"):
        net(tokens, lengths, compute_loss=True)


def test_a_small_vocabulary_takes_byte_tokens(small_net):
    net = small_net(genomic_vocab_size=4)
    upper, lower = ByteTokenizer().encode("ACGUN")[None], ByteTokenizer().encode("acgtr")[None]
    lengths = torch.tensor([[2, 3]])
    assert net(upper, lengths).logits.shape == (1, 5, 9)
    assert torch.equal(net(upper, lengths).logits, net(lower, lengths).logits)
    with pytest.raises(AlphabetError, match="position 1"):
        net(ByteTokenizer().encode("!C")[None], torch.tensor([[2]]))


def test_a_sequence_goes_through_the_patcher(small_net):
    net = small_net(Patcher(patching_mode="static", patch_size=4))
    output = net.forward_with_patching("ACGTACGTAC", global_position_offset=1000)
    assert output.patch_lengths.tolist() == [[4, 4, 2]]
    assert output.patch_info["boundaries"].tolist() == [1000, 1004, 1008]
    tokens = ByteTokenizer().encode("ACGTACGTAC")[None]
    direct = net(tokens, torch.tensor([[4, 4, 2]]), global_position_offset=1000)
    assert torch.equal(output.logits, direct.logits)
    assert torch.equal(net(tokens, global_position_offset=1000).logits, direct.logits)


def test_a_list_of_sequences_is_a_batch(small_net):
    net = small_net(Patcher(patching_mode="static", patch_size=4))
    output = net.forward_with_patching(["ACGTAC", b"AC"])
    assert output.patch_lengths.tolist() == [[4, 2], [2, 0]]


def test_patches_and_boundaries_give_what_the_sequence_gives(small_net):
    patcher = Patcher(patching_mode="static", patch_size=4)
    net = small_net(patcher)
    patches, boundaries = patcher.patch_with_boundaries("ACGTACGTAC")
    whole = net.forward_with_patching("ACGTACGTAC", global_position_offset=70)
    for starts in (boundaries, boundaries + 70):
        pieces = net.forward_with_patching(patches=patches, boundaries=starts, global_position_offset=70)
        assert torch.equal(pieces.logits, whole.logits)
        assert torch.equal(pieces.patch_info["boundaries"], whole.patch_info["boundaries"])


def test_overlapping_patches_keep_their_positions(small_net):
    net = small_net(Patcher(patching_mode="static", patch_size=4, overlap=2))
    with pytest.warns(UserWarning, match="can depend on the future"):  # the last windows know where the row ends
        output = net.forward_with_patching("ACGTAC", global_position_offset=10)
    assert output.patch_info["global_positions"].tolist() == [[10, 11, 12, 13, 12, 13, 14, 15]]
    assert output.patch_info["boundaries"].tolist() == [10, 12]


def test_the_global_position_matters_beyond_two_to_the_31(small_net):
    net = small_net(Patcher(patching_mode="static", patch_size=4))
    period = 147 << 32
    here, shifted, there = (
        net.forward_with_patching("ACGTACGTAC", global_position_offset=offset).logits
        for offset in (5, 5 + (1 << 33) + 1, 5 + period)
    )
    assert torch.equal(here, there)
    assert (here - shifted).abs().max() > 1e-4


def test_exactly_one_source_is_needed(small_net):
    net = small_net(Patcher(patching_mode="byte"))
    for arguments in ({}, {"sequence": "AC", "patches": ["AC"]}):
        with pytest.raises(ConfigError, match="exactly one of sequence and patches"):
            net.forward_with_patching(**arguments)


def test_without_a_patcher_lengths_are_needed(small_net):
    with pytest.raises(ConfigError, match="external_patcher"):
        small_net()(torch.tensor([[69]]))


def test_a_causal_net_warns_once_of_a_patcher_that_sees_the_future(small_net, random_dna):
    net = small_net(Patcher(patching_mode="entropy"))
    with pytest.warns(UserWarning, match="can depend on the future"):
        net.patcher()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.patcher()
        fitted = MarkovEntropy.fit([random_dna(2000)], order=3)
        small_net(Patcher(patching_mode="entropy", entropy_model=fitted)).patcher()
        small_net(Patcher(patching_mode="entropy"), causal=False).patcher()


def test_position_information_can_be_left_out(small_net):
    output = small_net()(*tokens_and_lengths([[3]]), return_position_info=False)
    assert set(output.patch_info) == {"patch_lengths", "boundaries"}


def test_debug_mode_describes_every_stage(small_net):
    output = small_net()(*tokens_and_lengths([[3, 2]]), debug_mode=True)
    assert list(output.debug) == ["encoder", "pooling", "trunk", "bridge", "decoder", "logits"]
    assert output.debug["trunk"]["shape"] == (1, 2, 24)
    assert all(stage["finite"] for stage in output.debug.values())


def test_checkpointing_changes_no_gradient(small_net):
    net = small_net(Patcher(patching_mode="static", patch_size=4)).train()
    gradients = []
    for enable in (False, True):
        net.zero_grad()
        net.gradient_checkpointing_enable(enable)
        net.forward_with_patching("ACGTACGTAC", use_gradient_checkpointing=enable).logits.square().mean().backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in net.parameters()]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_stays_near_full_precision(small_net, precision):
    tokens, lengths = tokens_and_lengths([[3, 5, 9]])
    full = small_net()(tokens, lengths).logits
    mixed = small_net(mixed_precision=precision)(tokens, lengths).logits.float()
    assert (mixed - full).abs().max() < 0.15 * full.abs().max()


def test_the_patcher_is_no_part_of_the_weights(small_net):
    net = small_net(torch.nn.Linear(2, 2))
    assert not [name for name in net.state_dict() if "patcher" in name]


def test_a_net_learns_a_repeat(small_net):
    torch.manual_seed(0)
    net = small_net().train()
    tokens = ByteTokenizer().encode("ACGTTGCA" * 12)[None]
    lengths = torch.full((1, 24), 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    first = None
    for _ in range(25):
        loss = net(tokens, lengths, compute_loss=True).loss
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 * first
