from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import AlphabetError, DataError, SequenceFormatError
from hyena_glt.sequences.fasta import read_blocks, read_records


@pytest.fixture
def parse(tmp_path):
    def records(content: bytes, **options):
        path = tmp_path / "x.fa"
        path.write_bytes(content)
        return list(read_records(path, **options))

    return records


def one(records):
    assert len(records) == 1
    return records[0]


def test_a_record_has_name_description_sequence_and_line(parse):
    first, second = parse(b"\n\n>chr1  long  arm \nACGT\nacgtn\n>chr2\tx\nA\n")
    assert (first.name, first.description, first.sequence, first.line) == (
        "chr1",
        "long  arm",
        b"ACGTacgtn",
        3,
    )
    assert (second.name, second.description, second.sequence, second.line) == ("chr2", "x", b"A", 6)
    assert first.qualities is None


@pytest.mark.parametrize(
    "content",
    [
        b">a b\nACGT\nAC\n",
        b">a b\r\nACGT\r\nAC\r\n",
        b">a b\nACGTAC",
        b">a b\r\nACGTAC\r",
        b"\n \n>a b\n\nAC\n \t \nGTA\n\nC\n\n",
        b">a b\nA\nC\nG\nT\nA\nC\n",
        b" \t\n\n>a b\nACGTAC\n   ",
    ],
    ids=[
        "plain",
        "CRLF",
        "no final newline",
        "CR at the end",
        "blank lines",
        "one letter a line",
        "spaces around",
    ],
)
def test_odd_but_sound_spellings_read_as_the_clean_one(parse, content):
    record = one(parse(content))
    assert (record.name, record.description, record.sequence) == ("a", "b", b"ACGTAC")


def test_lower_case_iupac_and_u_are_kept(parse):
    assert one(parse(b">a\nacgtACGTURYSWKMBDHVNn\n")).sequence == b"acgtACGTURYSWKMBDHVNn"


def test_stop_symbols_are_protein(parse):
    assert one(parse(b">a\nMKV*\n", alphabet="protein")).sequence == b"MKV*"
    with pytest.raises(AlphabetError, match=r"x\.fa:2 \(a\): position 4: .*got '\*'"):
        parse(b">a\nACG*\n")


