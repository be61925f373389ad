"""Codons are read by the numbered tables, checked against those of scikit-bio."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import AlphabetError, ConfigError
from hyena_glt.multimodal.genetic_code import GENETIC_CODES, translate

CODONS = "".join("".join(bases) for bases in product("TCAG", repeat=3))
EACH = [CODONS[i : i + 3] for i in range(0, len(CODONS), 3)]


@pytest.mark.parametrize("table", GENETIC_CODES)
def test_tables_against_scikit_bio(table):
    skbio = pytest.importorskip("skbio")
    code = skbio.GeneticCode.from_ncbi(table)
    assert translate(CODONS, table).decode() == str(code.translate(skbio.RNA(CODONS.replace("T", "U"))))
    starts = {codon for codon, mark in zip(EACH, code._starts, strict=True) if str(mark) == "M"}
    read_as_m = {codon for codon in EACH if translate(codon, table, from_start=True) == b"M"}
    assert read_as_m == starts | {codon for codon in EACH if translate(codon, table) == b"M"}


def test_case_u_and_leftover_bases_do_not_matter():
    assert translate("augGCUtgaCC") == translate("ATGGCTTGA") == b"MA*"


def test_an_ambiguous_codon_is_x_and_never_one_amino_acid():
    assert translate("ATGGCNNNN") == b"MXX"


def test_only_an_allowed_start_becomes_m():
    assert translate("GTGGTG", 11, from_start=True) == b"MV"
    assert translate("GTGGTG", 1, from_start=True) == b"VV"


def test_nothing_translates_to_nothing():
    assert translate("", from_start=True) == translate("AC") == b""


def test_an_unknown_table_and_a_gap_are_refused():
    with pytest.raises(ConfigError, match=r"expected one of 1, 2, .*got 99"):
        translate("ATG", 99)
    with pytest.raises(AlphabetError, match="position 3"):
        translate("AT-")


@given(st.text("ACGT", max_size=60))
def test_each_codon_is_read_alone(sequence):
    whole = translate(sequence)
    assert whole == b"".join(translate(sequence[i : i + 3]) for i in range(0, len(sequence) - 2, 3))
