"""Pieces of a sequence: joined they are the sequence again, in the type that it came in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.pieces import cut_pieces, delimiter_bytes
from hyena_glt.tokens import ByteTokenizer

PLAIN = PatcherArgs(patching_mode="static", patch_size=3)


@given(st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=6))
def test_pieces_join_to_the_sequence(parts):
    data, lengths = b"".join(parts), torch.tensor([len(part) for part in parts])
    pieces, boundaries = cut_pieces(data, lengths, PLAIN)
    assert pieces == parts
    assert boundaries.tolist() == [len(b"".join(parts[:index])) for index in range(len(parts))]
    tokens = ByteTokenizer().encode(data)
    assert torch.equal(torch.cat(cut_pieces(tokens, lengths, PLAIN)[0]), tokens)


def test_a_text_that_is_cut_within_a_symbol_joins_again():
    pieces, _ = cut_pieces("é", torch.tensor([1, 1]), PLAIN)
    assert all(isinstance(piece, str) for piece in pieces)
    assert "".join(pieces).encode(errors="surrogateescape").decode() == "é"


def test_overlapping_pieces_share_their_edges():
    args = PatcherArgs(patching_mode="static", patch_size=4, overlap=1)
    pieces, boundaries = cut_pieces("ACGTACGTA", torch.tensor([3, 3, 3]), args)
    assert boundaries.tolist() == [0, 3, 6]
    assert pieces == ["ACGT", "TACG", "GTA"]


@pytest.mark.parametrize(("keep", "expected"), [(True, ["AC,", "GT;", "A"]), (False, ["AC", "GT", "A"])])
def test_delimiters_are_dropped_where_that_is_asked_for(keep, expected):
    args = PatcherArgs(patching_mode="space", delimiter_chars=[",", ";"], preserve_delimiters=keep)
    pieces, boundaries = cut_pieces("AC,GT;A", torch.tensor([3, 3, 1]), args)
    assert pieces == expected
    assert boundaries.tolist() == [0, 3, 6]


def test_delimiters_are_the_given_ones_or_the_ascii_separators():
    assert delimiter_bytes(PatcherArgs(patching_mode="space", delimiter_chars=[">", "\n"])) == b"\n>"
    separators = delimiter_bytes(PatcherArgs(patching_mode="space"))
    assert b" " in separators
    assert not any(chr(byte).isalnum() for byte in separators)
    assert max(separators) < 128
