"""Pieces of a run that was cut: taken up, made again where damaged, never taken for those of another run."""

from __future__ import annotations

import pytest

from hyena_glt.cli.parts import clear_leavings, open_parts, parts_folder
from hyena_glt.errors import DataError, OutputExistsError, SystemProblem

RUN = {"input": "ab", "window": 64}


@pytest.fixture
def folder(tmp_path):
    return parts_folder(tmp_path / "out.tsv")


def put_and_stop(folder, pieces, problem, run=RUN):
    with open_parts(folder, run, force=False) as parts:
        for key, content in pieces:
            parts.put(key, content)
        raise problem


def interrupted(folder, pieces=(("00", b"first"), ("01", b"second")), run=RUN):
    with pytest.raises(KeyboardInterrupt):
        put_and_stop(folder, pieces, KeyboardInterrupt(), run)


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    pieces = open_parts(tmp_path / "absent" / "o.tsv.parts", {}, force=False)
    with pytest.raises(SystemProblem, match="absent: cannot write: no such folder"), pieces:
        pass
    assert not (tmp_path / "absent").exists()


def test_what_is_finished_is_found_again_and_goes_at_the_end(folder):
    interrupted(folder)
    with open_parts(folder, RUN, force=False) as parts:
        assert (len(parts), parts.find("00"), parts.find("01"), parts.find("02")) == (2, b"first", b"second", None)
    assert not folder.exists()


def test_a_damaged_piece_is_removed(folder):
    interrupted(folder)
    next(folder.glob("00-*")).write_bytes(b"fir")
    with open_parts(folder, RUN, force=False) as parts:
        assert parts.find("00") is None
        assert len(parts) == 1


def test_pieces_of_another_run_are_refused_by_the_first_difference(folder):
    interrupted(folder)
    with (
        pytest.raises(OutputExistsError, match="whose window was 64, now 32"),
        open_parts(folder, {**RUN, "window": 32}, force=False),
    ):
        pass
    with open_parts(folder, {**RUN, "window": 32}, force=True) as parts:
        assert len(parts) == 0


@pytest.mark.parametrize(("problem", "stays"), [(DataError("bad"), False), (SystemProblem("full"), True)])
def test_bad_input_clears_the_folder_and_a_full_disk_does_not(folder, problem, stays):
    with pytest.raises(type(problem)):
        put_and_stop(folder, [("00", b"first")], problem)
    assert folder.exists() is stays


def test_nothing_finished_leaves_no_folder(folder):
    interrupted(folder, pieces=())
    assert not folder.exists()


def test_files_of_others_stay(folder):
    interrupted(folder)
    (folder / "mine.txt").write_text("x")
    with open_parts(folder, RUN, force=False):
        pass
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_two_runs_do_not_share_a_folder(folder):
    with (
        open_parts(folder, RUN, force=False),
        pytest.raises(SystemProblem, match="another process"),
        open_parts(folder, RUN, force=False),
    ):
        pass


def test_leavings_of_a_run_killed_at_its_end_are_cleared(folder, tmp_path):
    interrupted(folder)
    clear_leavings(tmp_path / "out.tsv")
    assert not folder.exists()
