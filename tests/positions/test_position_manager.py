"""Bytes to patches and back; vectors whose periods are the periods named, however far along the contig."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import PatchingError
from hyena_glt.positions import BLTPositionManager, PositionInfo
from hyena_glt.positions.position_manager import as_position_info

rows = st.lists(st.lists(st.integers(1, 12), min_size=0, max_size=10), min_size=1, max_size=4)
FAR = [0, 2**31 - 5, 2**31, 2**33 + 1, 3_100_000_000]
PERIODS = [3, 10.5, 21, 147]


def padded(lengths: list[list[int]]) -> torch.Tensor:
    result = torch.zeros(len(lengths), max(map(len, lengths)), dtype=torch.int64)
    for index, row in enumerate(lengths):
        result[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return result


def genomic_waves(manager: BLTPositionManager, first: int, length: int) -> torch.Tensor:
    """`(length, 4, 2)`: sine and cosine of each genomic period, at positions from `first`."""
    info = PositionInfo.from_patch_lengths(torch.ones(1, length, dtype=torch.int64), first)
    return manager.encoding.features(info)[0, :, :8].unflatten(1, (2, 4)).transpose(1, 2)


@settings(max_examples=80, deadline=None)
@given(rows, st.integers(0, 100), st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
def test_patch_states_come_back_from_their_bytes_bit_for_bit(lengths, seed, dtype):
    info = PositionInfo.from_patch_lengths(padded(lengths))
    states = torch.randn(*info.patch_lengths.shape, 3, generator=torch.Generator().manual_seed(seed)).to(dtype)
    states = states * info.patch_mask.unsqueeze(-1)
    manager = BLTPositionManager(8)
    there = manager.reconstruct_byte_representations(states, info)
    assert manager.create_patch_representations(there, info).equal(states)


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(0, 1 << 60))
def test_ids_and_positions_come_back_exactly(lengths, offset):
    info = PositionInfo.from_patch_lengths(padded(lengths), offset)
    manager = BLTPositionManager(8)
    ids = torch.arange(info.patch_lengths.shape[1]).expand_as(info.patch_lengths)
    first = (info.patch_starts + offset) * info.patch_mask
    ids, first = (manager.reconstruct_byte_representations(x.unsqueeze(-1), info)[..., 0] for x in (ids, first))
    assert (ids * info.mask).equal(info.patch_ids * info.mask)
    assert (first + info.offsets).masked_fill(~info.mask, -1).equal(info.global_positions)


@settings(max_examples=50, deadline=None)
@given(rows, st.integers(0, 100))
def test_a_patch_is_the_mean_of_its_bytes_whatever_stands_beside(lengths, seed):
    info = PositionInfo.from_patch_lengths(padded(lengths), length=max(map(sum, lengths)) + 2)
    states = torch.randn(*info.patch_ids.shape, 3, generator=torch.Generator().manual_seed(seed))
    manager = BLTPositionManager(8)
    patches = manager.create_patch_representations(states, info)
    bytes_back = manager.reconstruct_byte_representations(patches, info)
    for index, row in enumerate(lengths):
        pieces = states[index, : sum(row)].split(row)
        for patch, piece in enumerate(pieces):
            torch.testing.assert_close(patches[index, patch], piece.mean(0), atol=1e-6, rtol=1e-5)
        assert not patches[index, len(row) :].any()
        assert not bytes_back[index, sum(row) :].any()
        if row:
            alone = PositionInfo.from_patch_lengths(torch.tensor([row]))
            single = manager.create_patch_representations(states[index : index + 1, : sum(row)], alone)
            assert single[0].equal(patches[index, : len(row)])


def test_the_mapping_passes_gradients_on():
    info = PositionInfo.from_patch_lengths(torch.tensor([[2, 3], [1, 0]]))
    states = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    manager = BLTPositionManager(8)

    def there_and_back(x):
        return manager.reconstruct_byte_representations(manager.create_patch_representations(x, info), info)

    assert torch.autograd.gradcheck(there_and_back, states)


@pytest.mark.parametrize("first", FAR)
@pytest.mark.parametrize("shift", [(0, 3), (1, 21), (2, 21), (3, 147)])
def test_a_period_further_the_waves_are_the_same_bits(first, shift):
    index, period = shift  # 21 bases are two turns of 10.5
    waves = genomic_waves(BLTPositionManager(8), first, 400)
    assert waves[period:, index].equal(waves[:-period, index])
    assert waves[0, index].equal(genomic_waves(BLTPositionManager(8), first + 1000 * period, 1)[0, index])


@pytest.mark.parametrize("first", FAR)
def test_the_spectrum_of_each_wave_peaks_at_its_period_alone(first):
    length = 294 * 4
    spectrum = torch.fft.rfft(genomic_waves(BLTPositionManager(8), first, length).double(), dim=0).abs()
    for index, period in enumerate(PERIODS):
        for wave in spectrum[:, index].T:
            peak = int(wave.argmax())
            assert peak == length / period
            wave[peak] = 0
            assert wave.max() < 1e-4 * length


def test_the_vectors_carry_every_period():
    torch.manual_seed(0)
    manager, length = BLTPositionManager(16), 294 * 8
    info = PositionInfo.from_patch_lengths(torch.ones(1, length, dtype=torch.int64), 3_100_000_000)
    with torch.no_grad():
        vectors = manager.encode_positions(info)[0].double()
    spectrum = torch.fft.rfft(vectors - vectors.mean(0), dim=0).abs().sum(1)
    for period in PERIODS:
        peak = int(length / period)
        assert spectrum[peak] > 4 * torch.cat([spectrum[peak - 5 : peak], spectrum[peak + 1 : peak + 6]]).max()


def test_vectors_of_padding_are_zero():
    info = PositionInfo.from_patch_lengths(torch.tensor([[2, 1], [1, 0]]), 50)
    vectors = BLTPositionManager(8)(info)
    assert vectors.shape == (2, 3, 8)
    assert not vectors[1, 1:].any()
    assert vectors[0].all(dim=1).all()


def test_the_positions_of_an_output_serve_as_they_are():
    info = PositionInfo.from_patch_lengths(torch.tensor([[3, 3], [2, 0]]), 10, starts=torch.tensor([[0, 2], [0, 0]]))
    mapping = {"patch_lengths": info.patch_lengths, "global_positions": info.global_positions, "boundaries": []}
    same = as_position_info(mapping)
    for field in ("patch_ids", "offsets", "global_positions", "relative_positions"):
        assert getattr(same, field).equal(getattr(info, field))
    one_row = as_position_info({"patch_lengths": torch.tensor([2, 1]), "global_positions": torch.tensor([5, 6, 7])})
    assert one_row.global_positions.tolist() == [[5, 6, 7]]
    assert as_position_info({"patch_lengths": [2, 1]}).global_positions.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ([1, 2], "got list"),
        ({"global_positions": torch.tensor([0])}, "with patch_lengths"),
        ({"patch_lengths": torch.tensor([2]), "global_positions": torch.tensor([0, 47])}, "ascend by 1"),
        ({"patch_lengths": torch.tensor([2, 2]), "global_positions": torch.tensor([0, 1])}, "at most 2"),
        ({"patch_lengths": torch.tensor([-2]), "global_positions": torch.tensor([0, 1])}, "got -2"),
        ({"patch_lengths": torch.tensor([2]), "global_positions": torch.tensor([0.0, 1.0])}, "integers"),
    ],
)
def test_what_is_no_position_is_refused(info, reason):
    with pytest.raises(PatchingError, match=reason):
        BLTPositionManager(8).encode_positions(info)


def test_states_of_other_positions_are_refused():
    info, manager = PositionInfo.from_patch_lengths(torch.tensor([[2, 1]])), BLTPositionManager(8)
    with pytest.raises(PatchingError, match=r"byte_states: expected shape \(1, 3, width\), got \(1, 2, 4\)"):
        manager.create_patch_representations(torch.zeros(1, 2, 4), info)
    with pytest.raises(PatchingError, match=r"patch_states: expected shape \(1, 2, width\), got \(1, 3, 4\)"):
        manager.reconstruct_byte_representations(torch.zeros(1, 3, 4), info)
    with pytest.raises(PatchingError, match="int64"):
        manager.create_patch_representations(torch.zeros(1, 3, 4, dtype=torch.int64), info)


@pytest.mark.parametrize("shape", [(0, 0), (1, 0), (0, 2), (2, 2)])
def test_empty_batches_and_rows_work(shape):
    info, manager = PositionInfo.from_patch_lengths(torch.zeros(shape, dtype=torch.int64)), BLTPositionManager(8)
    patches = manager.create_patch_representations(torch.zeros(*info.patch_ids.shape, 4), info)
    assert patches.shape == (*shape, 4)
    assert manager.reconstruct_byte_representations(patches, info).shape == (*info.patch_ids.shape, 4)
    assert manager.encode_positions(info).shape == (*info.patch_ids.shape, 8)
