from __future__ import annotations

import errno
import gzip
import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from hyena_glt.errors import DataError, OutputExistsError, SystemProblem
from hyena_glt.sequences import atomic
from hyena_glt.sequences.atomic import atomic_path, atomic_write, make_folder, open_output, sha256_file


def write(path, *pieces: bytes, then=None, **options) -> None:
    """Write the pieces, then call `then` while the file is still open."""
    with atomic_write(path, **options) as handle:
        for piece in pieces:
            handle.write(piece)
        if then is not None:
            then()


def raiser(exception):
    def call():
        raise exception

    return call


def test_the_name_appears_only_when_all_is_written(tmp_path):
    path = tmp_path / "out"
    with atomic_write(path) as handle:
        handle.write(b"half")
        handle.flush()
        assert not path.exists()
        assert [entry.name for entry in tmp_path.iterdir()] == [f".out.{os.getpid()}.tmp"]
        handle.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_with_plain_newlines(tmp_path):
    with atomic_write(tmp_path / "out", "w") as handle:
        handle.write("é\n")
    assert (tmp_path / "out").read_bytes() == b"\xc3\xa9\n"


def test_an_existing_file_is_kept_unless_overwriting_was_asked_for(tmp_path):
    path = tmp_path / "out"
    write(path, b"old")
    with pytest.raises(OutputExistsError, match="out: exists already; give --force"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    write(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"


def test_permissions_follow_the_umask_and_the_file_that_is_replaced(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "out", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640
    (tmp_path / "out").chmod(0o604)
    write(tmp_path / "out", b"y", overwrite=True)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o604


@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt, BrokenPipeError])
def test_any_exception_leaves_the_old_file_and_nothing_else(tmp_path, exception):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(exception):
        write(path, b"new", then=raiser(exception), overwrite=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


class FullDisk:
    """A handle whose n-th write fails."""

    def __init__(self, handle, number: int, good_writes: int) -> None:
        self._handle, self._number, self._left = handle, number, good_writes

    def write(self, data):
        self._left -= 1
        if self._left < 0:
            raise OSError(self._number, os.strerror(self._number))
        return self._handle.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._handle.close()


def fail(number: int):
    def call(*args, **options):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("site", ["write 0", "write 1", "fsync", "rename", "open"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_fault_at_any_step_names_the_target_and_leaves_the_old_state(tmp_path, monkeypatch, number, site, overwrite):
    path = tmp_path / "out"
    if overwrite:
        path.write_bytes(b"old")
    real_open = atomic._open
    if site.startswith("write"):
        writes = int(site[-1])
        monkeypatch.setattr(atomic, "_open", lambda *a: FullDisk(real_open(*a), number, writes))
    elif site == "open":
        monkeypatch.setattr(atomic, "_open", fail(number))
    else:
        name = "fsync" if site == "fsync" else "replace" if overwrite else "link"
        monkeypatch.setattr(os, name, fail(number))
    with pytest.raises(SystemProblem, match=f"out: cannot write: {os.strerror(number)}") as caught:
        write(path, b"new", b"new", overwrite=overwrite)
    assert caught.value.exit_code == 3
    monkeypatch.undo()
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == (
        [("out", b"old")] if overwrite else []
    )


def test_a_fault_when_the_folder_is_synced_leaves_the_whole_new_file(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_fsync_folder", fail(errno.EIO))
    with pytest.raises(SystemProblem, match="Input/output error"):
        write(tmp_path / "out", b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("out", b"new")]


def test_a_full_device_is_a_problem_of_the_system():
    with pytest.raises(SystemProblem, match="/dev/full: cannot write: No space left on device"):
        write("/dev/full", b"x")
    with pytest.raises(SystemProblem, match="/dev/full: cannot write: No space left on device"):
        write("/dev/full", bytes(1 << 20))


def test_a_special_file_is_written_and_stays(tmp_path):
    write("/dev/null", b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    reader.start()
    write(fifo, b"through")
    reader.join()
    assert found == [b"through"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_an_error_of_another_file_keeps_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        write(tmp_path / "out", then=(tmp_path / "missing").read_bytes)
    assert list(tmp_path.iterdir()) == []


def test_folders_and_bad_names_are_refused(tmp_path):
    with pytest.raises(SystemProblem, match="is a directory"):
        write(tmp_path, b"x")
    with pytest.raises(SystemProblem, match=r"missing/out: cannot write: No such file"):
        write(tmp_path / "missing" / "out", b"x")
    with pytest.raises(SystemProblem, match="zero byte"):
        write("a\0b", b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_problem_of_the_system(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(SystemProblem, match="out: cannot write: Permission denied"):
            write(tmp_path / "out", b"x")
    finally:
        tmp_path.chmod(0o755)


def test_a_link_keeps_pointing_to_the_file_that_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("folder/real")
    write(tmp_path / "link", b"new", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "real").read_bytes() == b"new"


def test_a_link_in_place_of_the_temporary_file_is_never_followed(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / f".out.{os.getpid()}.tmp").symlink_to("precious")
    with pytest.raises(SystemProblem, match="out: cannot write"):
        write(tmp_path / "out", b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_without_hard_links_the_file_is_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", fail(errno.EPERM))
    write(tmp_path / "out", b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("out", b"new")]


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(OutputExistsError, match="written by another process"):
        write(path, b"mine", then=lambda: path.write_bytes(b"theirs"))
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("out", b"theirs")]


def dead_pid() -> int:
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


def test_leavings_of_dead_writers_of_the_same_target_are_cleared(tmp_path):
    dead = dead_pid()
    gone = [f".out.{dead}.tmp", f".out.{os.getpid()}.tmp"]
    kept = [f".other.{dead}.tmp", ".out.x.tmp", f".out.{os.getppid()}.tmp"]
    for name in gone + kept:
        (tmp_path / name).write_bytes(b"half of something longer than the new content")
    write(tmp_path / "out", b"new")
    assert {entry.name for entry in tmp_path.iterdir()} == {"out", *kept}
    assert (tmp_path / "out").read_bytes() == b"new"


def test_a_temporary_file_that_is_being_written_is_never_cleared(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_is_alive", lambda pid: False)  # as seen from another container
    path = tmp_path / "out"
    with atomic_write(path) as handle:
        handle.write(b"mine")
        atomic._clear_leavings(path)
        assert len(list(tmp_path.iterdir())) == 1
        with pytest.raises(SystemProblem, match="is being written by this process already"):
            write(path, b"again")
    assert path.read_bytes() == b"mine"


KILLED = """
import sys, time
from hyena_glt.sequences.atomic import atomic_write
with atomic_write(sys.argv[1], overwrite=True) as handle:
    handle.write(b"half")
    handle.flush()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_clears_up(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert path.read_bytes() == b"old"
    assert (tmp_path / f".out.{writer.pid}.tmp").read_bytes() == b"half"
    write(path, b"new", overwrite=True)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("out", b"new")]


RIVAL = """
import sys
from hyena_glt.errors import OutputExistsError
from hyena_glt.sequences.atomic import atomic_write
mine = sys.argv[2].encode() * 100_000
for turn in range(int(sys.argv[4])):
    try:
        with atomic_write(sys.argv[1], overwrite=sys.argv[3] == "True") as handle:
            for start in range(0, len(mine), 9999):
                handle.write(mine[start : start + 9999])
        print("written")
    except OutputExistsError:
        print("exists")
"""


def rivals(path, overwrite: bool, turns: int) -> list[str]:
    command = [sys.executable, "-c", RIVAL, str(path)]
    started = [
        subprocess.Popen([*command, letter, str(overwrite), str(turns)], stdout=subprocess.PIPE, text=True)
        for letter in "ab"
    ]
    seen = set()
    while any(process.poll() is None for process in started):
        if path.exists():
            seen.add(path.read_bytes())
        time.sleep(0.001)
    assert seen | {path.read_bytes()} <= {b"a" * 100_000, b"b" * 100_000}
    return [word for process in started for word in process.communicate()[0].split()]


def test_two_processes_with_the_same_target_leave_one_whole_file_at_every_moment(tmp_path):
    assert rivals(tmp_path / "out", overwrite=True, turns=30) == ["written"] * 60
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_of_two_processes_without_overwriting_exactly_one_writes(tmp_path):
    for turn in range(3):
        words = rivals(tmp_path / f"out{turn}", overwrite=False, turns=1)
        assert sorted(words) == ["exists", "written"]


def test_standard_output_is_written_as_it_is(capfdbinary):
    write("-", b"\x00\xff")
    with atomic_write("-", "w") as handle:
        handle.write("é\n")
    with open_output("-", binary=False) as handle:
        handle.write("text\n")
    assert capfdbinary.readouterr().out == b"\x00\xff\xc3\xa9\ntext\n"


def test_standard_output_faults_are_told_apart():
    program = (
        "import sys\n"
        "from hyena_glt.errors import SystemProblem\n"
        "from hyena_glt.sequences.atomic import atomic_write\n"
        "try:\n"
        "    with atomic_write('-') as handle:\n"
        "        for _ in range(100): handle.write(bytes(10_000))\n"
        "except (SystemProblem, BrokenPipeError) as error:\n"
        "    print(type(error).__name__, error, file=sys.stderr)\n"
        "    import os; os._exit(0)\n"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, check=True)
    assert done.stderr == b"SystemProblem <stdout>: cannot write: No space left on device\n"
    gone = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert gone.stdout is not None
    assert gone.stderr is not None
    gone.stdout.close()
    assert gone.stderr.read().startswith(b"BrokenPipeError")
    gone.stderr.close()
    gone.wait()


@pytest.mark.parametrize("name", ["x.gz", "x.bed.bgz"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_names_are_written_as_bgzf(tmp_path, name, binary):
    with open_output(tmp_path / name, binary=binary) as handle:
        handle.write(b"chr1\t0\n" if binary else "chr1\t0\n")
    assert (tmp_path / name).read_bytes()[:4] == b"\x1f\x8b\x08\x04"
    assert gzip.decompress((tmp_path / name).read_bytes()) == b"chr1\t0\n"


def test_other_names_are_written_plain(tmp_path):
    with open_output(tmp_path / "x.bed", binary=False) as handle:
        handle.write("chr1\n")
    assert (tmp_path / "x.bed").read_bytes() == b"chr1\n"


def test_a_failed_compressed_output_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), open_output(tmp_path / "x.gz", binary=False) as handle:
        handle.write({}["missing"])
    assert list(tmp_path.iterdir()) == []


def test_sha256_is_of_the_files_bytes(tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "x").write_bytes(content)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()
    with pytest.raises(DataError, match="missing: no such file"):
        sha256_file(tmp_path / "missing")
    with pytest.raises(DataError, match="is a directory"):
        sha256_file(tmp_path)


def test_folders_are_made_and_faults_named(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SystemProblem, match="file/c: cannot write"):
        make_folder(tmp_path / "file" / "c")


def test_a_library_that_writes_by_name_is_atomic_too(tmp_path):
    target = tmp_path / "x.bin"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"abc")
        assert not target.exists()
    assert target.read_bytes() == b"abc"
    with suppress(RuntimeError), atomic_path(target, overwrite=True) as temporary:
        temporary.write_bytes(b"def")
        raise RuntimeError
    assert target.read_bytes() == b"abc"
    assert os.listdir(tmp_path) == ["x.bin"]
    with pytest.raises(SystemProblem, match="needs a regular file"), atomic_path("-"):
        pass
