from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import AlphabetError, DataError, SequenceFormatError
from hyena_glt.sequences import fastq_parser
from hyena_glt.sequences.fasta import read_blocks, read_records


@pytest.fixture
def parse(tmp_path):
    def records(content: bytes, **options):
        path = tmp_path / "x.fq"
        path.write_bytes(content)
        return list(read_records(path, **options))

    return records


def test_a_read_has_name_description_sequence_qualities_and_line(parse):
    first, second = parse(b"@r1 lane 2\nACGT\n+\nII@+\n@r2\nAC\n+r2\n>!\n")
    assert (first.name, first.description, first.sequence) == ("r1", "lane 2", b"ACGT")
    assert (first.qualities, first.line) == (b"II@+", 1)
    assert (second.name, second.qualities, second.line) == ("r2", b">!", 5)


@pytest.mark.parametrize(
    "content",
    [
        b"@r x\nACGTAC\n+\n@>+I@!\n",
        b"@r x\r\nACGTAC\r\n+\r\n@>+I@!\r\n",
        b"@r x\nACGTAC\n+\n@>+I@!",
        b"@r x\nACGTAC\n+r x\n@>+I@!\n",
        b"@r x\nACG\nTAC\n+\n@>+\nI@!\n",
        b"@r x\nACGTAC\n+\n@\n>+I@!\n",
        b"\n\n@r x\nACGTAC\n+\n@>+I@!\n\n \n",
    ],
    ids=["plain", "CRLF", "no final newline", "name repeated", "wrapped", "wrapped unevenly", "blank lines"],
)
def test_odd_but_sound_spellings_read_as_the_clean_one(parse, content):
    (read,) = parse(content)
    assert (read.name, read.description, read.sequence, read.qualities) == ("r", "x", b"ACGTAC", b"@>+I@!")


def test_reads_of_length_zero_are_accepted(parse, tmp_path):
    content = b"@a\nAC\n+\nII\n@b\n\n+\n\n@c\n+\n@d\nA\n+\nI\n@e\n\n+\n"
    assert [(read.name, read.sequence, read.qualities) for read in parse(content)] == [
        ("a", b"AC", b"II"),
        ("b", b"", b""),
        ("c", b"", b""),
        ("d", b"A", b"I"),
        ("e", b"", b""),
    ]
    blocks = [(block.name, block.start, block.sequence, block.last) for block in read_blocks(tmp_path / "x.fq")]
    assert blocks[1] == ("b", 0, b"", True)
    assert len(blocks) == 5


def test_names_may_repeat(parse):
    assert [read.name for read in parse(b"@r\nA\n+\nI\n@r\nC\n+\nI\n")] == ["r", "r"]