REFUSED = {
    "sequence first": (b"ACGT\n>a\nAC\n", 1, "data before the first record: .* got 'ACGT'"),
    "space before the marker": (b"\n >a\nAC\n", 2, "data before the first record: .* got ' >a'"),
    "legacy format": (b";a\nAC\n", 1, "';' header of the legacy FASTA format"),
    "byte-order mark": (b"\xef\xbb\xbf>a\nAC\n", 1, "byte-order mark"),
    "UTF-16": (">a\nAC\n".encode("utf-16"), 1, "UTF-16 text"),
    "binary": (b"\x7fELF\x02\x00\x00", 1, "binary data"),
    "bzip2": (b"BZh91AY&SY", 1, "bzip2"),
    "empty name": (b">\nAC\n", 1, "record without a name"),
    "space after the marker": (b">a\nAC\n> chr1 long\nAC\n", 3, "record without a name: .*'chr1 long'"),
    "no sequence at the end": (b">a\nAC\n>b\n", 3, "record 'b' has no sequence"),
    "no sequence, no newline": (b">a\nAC\n>b", 3, "record 'b' has no sequence"),
    "no sequence in the middle": (b">a\n\n \n>b\nAC\n", 1, "record 'a' has no sequence"),
    "duplicate": (b">a x\nAC\n\n>b\nA\n>a y\nAC\n", 6, "duplicate name 'a': first on line 1"),
    "inner space": (b">a\nACGT\nAC GT\n", 3, r"\(a\): whitespace inside a sequence line"),
    "space at the end of a line": (b">a\nACGT \n", 2, "whitespace inside a sequence line"),
    "space at the start of a line": (b">a\nACGT\n\tAC\n", 3, "whitespace inside a sequence line"),
    "gap": (b">a\nACGT\nA-T\n", 3, r"\(a\): position 6: '-' is an alignment gap.*--degap"),
    "dot": (b">a\n\nA.T\n", 3, "position 2: '.' is an alignment gap.*--degap"),
    "missing line break": (b">a\nACGT>b\nAC\n", 2, "is a line break missing before '>'"),
    "digit": (b">a\nAC1T\n", 2, "position 3: expected a dna symbol"),
    "protein": (b">a\nMKVL\n", 2, "got 'L'; for protein use --alphabet protein"),
    "zero byte": (b">a\nAC\0T\n", 2, r"got '\\x00'"),
    "old Mac": (b">a\rACGT\r", 1, "old Mac line ends"),
    "old Mac sequence": (b">a\nAC\rGT\n", 2, "old Mac line ends"),
    "latin-1 header": (b">s\xe9q\nAC\n", 1, r"header is not UTF-8: got '\\xe9q'"),
    "escape in the name": (b">a\x1b[31m\nAC\n", 1, r"control character in the name 'a\\x1b\[31m'"),
    "zero byte in the name": (b">a\0b\nAC\n", 1, r"control character in the name 'a\\x00b'"),
    "C1 control in the name": (">a\x9bb\nAC\n".encode(), 1, "control character in the name"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "line", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("block_size", [1, 3, 1 << 18])
def test_what_breaks_the_format_is_refused_with_its_line(tmp_path, content, line, words, block_size):
    path = tmp_path / "x.fa"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        list(read_blocks(path, block_size=block_size))
    assert caught.value.line == line
    assert caught.value.path == str(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n \t\r\n"])
def test_nothing_to_read_is_refused(parse, content):
    with pytest.raises(SequenceFormatError, match="no sequence: the file is empty or holds blank lines only"):
        parse(content)


def test_a_lone_marker_is_a_record_without_a_name(parse):
    with pytest.raises(SequenceFormatError, match=r"x\.fa:1: record without a name"):
        parse(b">")


def test_long_names_do_not_make_long_messages(parse):
    name = b"n" * 100_000
    with pytest.raises(SequenceFormatError) as caught:
        parse(b">" + name + b"\nAC\n>" + name + b"\nAC\n")
    assert len(caught.value.message) < 200


def test_a_header_without_end_is_refused_before_it_fills_the_memory(parse):
    with pytest.raises(SequenceFormatError, match=r"x\.fa:1: header is longer than 1,048,576 bytes"):
        parse(b">" + b"a" * (3 << 20))


def test_degap_removes_gaps_everywhere(parse):
    assert one(parse(b">a\n-AC..\nG-T\n--\n", degap=True)).sequence == b"ACGT"
    with pytest.raises(SequenceFormatError, match="has no sequence"):
        parse(b">a\n---\n", degap=True)
    with pytest.raises(AlphabetError, match=r"x\.fa:3 \(a\): position 4: .*got '1'"):
        parse(b">a\nA-CG\n-1\n", degap=True)


def test_bytes_take_everything_but_line_ends(parse):
    content = b">a\nac-. GT\x00\xff>\t1\r\n;x\rx \n"
    assert one(parse(content, alphabet="bytes")).sequence == b"ac-. GT\x00\xff>\t1;x\rx "


lines = st.lists(st.text("ACGTNacgtn", max_size=9).map(str.encode), min_size=1, max_size=6)
contents = st.lists(lines.filter(any), min_size=1, max_size=5)


@given(
    contents,
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \t\n", b"\r\n \r\n"]),
    st.integers(1, 70),
    st.booleans(),
)
def test_blocks_of_any_size_join_to_the_same_records(tmp_path_factory, records, end, block_size, ends_open):
    text = b"".join(b">r%d some words%s%s%s" % (i, end, end.join(lines), end) for i, lines in enumerate(records))
    path = tmp_path_factory.getbasetemp() / "blocks.fa"
    path.write_bytes(text.rstrip() if ends_open else text)
    joined: dict[str, bytes] = {}
    is_open = False
    for block in read_blocks(path, block_size=block_size):
        assert block.start == len(joined.setdefault(block.name, b""))
        assert is_open == (block.start > 0)
        assert 0 < len(block.sequence) <= block_size
        assert block.description == "some words"
        joined[block.name] += block.sequence
        is_open = not block.last
    assert not is_open
    assert joined == {f"r{i}": b"".join(lines) for i, lines in enumerate(records)}
    assert [(r.name, r.sequence) for r in read_records(path)] == list(joined.items())


@given(contents, st.integers(1, 40))
def test_a_records_line_is_its_headers_line_for_any_block_size(tmp_path_factory, records, block_size):
    text = b"".join(b">r%d\n%s\n" % (i, b"\n".join(lines)) for i, lines in enumerate(records))
    path = tmp_path_factory.getbasetemp() / "lines.fa"
    path.write_bytes(text)
    rows = text.split(b"\n")
    for block in read_blocks(path, block_size=block_size):
        assert rows[block.line - 1] == f">{block.name}".encode()


def test_one_long_line_is_read_in_a_few_blocks_of_memory(tmp_path):
    import tracemalloc

    path = tmp_path / "long.fa"
    with path.open("wb") as file:
        file.write(b">long\n")
        for _ in range(32):
            file.write(b"ACGT" * (1 << 18))
    tracemalloc.start()
    try:
        total = sum(len(block.sequence) for block in read_blocks(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 32 << 20
    assert peak < 4 << 20


def test_many_contigs_keep_their_order_and_lines(tmp_path):
    path = tmp_path / "many.fa"
    path.write_bytes(b"".join(b">c%d\nACGT\n" % i for i in range(20_000)))
    blocks = list(read_blocks(path))
    assert [block.name for block in blocks if block.last] == [f"c{i}" for i in range(20_000)]
    assert blocks[-1].line == 39_999
