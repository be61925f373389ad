"""Text, bytes and tokens give the same codes; what is no letter is an ambiguity symbol."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.entropies.symbols import ambiguity_edges, symbol_codes
from hyena_glt.errors import DataError
from hyena_glt.sequences.alphabets import BYTES, DNA, PROTEIN


@given(st.binary(max_size=60), st.sampled_from([DNA, PROTEIN, BYTES]))
def test_bytes_and_tokens_give_the_same_letters(text, alphabet):
    from_text = symbol_codes(text, alphabet)
    from_tokens = symbol_codes(np.frombuffer(text, np.uint8).astype(np.int64) + 4, alphabet)
    assert np.array_equal(from_text, from_tokens)


def test_special_tokens_and_padding_are_no_letters():
    assert (symbol_codes(np.array([-1, 0, 1, 2, 3, 300]), DNA) >= DNA.size).all()


def test_edges_are_where_a_run_begins_and_ends():
    assert np.flatnonzero(ambiguity_edges(symbol_codes("NACNNGT", DNA), 4)).tolist() == [1, 3, 5]
    assert not ambiguity_edges(symbol_codes("", DNA), 4).size


@pytest.mark.parametrize("sequence", [np.zeros((2, 2)), np.zeros(3), 7])
def test_what_is_no_sequence_is_refused(sequence):
    with pytest.raises(DataError, match="1-D integer tokens"):
        symbol_codes(sequence, DNA)
