"""Dot-bracket text gives base pairs and patch lengths, or one clear error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import AlphabetError, AnnotationError, ConfigError
from hyena_glt.multimodal.dot_bracket import BRACKETS, base_pairs, read_dot_bracket, structure_patch_lengths


def stack_pairs(structure):
    """The definition: a stack for each kind of bracket."""
    partners, stacks = [-1] * len(structure), {opening: [] for opening, _ in BRACKETS}
    for place, symbol in enumerate(structure):
        for opening, closing in BRACKETS:
            if symbol == opening:
                stacks[opening].append(place)
            elif symbol == closing:
                partners[place] = stacks[opening].pop()
                partners[partners[place]] = place
    return partners


@st.composite
def structures(draw):
    """Balanced structures, pseudoknots included: nested texts of single kinds, merged at random."""
    nested = st.recursive(
        st.just(""), lambda inner: st.tuples(inner, inner).map(lambda ab: f"{ab[0]}({ab[1]})"), max_leaves=8
    )
    texts = [draw(nested).replace("(", opening).replace(")", closing) for opening, closing in BRACKETS]
    texts.append("." * draw(st.integers(0, 6)))
    order = draw(st.permutations([index for index, text in enumerate(texts) for _ in text]))
    rest = [iter(text) for text in texts]
    return "".join(next(rest[index]) for index in order)


@given(structures())
def test_pairs_against_a_stack(structure):
    assert base_pairs(structure).tolist() == stack_pairs(structure)


@given(structures(), st.integers(1, 5))
def test_patches_cover_the_structure_and_keep_the_cap(structure, cap):
    lengths = structure_patch_lengths(structure, cap)
    assert lengths.sum() == len(structure)
    assert ((lengths >= 1) & (lengths <= cap)).all()


@given(structures())
def test_a_patch_is_a_strand_of_one_stem_or_unpaired(structure):
    partners, end = base_pairs(structure), 0
    for length in structure_patch_lengths(structure).tolist():
        own = partners[end : end + length]
        assert (own == -1).all() or (np.diff(own) == -1).all()
        end += length


def test_a_bulge_ends_a_strand_on_both_sides():
    assert structure_patch_lengths("((.((...))))").tolist() == [2, 1, 2, 3, 2, 2]


def test_hyphens_are_unpaired_bases():
    assert base_pairs("(--)").tolist() == base_pairs("(..)").tolist()


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ("(()", r"'\(' at 1 is never closed"),
        ("(.[)", r"'\[' at 3 is never closed"),
        (".)", r"'\)' at 2 closes nothing"),
        ("(])", r"'\]' at 2 closes nothing"),
        ("(x)", "got 'x' at 2"),
        ("(é)", "expected ASCII"),
    ],
)
def test_an_unbalanced_structure_is_refused_with_its_place(structure, message):
    with pytest.raises(AnnotationError, match=message):
        base_pairs(structure)


def test_a_cap_below_one_is_refused():
    with pytest.raises(ConfigError, match="max_patch_length"):
        structure_patch_lengths("..", 0)


def test_a_file_may_hold_one_record_without_a_name(tmp_path):
    path = tmp_path / "one.db"
    path.write_text("GGAAACC\n((...)) (-1.20)\n")
    assert [(rna.name, rna.structure) for rna in read_dot_bracket(path)] == [("", "((...))")]


@pytest.mark.parametrize(
    ("text", "message", "error"),
    [
        ("", "the file is empty", AnnotationError),
        (">a\nGGAA\n", ":2: .*the file ends before", AnnotationError),
        (">a\n", ":1: .*the file ends before", AnnotationError),
        (">a\nGGAA\n((.)\n", ":3 .*never closed", AnnotationError),
        (">a\nGGAA\n(..)\n>b\nGGAA\n(.)\n", r":6 \(b\): structure: expected 4 symbols", AnnotationError),
        (">a\nGGAA\n(..)\nGGAA\n(..)\n", ":4: expected a line '>name'", AnnotationError),
        (">a\nGGXA\n(..)\n", ":3 .*position 3", AlphabetError),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path, text, message, error):
    path = tmp_path / "bad.db"
    path.write_text(text)
    with pytest.raises(error, match=message):
        list(read_dot_bracket(path))


def test_archive_of_rnas_is_read_whole(data):
    rnas = list(read_dot_bracket(data("protein_rna/archiveII_shared_families.db.gz")))
    assert len(rnas) == 2449
    assert sum(rna.structure.count("<") for rna in rnas) == 3097
    lengths = [structure_patch_lengths(rna.structure) for rna in rnas]
    assert [int(row.sum()) for row in lengths] == [len(rna.sequence) for rna in rnas]
    assert base_pairs(rnas[0].structure).tolist() == stack_pairs(rnas[0].structure)


@pytest.mark.parametrize(
    ("name", "length"), [("vienna_5domain16S_rRNA_E.coli.db", 530), ("vienna_TPP_riboswitch_E.coli.db", 79)]
)
def test_vienna_files_without_names_are_read(data, name, length):
    (rna,) = read_dot_bracket(data(f"protein_rna/{name}"))
    assert len(rna.sequence) == len(rna.structure) == length
