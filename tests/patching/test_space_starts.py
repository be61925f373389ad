from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching import Patcher, find_space_patch_start_ids, patch_lengths_from_start_ids
from hyena_glt.patching.space_starts import delimiter_classes, patch_end_bytes, space_classes

TOKENS = st.lists(st.integers(0, 259), max_size=60)


def is_separator(byte):
    return not (chr(byte).isascii() and chr(byte).isalnum()) and not 128 <= byte < 192


def starts_by_definition(tokens):
    """A patch ends with the first of a run of separators, and after every special token."""
    starts = {0, 1}
    for i in range(1, len(tokens)):
        special = tokens[i] < 4
        ends = [token < 4 or is_separator(token - 4) for token in tokens[i - 1 : i + 1]]
        if special or (ends[1] and not ends[0]):
            starts.add(i + 1)
    return sorted(start for start in starts if start <= len(tokens))


@given(TOKENS)
def test_patches_end_with_separators(tokens):
    ids = find_space_patch_start_ids(torch.tensor([tokens], dtype=torch.int64))
    assert ids[0].tolist() == starts_by_definition(tokens)


@given(TOKENS, TOKENS)
def test_a_padded_row_gives_what_it_gives_alone(short, long):
    width = max(len(short), len(long))
    rows = torch.tensor([row + [-1] * (width - len(row)) for row in (short, long)], dtype=torch.int64).reshape(2, -1)
    for row, ids in zip((short, long), find_space_patch_start_ids(rows).tolist(), strict=True):
        starts = sorted({*starts_by_definition(row), *range(min(2, width + 1))})
        assert ids == starts + [width + 1] * (len(ids) - len(starts))


def test_ids_serve_with_and_without_the_next_token():
    ids = find_space_patch_start_ids(torch.tensor([[ord(c) + 4 for c in "ab cd "]]))
    assert patch_lengths_from_start_ids(ids, 6).tolist() == [[1, 2, 3]]
    assert patch_lengths_from_start_ids(ids, 7).tolist() == [[1, 2, 3, 1]]


def test_every_byte_has_a_class():
    assert patch_end_bytes().tolist() == [is_separator(byte) for byte in range(256)]
    assert (space_classes()[:4] == 2).all()


def test_text_is_cut_after_words():
    pieces, boundaries = Patcher(patching_mode="space").patch_with_boundaries("the cat, 2 mice")
    assert pieces == ["t", "he ", "cat,", " 2 ", "mice"]
    assert boundaries.tolist() == [0, 1, 4, 8, 11]


def test_a_patch_ends_after_each_delimiter():
    patcher = Patcher(patching_mode="space", delimiter_chars=["|", ">"])
    pieces, boundaries = patcher.patch_with_boundaries("chr1|>ACGT|AC")
    assert pieces == ["chr1|", ">", "ACGT|", "AC"]
    assert boundaries.tolist() == [0, 5, 6, 11]


def test_delimiters_are_left_out_of_the_pieces_and_kept_in_the_lengths():
    patcher = Patcher(patching_mode="space", delimiter_chars=["|"], preserve_delimiters=False)
    pieces, boundaries = patcher.patch_with_boundaries("AC||GT")
    assert (pieces, boundaries.tolist()) == (["AC", "", "GT"], [0, 3, 4])
    assert patcher.patch("AC||GT")[0].tolist() == [[3, 1, 2]]


def test_separators_are_left_out_as_well_where_no_delimiter_is_named():
    patcher = Patcher(patching_mode="space", preserve_delimiters=False)
    assert patcher.patch_with_boundaries("été, ici")[0][-1] == "ici"
    assert "".join(patcher.patch_with_boundaries("go on, now")[0]) == "goonnow"


@pytest.mark.parametrize("character", ["é", "€"])
def test_a_delimiter_is_one_byte(character):
    with pytest.raises(ConfigError, match="one byte in utf-8"):
        delimiter_classes([character])


def test_a_delimiter_is_read_in_the_encoding():
    assert delimiter_classes(["é"], "latin-1")[0xE9 + 4] == 2


def test_tokens_are_integers_in_rows():
    for tokens in (torch.tensor([1, 2]), torch.tensor([[0.5]]), torch.tensor([[True]])):
        with pytest.raises(PatchingError, match="tokens: expected integers"):
            find_space_patch_start_ids(tokens)
