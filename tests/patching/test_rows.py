from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import PatchingError
from hyena_glt.patching.rows import read_rows
from hyena_glt.tokens import ByteTokenizer


@given(st.lists(st.one_of(st.text(max_size=12), st.binary(max_size=12)), max_size=5))
def test_text_and_bytes_become_padded_rows(sequences):
    rows = read_rows(sequences)
    assert rows.tokens.dtype == torch.int64
    expected = [ByteTokenizer().encode(sequence).tolist() for sequence in sequences]
    assert rows.lengths.tolist() == [len(row) for row in expected]
    width = max((len(row) for row in expected), default=0)
    assert rows.tokens.tolist() == [row + [-1] * (width - len(row)) for row in expected]
    assert rows.is_ragged == any(len(row) != width for row in expected)
    assert rows.num_tokens == sum(len(row) for row in expected)
    assert [rows.row(index).tolist() for index in range(len(expected))] == expected


@pytest.mark.parametrize(
    "sequence",
    [
        "ACG",
        b"ACG",
        bytearray(b"ACG"),
        memoryview(b"ACG"),
        [np.frombuffer(b"ACG", np.uint8)],
        [torch.tensor([69, 71, 75])],
        np.array([[69, 71, 75]]),
        torch.tensor([[69, 71, 75]], dtype=torch.int16),
    ],
)
def test_every_kind_of_sequence_gives_the_same_row(sequence):
    rows = read_rows(sequence)
    assert rows.tokens.tolist() == [[69, 71, 75]]
    assert rows.lengths.tolist() == [3]


def test_text_is_read_in_its_encoding():
    assert read_rows("é", "latin-1").tokens.tolist() == [[0xE9 + 4]]
    with pytest.raises(PatchingError, match="expected characters of ascii, got 'é' at 1"):
        read_rows("aé", "ascii")


def test_padding_ends_rows():
    tokens = torch.tensor([[5, 6, 7], [5, -1, -1], [-1, -1, -1]])
    assert read_rows(tokens).lengths.tolist() == [3, 1, 0]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.tensor([[5, -1, 6]]), "got it in row 0 at token 1"),
        (torch.tensor([[5, 6], [-1, 6]]), "got it in row 1 at token 0"),
        (torch.tensor([[5, -2]]), "ids >= 0 or PAD"),
        (torch.tensor([5, 6]), r"one row is tokens\[None\]"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), r"got torch.int64 \(1, 2, 3\)"),
        (torch.tensor([[0.5]]), "expected integers"),
        (torch.tensor([[True]]), "expected integers"),
        (np.array([[0.5]]), "expected integers"),
        ([torch.tensor([5, -1])], "ids >= 0 in a list of rows"),
        ([torch.tensor([[5]])], "expected integers"),
        ([5, 6], "expected str, bytes"),
        ([np.array([5, 6])], "expected str, bytes"),
        (17, "got int"),
        (None, "got NoneType"),
        ({"ACG"}, "got set"),
    ],
)
def test_anything_else_is_refused(tokens, message):
    with pytest.raises(PatchingError, match=message):
        read_rows(tokens)
