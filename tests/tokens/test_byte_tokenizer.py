"""Byte tokens lose nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import PatchingError
from hyena_glt.tokens import BOE_ID, BOS_ID, BPE_ID, EOS_ID, OFFSET, PAD_ID, VOCAB_SIZE, ByteTokenizer


def test_the_ids_are_those_of_blt():
    assert (BOE_ID, BOS_ID, EOS_ID, BPE_ID, PAD_ID, OFFSET, VOCAB_SIZE) == (0, 1, 2, 3, -1, 4, 260)


@given(st.binary())
def test_bytes_come_back_as_they_were(data):
    tokens = ByteTokenizer().encode(data)
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [byte + 4 for byte in data]
    assert ByteTokenizer().decode_bytes(tokens) == data


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_comes_back_as_it_was(text):
    assert ByteTokenizer().decode(ByteTokenizer().encode(text)) == text


def test_special_ids_and_padding_stand_for_no_byte():
    assert ByteTokenizer().decode(torch.tensor([BOS_ID, 69, BPE_ID, 71, EOS_ID, PAD_ID])) == "AC"


@pytest.mark.parametrize("tokens", [torch.tensor([260]), torch.tensor([-2]), torch.tensor([[69]]), torch.tensor([1.0])])
def test_what_is_no_row_of_byte_tokens_is_refused(tokens):
    with pytest.raises(PatchingError, match="tokens: expected"):
        ByteTokenizer().decode_bytes(tokens)
