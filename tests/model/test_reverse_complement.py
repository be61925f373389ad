"""Both strands: mirrored patches, flipped states, and the equality."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import AlphabetError, ConfigError
from hyena_glt.model import ReverseComplementEquivariant, reverse_complement_average
from hyena_glt.model.reverse_complement import (
    complement_ids,
    flip_rows,
    mirror_patch_lengths,
    reverse_complement_tokens,
    strand_patch_lengths,
)
from hyena_glt.patching import Patcher
from hyena_glt.sequences.alphabets import reverse_complement
from hyena_glt.tokens import ByteTokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-12  # of float64 nets
DNA_ROWS = st.lists(st.text("ACGTNRYacgtn", max_size=24), min_size=1, max_size=3)
VOCABULARIES = [{}, {"alphabet": "dna"}, {"genomic_vocab_size": 4}, {"genomic_vocab_size": 4, "alphabet": "rna"}]


def batch_of(rows: list[str]) -> torch.Tensor:
    tokens = [ByteTokenizer().encode(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-1)


@given(DNA_ROWS)
def test_tokens_are_complemented_as_sequences_are(rows):
    other = reverse_complement_tokens(batch_of(rows))
    assert torch.equal(other, batch_of([reverse_complement(row) for row in rows]))
    assert torch.equal(reverse_complement_tokens(other), batch_of(rows))


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=4))
def test_mirrored_lengths_are_the_lengths_from_the_other_end(rows):
    width = max(map(len, rows))
    lengths = torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.int64).view(len(rows), width)
    mirrored = mirror_patch_lengths(lengths)
    assert [[size for size in row if size] for row in mirrored.tolist()] == [row[::-1] for row in rows]
    assert torch.equal(mirror_patch_lengths(mirrored), lengths)


@pytest.mark.parametrize("changes", VOCABULARIES)
def test_complementary_ids_are_their_own_inverse(small_config, changes):
    config = small_config(**changes)
    order = complement_ids(config)
    ids = torch.arange(config.vocab_size)
    assert order.shape == ids.shape
    assert torch.equal(order[order], ids)
    a, c, g, t = (4, 5, 6, 7) if config.vocab_size == 9 else (69, 71, 75, 89 if "rna" in changes.values() else 88)
    assert order[[a, c, g, t]].tolist() == [t, g, c, a]
    assert order[[0, 1, 2, 3]].tolist() == [0, 1, 2, 3]


class HashPatcher:
    """Cuts by what stands before a token, in one direction; a stand-in for any causal patcher."""

    is_causal = True

    def patch(self, tokens):
        rows = []
        for row in tokens.tolist():
            real = [token for token in row if token >= 0]
            cuts = [i for i in range(1, len(real)) if hash(tuple(real[max(0, i - 2) : i])) % 3 == 0]
            rows.append([b - a for a, b in pairwise([0, *cuts, len(real)]) if b > a])
        width = max(map(len, rows), default=0)
        return torch.tensor([row + [0] * (width - len(row)) for row in rows]).view(len(rows), width), None


@settings(deadline=None, max_examples=50)
@given(rows=DNA_ROWS)
@example(rows=["ACGT", "AATT", "AACCTGCAGGTT", "ACG", ""])
@example(rows=["AACCTGCAGGTTNNAACCTGCAGGTT"])
def test_the_patches_of_the_other_strand_are_the_mirror_image(small_net, rows):
    net = small_net(HashPatcher())
    tokens = batch_of(rows)
    other = reverse_complement_tokens(tokens)
    here, there = strand_patch_lengths(net, tokens, other), strand_patch_lengths(net, other, tokens)
    assert here.sum(1).tolist() == [len(row) for row in rows]
    assert torch.equal(here, mirror_patch_lengths(there))


def test_a_row_that_is_no_palindrome_keeps_the_cuts_of_one_strand(small_net):
    net = small_net(HashPatcher())
    tokens = batch_of(["AACCTGAGGATTACA", "ACGTACGT"])
    other = reverse_complement_tokens(tokens)
    lengths = strand_patch_lengths(net, tokens, other)
    assert lengths[0][lengths[0] > 0].tolist() == net.patcher().patch(tokens[:1])[0][0].tolist()
    palindrome = lengths[1][lengths[1] > 0].tolist()
    assert palindrome == palindrome[::-1]


def assert_mirrored(wrapper, rows, order, patch_lengths=None) -> None:
    """wrapper(rc(x)) is wrapper(x) flipped, letters exchanged, halves of the channels swapped."""
    tokens = batch_of(rows)
    lengths = torch.tensor([len(row) for row in rows])
    given_lengths = (patch_lengths, None if patch_lengths is None else mirror_patch_lengths(patch_lengths))
    with torch.no_grad():
        here = wrapper(tokens, given_lengths[0])
        there = wrapper(reverse_complement_tokens(tokens, wrapper.alphabet), given_lengths[1])
    counts = (here.patch_lengths > 0).sum(1)
    assert torch.equal(there.patch_lengths, mirror_patch_lengths(here.patch_lengths))
    for states, other, sizes in (
        (here.byte_hidden_state, there.byte_hidden_state, lengths),
        (here.last_hidden_state, there.last_hidden_state, counts),
    ):
        swapped = other if wrapper.states == "mean" else torch.cat(other.chunk(2, dim=-1)[::-1], dim=-1)
        torch.testing.assert_close(flip_rows(swapped, sizes), states, atol=TOLERANCE, rtol=0)
    if here.logits is not None:
        torch.testing.assert_close(flip_rows(there.logits, lengths)[..., order], here.logits, atol=TOLERANCE, rtol=0)


ROWS = ["ACGTTNGCATAAGRCCGATA", "AATT", "GATTACAgattaca", "AACCTGCAGGTT"]


@pytest.mark.parametrize("changes", VOCABULARIES)
@pytest.mark.parametrize("states", ["mean", "both"])
@pytest.mark.parametrize("way", ["entropy", "learned", "given", "causal"])
def test_the_wrapper_gives_the_same_for_both_strands(small_net, random_dna, changes, states, way):
    patcher = None
    if way in ("entropy", "causal"):
        model = MarkovEntropy.fit([random_dna(2000, seed=5)], order=3)
        patcher = Patcher(patching_mode="entropy", entropy_model=model, threshold=1.37, max_patch_length=5)
    boundaries = "learned" if way == "learned" else "patcher"
    net = small_net(patcher, causal=way == "causal", boundaries=boundaries, **changes).double()
    rows = [row.replace("T", "U").replace("t", "u") for row in ROWS] if changes.get("alphabet") == "rna" else ROWS
    wrapper = ReverseComplementEquivariant(net, states).eval()
    given_lengths = torch.tensor([[7, 5, 8], [1, 3, 0], [5, 5, 4], [2, 2, 8]]) if way == "given" else None
    order = complement_ids(net.config)
    assert_mirrored(wrapper, rows, order, given_lengths)
    with torch.no_grad():
        output = wrapper(batch_of(rows), given_lengths)
    assert (output.logits is None) == (way == "causal")
    assert output.byte_hidden_state.shape[-1] == (16 if states == "mean" else 32)


def test_a_plain_net_is_not_the_same_for_both_strands(small_net):
    """The check above would fail without the wrapper."""
    net = small_net(causal=False).double()
    tokens, lengths = batch_of(ROWS[:1]), torch.tensor([[7, 5, 8]])
    with torch.no_grad():
        here = net(tokens, lengths).logits
        there = net(reverse_complement_tokens(tokens), mirror_patch_lengths(lengths)).logits
    order = complement_ids(net.config)
    assert (flip_rows(there, torch.tensor([20]))[..., order] - here).abs().max() > 1e-3


def test_the_average_is_that_of_both_strands(small_net):
    net = small_net(Patcher(patching_mode="static", patch_size=4), causal=False)
    text = "ACGTTGCATAAG"
    average = reverse_complement_average(net, [text])
    with torch.no_grad():
        here, there = net.forward_with_patching(text), net.forward_with_patching(reverse_complement(text))
    order = complement_ids(net.config)
    torch.testing.assert_close(average.logits, (here.logits + there.logits.flip(1)[..., order]) / 2)
    expected = (here.byte_hidden_state + there.byte_hidden_state.flip(1)) / 2
    torch.testing.assert_close(average.byte_hidden_state, expected)
    assert not average.logits.requires_grad


def test_averaging_leaves_the_mode_of_the_net_alone(small_net):
    net = small_net(Patcher(patching_mode="static"), dropout=0.5).train()
    first, again = (reverse_complement_average(net, "ACGTTGCA").byte_hidden_state for _ in range(2))
    assert torch.equal(first, again)
    assert net.training


def test_the_wrapper_trains(small_net):
    net = small_net(causal=False).train()
    wrapper = ReverseComplementEquivariant(net)
    wrapper(batch_of(ROWS[:1]), torch.tensor([[7, 5, 8]])).logits.square().mean().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in wrapper.parameters())
    assert "letter_order" not in wrapper.state_dict()


def test_u_is_read_as_t(small_net):
    wrapper = ReverseComplementEquivariant(small_net(causal=False))
    lengths = torch.tensor([[2, 2]])
    assert torch.equal(wrapper(batch_of(["ACGU"]), lengths).logits, wrapper(batch_of(["ACGT"]), lengths).logits)


def test_what_has_no_other_strand_is_refused(small_net):
    with pytest.raises(AlphabetError, match="no complement"):
        ReverseComplementEquivariant(small_net(genomic_vocab_size=20))
    with pytest.raises(AlphabetError, match="position 3"):
        reverse_complement_tokens(batch_of(["ACJ"]))
    with pytest.raises(ConfigError, match="states"):
        ReverseComplementEquivariant(small_net(), "sum")
    net = small_net(Patcher(patching_mode="static", patch_size=4, overlap=2), causal=False)
    with pytest.raises(ConfigError, match="overlap"):
        reverse_complement_average(net, "ACGTACGT")
