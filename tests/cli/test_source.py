"""Input that is read again, from a file or stdin."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from hyena_glt.cli.source import check_stdin, open_genome
from hyena_glt.errors import SequenceFormatError, UsageError


def names(source):
    return [(block.name, block.start, block.last) for block in source.blocks()]


def test_stdin_is_spooled_only_where_it_is_read_again(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b">a\nACGT\n")))
    with open_genome(Path("-"), "dna", reread=True) as source:
        assert names(source) == names(source) == [("a", 0, True)]
        assert len(source.sha256) == 64
        spool = source.path
    assert not spool.exists()
    with open_genome(Path("-"), "dna", reread=False) as source:
        assert source.sha256 is None
        assert str(source.path) == "-"


def test_errors_of_spooled_input_name_stdin(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b">a\nAC GT\n")))
    with open_genome(Path("-"), "dna") as source, pytest.raises(SequenceFormatError, match=r"^<stdin>:2"):
        names(source)


def test_regions_limit_what_is_patched_not_what_is_learned_from(genome):
    with open_genome(genome, "dna", regions=["sim_plasmid:5-10"]) as source:
        assert names(source) == [("sim_plasmid", 4, True)]
        assert {block.name for block in source.all_blocks()} == {"sim_chr1", "sim_plasmid"}
    assert source.provenance().details["input"] == str(genome)


def test_contigs_are_whole_whatever_the_blocks(genome):
    with open_genome(genome, "dna") as source, open_genome(genome, "dna", block_size=1000) as small:
        whole = list(source.contigs())
        assert list(small.contigs()) == whole
        assert sum(map(len, whole)) == sum(len(block.sequence) for block in small.all_blocks())
    assert len(whole) == 2


def test_nobody_has_to_type_a_genome(monkeypatch):
    """Without an input, and with a terminal in place of a pipe, a command says so rather than waits."""
    first, second = os.openpty()
    try:
        with os.fdopen(second) as terminal:
            monkeypatch.setattr(sys, "stdin", terminal)
            with pytest.raises(UsageError, match="no input: give a file, or pipe one in"):
                check_stdin()
            with pytest.raises(UsageError), open_genome(Path("-"), "dna"):
                pass
    finally:
        os.close(first)
