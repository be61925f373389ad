from __future__ import annotations

import gzip
import io
import os

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.sequences.bgzf import END_OF_FILE, BgzfWriter


def packed(pieces: list[bytes]) -> bytes:
    target = io.BytesIO()
    with BgzfWriter(target) as writer:
        for piece in pieces:
            assert writer.write(piece) == len(piece)
    return target.getvalue()


@given(st.lists(st.binary(max_size=1000), max_size=5), st.integers(1, 200))
def test_what_is_written_is_unpacked_by_any_gzip(pieces, repeats):
    assert gzip.decompress(packed(pieces * repeats)) == b"".join(pieces * repeats)


@pytest.mark.parametrize("size", [0, 1, 65279, 65280, 65281, 1_000_000])
def test_htslib_reads_it_whether_it_compresses_or_not(tmp_path, size):
    for content in (b"A" * size, os.urandom(size)):
        path = tmp_path / "x.gz"
        path.write_bytes(packed([content]))
        with pysam.BGZFile(str(path), "rb") as file:
            assert file.read() == content


def test_the_file_ends_with_htslibs_end_marker(tmp_path):
    with pysam.BGZFile(str(tmp_path / "x.gz"), "wb") as file:
        file.write(b"ACGT")
    assert (tmp_path / "x.gz").read_bytes().endswith(END_OF_FILE)
    assert packed([b"ACGT"]).endswith(END_OF_FILE)


def test_an_exception_leaves_no_end_marker():
    target = io.BytesIO()
    with pytest.raises(TypeError), BgzfWriter(target) as writer:
        writer.write("text where bytes belong")  # type: ignore[arg-type]
    assert target.getvalue() == b""


def test_text_goes_through_the_same_blocks():
    target = io.BytesIO()
    with BgzfWriter(target) as writer:
        handle = writer.text()
        handle.write("é\n" * 3)
    assert gzip.decompress(target.getvalue()) == "é\n".encode() * 3
