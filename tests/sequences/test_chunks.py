"""Chunks of text: their sizes change nothing, and the first visible line says what the file is."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import SequenceFormatError
from hyena_glt.sequences.chunks import FOREIGN_STARTS, ChunkReader, skip_blank_lines, sniff


def reader_of(text: bytes, size: int) -> ChunkReader:
    return ChunkReader(io.BytesIO(text), size)


def rest_of(reader: ChunkReader) -> list[bytes]:
    return list(iter(reader.next, b""))


def folded(text: bytes) -> bytes:
    """CRLF as LF, and no carriage return at the end."""
    text = text.replace(b"\r\n", b"\n")
    return text[:-1] if text.endswith(b"\r") else text


bytes_of_lines = st.lists(st.sampled_from([b"A", b">x", b"\n", b"\r\n", b"\r", b" ", b"\t"]), max_size=30).map(b"".join)


@given(bytes_of_lines, st.integers(1, 9))
def test_chunks_join_to_the_text_with_one_kind_of_line_end(text, size):
    chunks = rest_of(reader_of(text, size))
    assert b"".join(chunks) == folded(text)
    assert all(0 < len(chunk) <= size for chunk in chunks)


@given(bytes_of_lines, st.integers(1, 9), st.binary(max_size=12))
def test_what_is_given_back_comes_first(text, size, back):
    reader = reader_of(text, size)
    first = reader.next()
    reader.give_back(first)
    reader.give_back(back)
    assert b"".join(rest_of(reader)) == back + folded(text)


@given(st.lists(st.sampled_from([b"", b" ", b"\t ", b"\x0b"]), max_size=5), st.integers(1, 9))
def test_blank_lines_are_counted_and_skipped(blank, size):
    text = b"".join(line + b"\n" for line in blank)
    assert skip_blank_lines(reader_of(text, size)) == 0
    reader = reader_of(text + b"  >x\nA", size)
    assert skip_blank_lines(reader) == len(blank) + 1
    assert b"".join(rest_of(reader)) == b"  >x\nA"


@pytest.mark.parametrize("size", [1, 3, 300])
def test_the_marker_tells_the_format(size):
    for marker in (b">", b"@"):
        reader = reader_of(b"\n\r\n" + marker + b"x\nACGT\n", size)
        assert sniff(reader, "x") == (marker, 3)
        assert b"".join(rest_of(reader)) == marker + b"x\nACGT\n"


@pytest.mark.parametrize(("start", "words"), FOREIGN_STARTS.items())
def test_files_of_other_kinds_are_named(start, words):
    with pytest.raises(SequenceFormatError) as caught:
        sniff(reader_of(start + b"\n...", 4), "x.fa")
    assert str(caught.value) == f"x.fa:1: {words}"


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"", "no sequence"), (b" \n\n", "no sequence"), (b"ACGT\n", "data before the first record"), (b"A\0", "binary")],
)
def test_what_is_no_record_is_refused(text, message):
    with pytest.raises(SequenceFormatError, match=message):
        sniff(reader_of(text, 2), "x.fa")
