"""Rows in a folder: found again, bounded, never wrong, whoever else writes there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import SystemProblem
from hyena_glt.patching.cache_folder import CacheFolder, RowScores, _packed, _unpacked

ROW = RowScores(np.arange(50, dtype=np.float32), np.array([3, 7], np.int64))


def key_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def files_of(folder) -> list:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def same(row: RowScores | None, other: RowScores) -> bool:
    return row is not None and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(row, other, strict=True))


def test_a_row_is_found_again_by_another_cache(tmp_path):
    CacheFolder(tmp_path / "cache", 1 << 20).write(key_of(0), ROW)
    again = CacheFolder(tmp_path / "cache", 1 << 20)
    assert same(again.read(key_of(0), 50), ROW)
    assert again.read(key_of(0), 49) is None
    assert again.read(key_of(1), 50) is None
    again.clear()
    assert again.read(key_of(0), 50) is None
    assert again.bytes == 0


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_changed_byte_is_no_entry(place, change):
    content = bytearray(_packed(ROW))
    content[place % len(content)] ^= change
    row = _unpacked(bytes(content), 50)
    assert row is None or same(row, ROW)  # a space in the header may change without a meaning


@given(st.binary(max_size=300))
def test_other_files_are_no_entry(content):
    assert _unpacked(content, 50) is None


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_files_that_are_cut_short_are_no_entry_and_are_replaced(tmp_path, kept):
    folder = CacheFolder(tmp_path, 1 << 20)
    folder.write(key_of(0), ROW)
    (file,) = files_of(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    assert folder.read(key_of(0), 50) is None
    folder.write(key_of(0), ROW)
    assert same(folder.read(key_of(0), 50), ROW)


def test_the_folder_is_bounded_and_the_least_recently_used_go_first(tmp_path):
    size = len(_packed(ROW))
    folder = CacheFolder(tmp_path, 10 * size)
    for number in range(10):
        folder.write(key_of(number), ROW)
        os.utime(folder._file(key_of(number)), (1000 + number, 1000 + number))
    assert folder.bytes == 10 * size
    assert same(folder.read(key_of(0), 50), ROW)  # used just now
    folder.write(key_of(10), ROW)
    assert folder.bytes <= 10 * size
    kept = [number for number in range(11) if folder.read(key_of(number), 50) is not None]
    assert kept == [0, *range(4, 11)]  # 7/8 of the room


def test_a_row_larger_than_the_folder_is_not_written(tmp_path):
    CacheFolder(tmp_path, 100).write(key_of(0), ROW)
    assert not files_of(tmp_path)


def test_what_killed_writers_left_is_removed(tmp_path):
    folder = CacheFolder(tmp_path, 1 << 20)
    folder.write(key_of(0), ROW)
    leaving, fresh = (tmp_path / key_of(0)[:2] / f".{name}.safetensors.999999.tmp" for name in ("old", "new"))
    for path in (leaving, fresh):
        path.write_bytes(b"x")
    os.utime(leaving, (0, 0))
    CacheFolder(tmp_path, 1 << 20).write(key_of(1), ROW)
    assert not leaving.exists()
    assert fresh.exists()
    assert same(folder.read(key_of(0), 50), ROW)


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path, caplog):
    folder = CacheFolder(tmp_path / "cache", 1 << 20)
    (tmp_path / "cache" / key_of(0)[:2]).write_text("a file where a folder should be")
    folder.write(key_of(0), ROW)
    folder.write(key_of(0), ROW)
    assert len(caplog.records) == 1
    assert "going on without keeping scores" in caplog.text
    assert folder.read(key_of(0), 50) is None
    with pytest.raises(SystemProblem):
        CacheFolder(tmp_path / "cache" / key_of(0)[:2], 100)


WORKER = """
import hashlib, sys
import numpy as np
from hyena_glt.patching.cache_folder import CacheFolder, RowScores
folder, seed, max_bytes = CacheFolder(sys.argv[1], int(sys.argv[3])), int(sys.argv[2]), int(sys.argv[3])
found = 0
for step in range(200):
    number = (step * 7 + seed) % 40
    key = hashlib.sha256(str(number).encode()).hexdigest()
    row = folder.read(key, 100)
    if row is None:
        folder.write(key, RowScores(np.full(100, number, np.float32), np.array([number])))
    else:
        assert (row.scores == number).all() and row.forced.tolist() == [number]
        found += 1
    if step % 50 == 49 and seed == 0:
        folder.clear()
assert folder._has_failed is False
print(found)
"""


def test_processes_that_read_write_and_clear_at_once(tmp_path):
    command = [sys.executable, "-W", "error", "-c", WORKER, str(tmp_path)]
    workers = [
        subprocess.Popen([*command, str(seed), "12000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(4)
    ]
    ends = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, ends
    assert all(not err for _, err in ends)
    assert sum(int(out) for out, _ in ends) > 0
    assert not [path for path in files_of(tmp_path) if path.name.startswith(".")]
    assert CacheFolder(tmp_path, 12000).bytes <= 12000 * (1 + 4 / 16)
