"""Distances to text and back; malformed text named by its line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import DataError, OutputExistsError
from hyena_glt.evolution.matrix import DistanceMatrix
from hyena_glt.evolution.matrix_files import is_matrix_file, read_distances, write_phylip, write_tsv

THREE = DistanceMatrix.of(["a", "b", "c"], [[0, 0.1, 1e-7], [0.1, 0, 2 / 3], [1e-7, 2 / 3, 0]])
names = st.lists(st.text("abcXYZ019_|/().'[]:;,-=", min_size=1, max_size=30), min_size=2, max_size=6, unique=True)


@st.composite
def matrices(draw):
    chosen = draw(names)
    size = len(chosen)
    half = np.zeros((size, size))
    count = size * (size - 1) // 2
    half[np.triu_indices(size, 1)] = draw(st.lists(st.floats(0, 1e6), min_size=count, max_size=count))
    return DistanceMatrix.of(chosen, half + half.T)


@given(matrices())
def test_phylip_round_trip(tmp_path_factory, matrix):
    path = tmp_path_factory.mktemp("phylip") / "d.phy"
    write_phylip(path, matrix)
    back = read_distances(path)
    assert back.names == matrix.names
    assert np.array_equal(back.values, matrix.values)


@pytest.mark.parametrize("name", ["d.tsv", "d.tsv.gz"])
def test_tsv_round_trip_with_comments(tmp_path, name):
    write_tsv(tmp_path / name, THREE, comments=b"##hyena_gltVersion=1\n")
    back = read_distances(tmp_path / name)
    assert back.names == THREE.names
    assert np.array_equal(back.values, THREE.values)


def test_strict_names_fill_ten_columns_and_may_not_collide(tmp_path):
    path = tmp_path / "d.phy"
    matrix = DistanceMatrix.of(["Homo_sapiens", "Mus"], [[0, 1], [1, 0]])
    write_phylip(path, matrix, strict=True)
    assert path.read_text().splitlines()[1:] == ["Homo_sapie 0.0 1.0", "Mus        1.0 0.0"]
    both = DistanceMatrix.of(["Homo_sapiens_1", "Homo_sapiens_2"], [[0, 1], [1, 0]])
    with pytest.raises(DataError, match=r"Homo_sapiens_1.*Homo_sapiens_2.*relaxed"):
        write_phylip(path, both, strict=True, overwrite=True)
    with pytest.raises(OutputExistsError):
        write_phylip(path, matrix)


def test_strict_names_with_blanks_lower_triangles_and_wrapped_rows(tmp_path):
    path = tmp_path / "d.phy"
    path.write_text("3\nHomo sap  0 1 2\nMus mus   1 0 3\nRattus    2 3 0\n")
    strict = read_distances(path)
    assert strict.names == ("Homo sap", "Mus mus", "Rattus")
    path.write_text("3\nA\nB 1\nC 2 3\n")
    assert np.array_equal(read_distances(path).values, strict.values)
    path.write_text("3\r\nA 0 1\r\n 2\r\nB 1 0 3\r\nC 2 3\r\n0\r\n")
    assert np.array_equal(read_distances(path).values, strict.values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line"),
        ("2\nA 0 1\n", r":2: expected 2 rows, the file ends after 1"),
        ("1\nA 0\n", "between 2 and"),
        ("2\nA 0 1\nB 1 0\nC 1 1\n", ":4: expected 2 rows, got more"),
        ("2\nA 0 x\nB 1 0\n", ":2: expected a number for 'A', got 'x'"),
        ("2\nA 0 1\nB 2 0\n", "same in both directions"),
        ("2\nA 0 nan\nB nan 0\n", "expected finite"),
        ("2\nA 0 -1\nB -1 0\n", "0 or more"),
        ("2\nA 1 1\nB 1 0\n", "between a name and itself"),
        ("2\nA 0 1\nA 1 0\n", "there twice"),
        ("2\nA 0 1 5\nB 1 0\n", "expected 2 numbers for 'A', got 3"),
        ("name\tA\tB\nA\t0\t1\n", "expected 2 rows under the names, got 1"),
        ("name\tA\tB\nA\t0\t1\nC\t1\t0\n", ":3: expected the row of 'B', got 'C'"),
        (">A\nACGT\n", "expected PHYLIP or a table"),
    ],
)
def test_malformed_text_is_named(tmp_path, text, message):
    path = tmp_path / "d.phy"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_distances(path)
    assert str(path) in str(caught.value)


def test_names_that_a_format_cannot_carry(tmp_path):
    values = [[0, 1], [1, 0]]
    for name in ("two words", "tab\tname", "line\nend", "\x1b[31m"):
        with pytest.raises(DataError, match="cannot stand in PHYLIP"):
            write_phylip(tmp_path / "d.phy", DistanceMatrix.of([name, "b"], values))
    for name in ("=cmd()", "+1", "-1", "@x", "tab\tname", "##x", " "):
        with pytest.raises(DataError, match="cannot stand in a table"):
            write_tsv(tmp_path / "d.tsv", DistanceMatrix.of([name, "b"], values))
    assert list(tmp_path.iterdir()) == []


def test_suffixes_of_matrices():
    assert [is_matrix_file(name) for name in ("d.phy", "d.tsv.gz", "x.fa", "-")] == [True, True, False, False]
