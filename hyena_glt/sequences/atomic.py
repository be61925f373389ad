"""Files that appear under their final name whole or not at all: the one writer behind every output.

open .NAME.PID.tmp beside the target -> write -> flush, fsync -> rename -> fsync of the folder
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from hyena_glt.errors import DataError, OutputExistsError, SystemProblem
from hyena_glt.sequences.bgzf import BgzfWriter

STDOUT = "-"
WRITE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG}
NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb", *, overwrite: bool = False) -> Iterator[IO[Any]]:
    """Write a file that gets its name only when it is complete and on the disk.

    Until then its bytes are in `.NAME.PID.tmp` in the same folder; any exception removes that file, and what
    a killed process has left of it is cleared by the next writer of the same target. `-` is standard output.
    A target that is no regular file (a pipe, `/dev/null`) is written directly.

    Args:
        path: Target, or `-`.
        mode: `"wb"`, or `"w"` for UTF-8 text.
        overwrite: Replace an existing target.

    Yields:
        An open handle.

    Raises:
        OutputExistsError: The target exists, at the start or when it would get its name.
        SystemProblem: The disk is full, the folder read-only, ...; the message names the target.
        BrokenPipeError: The reader of a pipe has gone.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise SystemProblem("cannot write: the file name holds a zero byte")
    if name == STDOUT:
        writer = _write_stdout(mode)
    elif _is_special(name):
        writer = _write_directly(name, mode)
    else:
        writer = _write_beside(name, mode, overwrite)
    with writer as handle:
        yield handle


@contextmanager
def open_output(path: str | os.PathLike[str], *, overwrite: bool = False, binary: bool = True) -> Iterator[IO[Any]]:
    """Open an output by its name: as `atomic_write`, and `.gz` or `.bgz` is written as BGZF.

    Args:
        path: Target, or `-` for standard output.
        overwrite: Replace an existing target.
        binary: Yield a handle for `bytes`; else for UTF-8 `str`.
    """
    compressed = os.fspath(path).endswith((".gz", ".bgz"))
    mode = "wb" if binary or compressed else "w"
    with atomic_write(path, mode, overwrite=overwrite) as handle:
        if compressed:
            with BgzfWriter(handle) as writer:
                yield cast(IO[Any], writer if binary else writer.text())
        else:
            yield handle


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether an output has no file to come back to: standard output, a pipe, `/dev/null`."""
    name = os.fspath(path)
    return name == STDOUT or _is_special(name)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder, and those above it, unless it is there.

    Raises:
        SystemProblem: It cannot be made, or its name belongs to a file.
    """
    folder = Path(path)
    with _faults_named(os.fspath(path)):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """As `atomic_write`, for a library that writes by name: yields the name of the temporary file.

    The library has to write into that file, not to put another one in its place.

    Raises:
        OutputExistsError: The target exists.
        SystemProblem: The disk is full, the folder read-only, or the target is standard output or no regular file.
    """
    name = os.fspath(path)
    if name == STDOUT or _is_special(name):
        raise SystemProblem(f"{name}: cannot write: this format is written by seeking, so it needs a regular file")
    with _temporary_beside(name, overwrite) as (temporary, _), _faults_named(name, WRITE_FAULTS):
        yield temporary


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hash a file: 64 hexadecimal digits.

    Raises:
        DataError: No such file.
        SystemProblem: It cannot be read.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError("no such file", path=name) from None
    except IsADirectoryError:
        raise DataError("is a directory, expected a file", path=name) from None
    except OSError as error:
        raise SystemProblem(f"{name}: cannot read: {error.strerror}") from error


@contextmanager
def _write_stdout(mode: str) -> Iterator[IO[Any]]:
    if sys.stdout is None:
        raise SystemProblem("<stdout>: standard output is closed")
    handle: IO[Any] = sys.stdout.buffer if "b" in mode else sys.stdout
    with _faults_named("<stdout>", WRITE_FAULTS):
        yield handle
    with _faults_named("<stdout>"):
        handle.flush()


