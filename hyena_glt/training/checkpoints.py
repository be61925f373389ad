"""Checkpoints of a training run: a new directory each, whole under its final name or not there at all.

    .step-000000123.PID.tmp/ <- a safetensors file for each part, facts.json, manifest.json (sha256 of each) last
        -> fsync -> rename to step-000000123 -> fsync of the folder -> the oldest checkpoints removed

What a killed process has left behind has a hidden name and is removed by the next `save` or `tidy`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from hyena_glt.checks import parse_json
from hyena_glt.errors import ConfigError, DataError, ModelFileError, OutputExistsError, SystemProblem
from hyena_glt.model.weights import check_finite
from hyena_glt.sequences.atomic import atomic_write, make_folder, sha256_file, try_lock

FORMAT = "hyena-glt/checkpoint/1"
MANIFEST_FILE = "manifest.json"
FACTS_FILE = "facts.json"
SUFFIX = ".safetensors"
LARGEST_STEP = 10**15
STEP_NAME = re.compile(r"step-([0-9]{9,16})")
LEAVING_NAME = re.compile(r"\.step-[0-9]{9,16}\.[0-9]{1,10}\.(tmp|old)")
PART_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """One checkpoint whose files have the hashes of its manifest."""

    path: Path
    step: int  # updates made
    facts: dict[str, Any]  # JSON values
    files: dict[str, str] = field(repr=False)  # file name -> sha256

    @property
    def parts(self) -> list[str]:
        """Names that `tensors` takes, sorted."""
        return sorted(name.removesuffix(SUFFIX) for name in self.files if name.endswith(SUFFIX))

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The tensors of a part by name, on the CPU.

        Raises:
            ModelFileError: There is no such part, or its file cannot be read any more.
        """
        if part not in self.parts:
            raise ModelFileError(f"part: expected one of {', '.join(self.parts)}, got {part!r}", path=self.path)
        path = self.path / f"{part}{SUFFIX}"
        try:
            return safetensors.torch.load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"not a safetensors file: {error}", path=path) from None


