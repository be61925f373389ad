"""Position vectors: exact however long the contig, and causal where they must be."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.positions import OffsetEncoding, PositionInfo, SegmentAwarePositionalEncoding
from hyena_glt.positions.position_embedding import GENOMIC_PERIODS, period_phases

positions = st.integers(0, 1 << 60)


@settings(max_examples=200, deadline=None)
@given(positions)
def test_phases_equal_exact_fractions_at_any_position(position):
    periods = (*GENOMIC_PERIODS, Fraction(1 << 30))
    phases = period_phases(torch.tensor([position]), periods)[0]
    for phase, period in zip(phases.tolist(), periods, strict=True):
        exact = Fraction(position) / period % 1
        assert abs(Fraction(phase) - exact) < Fraction(1, 1 << 23)


@settings(max_examples=50, deadline=None)
@given(st.integers(1 << 31, 1 << 55))
def test_features_beyond_two_to_the_31_equal_python_arithmetic(position):
    encoding = SegmentAwarePositionalEncoding(8)
    info = PositionInfo.from_patch_lengths(torch.tensor([[1]]), offset=position)
    periods = [*GENOMIC_PERIODS, *(Fraction(4**power) for power in range(1, 17))]
    angles = [2 * math.pi * float(Fraction(position) / period % 1) for period in periods]
    genomic, scales = angles[:4], angles[4:]
    waves = [*map(math.sin, genomic), *map(math.cos, genomic), *map(math.sin, scales), *map(math.cos, scales)]
    features = encoding.features(info)[0, 0]
    torch.testing.assert_close(features[:-2], torch.tensor(waves), atol=2e-6, rtol=0)


@given(st.integers(0, 1 << 50))
@settings(max_examples=50, deadline=None)
def test_a_whole_number_of_cycles_changes_no_bit(position):
    encoding = SegmentAwarePositionalEncoding(8, num_scales=3)
    cycle = 147 * 64
    near, far = (
        encoding.features(PositionInfo.from_patch_lengths(torch.tensor([[2, 3]]), offset=offset))
        for offset in (position % cycle, position)
    )
    assert torch.equal(near, far)


def test_features_tell_length_and_place_in_the_patch():
    info = PositionInfo.from_patch_lengths(torch.tensor([[3, 1]]))
    log_length, relative = SegmentAwarePositionalEncoding(8).features(info)[0, :, -2:].T
    assert log_length.tolist() == pytest.approx([2 / 8] * 3 + [1 / 8])
    assert relative.tolist() == [0.0, 0.5, 1.0, 0.0]


def test_every_token_of_a_patch_has_its_own_vector():
    info = PositionInfo.from_patch_lengths(torch.tensor([[40, 60]]))
    vectors = SegmentAwarePositionalEncoding(16)(info)[0]
    assert torch.cdist(vectors, vectors).fill_diagonal_(1).min() > 1e-3


def test_offsets_are_exact_to_32_then_logarithmic():
    encoding = OffsetEncoding(4)
    assert encoding.bucket(torch.arange(32)).tolist() == list(range(32))
    assert encoding.bucket(torch.tensor([32, 64, 128])).tolist() == [32, 36, 40]
    assert encoding.bucket(torch.tensor([1 << 40])).tolist() == [encoding.ROWS - 1]
    assert (encoding.bucket(torch.arange(10_000)).diff() >= 0).all()


def test_the_offset_encoding_does_not_know_where_the_patch_ends():
    encoding = OffsetEncoding(4)
    short, long = (PositionInfo.from_patch_lengths(torch.tensor([[2, n]])) for n in (3, 9))
    assert torch.equal(encoding(short), encoding(long)[:, :5])


@pytest.mark.parametrize("period", [1, 3])
def test_rows_of_all_vectors_are_those_that_forward_gives(period):
    encoding = OffsetEncoding(4, period)
    info = PositionInfo.from_patch_lengths(torch.tensor([[2, 7, 300]]), offset=2**40 + 1)
    vectors = encoding.vectors()[encoding.rows(info.offsets, info.global_positions)]
    assert encoding.vectors().shape == (OffsetEncoding.ROWS * period, 4)
    assert torch.equal(vectors, encoding(info))


def test_with_a_period_equal_offsets_differ_by_the_place_in_it():
    info = PositionInfo.from_patch_lengths(torch.tensor([[4, 2, 4]]))
    vectors = OffsetEncoding(4, 3)(info)[0]
    assert torch.equal(vectors[0], vectors[6])  # offset 0, places 0 and 6
    assert not torch.equal(vectors[0], vectors[4])
