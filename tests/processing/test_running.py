"""Sequences as a list, and a patcher that the net can use."""

from __future__ import annotations

import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.adapters import PatcherAdapter
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.processing.running import as_pieces, check_batch_size, count_tokens, usable_patcher

SHAPE = {"hidden_size": 24, "num_layers": 1, "local_hidden_size": 16, "ngram_table_size": 64, "filter_hidden_size": 8}


@pytest.mark.parametrize(
    ("piece", "expected"),
    [("ACGT", 4), (b"ACG", 3), ("µA", 3), ("\udcffA", 2), (torch.tensor([69, 71, -1, -1]), 2), ("", 0)],
)
def test_tokens_are_counted_as_they_are_encoded(piece, expected):
    assert count_tokens(piece) == expected


def test_one_sequence_is_a_list_of_one():
    assert as_pieces("ACGT") == ["ACGT"]
    assert as_pieces(b"ACGT") == [b"ACGT"]
    assert as_pieces(iter(["A", "C"])) == ["A", "C"]
    rows = as_pieces(torch.tensor([[69, 71, 75], [69, -1, -1]]))
    assert [row.tolist() for row in rows] == [[69, 71, 75], [69]]
    with pytest.raises(PatchingError):
        as_pieces(5)


def test_a_foreign_patcher_is_adapted_and_a_causal_net_warns_of_it():
    own = Patcher(patching_mode="static", patch_size=4)
    net = HyenaGLT(HyenaGLTConfig(**SHAPE), own)
    assert usable_patcher(net, None) is own
    assert usable_patcher(net, own) is own
    with pytest.warns(UserWarning, match="does not say that it is causal"):
        adapted = usable_patcher(net, lambda sequence: [sequence])
    assert isinstance(adapted, PatcherAdapter)
    reader = HyenaGLT(HyenaGLTConfig(**SHAPE, causal=False))
    assert isinstance(usable_patcher(reader, lambda sequence: [sequence]), PatcherAdapter)
    with pytest.raises(ConfigError, match="external_patcher"):
        usable_patcher(reader, None)


@pytest.mark.parametrize("size", [0, 2.0, True, "3"])
def test_a_batch_size_is_a_whole_number(size):
    with pytest.raises(ConfigError, match="batch_size"):
        check_batch_size(size)
