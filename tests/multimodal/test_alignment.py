"""Cross-attention between modalities: padding and batch never matter, every parameter learns."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError
from hyena_glt.multimodal.alignment import (
    COLDEST,
    WARMEST,
    CrossModalAlignment,
    PatchStates,
    contrastive_loss,
    masked_mean,
)

WIDTHS = {"dna": 6, "protein": 5, "rna": 4}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def made_alignment(widths=WIDTHS, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CrossModalAlignment(widths, shared_size=8, num_heads=2).eval()


def made_states(width, counts, seed=0, padding=0, filler=0.0):
    """Random states of rows with these numbers of patches; what lies in padding is `filler`."""
    generator = torch.Generator().manual_seed(seed)
    most = max(counts) + padding
    lengths = torch.zeros(len(counts), most, dtype=torch.int64)
    states = torch.full((len(counts), most, width), filler)
    for row, count in enumerate(counts):
        lengths[row, :count] = torch.randint(1, 9, (count,), generator=generator)
        states[row, :count] = torch.randn(count, width, generator=generator)
    return PatchStates(states, lengths)


def made_inputs(counts, **options):
    return {
        name: made_states(width, rows, **options) for (name, width), rows in zip(WIDTHS.items(), counts, strict=True)
    }


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=4), st.integers(1, 3))
def test_padding_changes_nothing(rows, padding):
    counts, align = list(zip(*rows, strict=True)), made_alignment()
    with torch.no_grad():
        tight = align(made_inputs(counts))
        padded = align(made_inputs(counts, padding=padding, filler=1e3))
        agreement = [
            align.agreement("dna", inputs["dna"], "protein", inputs["protein"])
            for inputs in (made_inputs(counts), made_inputs(counts, padding=padding, filler=1e3))
        ]
    torch.testing.assert_close(agreement[0], agreement[1], **CLOSE)
    for name in WIDTHS:
        most = tight.states[name].shape[1]
        torch.testing.assert_close(padded.states[name][:, :most], tight.states[name], **CLOSE)
        assert not padded.states[name][:, most:].any()
        torch.testing.assert_close(padded.pooled[name], tight.pooled[name], **CLOSE)
        torch.testing.assert_close(padded.vectors[name], tight.vectors[name], **CLOSE)


def test_a_row_gives_the_same_alone_and_in_a_batch():
    align, inputs = made_alignment(), made_inputs([(3, 5), (4, 1), (2, 2)])
    with torch.no_grad():
        together = align(inputs)
        for row in range(2):
            part = {
                name: PatchStates(i.states[row : row + 1], i.patch_lengths[row : row + 1]) for name, i in inputs.items()
            }
            alone = align(part)
            for name in WIDTHS:
                torch.testing.assert_close(alone.pooled[name][0], together.pooled[name][row], **CLOSE)
            torch.testing.assert_close(alone.attention["dna", "rna"][0], together.attention["dna", "rna"][row], **CLOSE)


def test_a_state_depends_on_the_other_modality_of_its_own_row_alone():
    """The guide's `align_multimodal_outputs` is `pass`: nothing was ever aligned."""
    align, inputs = made_alignment(), made_inputs([(3, 3), (2, 2), (2, 2)])
    other = PatchStates(inputs["protein"].states.clone(), inputs["protein"].patch_lengths)
    other.states[1] = other.states[1].flip(-1)
    with torch.no_grad():
        before, after = align(inputs), align({**inputs, "protein": other})
    torch.testing.assert_close(after.states["dna"][0], before.states["dna"][0])
    assert (after.states["dna"][1] - before.states["dna"][1]).abs().max() > 1e-4
    torch.testing.assert_close(after.vectors["dna"], before.vectors["dna"])


def test_attention_is_a_share_of_the_real_patches():
    align = made_alignment()
    attention = align(made_inputs([(4,), (3,), (2,)], padding=2)).attention["dna", "protein"]
    assert attention.shape == (1, 6, 5)
    assert not attention[:, 4:].any()
    assert not attention[:, :, 3:].any()
    sums = attention[0, :4].sum(-1)
    assert bool(((sums > 0) & (sums < 1)).all())  # the null state has the rest


