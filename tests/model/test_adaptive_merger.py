"""Boundaries learned with the net: the rule, the limits, causality, gradients, and the pull to the target."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.model import AdaptiveTokenMerger, HyenaGLT, LearnedPatcher
from hyena_glt.model.adaptive_merger import (
    smooth_states,
    smooth_states_reference,
    start_weights,
    weigh_by_confidence,
)
from hyena_glt.patching import Patcher
from hyena_glt.patching.scan import Scanner, ScanRule
from hyena_glt.positions.position_info import PositionInfo
from hyena_glt.tokens import ByteTokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-9  # of float64 nets
LIMITS = [(None, None), (None, 5), (3, None), (2, 6), (4, 4)]


def batch_of(rows: list[str]) -> torch.Tensor:
    tokens = [ByteTokenizer().encode(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-1)


def learned(small_net, **changes) -> HyenaGLT:
    """A float64 net whose probabilities lie on both sides of 1/2."""
    changes = {"boundaries": "learned", "target_patch_length": 4, **changes}
    return small_net(**changes).double()


def row_mask(lengths: list[int], width: int) -> torch.Tensor:
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def test_probabilities_follow_their_definition():
    torch.manual_seed(0)
    merger, x = AdaptiveTokenMerger(6).double(), torch.randn(2, 7, 6).double()
    with torch.no_grad():
        for weight in merger.parameters():
            weight.add_(torch.randn_like(weight))
        probabilities = merger(x, row_mask([7, 4], 7))
        states = merger.norm(x)
        query, key = merger.to_query(states), merger.to_key(states)
    for row, length in enumerate((7, 4)):
        assert probabilities[row, 0] == 1
        for t in range(1, length):
            cosine = torch.cosine_similarity(query[row, t], key[row, t - 1], dim=0)
            torch.testing.assert_close(probabilities[row, t], (1 - cosine) / 2)
        assert not probabilities[row, length:].any()


@pytest.mark.parametrize("limits", LIMITS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_limits_are_those_of_the_scanner(limits, data):
    lengths = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=4))
    seed = data.draw(st.integers(0, 999))
    shortest, cap = limits
    merger = AdaptiveTokenMerger(4, 4, shortest, cap)
    mask = row_mask(lengths, max(lengths))
    probabilities = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) * mask
    cut = merger.cut(probabilities, mask)
    assert cut.patch_lengths.shape[1] == 0 or cut.patch_lengths.any(0).all()
    for row, length in enumerate(lengths):
        starts = (probabilities[row, :length] >= 0.5).numpy()
        starts[:1] = False  # token 0 opens the first patch
        scanner = Scanner(ScanRule("mask", min_patch_length=shortest, max_patch_length=cap))
        expected = np.concatenate([scanner.feed(starts), scanner.finish()]).tolist()
        found = cut.patch_lengths[row]
        assert found[found > 0].tolist() == expected
        first_tokens = set(np.cumsum([0, *expected])[1:-1].tolist())
        forced = {at for at, size in zip(np.cumsum(expected).tolist(), expected, strict=True) if size == cap}
        assert {at for at in range(length) if not cut.known_starts[row, at]} == first_tokens - forced
        assert bool(cut.next_starts_patch[row]) == (bool(expected) and expected[-1] == cap)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 150), st.integers(0, 99))
def test_smoothing_is_its_definition(num_patches, seed):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(2, num_patches, 3, generator=generator, dtype=torch.float64)
    weights = 0.5 + torch.rand(2, num_patches, generator=generator, dtype=torch.float64) / 2
    weights[:, 0] = 1
    torch.testing.assert_close(smooth_states(states, weights), smooth_states_reference(states, weights))


def test_starts_that_the_probabilities_did_not_choose_are_certain():
    info = PositionInfo.from_patch_lengths(torch.tensor([[2, 1, 2], [3, 0, 0]]), length=5)
    probabilities = torch.tensor([[1.0, 0.1, 0.7, 0.2, 0.0], [1.0, 0.9, 0.3, 0.0, 0.0]])
    expected = torch.tensor([[1.0, 0.7, 1.0], [1.0, 1.0, 1.0]])
    assert torch.equal(start_weights(probabilities, info), expected)


def test_confidence_changes_no_value_and_has_the_gradient_of_a_weight():
    info = PositionInfo.from_patch_lengths(torch.tensor([[2, 2]]))
    probabilities = torch.tensor([[1.0, 0.2, 0.6, 0.3]], requires_grad=True)
    x, bridged = torch.randn(1, 4, 3), torch.randn(1, 4, 3)
    result = weigh_by_confidence(x, bridged, probabilities, info)
    assert torch.equal(result, bridged)
    result.sum().backward()
    read = (bridged - x).sum(-1)
    torch.testing.assert_close(probabilities.grad, read * torch.tensor([1.0, -1.0, 1.0, -1.0]))


@pytest.mark.parametrize(("lengths", "sign"), [([[2] * 8], 1), ([[4] * 4], 0), ([[8, 8]], -1)])
def test_the_ratio_loss_pulls_the_mean_probability_towards_the_target(lengths, sign):
    probabilities = torch.full((1, 16), 0.4, requires_grad=True)
    AdaptiveTokenMerger(4, 4).ratio_loss(probabilities, torch.tensor(lengths)).backward()
    assert torch.allclose(probabilities.grad.sign(), torch.full((1, 16), float(sign)))


def test_the_ratio_loss_is_one_at_the_target_and_ignores_padding():
    merger, lengths = AdaptiveTokenMerger(4, 4), torch.tensor([[4, 4], [4, 0]])
    probabilities = torch.full((2, 8), 0.25) * row_mask([8, 4], 8)
    assert merger.ratio_loss(probabilities, lengths).item() == pytest.approx(1)
    padded = torch.cat([probabilities, torch.zeros(2, 5)], dim=1)
    assert merger.ratio_loss(padded, lengths) == merger.ratio_loss(probabilities, lengths)
    assert merger.ratio_loss(torch.zeros(0, 3), torch.zeros(0, 0, dtype=torch.int64)) == 0


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("limits", [(None, None), (2, 6)])
def test_neither_padding_nor_neighbours_change_a_row(small_net, random_dna, causal, limits):
    net = learned(small_net, causal=causal, min_patch_length=limits[0], max_patch_length=limits[1])
    rows = [random_dna(length, seed=length) for length in (40, 17, 1, 0)]
    tokens = torch.cat([batch_of(rows), torch.full((4, 9), -1)], dim=1)
    with torch.no_grad():
        together = net(tokens)
        for row, text in enumerate(rows):
            alone = net(batch_of([text]))
            count, length = alone.patch_lengths.shape[1], len(text)
            assert torch.equal(together.patch_lengths[row, :count], alone.patch_lengths[0])
            assert not together.patch_lengths[row, count:].any()
            for name, size in (("logits", length), ("last_hidden_state", count), ("boundary_probabilities", length)):
                values = getattr(together, name)[row, :size]
                torch.testing.assert_close(values, getattr(alone, name)[0], atol=1e-7, rtol=0)
    assert 1 < together.compression_ratio < 12


def changed_rows(random_dna, length: int, seed: int) -> torch.Tensor:
    """A random row, and for each position the row with another letter there."""
    row = random_dna(length, seed)
    other = str.maketrans("ACGT", "CGTA")
    changed = [row[:i] + row[i].translate(other) + row[i + 1 :] for i in range(length)]
    return batch_of([row, *changed])


def largest_early_change(logits: torch.Tensor) -> float:
    moved = (logits[1:] - logits[0]).abs().amax(-1)
    return max(float(moved[i, :i].max()) for i in range(1, len(moved)))


@pytest.mark.parametrize("long_filter", ["implicit", "exponential"])
@pytest.mark.parametrize("limits", LIMITS)
def test_no_output_before_a_change_moves(small_net, random_dna, long_filter, limits):
    net = learned(small_net, long_filter=long_filter, min_patch_length=limits[0], max_patch_length=limits[1])
    tokens = changed_rows(random_dna, 26, seed=3)
    with torch.no_grad():
        output = net(tokens)
    assert largest_early_change(output.logits) < TOLERANCE
    moved = (output.boundary_probabilities[1:] - output.boundary_probabilities[0]).abs()
    assert max(float(moved[i, :i].max()) for i in range(1, 26)) < TOLERANCE
    if limits != (4, 4):
        assert len(set(map(tuple, output.patch_lengths.tolist()))) > 1  # the changes moved boundaries


def test_the_check_finds_the_leak_when_learned_starts_are_taken_for_known(small_net, random_dna):
    net = learned(small_net)
    tokens = changed_rows(random_dna, 26, seed=3)
    with torch.no_grad():
        lengths = net(tokens).patch_lengths
        assert largest_early_change(net(tokens, lengths).logits) > 1e-4


@pytest.mark.parametrize("cap", [None, 3])
def test_the_beginning_of_a_row_gives_what_it_gives_in_the_row(small_net, random_dna, cap):
    net = learned(small_net, max_patch_length=cap, target_patch_length=2)
    text = random_dna(24, seed=1)
    with torch.no_grad():
        whole = net(batch_of([text])).logits[0]
        starts = net(batch_of([text[:end] for end in range(1, 25)])).logits
    for end in range(1, 25):
        torch.testing.assert_close(starts[end - 1, :end], whole[:end], atol=1e-7, rtol=0)


def test_the_cut_of_an_output_goes_back_in(small_net, random_dna):
    net = learned(small_net, max_patch_length=6)
    tokens = batch_of([random_dna(40), random_dna(30, seed=1)])
    with torch.no_grad():
        first = net(tokens, compute_loss=True)
        again = net(tokens, first.patch_lengths, first.known_starts, first.next_starts_patch, compute_loss=True)
    assert torch.equal(first.logits, again.logits)
    assert again.ratio_loss is None
    torch.testing.assert_close(first.loss, again.loss + net.config.ratio_loss_weight * first.ratio_loss)


CONFIGURATIONS = [
    {"long_filter": filters, "causal": causal, "ngram_sizes": ngrams, "genomic_vocab_size": size, "alphabet": alphabet}
    for filters, causal, ngrams, (size, alphabet) in itertools.product(
        ["implicit", "exponential", "both"], [True, False], [(2, 4), ()], [(256, None), (4, "dna"), (20, "protein")]
    )
]
CONFIGURATIONS += [
    {"causal": causal, **more}
    for causal in (True, False)
    for more in (
        {"trunk_layout": ("short",)},
        {"trunk_layout": ("medium",)},
        {"trunk_layout": ("long",), "num_layers": 1},
        {"bridge_num_patches": 1},
        {"local_kernel_size": 2},
        {"mixed_precision": "bf16"},
    )
]
LEARNED_ONLY = [
    {"causal": causal, "min_patch_length": low, "max_patch_length": high}
    for causal, (low, high) in itertools.product([True, False], [(None, 6), (3, None), (2, 6)])
]
WAYS = [(way, changes) for way in ("external", "learned", "learned, cut given") for changes in CONFIGURATIONS]
WAYS += [(way, changes) for way in ("learned", "learned, cut given") for changes in LEARNED_ONLY]


def idle_parameters(net: torch.nn.Module) -> list[str]:
    """Names of the parameters that a backward pass left without gradient, or with zeros or NaN only."""
    grads = {name: weight.grad for name, weight in net.named_parameters()}
    return [name for name, grad in grads.items() if grad is None or not grad.isfinite().all() or not grad.any()]


@pytest.mark.parametrize(("way", "changes"), WAYS, ids=str)
def test_every_parameter_has_a_gradient(small_net, random_dna, way, changes):
    if way.startswith("learned"):
        changes = {"boundaries": "learned", "target_patch_length": 4, **changes}
    patcher = Patcher(patching_mode="static", patch_size=4) if way == "external" else None
    net = small_net(patcher, **changes).train()
    tokens = batch_of([random_dna(96), random_dna(70, seed=1)])
    given_lengths = torch.tensor([[5, 3, 4] * 8, [7] * 10 + [0] * 14])
    net(tokens, given_lengths if way == "learned, cut given" else None, labels=tokens).loss.backward()
    assert idle_parameters(net) == []


@pytest.mark.parametrize("causal", [True, False])
def test_the_main_loss_alone_reaches_the_merger(small_net, random_dna, causal):
    net = small_net(boundaries="learned", ratio_loss_weight=0.0, causal=causal).train()
    tokens = batch_of([random_dna(64)])
    net(tokens, labels=tokens).loss.backward()
    assert all(weight.grad.any() for weight in net.merger.parameters())


@pytest.mark.parametrize("rows", [["A"], ["", "A"]])
@pytest.mark.parametrize("cap", [None, 20])
def test_rows_of_one_token_or_none_work(small_net, rows, cap):
    net = small_net(boundaries="learned", max_patch_length=cap).train()
    output = net(batch_of(rows), compute_loss=True)
    assert output.patch_lengths.sum(1).tolist() == [len(row) for row in rows]
    assert output.loss.isfinite()
    output.loss.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in net.parameters())


EMPTY = {
    "no length": torch.zeros(2, 0, dtype=torch.int64),
    "padding": torch.full((2, 5), -1),
    "no rows": torch.zeros(0, 5, dtype=torch.int64),
}


@pytest.mark.parametrize("boundaries", ["learned", "patcher"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("long_filter", ["implicit", "exponential", "both"])
@pytest.mark.parametrize("tokens", EMPTY.values(), ids=EMPTY)
def test_a_batch_without_tokens_trains_like_any_other(small_net, boundaries, causal, long_filter, tokens):
    net = small_net(boundaries=boundaries, causal=causal, long_filter=long_filter).train()
    lengths = None if boundaries == "learned" else torch.zeros(len(tokens), 0, dtype=torch.int64)
    output = net(tokens, lengths, labels=tokens)
    output.loss.backward()
    assert output.loss == 0
    assert output.last_hidden_state.shape == (len(tokens), 0, 24)
    assert not any(weight.grad.any() for weight in net.parameters() if weight.grad is not None)


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_saved_and_loaded(small_net, random_dna, tmp_path, causal):
    net = small_net(boundaries="learned", causal=causal, min_patch_length=2, max_patch_length=20)
    net.save_pretrained(tmp_path)
    loaded = HyenaGLT.from_pretrained(tmp_path)
    tokens = batch_of([random_dna(50)])
    with torch.no_grad():
        before, after = net(tokens), loaded(tokens)
    assert loaded.config == net.config
    assert torch.equal(before.patch_lengths, after.patch_lengths)
    assert torch.equal(before.logits, after.logits)


def test_a_net_is_its_own_patcher(small_net, random_dna):
    net = small_net(boundaries="learned")
    text = random_dna(50)
    with torch.no_grad():
        output = net.forward_with_patching([text])
    patcher = net.patcher()
    assert patcher.is_causal
    lengths, probabilities = patcher.patch(text)
    assert torch.equal(lengths, output.patch_lengths)
    assert torch.equal(probabilities, output.boundary_probabilities)
    assert torch.equal(patcher.patch_with_starts(text).known_starts, output.known_starts)
    assert not small_net(boundaries="learned", causal=False).patcher().is_causal


def test_it_takes_the_place_of_an_external_patcher(small_net, random_dna):
    teacher, rows = learned(small_net, max_patch_length=6), [random_dna(50), random_dna(9, seed=1)]
    pupil = small_net(teacher.patcher(), seed=1).double()
    own = teacher.forward_with_patching(rows)
    assert torch.equal(pupil.forward_with_patching(rows).patch_lengths, own.patch_lengths)
    for row in (rows[0], rows[0].encode(), ByteTokenizer().encode(rows[0])):
        patches, boundaries = teacher.patcher().patch_with_boundaries(row)
        assert [len(patch) for patch in patches] == own.patch_lengths[0].tolist()
        assert torch.equal(boundaries, own.boundaries[0])
        assert all(type(patch) is type(row) for patch in patches)
    with pytest.raises(PatchingError, match="got a list"):
        teacher.patcher().patch_with_boundaries(rows)
    result = teacher.batch_process_with_patching(rows, batch_size=1)
    counts = (own.patch_lengths > 0).sum(1).tolist()
    assert result.compression_stats.tolist() == [len(row) / count for row, count in zip(rows, counts, strict=True)]


@pytest.mark.parametrize("limits", LIMITS)
def test_a_net_cut_by_another_net_leaks_nothing_either(small_net, random_dna, limits):
    teacher = learned(small_net, min_patch_length=limits[0], max_patch_length=limits[1])
    pupil = small_net(teacher.patcher(), seed=1).double()
    with torch.no_grad():
        assert largest_early_change(pupil(changed_rows(random_dna, 26, seed=3)).logits) < TOLERANCE


def test_scores_and_the_loss_agree(small_net, random_dna):
    net = small_net(boundaries="learned")
    text = random_dna(60)
    with torch.no_grad():
        output = net(batch_of([text]), compute_loss=True)
    nats = output.loss - net.config.ratio_loss_weight * output.ratio_loss
    assert net.score_sequences([text])[0].item() == pytest.approx(-nats.item(), rel=1e-5)


def test_a_patcher_of_one_call_wins(small_net):
    net = small_net(boundaries="learned")
    output = net.forward_with_patching("ACGTACGTAC", patcher_config={"patching_mode": "static", "patch_size": 4})
    assert output.patch_lengths.tolist() == [[4, 4, 2]]
    assert output.ratio_loss is None


def test_mixed_precision_keeps_probabilities_in_float32(small_net, random_dna):
    output = small_net(boundaries="learned", mixed_precision="bf16")(batch_of([random_dna(30)]))
    assert output.boundary_probabilities.dtype is torch.float32


def test_what_contradicts_itself_is_refused(small_net, small_config):
    with pytest.raises(ConfigError, match="the net cuts by itself"):
        small_net(Patcher(patching_mode="byte"), boundaries="learned")
    with pytest.raises(ConfigError, match="expected boundaries='learned'"):
        LearnedPatcher(small_net())
    for changes in (
        {"max_patch_length": 8},
        {"boundaries": "learned", "max_patch_length": 8},
        {"boundaries": "learned", "min_patch_length": 9, "max_patch_length": 8, "target_patch_length": 8},
        {"boundaries": "learned", "target_patch_length": 1},
    ):
        with pytest.raises(ValidationError, match="patch_length"):
            small_config(**changes)
    for arguments in ((1.0,), (4.0, 0 - 1), (4.0, 5, 4)):
        with pytest.raises(ConfigError, match="target_patch_length"):
            AdaptiveTokenMerger(8, *arguments)


def test_the_default_configuration_has_no_merger():
    net = HyenaGLT(HyenaGLTConfig.preset("tiny"))
    assert net.merger is None
    assert not [name for name in net.state_dict() if "merger" in name]


def rows_with_motifs(generator: torch.Generator) -> torch.Tensor:
    """`(4, 96)` random DNA tokens with a promoter's -10 box and what follows it every 24 bases."""
    letters = ByteTokenizer().encode("ACGT")
    tokens = letters[torch.randint(0, 4, (4, 4, 24), generator=generator)]
    tokens[..., 8:18] = ByteTokenizer().encode("TATAATGCGC")
    return tokens.flatten(1)


@pytest.mark.parametrize("target", [pytest.param(4, marks=pytest.mark.slow), 8])
def test_training_brings_the_mean_length_to_the_target(small_config, target):
    torch.manual_seed(0)
    config = small_config(boundaries="learned", target_patch_length=target, num_layers=1, trunk_layout=("medium",))
    net, generator = HyenaGLT(config).train(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    num_patches, losses = [], []
    for _ in range(120):
        tokens = rows_with_motifs(generator)
        output = net(tokens, compute_loss=True)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        num_patches.append(int(output.positions.patch_mask.sum()))
        losses.append(output.loss.item())
    assert 40 * 4 * 96 / sum(num_patches[-40:]) == pytest.approx(target, rel=0.2)
    assert losses[-1] < 0.5 * losses[0]
