"""Answers of foreign patchers: every form of the same patches is read alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import PatchingError
from hyena_glt.patching.foreign_answers import given_row, read_answer
from hyena_glt.patching.rows import sequence_tokens


def forms_of(text: str, lengths: list[int]) -> dict[str, object]:
    """The patches of a text, said in every way; `lengths` are characters."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    mask = np.isin(np.arange(len(text)), starts)
    spans = list(zip(starts.tolist(), ends.tolist(), strict=True))
    pieces = [text[start:end] for start, end in spans]
    return {
        "lengths": {"patch_lengths": lengths},
        "starts": starts,
        "a mask": torch.from_numpy(mask)[None],
        "spans": {"offset_mapping": spans},
        "pieces": pieces,
        "pieces with starts": (pieces, starts),
        "an object": {"patches": pieces, "boundaries": starts},
    }


@given(st.lists(st.text("ACGTé€", min_size=1, max_size=4), min_size=1, max_size=6))
def test_every_form_gives_the_same_starts_in_bytes(pieces):
    text = "".join(pieces)
    row = given_row(sequence_tokens(text), "text")
    sizes = np.array([len(piece.encode()) for piece in pieces])
    for name, answer in forms_of(text, [len(piece) for piece in pieces]).items():
        cut = read_answer(answer, row, 0)
        assert cut.starts.tolist() == (sizes.cumsum() - sizes).tolist(), name
        assert cut.ends.tolist() == sizes.cumsum().tolist(), name
        assert cut.scores is None


def test_a_row_is_handed_over_as_it_is_asked_for():
    tokens = sequence_tokens("Aé")
    assert given_row(tokens, "text").given == "Aé"
    assert given_row(tokens, "text").edges.tolist() == [0, 1, 3]
    assert given_row(tokens, "bytes").given == "Aé".encode()
    assert given_row(tokens, "bytes").edges.tolist() == [0, 1, 2, 3]
    handed = given_row(tokens, "tokens").given
    assert handed.tolist() == [tokens.tolist()]
    handed.zero_()
    assert tokens.any()  # a copy: the object may write into it


def test_the_token_after_the_row_is_counted_where_it_is_asked_for():
    row = given_row(sequence_tokens("ACGT"), "bytes")
    assert read_answer([2, 3], row, 1).starts.tolist() == [0, 2]
    assert read_answer([2, 2, 1], row, 1).ends.tolist() == [2, 4, 5]
    with pytest.raises(PatchingError, match="sum to 5"):
        read_answer([2, 2], row, 1)


def test_scores_come_back_as_one_row():
    row = given_row(sequence_tokens("ACGT"), "tokens")
    scores = read_answer((torch.tensor([1, 3]), np.array([[1.0, 2, 3, 4]])), row, 0).scores
    assert scores.dtype == torch.float32
    assert scores.tolist() == [[1.0, 2.0, 3.0, 4.0]]