class CheckpointFolder:
    """The checkpoints of one run, of which the newest `keep` sound ones stay.

    One process writes, on rank 0 where there are several; any number may read.

    Args:
        folder: Made by the first `save`.
        keep: Checkpoints that stay.

    Raises:
        ConfigError: `keep` is not a whole number above 0.

    Example:
        >>> import tempfile, torch
        >>> folder = CheckpointFolder(Path(tempfile.mkdtemp(), "checkpoints"))
        >>> folder.save(10, {"model": {"weight": torch.ones(2)}}, {"seed": 1}).step
        10
        >>> folder.newest().tensors("model")["weight"]
        tensor([1., 1.])
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3) -> None:
        if type(keep) is not int or keep < 1:
            raise ConfigError(f"keep: expected a whole number of at least 1, got {keep!r}")
        self.path = Path(folder)
        self.keep = keep
        self._sound: dict[int, tuple[object, ...]] = {}  # step -> sizes and times of its files when hashed last
        self._named: set[int] = set()  # damaged ones that a warning has named

    def save(self, step: int, parts: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> Checkpoint:
        """Write a checkpoint, then remove what `keep` does not cover.

        To save again what is saved already, the same tensors at the newest step, changes nothing.

        Args:
            step: Updates made, from 0.
            parts: Tensors by name, for each part (`model`, `optimizer`, `rng`, ...), on any device.
            facts: JSON values by name, without NaN or infinity.

        Returns:
            The checkpoint of that step.

        Raises:
            ModelFileError: A tensor holds NaN or infinity.
            ConfigError: A step, a name of a part or facts that cannot be saved.
            OutputExistsError: There is a later sound checkpoint, or one of this step with other tensors.
            SystemProblem: The disk is full, the folder read-only, ...
        """
        self._check_names(step, parts)
        make_folder(self.path)
        self._clear_leavings()
        last = self._newest(is_trusted=True)
        if last is not None and last.step > step:
            raise OutputExistsError(
                f"{self.path}: expected a step after {last.step}, which is saved already, got {step}; "
                "resume from the newest checkpoint or write into another folder"
            )
        with self._temporary(step) as temporary:
            saved = _write(temporary, step, parts, facts)
            if last is not None and last.step == step:
                return _same(last, saved)
            self._put_in_place(temporary, step)
        self._sound[step] = _signature(saved)
        self.tidy()
        return saved

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose files have the hashes of its manifest; None where there is none.

        A damaged one is passed over, with one warning that names it and what is wrong.
        """
        return self._newest()

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step, verified.

        Raises:
            ModelFileError: There is none, or it is damaged.
        """
        path = self.path / _name(step)
        try:
            return _read(path, step)
        except SystemProblem as problem:
            raise ModelFileError(str(problem), path=path) from None

    def steps(self) -> list[int]:
        """Steps that have a directory, damaged or not, ascending."""
        try:
            names = os.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise SystemProblem(f"{self.path}: cannot read: {error.strerror}") from error
        found = (match for match in map(STEP_NAME.fullmatch, names) if match)
        return sorted(int(match[1]) for match in found if _name(int(match[1])) == match[0])

    def tidy(self) -> None:
        """Remove leavings of killed writers, and all that is older than the newest `keep` sound checkpoints.

        What cannot be removed is named by a warning and stays.
        """
        self._clear_leavings()
        num_sound = 0
        for step in reversed(self.steps()):
            if num_sound < self.keep:
                num_sound += self._sound_or_none(step, is_trusted=True) is not None
            else:
                self._remove(step)

    def _newest(self, is_trusted: bool = False) -> Checkpoint | None:
        found = (self._sound_or_none(step, is_trusted) for step in reversed(self.steps()))
        return next((checkpoint for checkpoint in found if checkpoint is not None), None)

    def _sound_or_none(self, step: int, is_trusted: bool = False) -> Checkpoint | None:
        """A checkpoint if it is sound; a trusted one is not hashed again while sizes and times stay the same."""
        path = self.path / _name(step)
        try:
            checkpoint = _read(path, step, self._sound.get(step) if is_trusted else None)
            self._sound[step] = _signature(checkpoint)
        except (DataError, SystemProblem) as problem:
            if step not in self._named:
                self._named.add(step)
                logger.warning("damaged checkpoint %s is passed over: %s", path, problem)
            return None
        self._named.discard(step)
        return checkpoint

    def _check_names(self, step: int, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
        if type(step) is not int or not 0 <= step < LARGEST_STEP:
            raise ConfigError(f"step: expected a whole number from 0, got {step!r}")
        if not parts:
            raise ConfigError("parts: expected at least one part, got none")
        for part in parts:
            if not PART_NAME.fullmatch(part):
                raise ConfigError(f"parts: expected names of a-z, 0-9 and _, got {part!r}")

    @contextmanager
    def _temporary(self, step: int) -> Iterator[Path]:
        """A new hidden directory, locked for as long as this process lives, removed unless it got its name."""
        path = self._hidden(step, "tmp")
        with _faults_named(self.path):
            os.mkdir(path)
        try:
            with _locked(path):
                yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _put_in_place(self, temporary: Path, step: int) -> None:
        """Rename; what has the name already is damaged, since a sound one would have been found."""
        target = self.path / _name(step)
        with _faults_named(target):
            _fsync_folder(temporary)
            if os.path.lexists(target):
                os.rename(target, self._hidden(step, "old"))
            os.rename(temporary, target)
            _fsync_folder(self.path)

    def _remove(self, step: int) -> None:
        """Take the name away first, so that no half of a checkpoint is seen."""
        path, hidden = self.path / _name(step), self._hidden(step, "old")
        try:
            os.rename(path, hidden)
            _remove_tree(hidden)
        except OSError as error:
            logger.warning("old checkpoint %s cannot be removed: %s", path, error.strerror or error)
        self._sound.pop(step, None)

    def _clear_leavings(self) -> None:
        with suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                if LEAVING_NAME.fullmatch(entry.name):
                    _remove_unless_locked(Path(entry.path))

    def _hidden(self, step: int, suffix: str) -> Path:
        return self.path / f".{_name(step)}.{os.getpid()}.{suffix}"


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _write(folder: Path, step: int, parts: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> Checkpoint:
    """Write all files of a checkpoint, the manifest last."""
    target = folder.parent / _name(step)
    facts_text = _facts_text(facts)
    with _faults_named(target):
        for part, tensors in parts.items():
            plain = _plain(tensors)
            check_finite(plain, path=target / f"{part}{SUFFIX}")
            _write_file(folder / f"{part}{SUFFIX}", safetensors.torch.save(plain))
        _write_file(folder / FACTS_FILE, facts_text)
        names = [*(f"{part}{SUFFIX}" for part in parts), FACTS_FILE]
        files = {name: sha256_file(folder / name) for name in names}
        _write_file(folder / MANIFEST_FILE, _manifest_text(step, files))
    return Checkpoint(path=target, step=step, facts=json.loads(facts_text), files=files)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU that share no memory, as safetensors wants them."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        address = own.untyped_storage().data_ptr()
        plain[name] = own.clone() if address in seen else own
        seen.add(address)
    return plain


def _facts_text(facts: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(dict(facts), indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"facts: expected JSON values without NaN or infinity: {error}") from None


def _manifest_text(step: int, files: Mapping[str, str]) -> bytes:
    return (json.dumps({"format": FORMAT, "step": step, "files": dict(files)}, indent=2) + "\n").encode()


def _write_file(path: Path, content: bytes) -> None:
    with atomic_write(path) as handle:
        handle.write(content)


def _same(last: Checkpoint, saved: Checkpoint) -> Checkpoint:
    """The checkpoint that is there, if the one just written holds the same tensors."""
    if {**last.files, FACTS_FILE: ""} != {**saved.files, FACTS_FILE: ""}:
        raise OutputExistsError(f"{last.path}: exists already and holds other tensors; write into another folder")
    return last


def _read(path: Path, step: int, trusted: tuple[object, ...] | None = None) -> Checkpoint:
    """Read manifest and facts, and compare all hashes, or only sizes and times with the trusted ones."""
    manifest_path = path / MANIFEST_FILE
    content = _read_file(manifest_path)
    manifest = parse_json(content, path=manifest_path)
    if manifest.get("format") != FORMAT or manifest.get("step") != step:
        found = f"{manifest.get('format')!r} of step {manifest.get('step')!r}"
        raise ModelFileError(f"expected {FORMAT!r} of step {step}, got {found}", path=manifest_path)
    files = manifest.get("files")
    if not isinstance(files, dict) or FACTS_FILE not in files or len(files) < 2:
        raise ModelFileError(f"files: expected hashes of {FACTS_FILE} and of tensors", path=manifest_path)
    for name in files:
        if Path(name).name != name or not (path / name).is_file():
            raise ModelFileError(f"files: expected {name!r} beside the manifest", path=manifest_path)
    if content != _manifest_text(step, files):
        raise ModelFileError("expected the text that was saved; the file is damaged or was edited", path=manifest_path)
    checkpoint = Checkpoint(path=path, step=step, facts={}, files=files)
    if trusted is None or trusted != _signature(checkpoint):
        for name, digest in files.items():
            if sha256_file(path / name) != digest:
                raise ModelFileError("its sha256 differs from the manifest's; the file is damaged", path=path / name)
    checkpoint.facts.update(parse_json(_read_file(path / FACTS_FILE), path=path / FACTS_FILE))
    return checkpoint


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise ModelFileError("no such file: no checkpoint, or a damaged one", path=path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read: {error.strerror}", path=path) from None


def _signature(checkpoint: Checkpoint) -> tuple[object, ...]:
    """Hashes, sizes and times of all files: the same while nobody has touched them."""
    try:
        status = [os.stat(checkpoint.path / name) for name in sorted(checkpoint.files)]
    except OSError as error:
        raise SystemProblem(f"{checkpoint.path}: cannot read: {error.strerror}") from error
    return (*sorted(checkpoint.files.items()), *((item.st_size, item.st_mtime_ns) for item in status))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a directory, which ends with the process at the latest."""
    with _faults_named(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _remove_unless_locked(path: Path) -> None:
    """Remove a leaving; a lock on it says that its writer lives."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if try_lock(descriptor):
                _remove_tree(path)
        finally:
            os.close(descriptor)


def _remove_tree(path: Path) -> None:
    """Remove a directory with all it holds, or a file in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _faults_named(place: Path) -> Iterator[None]:
    """Turn a bare `OSError` into a `SystemProblem` that names the place."""
    try:
        yield
    except (SystemProblem, OutputExistsError):
        raise
    except OSError as error:
        raise SystemProblem(f"{place}: cannot write: {error.strerror or error}") from error
