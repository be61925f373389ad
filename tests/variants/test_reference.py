"""A reference in memory answers as an indexed one does."""

from __future__ import annotations

import gzip

import pytest

from hyena_glt.errors import DataError, RegionError, SequenceFormatError
from hyena_glt.sequences.indexed_fasta import IndexedFasta
from hyena_glt.sequences.intervals import Interval
from hyena_glt.variants import reference
from hyena_glt.variants.reference import GenomeInMemory, open_reference

TEXT = b">chr1 first\nACGTacgt\nRN\n>chr2\nTT\n"


def test_plain_gzip_is_read_whole_and_the_rest_is_indexed(save, tmp_path):
    plain = save(TEXT, "ref.fa")
    zipped = tmp_path / "ref.fa.gz"
    zipped.write_bytes(gzip.compress(TEXT))
    with open_reference(plain) as indexed, open_reference(zipped) as whole:
        assert isinstance(indexed, IndexedFasta)
        assert isinstance(whole, GenomeInMemory)
        assert dict(indexed.lengths) == dict(whole.lengths) == {"chr1": 10, "chr2": 2}
        for interval in (Interval("chr1", 2, 9), Interval("chr1", 10, 10), Interval("chr2", 0, 2)):
            assert indexed.fetch(interval) == whole.fetch(interval)
        for genome in (indexed, whole):
            with pytest.raises(RegionError, match="did you mean 'chr1'"):
                genome.length("1")
            with pytest.raises(RegionError, match="past the end"):
                genome.fetch(Interval("chr1", 5, 11))


def test_a_plain_gzip_that_is_too_large_says_what_to_do(tmp_path, monkeypatch):
    zipped = tmp_path / "ref.fa.gz"
    zipped.write_bytes(gzip.compress(TEXT))
    monkeypatch.setattr(reference, "MOST_IN_MEMORY", 9)
    with pytest.raises(SequenceFormatError, match="recompress it with bgzip"), open_reference(zipped):
        pass


def test_a_name_that_stands_twice_is_refused(tmp_path):
    zipped = tmp_path / "ref.fa.gz"
    zipped.write_bytes(gzip.compress(b">a\nAC\n>a\nGT\n"))
    with pytest.raises(SequenceFormatError), open_reference(zipped):
        pass


def test_standard_input_is_no_reference():
    with pytest.raises(DataError, match="cannot be indexed"), open_reference("-"):
        pass
