from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.sequences.quoting import quoted, shown


@given(st.one_of(st.binary(max_size=400), st.text(max_size=400)), st.integers(4, 60))
def test_what_is_shown_is_one_short_printable_line(text, limit):
    assert shown(text, limit).isprintable()
    assert len(shown(text, limit)) <= limit


def test_control_and_broken_bytes_are_escaped():
    assert shown(b"a\x00\x1b[31m\xff\n") == r"a\x00\x1b[31m\xff\n"
    assert shown("séq") == "séq"


def test_long_text_is_cut():
    assert quoted("A" * 1000) == "'" + "A" * 37 + "...'"
    assert quoted("A" * 40) == "'" + "A" * 40 + "'"
