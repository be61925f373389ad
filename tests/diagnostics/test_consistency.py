"""Each check accepts what is sound, and is seen to fail on a seeded fault."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt import Patcher
from hyena_glt.diagnostics.consistency import (
    CheckResult,
    Patching,
    check_boundaries,
    check_content,
    check_finite,
    check_lengths,
    check_positions,
    check_round_trip,
    check_shapes,
)
from hyena_glt.errors import PatchingError
from hyena_glt.positions import PositionInfo

TEXT = "ACGTACGTAC"
PIECES = ["A", "CGTA", "CGTAC"]
STARTS = torch.tensor([0, 1, 5])


def patching(patches=PIECES, boundaries=STARTS, **options) -> Patching:
    return Patching.read(TEXT, patches, boundaries, **options)


@pytest.fixture
def output(make_net):
    with torch.no_grad():
        return make_net().forward_with_patching(patches=PIECES, boundaries=STARTS)


def test_a_result_is_false_only_where_it_failed():
    assert [bool(CheckResult("x", passed, "")) for passed in (True, None, False)] == [True, True, False]
    assert str(CheckResult("x", False, "why")) == "FAILED: why"


@given(st.lists(st.integers(1, 9), max_size=30))
def test_every_way_to_cut_a_sequence_is_sound(lengths):
    cut = torch.tensor(lengths, dtype=torch.int64)
    text = "ACGTTGCAAC" * 30
    found = Patching.read(text[: sum(lengths)], cut, cut.cumsum(0) - cut)
    assert check_lengths(found).passed
    assert check_boundaries(found).passed


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.data())
def test_no_changed_length_goes_unseen(lengths, data):
    cut = torch.tensor(lengths, dtype=torch.int64)
    text = "ACGTTGCAAC" * 30
    changed = cut.clone()
    changed[data.draw(st.integers(0, len(lengths) - 1))] += data.draw(st.sampled_from([-1, 1, 5]))
    found = Patching.read(text[: sum(lengths)], changed, cut.cumsum(0) - cut)
    assert check_lengths(found).passed is False


def test_lengths_sum_to_the_tokens_not_to_the_characters():
    """Section 12: token counts are mixed up with lengths of texts, which differ outside ASCII."""
    patcher = Patcher(patching_mode="static", patch_size=3)
    found = Patching.read("ACGé€T", *patcher.patch_with_boundaries("ACGé€T"))
    assert int(found.lengths.sum()) == 9
    assert check_lengths(found).passed


def test_the_next_token_is_not_forgotten():
    """Section 12: the coverage check forgets `include_next_token`."""
    lengths = torch.tensor([1, 4, 6])
    assert check_lengths(patching(lengths)).passed is False
    assert check_lengths(patching(lengths, include_next_token=True)).passed
    assert check_lengths(patching(torch.tensor([1, 4, 5]), include_next_token=True)).passed is False
    assert "of 11" in check_lengths(patching(torch.tensor([1, 4, 5]), include_next_token=True)).found


def test_an_empty_patch_is_found():
    lengths = torch.tensor([1, 0, 9])
    assert "1 patches are empty" in check_lengths(patching(lengths, torch.tensor([0, 1, 1]))).found


@pytest.mark.parametrize(
    ("boundaries", "words"),
    [
        ([1, 2, 6], "the first boundary is 1"),
        ([0, 5, 1], "boundary 2 is 1, after 5"),
        ([0, 1, 1], "boundary 2 is 1, after 1"),
        ([0, 1], "2 boundaries for 3 patches"),
        ([0, 1, 6], "patch 1 ends at 5, the next starts at 6"),
        ([0, 1, 4], "patch 1 ends at 5, the next starts at 4"),
    ],
)
def test_wrong_boundaries_are_named(boundaries, words):
    found = check_boundaries(patching(boundaries=torch.tensor(boundaries)))
    assert found.passed is False
    assert words in found.found


def test_no_patch_for_a_sequence_is_found():
    assert check_boundaries(Patching.read("", [], [])).passed
    assert check_boundaries(Patching.read("ACG", [], [])).passed is False


def test_patches_that_overlap_count_shared_tokens_once():
    patcher = Patcher(patching_mode="static", patch_size=4, overlap=1)
    pieces, starts = patcher.patch_with_boundaries(TEXT)
    found = Patching.read(TEXT, pieces, starts, overlaps=True)
    assert sum(map(len, pieces)) > len(TEXT)
    assert check_lengths(found).passed
    assert check_boundaries(found).passed
    assert check_content(found).passed
    gap = Patching.read(TEXT, pieces, starts + torch.arange(len(starts)), overlaps=True)
    assert check_lengths(gap).passed is False


def test_delimiters_that_are_left_out_are_no_fault():
    patcher = Patcher(patching_mode="space", delimiter_chars=[" "], preserve_delimiters=False)
    pieces, starts = patcher.patch_with_boundaries("AC GT TT")
    found = Patching.read("AC GT TT", pieces, starts, keeps_delimiters=False)
    assert check_lengths(found).passed is None
    assert check_boundaries(found).passed


def test_a_piece_of_other_content_is_found():
    assert check_content(patching()).passed
    found = check_content(patching(["A", "CGTT", "CGTAC"]))
    assert found.passed is False
    assert "piece 1" in found.found
    assert check_content(patching(torch.tensor([1, 4, 5]))).passed is None


def test_shapes_fit_or_the_part_is_named(output, make_net):
    config = make_net().config
    assert check_shapes(patching(), output, config).passed
    fewer = replace(output, last_hidden_state=output.last_hidden_state[:, 1:])
    assert "last_hidden_state" in check_shapes(patching(), fewer, config).found
    assert check_shapes(patching(), replace(output, logits=output.logits[..., 1:]), config).passed is False
    assert check_shapes(patching(["AC", "GTA", "CGTAC"]), output, config).passed is False


@pytest.mark.parametrize("part", ["last_hidden_state", "byte_hidden_state", "logits"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_found(output, part, value):
    assert check_finite(output).passed
    broken = getattr(output, part).clone()
    broken[0, 2, 3] = value
    found = check_finite(replace(output, **{part: broken}))
    assert found.passed is False
    assert found.found == f"{part}: 1 values not finite, first at (0, 2, 3)"


def guide_position_check(sequence, output) -> bool:
    """What the integration guide does: positions are below the length of the sequence."""
    return bool(output.patch_info["global_positions"].max() < len(sequence))


def shifted(output, positions):
    return replace(output, positions=replace(output.positions, global_positions=positions))


def test_positions_that_carry_nothing_are_found(output):
    """Section 12: positions computed after merging carry nothing; the guide's check lets them pass."""
    zeros = shifted(output, torch.zeros(1, len(TEXT), dtype=torch.int64))
    assert guide_position_check(TEXT, zeros)
    found = check_positions(patching(), zeros)
    assert found.passed is False
    assert "9 of 10 positions differ" in found.found


