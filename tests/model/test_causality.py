"""Perturb every position, patch again, and nothing before it may move."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.patching import Patcher
from hyena_glt.tokens import ByteTokenizer

LENGTH = 30
SPACE = ord(" ") + 4
UNKNOWN = ord("N") + 4
LETTERS = [ord(letter) + 4 for letter in "ACGT N"]
TOLERANCE = 2e-5  # float32 products in other groupings; FFT rounding


def static_rule(tokens, index):
    """A start every five tokens."""
    return index % 5 == 0, True


def space_rule(tokens, index):
    """A start after a space."""
    return tokens[index - 1] == SPACE, True


def entropy_like_rule(tokens, index):
    """A start that some function of all earlier tokens decides."""
    return hash(tuple(tokens[:index])) % 4 == 0, True


def edge_rule(tokens, index):
    """Edges of N runs are starts that the token itself forces; others follow from the past."""
    known = entropy_like_rule(tokens, index)[0]
    forced = (tokens[index] == UNKNOWN) != (tokens[index - 1] == UNKNOWN)
    return known or forced, known


RULES = {"static": static_rule, "space": space_rule, "entropy": entropy_like_rule, "edges": edge_rule}


def patch_row(tokens: list[int], rule) -> tuple[list[int], list[bool], bool]:
    """`(patch_lengths, known_starts, next_starts_patch)` of one row; tokens 0 and 1 start patches."""
    answers = [(True, True), *(rule(tokens, index) for index in range(1, len(tokens)))]
    answers[1] = (True, True)
    starts = [index for index, (is_start, _) in enumerate(answers) if is_start] + [len(tokens)]
    lengths = [end - start for start, end in pairwise(starts)]
    known = [is_known or not is_start for is_start, is_known in answers]
    following = rule([*tokens, tokens[-1]], len(tokens))
    return lengths, known, bool(following[0] and following[1])


def patched_batch(rows: list[list[int]], rule):
    """Arguments of a forward over rows of one length."""
    patched = [patch_row(row, rule) for row in rows]
    width = max(len(lengths) for lengths, _, _ in patched)
    lengths = torch.tensor([lengths + [0] * (width - len(lengths)) for lengths, _, _ in patched])
    known = torch.tensor([known for _, known, _ in patched])
    return torch.tensor(rows), lengths, known, torch.tensor([following for _, _, following in patched])


def perturbed_rows(seed: int) -> list[list[int]]:
    """A random row, and for each position the row with another token there."""
    generator = torch.Generator().manual_seed(seed)
    row = [LETTERS[i] for i in torch.randint(0, 6, (LENGTH,), generator=generator).tolist()]
    changed = []
    for position in range(LENGTH):
        others = [token for token in LETTERS if token != row[position]]
        token = others[int(torch.randint(0, 5, (1,), generator=generator))]
        changed.append([*row[:position], token, *row[position + 1 :]])
    return [row, *changed]


def earlier_changes(net, arguments) -> list[float]:
    """For each perturbed position, the largest change of any output before it."""
    with torch.no_grad():
        output = net(*arguments)
    states = torch.cat([output.logits, output.byte_hidden_state], dim=-1)
    moved = (states[1:] - states[0]).abs().amax(-1)
    return [float(moved[position, :position].max()) if position else 0.0 for position in range(LENGTH)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("long_filter", ["implicit", "exponential"])
def test_no_output_before_a_change_moves(small_net, rule, long_filter):
    net = small_net(long_filter=long_filter)
    for seed in range(3):
        arguments = patched_batch(perturbed_rows(seed), RULES[rule])
        assert max(earlier_changes(net, arguments)) < TOLERANCE


def test_the_changed_byte_itself_moves(small_net):
    arguments = patched_batch(perturbed_rows(0), entropy_like_rule)
    with torch.no_grad():
        logits = small_net()(*arguments).logits
    moved = (logits[1:] - logits[0]).abs().amax(-1).diagonal()
    assert moved.min() > 1e-3


def test_the_check_finds_the_leak_when_forced_starts_are_taken_for_known(small_net):
    tokens, lengths, _, following = patched_batch(perturbed_rows(0), edge_rule)
    changes = earlier_changes(small_net(), (tokens, lengths, None, following))
    assert max(changes) > 100 * TOLERANCE


def test_patch_states_depend_on_earlier_patches_alone(small_net):
    net = small_net()
    tokens, lengths, *_ = patched_batch(perturbed_rows(1), static_rule)
    with torch.no_grad():
        states = net(tokens, lengths).last_hidden_state
    moved = (states[1:] - states[0]).abs().amax(-1)
    patch_of = net(tokens[:1], lengths[:1]).positions.patch_ids[0].tolist()
    assert max(moved[i, : patch_of[i]].max() for i in range(LENGTH) if patch_of[i]) < TOLERANCE


def test_long_rows_leak_rounding_of_the_fft_alone(small_net):
    net = small_net(medium_filter_length=80)
    tokens = torch.randint(4, 260, (1, 700), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 500:] = 4 + (changed[:, 500:] + 7) % 256
    lengths = torch.full((1, 350), 2)
    with torch.no_grad():
        before, after = net(tokens, lengths).logits, net(changed, lengths).logits
    assert (after - before)[:, :500].abs().max() < TOLERANCE
    assert (after - before)[:, 500:].abs().max() > 0.1


def test_a_two_sided_net_sees_both_sides(small_net):
    arguments = patched_batch(perturbed_rows(0), static_rule)
    assert max(earlier_changes(small_net(causal=False), arguments)) > 1e-3


PATCHERS = {
    "static": {"patching_mode": "static", "patch_size": 4.5},
    "space": {"patching_mode": "space"},
    "entropy": {"patching_mode": "entropy", "threshold": 1.36, "max_patch_length": 9},
}


@pytest.mark.parametrize("mode", PATCHERS)
def test_the_real_patcher_keeps_a_net_causal(small_net, random_dna, mode):
    options = dict(PATCHERS[mode])
    if mode == "entropy":
        options["entropy_model"] = MarkovEntropy.fit([random_dna(3000, seed=5)], order=3)
    net = small_net(Patcher(**options, device="cpu"))
    row = ByteTokenizer().encode("ACGTTNNNACG ATTACA NNGATT N").tolist()
    rows = [row]
    for position in range(len(row)):
        other = ord("N" if row[position] != UNKNOWN else "A") + 4
        rows.append([*row[:position], other, *row[position + 1 :]])
    with torch.no_grad():
        logits = net.forward_with_patching(torch.tensor(rows)).logits
    moved = (logits[1:] - logits[0]).abs().amax(-1)
    assert max(moved[i, :i].max() for i in range(1, len(row))) < TOLERANCE
