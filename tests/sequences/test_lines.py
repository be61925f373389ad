from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import AnnotationError, DataError
from hyena_glt.sequences import lines as module
from hyena_glt.sequences.lines import read_lines

texts = st.lists(st.text(st.characters(exclude_characters="\n\r\0\ufeff", codec="utf-8"), max_size=20), max_size=8)


@given(texts, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 50))
def test_lines_are_numbered_from_one(tmp_path_factory, texts, end, packed, size):
    path = tmp_path_factory.getbasetemp() / "lines"
    raw = "".join(text + end for text in texts).encode()
    path.write_bytes(gzip.compress(raw) if packed else raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "READ_BYTES", size)
        assert list(read_lines(path)) == list(enumerate(texts, 1))


def test_the_last_line_needs_no_newline(tmp_path):
    (tmp_path / "x").write_bytes(b"a\nb")
    assert list(read_lines(tmp_path / "x")) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\n\xe9x\n", r"x:2: text is not UTF-8: got '\\xe9x'"),
        (b"\xef\xbb\xbfa\n", "x:1: byte-order mark"),
        (b"a\rb\n", "x:1: carriage return without a newline"),
        (b"a\nb\0\n", "x:2: zero byte"),
        (gzip.compress(b"a\n" * 99)[:-3], "x: truncated gzip"),
    ],
    ids=["not UTF-8", "byte-order mark", "carriage return", "zero byte", "truncated"],
)
def test_damaged_text_is_refused_with_its_line(tmp_path, content, words):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(AnnotationError, match=words):
        list(read_lines(tmp_path / "x"))
    with pytest.raises(DataError, match=words):
        list(read_lines(tmp_path / "x", error=DataError))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1 << 20)
    (tmp_path / "x").write_bytes(b"a\n" + b"b" * (3 << 20))
    with pytest.raises(AnnotationError, match=r"x:2: line is longer than 1,048,576 bytes"):
        list(read_lines(tmp_path / "x"))