GOOD = b"@a\nACGT\n+\nIIII\n"
REFUSED = {
    "other name": (b"@b\nACGT\n+c\nIIII\n", 7, "the '\\+' line names 'c', the '@' line 'b'"),
    "short quality": (b"@b\nACGT\n+\nIII\n@c\nA\n+\nI\n", 8, "expected 4 quality bytes, .* got 3"),
    "long wrapped quality": (b"@b\nACGT\n+\nIII\nIII\n", 9, "expected 4 quality bytes, .* got 6: 'III'"),
    "short quality at the end": (b"@b\nACGT\n+\nIII\n", 5, "truncated read: 1 of 4 quality bytes"),
    "long quality": (b"@b\nACGT\n+\nIIIII\n", 8, "expected 4 quality bytes, .* got 5"),
    "no quality": (b"@b\nACGT\n+\n\n@c\nA\n+\nI\n", 8, "expected 4 more quality bytes .* got a blank line"),
    "no plus": (b"@b\nACGT\n@c\nA\n+\nI\n", 7, "a new '@' line where the '\\+' line"),
    "truncated after the header": (b"@b\n", 5, "truncated read: the '\\+' line is missing"),
    "truncated after the sequence": (b"@b\nACGT\n", 5, "truncated read: the '\\+' line is missing"),
    "truncated after the plus": (b"@b\nACGT\n+\n", 5, "truncated read: 4 of 4 quality bytes are missing"),
    "space in the quality": (b"@b\nACGT\n+\nII I\n", 8, "quality byte ' ' is not printable"),
    "zero byte in the quality": (b"@b\nACGT\n+\nII\0I\n", 8, r"quality byte '\\x00' is not printable"),
    "high byte in the quality": (b"@b\nACGT\n+\nII\x80I\n", 8, r"quality byte '\\x80' is not printable"),
    "space in the sequence": (b"@b\nAC T\n+\nIIII\n", 6, "whitespace inside a sequence line"),
    "symbol": (b"@b\nACET\n+\nIIII\n", 6, "position 3: expected a dna symbol .* got 'E'"),
    "gap": (b"@b\nAC-T\n+\nIIII\n", 6, "position 3: '-' is an alignment gap"),
    "no name": (b"@\nACGT\n+\nIIII\n", 5, "record without a name"),
    "space before the name": (b"@ b\nACGT\n+\nIIII\n", 5, "record without a name"),
    "FASTA record": (b">b\nACGT\n", 5, "expected the '@' line of the next read, got '>b'"),
    "control character": (b"@b\x07\nACGT\n+\nIIII\n", 5, "control character in the name"),
    "not UTF-8": (b"@b\xff\nACGT\n+\nIIII\n", 5, "header is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "line", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("block_size", [1, 5, 1 << 18])
def test_what_breaks_the_format_is_refused_with_its_line(tmp_path, content, line, words, block_size):
    path = tmp_path / "x.fq"
    path.write_bytes(GOOD + content)
    blocks = read_blocks(path, block_size=block_size)
    with pytest.raises(DataError, match=words) as caught:
        list(blocks)
    assert caught.value.line == line
    assert caught.value.path == str(path)
    assert str(caught.value).isprintable()


def test_good_reads_before_a_bad_one_are_handed_out(parse, tmp_path):
    path = tmp_path / "x.fq"
    path.write_bytes(GOOD + b"@b\nA\n+\nI\n@c\nE\n+\nI\n")
    reads = read_records(path)
    assert [next(reads).name, next(reads).name] == ["a", "b"]
    with pytest.raises(AlphabetError, match=r"x\.fq:10 \(c\): position 1"):
        next(reads)


def test_degap_removes_the_qualities_of_gaps_too(parse):
    (read,) = parse(b"@a\nA-C.\n+\n1234\n", degap=True)
    assert (read.sequence, read.qualities) == (b"AC", b"13")


def test_a_read_without_end_is_refused_before_it_fills_the_memory(parse, monkeypatch):
    monkeypatch.setattr(fastq_parser, "MAX_READ_BYTES", 1 << 20)
    with pytest.raises(SequenceFormatError, match=r"x\.fq:1: read is longer than 1,048,576 bytes"):
        parse(b"@a\n" + b"A" * (3 << 20))


@st.composite
def reads(draw):
    sequence = draw(st.text("ACGTNacgt", max_size=30)).encode()
    qualities = bytes(draw(st.lists(st.integers(33, 126), min_size=len(sequence), max_size=len(sequence))))
    return sequence, qualities


def wrapped(text: bytes, width: int, end: bytes) -> bytes:
    return end.join(text[i : i + width] for i in range(0, max(1, len(text)), width))


@given(
    st.lists(st.tuples(reads(), st.booleans(), st.booleans()), min_size=1, max_size=8),
    st.integers(1, 40),
    st.sampled_from([b"\n", b"\r\n"]),
    st.integers(1, 60),
)
def test_blocks_of_any_size_and_any_wrapping_give_the_same_reads(tmp_path_factory, rows, width, end, block_size):
    text = b""
    for i, ((sequence, qualities), is_wrapped, is_named) in enumerate(rows):
        step = width if is_wrapped else 100
        plus = b"+r%d x" % i if is_named else b"+"
        text += end.join([b"@r%d x" % i, wrapped(sequence, step, end), plus, wrapped(qualities, step, end), b""])
    path = tmp_path_factory.getbasetemp() / "reads.fq"
    path.write_bytes(text)
    expected = [(f"r{i}", *read) for i, (read, _, _) in enumerate(rows)]
    assert [(r.name, r.sequence, r.qualities) for r in read_records(path)] == expected
    joined: dict[str, bytes] = {}
    for block in read_blocks(path, block_size=block_size):
        assert block.start == len(joined.get(block.name, b""))
        joined[block.name] = joined.get(block.name, b"") + block.sequence
    assert list(joined.items()) == [(name, sequence) for name, sequence, _ in expected]


def test_real_reads_agree_with_htslib(data):
    import pysam

    path = data("reads/pyfastx_test.fq.gz")
    with pysam.FastxFile(str(path)) as file:
        expected = [(read.name, read.sequence, read.quality) for read in file]
    found = [(r.name, r.sequence.decode(), (r.qualities or b"").decode()) for r in read_records(path)]
    assert found == expected
    assert len(found) > 100


def test_real_wrapped_reads_agree_with_htslib(data):
    import pysam

    path = data("reads/biopython_wrapping_original_sanger.fastq")
    with pysam.FastxFile(str(path)) as file:
        expected = [(read.name, read.sequence, read.quality) for read in file]
    assert [(r.name, r.sequence.decode(), (r.qualities or b"").decode()) for r in read_records(path)] == expected
