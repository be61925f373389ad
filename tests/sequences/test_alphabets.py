from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import AlphabetError
from hyena_glt.sequences.alphabets import (
    AMBIGUOUS,
    BYTES,
    DNA,
    INVALID,
    PROTEIN,
    RNA,
    get_alphabet,
    reverse_complement,
    soft_mask,
)

IUPAC_SETS = {
    "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip


def either_case(letters: str) -> st.SearchStrategy[str]:
    return st.text(alphabet=letters + letters.lower())


@pytest.mark.parametrize(("alphabet", "size", "bits"), [(DNA, 4, 2), (RNA, 4, 2), (PROTEIN, 20, 5), (BYTES, 256, 8)])
def test_the_code_of_a_letter_is_its_index(alphabet, size, bits):
    assert alphabet.size == size
    assert alphabet.bits == bits
    assert size <= 2**bits
    letters = alphabet.letters.encode("latin-1")
    assert alphabet.encode(letters).tolist() == list(range(size))
    assert get_alphabet(alphabet.name) is alphabet


@given(either_case("ACGTURYSWKMBDHVN"))
def test_case_is_folded(text):
    assert np.array_equal(DNA.encode(text), DNA.encode(text.upper()))


def test_t_and_u_share_one_code():
    for alphabet in (DNA, RNA):
        assert alphabet.encode(b"TUtu").tolist() == [3, 3, 3, 3]


def test_ambiguous_symbols_are_never_one_letter():
    assert set(DNA.encode(b"RYSWKMBDHVNn").tolist()) == {AMBIGUOUS}
    assert set(PROTEIN.encode(b"XBZJUO*x").tolist()) == {AMBIGUOUS}


def test_bytes_have_their_own_value_as_code():
    everything = bytes(range(256))
    assert not BYTES.has_ambiguity
    assert BYTES.encode(everything).tolist() == list(range(256))


def test_every_legal_symbol_is_in_symbols_and_no_other():
    for alphabet in (DNA, RNA, PROTEIN):
        legal = {byte for byte in range(256) if alphabet.code_table[byte] != INVALID}
        assert set(alphabet.symbols) == legal
        assert not legal & set(b"-. \n\r\t>0@+")


def test_the_first_bad_symbol_is_named_with_its_position_in_the_record():
    with pytest.raises(AlphabetError, match=r"chr1.*position 104: expected a dna symbol .*got 'E'.*protein"):
        DNA.encode(b"ACGEQ", record="chr1", start=100)


@pytest.mark.parametrize("gap", ["-", "."])
@pytest.mark.parametrize("alphabet", [DNA, RNA, PROTEIN])
def test_gaps_are_refused_with_the_way_out(alphabet, gap):
    with pytest.raises(AlphabetError, match=r"position 3: .* gap.*--degap"):
        alphabet.encode(f"AC{gap}A")


def test_a_symbol_of_several_bytes_is_shown_whole_and_a_broken_one_escaped():
    with pytest.raises(AlphabetError, match="got 'é'"):
        DNA.encode("ACé")
    with pytest.raises(AlphabetError, match=r"got '\\xff'"):
        DNA.encode(b"AC\xff\xff")


def test_an_unknown_alphabet_is_refused_by_name():
    with pytest.raises(AlphabetError, match="expected one of dna, rna, protein, bytes, got 'dan'"):
        get_alphabet("dan")


@given(either_case("ACGTRYSWKMBDHVN"))
def test_reverse_complement_twice_is_identity_over_dna(text):
    assert reverse_complement(reverse_complement(text)) == text
    assert reverse_complement(text.encode()) == reverse_complement(text).encode()


@given(either_case("ACGURYSWKMBDHVN"))
def test_reverse_complement_twice_is_identity_over_rna(text):
    assert reverse_complement(reverse_complement(text, "rna"), RNA) == text


def test_the_complement_of_a_code_is_the_set_of_complements():
    pairs = {"A": "T", "C": "G", "G": "C", "T": "A"}
    by_set = {frozenset(letters): code for code, letters in IUPAC_SETS.items()}
    for code, letters in IUPAC_SETS.items():
        expected = by_set[frozenset(pairs[letter] for letter in letters)]
        assert reverse_complement(code) == expected
        assert reverse_complement(code.lower()) == expected.lower()


def test_reverse_complement_follows_the_alphabet():
    assert reverse_complement("AAcUN") == "NAgTT"
    assert reverse_complement("AAcTN", "rna") == "NAgUU"


@pytest.mark.parametrize("alphabet", [PROTEIN, BYTES])
def test_protein_and_bytes_have_no_complement(alphabet):
    with pytest.raises(AlphabetError, match="no complement"):
        reverse_complement("AC", alphabet)


def test_reverse_complement_refuses_what_is_not_in_the_alphabet():
    with pytest.raises(AlphabetError, match="position 2"):
        reverse_complement("A-C")


def test_soft_mask_marks_lower_case_letters_only():
    assert soft_mask(b"AcgT*n`{@[").tolist() == [False, True, True, False, False, True] + [False] * 4