def test_positions_after_an_offset_are_sound(make_net):
    """The guide's check fails on every window but the first of a contig."""
    with torch.no_grad():
        moved = make_net().forward_with_patching(patches=PIECES, boundaries=STARTS, global_position_offset=1000)
    assert not guide_position_check(TEXT, moved)
    assert check_positions(patching(), moved, 1000).passed
    assert check_positions(patching(), moved).passed is False


def test_positions_that_were_left_out_are_not_checked(output):
    assert check_positions(patching(), replace(output, with_position_info=False)).passed is None


@pytest.mark.parametrize("part", ["patch_ids", "offsets", "relative_positions"])
def test_positions_that_do_not_go_round_are_found(output, part):
    assert check_round_trip(output).passed
    values = getattr(output.positions, part).clone()
    values[0, 4] += 1
    found = check_round_trip(replace(output, positions=replace(output.positions, **{part: values})))
    assert found.passed is False
    assert part in found.found


def test_lengths_of_other_patches_do_not_go_round(output):
    other = PositionInfo.from_patch_lengths(torch.tensor([[2, 3, 5]]))
    broken = replace(output.positions, patch_lengths=other.patch_lengths)
    assert check_round_trip(replace(output, positions=broken)).passed is False


@pytest.mark.parametrize(("patches", "boundaries"), [("ACG", [0]), (torch.tensor([1.5]), [0]), (PIECES, [0.5])])
def test_what_is_no_patching_is_refused(patches, boundaries):
    with pytest.raises(PatchingError):
        Patching.read(TEXT, patches, boundaries)