@contextmanager
def _write_directly(name: str, mode: str) -> Iterator[IO[Any]]:
    with _faults_named(name):
        handle = _open(name, mode)
    with _faults_named(name, WRITE_FAULTS), handle:
        yield handle


@contextmanager
def _write_beside(name: str, mode: str, overwrite: bool) -> Iterator[IO[Any]]:
    with _temporary_beside(name, overwrite) as (_, descriptor):
        with _faults_named(name):
            handle = _open(descriptor, mode)
        with _faults_named(name, WRITE_FAULTS), handle:
            yield handle


@contextmanager
def _temporary_beside(name: str, overwrite: bool) -> Iterator[tuple[Path, int]]:
    """A locked temporary file, by path and descriptor, that gets its name when the block ends well."""
    target = Path(os.path.realpath(name))
    _refuse_existing(name, target, overwrite)
    with _faults_named(name):
        _clear_leavings(target)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        descriptor = _create_locked(temporary, target)
    try:
        yield temporary, descriptor
        with _faults_named(name):
            os.fsync(descriptor)
            _give_name(temporary, target, name, overwrite)
            _fsync_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        os.close(descriptor)


def _open(file: str | int, mode: str) -> IO[Any]:
    """Open a name, or a descriptor that stays open when the handle is closed."""
    is_name = isinstance(file, str)
    if "b" in mode:
        return open(file, mode, closefd=is_name)
    return open(file, mode, encoding="utf-8", newline="\n", closefd=is_name)


def _is_special(name: str) -> bool:
    """True for what is there and is neither a file nor a directory: pipes, terminals, `/dev/null`."""
    try:
        kind = os.stat(name).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(kind) and not stat.S_ISDIR(kind)


def _refuse_existing(name: str, target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise SystemProblem(f"{name}: cannot write: is a directory")
    if not overwrite and target.exists():
        raise OutputExistsError(f"{name}: exists already; give --force to replace it")


def _create_locked(temporary: Path, target: Path) -> int:
    """Create the temporary file, empty, and lock it for as long as this process lives."""
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        if not try_lock(descriptor):
            raise SystemProblem(f"{target}: is being written by this process already")
        os.ftruncate(descriptor, 0)
        with suppress(FileNotFoundError):
            os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def sole_process(folder: Path, lock_file: str | None = None) -> Iterator[None]:
    """Work on a folder alone: hold its lock, or that of a file in it, which ends with the process at the latest.

    Raises:
        SystemProblem: Another process works there, or the folder cannot be opened.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY if lock_file is None else os.O_RDWR | os.O_CREAT
    try:
        descriptor = os.open(folder / (lock_file or "."), flags | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        raise SystemProblem(f"{folder}: cannot write: {problem.strerror}") from problem
    try:
        if not try_lock(descriptor):
            raise SystemProblem(f"{folder}: another process works on this output; wait for it or end it")
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Take the file's lock without waiting; True as well where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _clear_leavings(target: Path) -> None:
    """Remove temporary files of the same target whose writer was killed."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"(\d{1,10})\.tmp")
    for entry in os.scandir(target.parent):
        match = pattern.fullmatch(entry.name)
        if match and not _is_alive(int(match[1])):
            _remove_unless_locked(entry.path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove_unless_locked(path: str) -> None:
    """Remove a leaving; a lock on it says that its writer lives in another container or namespace."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if try_lock(descriptor):
                os.unlink(path)
        finally:
            os.close(descriptor)


def _give_name(temporary: Path, target: Path, name: str, overwrite: bool) -> None:
    """Rename; without `overwrite`, by a hard link, which never replaces what another process put there."""
    if not overwrite:
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise OutputExistsError(f"{name}: was written by another process meanwhile") from None
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
        else:
            return
    os.replace(temporary, target)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _faults_named(name: str, numbers: set[int] | None = None) -> Iterator[None]:
    """Turn an `OSError` (of these numbers, if given) into a `SystemProblem` that names the target."""
    try:
        yield
    except (BrokenPipeError, SystemProblem, OutputExistsError):
        raise
    except OSError as error:
        if numbers is not None and error.errno not in numbers:
            raise
        raise SystemProblem(f"{name}: cannot write: {error.strerror or error}") from error
