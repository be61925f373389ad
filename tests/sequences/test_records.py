"""Header lines taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import SequenceFormatError
from hyena_glt.sequences.records import MAX_HEADER_BYTES, check_header_length, parse_header, split_name

words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)


@given(words, st.lists(words, max_size=3), st.sampled_from([" ", "\t", " \t", "  "]))
def test_the_name_is_the_first_word(name, rest, space):
    text = space.join([name, *rest])
    header = parse_header(text.encode(), path="x.fa", line=7)
    assert (header.name, header.description, header.line) == (name, space.join(rest), 7)


def test_spaces_around_a_description_are_no_part_of_it():
    assert split_name("chr1   of yeast \t") == ("chr1", "of yeast")
    assert split_name("chr1 ") == ("chr1", "")
    assert split_name("") == ("", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "record without a name"),
        (b" chr1", "the line goes on with 'chr1'"),
        (b"chr\xff1", "header is not UTF-8"),
        (b"chr\x001", "control character in the name"),
        ("chr\u2028".encode(), "control character in the name"),
        (b"chr1\rACGT", "carriage return without a newline"),
    ],
)
def test_a_header_that_is_none_is_refused_with_its_line(text, message):
    with pytest.raises(SequenceFormatError, match=message) as caught:
        parse_header(text, path="x.fa", line=3)
    assert (caught.value.path, caught.value.line) == ("x.fa", 3)
    assert "\n" not in str(caught.value)


def test_only_a_header_beyond_the_limit_is_too_long():
    check_header_length(MAX_HEADER_BYTES, path="x.fa", line=1)
    with pytest.raises(SequenceFormatError, match="1,048,576 bytes"):
        check_header_length(MAX_HEADER_BYTES + 1, path="x.fa", line=1)
