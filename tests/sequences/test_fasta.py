from __future__ import annotations

import gzip
import io
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import AlphabetError, ConfigError, DataError, OutputExistsError, SequenceFormatError
from hyena_glt.sequences.fasta import Record, read_blocks, read_records, write_fasta

records = st.lists(
    st.builds(
        Record,
        name=st.text("abcXYZ019_.:|é", min_size=1, max_size=8),
        description=st.sampled_from(["", "two words", "tab\tand [x=1]"]),
        sequence=st.text("ACGTNacgtn", min_size=1, max_size=90).map(str.encode),
        line=st.just(0),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda record: record.name,
)


def content(rows) -> list[tuple[str, str, bytes]]:
    return [(row.name, row.description, row.sequence) for row in rows]


@given(records, st.integers(0, 100), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_what_is_written_is_read_back(tmp_path_factory, rows, width, line_end, packed):
    handle = io.BytesIO()
    write_fasta(handle, rows, width)
    text = handle.getvalue().replace(b"\n", line_end)
    path = tmp_path_factory.getbasetemp() / "round.fa"
    path.write_bytes(gzip.compress(text) if packed else text)
    assert content(read_records(path)) == content(rows)
    longest = max(len(line) for line in handle.getvalue().split(b"\n") if not line.startswith(b">"))
    assert width == 0 or longest <= width


@pytest.mark.parametrize("name", ["x.fa", "x.fa.gz"])
def test_files_are_written_whole_and_never_over_another(tmp_path, name):
    row = Record("a", "b", b"ACGT" * 50_000, 1)
    write_fasta(tmp_path / name, [row])
    assert content(read_records(tmp_path / name)) == content([row])
    assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b\x08\x04" if name.endswith("gz") else b">a b\nACGT")
    with pytest.raises(OutputExistsError, match="--force"):
        write_fasta(tmp_path / name, [row])


def test_nothing_is_left_where_writing_fails(tmp_path):
    with pytest.raises(SequenceFormatError, match="b: a record without sequence"):
        write_fasta(tmp_path / "x.fa", [Record("a", "", b"A", 1), Record("b", "", b"", 2)])
    assert list(tmp_path.iterdir()) == []


def test_wrong_options_are_refused_at_once():
    with pytest.raises(ConfigError, match="block_size: expected 1 byte or more, got 0"):
        read_blocks("x", block_size=0)
    with pytest.raises(AlphabetError, match="expected one of"):
        read_records("x", alphabet="dan")
    with pytest.raises(ConfigError, match="width: expected 0 or more"):
        write_fasta(io.BytesIO(), [], width=-1)


def test_fasta_comes_through_standard_input():
    program = (
        "from hyena_glt.sequences.fasta import read_records\n"
        "from hyena_glt.errors import DataError\n"
        "try:\n"
        "    print([(r.name, r.sequence) for r in read_records('-')])\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )

    def run(text: bytes) -> str:
        return subprocess.run(
            [sys.executable, "-c", program], input=text, capture_output=True, check=True
        ).stdout.decode()

    assert run(b">a\nAC\nGT\n") == run(gzip.compress(b">a\r\nACGT\r\n")) == "[('a', b'ACGT')]\n"
    assert run(b">a\nAC\nG-T\n").startswith("<stdin>:3 (a): position 4: '-' is an alignment gap")
    assert run(b"").startswith("<stdin>: no sequence")


def test_a_real_genome_reads_as_htslib_reads_it(data):
    import pysam

    path = data("genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz")
    with pysam.FastxFile(str(path)) as file:
        (expected,) = [(row.name, row.comment, row.sequence.encode()) for row in file]
    (found,) = content(read_records(path))
    assert found == expected
    assert len(found[2]) == 4_641_652


def test_a_soft_masked_genome_keeps_its_case(data):
    path = data("human/hg19_chr20_partial_softmasked.fa.gz")
    counts = np.zeros(256, np.int64)
    for block in read_blocks(path):
        counts += np.bincount(np.frombuffer(block.sequence, np.uint8), minlength=256)
    assert counts.sum() == 63_025_520
    assert counts[ord("a") : ord("z") + 1].sum() == 453_216
    assert counts[ord("N")] == 61_925_520


@pytest.mark.parametrize(
    "name",
    [
        "protein_rna/arabidopsis_chloroplast_proteins_NC_000932.faa",
        "protein_rna/mmseqs_query_500proteins.fasta.gz",
    ],
)
def test_real_proteins_are_read(data, name):
    rows = list(read_records(data(name), alphabet="protein"))
    assert len(rows) > 50
    assert all(row.sequence for row in rows)


FASTA = b">chr1 first\nACGTACGTNN\nacgtac\n>chr2\nRYKM\n\n>chr3 third one\nAC\nGT\nAC\n"
FASTQ = b"@r1 x\nACGTAC\n+\nII@>+!\n@r2\nAC\nGT\n+r2\nIIII\n@r3\n\n+\n\n@r4\nA\n+\nI\n"
BITS = [
    b"\n",
    b"\r",
    b"\r\n",
    b">",
    b"@",
    b"+",
    b"-",
    b" ",
    b"\t",
    b"\0",
    b"\xff",
    b"\x1b",
    b"",
    b"A",
    b";",
    b"\x1f\x8b",
]


def mutant(text: bytes, rng: random.Random) -> bytes:
    out = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randint(0, len(out)), rng.randint(0, 5)
        kind = rng.randrange(5)
        if kind == 0:
            out[at : at + size] = rng.choice(BITS)
        elif kind == 1:
            out[at:at] = rng.choice(BITS)
        elif kind == 2:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 3:
            out[at:at] = out[rng.randint(0, len(out)) :][: rng.randint(0, 20)]
        else:
            del out[at : at + rng.randint(0, 20)]
    return bytes(out)


def outcome(path, size: int) -> tuple[object, ...]:
    """What reading gives: the records, or the place and words of the refusal."""
    joined: list[tuple[str, str, bytes, int]] = []
    try:
        for block in read_blocks(path, block_size=size):
            if block.start:
                joined[-1] = (*joined[-1][:2], joined[-1][2] + block.sequence, block.line)
            else:
                joined.append((block.name, block.description, block.sequence, block.line))
    except DataError as error:
        return "refused", error.line, error.message
    return "read", tuple(joined)


def check_mutants(tmp_path, text: bytes, seed: int, count: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "mutant"
    kinds = set()
    for _ in range(count):
        path.write_bytes(mutant(text, rng))
        whole = outcome(path, 1 << 18)
        assert outcome(path, rng.choice([1, 2, 7, 19])) == whole
        if whole[0] == "refused":
            assert str(whole[2]).isprintable()
            assert len(str(whole[2])) <= 200
        kinds.add(whole[0])
        if whole[0] == "read" and text is FASTA:
            check_round_trip(path)
    assert kinds == {"read", "refused"}


def check_round_trip(path) -> None:
    rows = list(read_records(path))
    if all(row.qualities is None for row in rows):
        copy = path.with_name("copy")
        copy.unlink(missing_ok=True)
        write_fasta(copy, rows, 7)
        assert content(read_records(copy)) == content(rows)


@pytest.mark.parametrize("text", [FASTA, FASTQ], ids=["FASTA", "FASTQ"])
def test_mutants_are_read_or_refused_alike_at_every_block_size(tmp_path, text):
    check_mutants(tmp_path, text, seed=1, count=1000)


@pytest.mark.slow
@pytest.mark.parametrize("text", [FASTA, FASTQ], ids=["FASTA", "FASTQ"])
def test_ten_thousand_mutants_are_read_or_refused_alike_at_every_block_size(tmp_path, text):
    check_mutants(tmp_path, text, seed=2, count=10_000)
