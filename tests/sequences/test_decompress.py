from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import AnnotationError, DataError, SequenceFormatError, SystemProblem
from hyena_glt.sequences.bgzf import BgzfWriter
from hyena_glt.sequences.decompress import GzipSource, open_bytes

TEXT = bytes(range(256)) * 2000


def read_all(path, size=1 << 16, **options) -> bytes:
    with open_bytes(path, **options) as source:
        pieces = []
        while piece := source.read(size):
            assert len(piece) <= size
            pieces.append(piece)
        return b"".join(pieces)


def bgzf(text: bytes) -> bytes:
    target = io.BytesIO()
    with BgzfWriter(target) as writer:
        writer.write(text)
    return target.getvalue()


@pytest.fixture
def write(tmp_path):
    def put(content: bytes):
        path = tmp_path / "input"
        path.write_bytes(content)
        return path

    return put


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        gzip.compress(TEXT),
        gzip.compress(TEXT[:1000]) + gzip.compress(b"") + gzip.compress(TEXT[1000:]),
        gzip.compress(TEXT) + bytes(1000),
        bgzf(TEXT),
    ],
    ids=["plain", "gzip", "multi-member", "zero padding", "BGZF"],
)
@pytest.mark.parametrize("size", [100, 1 << 16, 1 << 22])
def test_every_packing_gives_the_same_bytes(write, content, size):
    assert read_all(write(content), size) == TEXT


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 100), st.integers(1, 50))
def test_members_and_read_sizes_do_not_matter(members, size, padding):
    packed = b"".join(gzip.compress(member) for member in members) + bytes(padding)
    source = GzipSource(io.BytesIO(packed), b"", "x", SequenceFormatError)
    pieces = []
    while piece := source.read(size):
        pieces.append(piece)
    assert all(len(piece) == size for piece in pieces[:-1])
    assert b"".join(pieces) == b"".join(members)


@pytest.mark.parametrize("content", [b"", b"\x1f", b"A"])
def test_short_files_are_plain(write, content):
    assert read_all(write(content)) == content


@pytest.mark.parametrize("cut", [2, 5, 11, 100, -1, -8])
def test_truncated_gzip_is_refused_wherever_it_is_cut(write, cut):
    with pytest.raises(SequenceFormatError, match=r"input: truncated gzip"):
        read_all(write(gzip.compress(TEXT)[:cut]))


def test_a_wrong_checksum_is_refused(write):
    packed = bytearray(gzip.compress(TEXT))
    packed[-6] ^= 1
    with pytest.raises(SequenceFormatError, match="input: damaged gzip: incorrect data check"):
        read_all(write(bytes(packed)))


def test_flipped_bits_never_pass(write):
    packed = gzip.compress(TEXT[:5000])
    for at in range(2, len(packed), 7):
        damaged = packed[:at] + bytes([packed[at] ^ 0x40]) + packed[at + 1 :]
        try:
            assert read_all(write(damaged)) == TEXT[:5000]  # a field that carries no data, such as the time
            assert at < 10
        except SequenceFormatError:
            pass


def test_garbage_after_the_last_member_is_refused(write):
    for garbage in (b"x", b"\0\0x", b"\x1f", b"hello world"):
        with pytest.raises(SequenceFormatError, match="garbage after the end of the gzip data"):
            read_all(write(gzip.compress(TEXT) + garbage))


def test_bgzf_cut_between_blocks_is_refused(write):
    packed = bgzf(TEXT)
    with pytest.raises(SequenceFormatError, match="truncated BGZF: its end-of-file block is missing"):
        read_all(write(packed[:-28]))


def test_the_error_class_is_the_callers(write):
    with pytest.raises(AnnotationError, match="truncated gzip"):
        read_all(write(gzip.compress(TEXT)[:-4]), error=AnnotationError)


def test_a_gzip_bomb_streams_in_bounded_memory(write):
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    path = write(bomb)
    tracemalloc.start()
    try:
        with open_bytes(path) as source:
            total = sum(len(piece) for piece in iter(lambda: source.read(1 << 16), b""))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 200 << 20
    assert peak < 8 << 20


def test_what_is_no_file_is_refused_in_words(tmp_path, write):
    file = write(b"x")
    cases = {
        tmp_path / "missing": "missing: no such file",
        tmp_path: "is a directory",
        file / "below": "no such file",
        "zero\0byte": "zero byte",
    }
    for path, words in cases.items():
        with pytest.raises(DataError, match=words):
            read_all(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission_is_a_problem_of_the_system(write):
    path = write(b"x")
    path.chmod(0)
    with pytest.raises(SystemProblem, match="input: cannot read: Permission denied"):
        read_all(path)


def test_no_permission_is_told_apart_from_a_missing_file(write, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(SystemProblem, match="x: cannot read: Permission denied") as caught, open_bytes("x"):
        pass
    assert caught.value.exit_code == 3


def test_an_input_error_while_reading_is_a_problem_of_the_system():
    class Failing(io.RawIOBase):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    source = GzipSource(Failing(), b"", "disk.gz", SequenceFormatError)
    with pytest.raises(SystemProblem, match=r"disk\.gz: cannot read: Input/output error"):
        source.read(1)


@pytest.mark.parametrize("packed", [TEXT, gzip.compress(TEXT), bgzf(TEXT)], ids=["plain", "gzip", "BGZF"])
def test_standard_input_is_told_by_its_magic_too(packed):
    program = (
        "import sys, hashlib\n"
        "from hyena_glt.sequences.decompress import open_bytes\n"
        "with open_bytes('-') as source:\n"
        "    print(hashlib.sha256(b''.join(iter(lambda: source.read(1000), b''))).hexdigest())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=packed, capture_output=True, check=True)
    expected = subprocess.run(["sha256sum"], input=TEXT, capture_output=True, check=True)
    assert done.stdout.split()[0] == expected.stdout.split()[0]


def test_closed_standard_input_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="<stdin>: standard input is closed"):
        read_all("-")
