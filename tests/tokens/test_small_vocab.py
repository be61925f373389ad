"""Small vocabularies fold case, synonyms and ambiguity, and refuse the rest."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.errors import AlphabetError
from hyena_glt.tokens import ByteTokenizer, SmallVocabulary


def ids(alphabet: str, text: str) -> list[int]:
    return SmallVocabulary(alphabet).fold(ByteTokenizer().encode(text)[None])[0].tolist()


def test_letters_follow_the_specials_in_the_order_of_the_alphabet():
    assert ids("dna", "ACGT") == [4, 5, 6, 7]
    assert ids("protein", "ACDEFGHIKLMNPQRSTVWY") == list(range(4, 24))


def test_case_and_u_and_t_are_folded():
    assert ids("dna", "acgtu") == ids("rna", "ACGUT") == [4, 5, 6, 7, 7]


def test_every_ambiguous_symbol_has_the_last_id():
    assert set(ids("dna", "NRYSWKMBDHVnry")) == {8}
    assert set(ids("protein", "XBZ*")) == {24}
    assert (SmallVocabulary("dna").size, SmallVocabulary("protein").size) == (9, 25)


def test_specials_and_padding_stay():
    tokens = torch.tensor([[0, 1, 2, 3, -1]])
    assert SmallVocabulary("dna").fold(tokens).equal(tokens)


def test_a_foreign_symbol_is_refused_with_its_place():
    with pytest.raises(AlphabetError, match=r"row 1: symbol 'J' at position 3 is not in the dna alphabet"):
        SmallVocabulary("dna").fold(torch.stack([ByteTokenizer().encode(s) for s in ("ACG", "ACJ")]))
    with pytest.raises(AlphabetError, match="--degap"):
        ids("dna", "AC-G")


def test_unfold_gives_the_letters_back():
    vocabulary = SmallVocabulary("dna")
    tokens = ByteTokenizer().encode("ACGTN")[None]
    assert vocabulary.unfold(vocabulary.fold(tokens)).equal(tokens)
    assert ByteTokenizer().decode(SmallVocabulary("protein").unfold(torch.tensor([24]))) == "X"