@pytest.mark.parametrize("training", [False, True])
def test_gradients_reach_every_parameter(training):
    align, inputs = made_alignment(), made_inputs([(4, 2), (3, 5), (2, 2)])
    out = align.train(training)(inputs)
    loss = sum(part.square().sum() for part in out.pooled.values())
    loss = loss + contrastive_loss(out.similarity["dna", "protein"], align.temperature)
    loss = loss + contrastive_loss(align.agreement("dna", inputs["dna"], "rna", inputs["rna"]), align.temperature)
    loss.backward()
    for name, parameter in align.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_agreement_is_the_mean_cosine_with_what_is_read():
    align, inputs = made_alignment(), made_inputs([(4, 2), (3, 5), (2, 2)])
    dna, rna = inputs["dna"], inputs["rna"]
    with torch.no_grad():
        scores = align.agreement("dna", dna, "rna", rna)
        swapped = align.agreement("rna", rna, "dna", dna)
    torch.testing.assert_close(scores, swapped.T, **CLOSE)
    assert scores.shape == (2, 2)
    assert bool((scores.abs() <= 1).all())


def test_agreement_of_one_pair_does_not_depend_on_the_others():
    align = made_alignment()
    a, b = made_states(6, [4, 2, 3]), made_states(5, [2, 5], seed=1)
    one_a, one_b = PatchStates(a.states[1:2], a.patch_lengths[1:2]), PatchStates(b.states[:1], b.patch_lengths[:1])
    with torch.no_grad():
        all_scores, one = align.agreement("dna", a, "protein", b), align.agreement("dna", one_a, "protein", one_b)
    torch.testing.assert_close(one[0, 0], all_scores[1, 0], **CLOSE)


def test_vectors_have_length_one_and_nothing_has_none():
    align = made_alignment()
    vectors = align.vectors("dna", made_states(6, [3, 0]))
    torch.testing.assert_close(vectors.norm(dim=1), torch.tensor([1.0, 0.0]))


def test_no_rows_give_no_rows():
    align = made_alignment()
    empty = {
        name: PatchStates(torch.zeros(0, 0, width), torch.zeros(0, 0, dtype=torch.int64))
        for name, width in WIDTHS.items()
    }
    assert align(empty).pooled["dna"].shape == (0, 8)
    assert align.agreement("dna", empty["dna"], "rna", empty["rna"]).shape == (0, 0)


@given(st.floats(-50, 50))
@settings(max_examples=20, deadline=None)
def test_the_temperature_is_bounded(value):
    align = made_alignment()
    with torch.no_grad():
        align.temperature_logit.fill_(value)
    assert COLDEST - 1e-6 <= float(align.temperature.detach()) <= WARMEST + 1e-6


def test_loss_of_equal_scores_is_that_of_guessing():
    loss = contrastive_loss(torch.zeros(5, 5), torch.tensor(0.1))
    assert float(loss) == pytest.approx(math.log(5))


def test_pairs_of_one_group_are_no_negatives():
    loss = contrastive_loss(torch.zeros(4, 4), torch.tensor(1.0), torch.tensor([0, 0, 1, 2]))
    assert float(loss) == pytest.approx((2 * math.log(3) + 2 * math.log(4)) / 4)


def test_places_are_shares_of_the_sequence():
    states = PatchStates(torch.zeros(2, 3, 1), torch.tensor([[2, 2, 4], [5, 0, 0]]))
    assert states.places.tolist() == [[0.125, 0.375, 0.75], [0.5, 0.0, 0.0]]


def test_mean_of_nothing_is_zero():
    assert masked_mean(torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool)).tolist() == [[0.0] * 3]


def test_unequal_numbers_unknown_names_and_widths_are_refused():
    align = made_alignment()
    with pytest.raises(ConfigError, match="got dna 2, protein 1; or use align_outputs=False"):
        align({"dna": made_states(6, [1, 2]), "protein": made_states(5, [1])})
    with pytest.raises(ConfigError, match="expected one of dna, protein, rna, got 'lipid'"):
        align.vectors("lipid", made_states(6, [1]))
    with pytest.raises(ConfigError, match="dna: expected states of width 6, got 5"):
        align.vectors("dna", made_states(5, [1]))
    with pytest.raises(ConfigError, match="num_heads"):
        CrossModalAlignment(WIDTHS, shared_size=8, num_heads=3)
    with pytest.raises(ConfigError, match="at least one modality"):
        CrossModalAlignment({})


def test_what_all_patches_have_in_common_says_nothing_in_training():
    """Without that all cosines start near 1 and the training stands still."""
    align, states = made_alignment().train(), made_states(6, [5, 4, 6, 5])
    shared = align.shared("dna", states)[states.mask]
    torch.testing.assert_close(shared.mean(0), torch.zeros(8), rtol=0, atol=1e-5)
