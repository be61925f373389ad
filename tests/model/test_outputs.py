"""What an output derives from its positions."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.model import HyenaGLTOutput
from hyena_glt.model.outputs import describe
from hyena_glt.positions import PositionInfo


def output(lengths, offset=0, **changes) -> HyenaGLTOutput:
    states = torch.zeros(1)
    info = PositionInfo.from_patch_lengths(torch.tensor(lengths), offset)
    return HyenaGLTOutput(last_hidden_state=states, byte_hidden_state=states, logits=states, positions=info, **changes)


def test_the_compression_ratio_leaves_padding_out():
    assert output([[4, 4], [1, 0]]).compression_ratio == pytest.approx(9 / 3)
    assert output([[0]]).compression_ratio == 0.0


def test_boundaries_are_one_tensor_per_sequence_with_the_offset_once():
    assert output([[4, 2]], offset=100).patch_info["boundaries"].tolist() == [100, 104]
    boundaries = output([[4, 2], [3, 0]]).patch_info["boundaries"]
    assert [row.tolist() for row in boundaries] == [[0, 4], [0]]


def test_patch_info_is_always_there():
    assert set(output([[2]]).patch_info) == {
        "patch_lengths", "boundaries", "global_positions", "relative_positions",
    }  # fmt: skip
    assert set(output([[2]], with_position_info=False).patch_info) == {"patch_lengths", "boundaries"}


def test_a_description_finds_what_is_not_finite():
    assert describe(torch.tensor([1.0, -3.0])) == {"shape": (2,), "mean_abs": 2.0, "finite": True}
    assert not describe(torch.tensor([float("nan")]))["finite"]
    assert describe(torch.zeros(0, 3)) == {"shape": (0, 3), "mean_abs": 0.0, "finite": True}
