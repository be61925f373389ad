"""Regions cut out of blocks, with and without an index."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import AlphabetError, RegionError
from hyena_glt.sequences.alphabets import DNA
from hyena_glt.sequences.fasta import read_blocks
from hyena_glt.sequences.indexed_fasta import IndexedFasta
from hyena_glt.sequences.regions import cut_regions, has_fresh_index, region_blocks, wanted_regions

SEQUENCES = {"a": b"ACGTACGTAACCGGTTACGT", "b": b"TTTTGGGG"}


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    path = tmp_path_factory.mktemp("regions") / "g.fa"
    path.write_bytes(b"".join(b">%s\n%s\n" % (name.encode(), text) for name, text in SEQUENCES.items()))
    return path


def joined(blocks):
    parts = {}
    for block in blocks:
        parts.setdefault((block.name, block.start), []).append(block)
    assert all(piece[-1].last for piece in parts.values())
    return {key: b"".join(block.sequence for block in piece) for key, piece in parts.items()}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 19), st.integers(1, 20))
def test_a_region_is_the_slice_of_its_contig(fasta, start, length):
    end = min(start + length, 20)
    found = joined(region_blocks(fasta, [("a", start, end), ("b", 2, None)], DNA))
    assert found == {("a", start): SEQUENCES["a"][start:end], ("b", 2): SEQUENCES["b"][2:]}


def test_an_index_gives_the_same_blocks(fasta):
    regions = [("b", 1, 5), ("a", 3, 10), ("a", 12, None)]
    scanned = joined(region_blocks(fasta, regions, DNA))
    assert not has_fresh_index(fasta)
    with IndexedFasta(fasta):
        pass
    assert has_fresh_index(fasta)
    assert joined(region_blocks(fasta, regions, DNA)) == scanned
    later = fasta.stat().st_mtime + 10
    os.utime(fasta, (later, later))
    assert not has_fresh_index(fasta)
    os.unlink(f"{fasta}.fai")


@pytest.mark.parametrize("region", [("a", 0, 21), ("a", 20, None), ("c", 0, 1)])
def test_past_the_end_is_an_error_not_a_clip(fasta, region):
    with pytest.raises(RegionError):
        list(region_blocks(fasta, [region], DNA))


def test_regions_are_sorted_and_may_not_overlap(tmp_path):
    bed = tmp_path / "r.bed"
    bed.write_text("a\t10\t12\n")
    assert wanted_regions(["a:1-10", "b"], bed) == [("a", 0, 10), ("a", 10, 12), ("b", 0, None)]
    with pytest.raises(RegionError, match="overlap"):
        wanted_regions(["a:1-11"], bed)
    with pytest.raises(RegionError, match="overlap"):
        wanted_regions(["a", "a:5-6"], None)


def test_regions_that_overlap_are_kept_or_merged(tmp_path):
    bed = tmp_path / "r.bed"
    bed.write_text("a\t5\t9\na\t4\t6\nb\t0\t3\nb\t1\t2\nb\t3\t5\n")
    kept = wanted_regions([], bed, overlapping="kept")
    assert kept == [("a", 4, 6), ("a", 5, 9), ("b", 0, 3), ("b", 1, 2), ("b", 3, 5)]
    assert wanted_regions([], bed, overlapping="merged") == [("a", 4, 9), ("b", 0, 3), ("b", 3, 5)]
    assert wanted_regions(["b:2-"], bed, overlapping="merged") == [("a", 4, 9), ("b", 0, None)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 18), st.integers(1, 20)), min_size=1, max_size=8),
    st.integers(1, 9),
    st.booleans(),
)
def test_each_region_that_overlaps_others_is_read_whole_and_in_turn(tmp_path_factory, spans, block, indexed):
    path = tmp_path_factory.mktemp("overlap") / "g.fa"
    path.write_bytes(b">b\nTTTT\n>a\n%s\n" % SEQUENCES["a"])
    regions = sorted(("a", start, min(start + length, 20)) for start, length in spans)
    if indexed:
        with IndexedFasta(path):
            pass
        blocks = region_blocks(path, regions, DNA)
    else:
        blocks = cut_regions(read_blocks(path, alphabet=DNA, block_size=block), regions, str(path))
    found, parts = [], []
    for piece in blocks:
        assert not parts or piece.start == parts[-1].start + len(parts[-1].sequence)
        parts.append(piece)
        if piece.last:
            found.append((piece.name, parts[0].start, b"".join(part.sequence for part in parts)))
            parts = []
    assert not parts
    assert found == [(name, start, SEQUENCES["a"][start:end]) for name, start, end in regions]


def test_the_whole_file_is_checked_not_only_the_region(tmp_path):
    path = tmp_path / "bad.fa"
    path.write_text(">a\nACGT\n>b\nAC!T\n")
    with pytest.raises(AlphabetError, match=r"bad\.fa:4"):
        list(region_blocks(path, [("a", 0, 2)], DNA))
