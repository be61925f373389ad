"""Checkpoints: at every instant the old one or the whole new one, and no damaged one believed.

Run as a script, this file is the process whose children are ended in the middle of a save.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, HyenaGLTError, ModelFileError, OutputExistsError, SystemProblem
from hyena_glt.sequences import atomic
from hyena_glt.training.checkpoints import CheckpointFolder

FAULT_SITES = ("open", "fsync", "link", "rename", "replace", "mkdir", "unlink", "rmdir")
KILLED = 77
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


def parts_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "model": {"a.weight": torch.full((3, 2), float(step)), "a.bias": torch.arange(3) + 0.5},
        "optimizer": {"a.weight:exp_avg": torch.full((3, 2), -float(step)), "a.weight:step": torch.tensor(step)},
        "rng": {"torch": torch.arange(16, dtype=torch.uint8)},
    }


def facts_of(step: int) -> dict[str, object]:
    return {"seed": 7, "loader": {"epoch": 1, "index": step}, "rates": [1e-3, 0.1], "note": "ΔE"}


def save(folder: CheckpointFolder, step: int):
    return folder.save(step, parts_of(step), facts_of(step))


def assert_is(checkpoint, step: int) -> None:
    """Every byte of what `save` wrote is there."""
    assert checkpoint.step == step
    assert checkpoint.facts == facts_of(step)
    assert checkpoint.parts == sorted(parts_of(step))
    for part, tensors in parts_of(step).items():
        found = checkpoint.tensors(part)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def hidden(folder: CheckpointFolder) -> list[str]:
    return [name for name in os.listdir(folder.path) if name.startswith(".")]


@contextmanager
def counted_operations(act: Callable[[int, str], None]) -> Iterator[list[str]]:
    """Call `act(number, name)` before each operation on the disk, and after the first half of each write."""
    log: list[str] = []

    def reach(name: str) -> None:
        log.append(name)
        act(len(log), name)

    def wrapped(name: str, real: Callable) -> Callable:
        def call(*args, **options):
            reach(f"{name} {args[0]}")
            return real(*args, **options)

        return call

    class Handle:
        def __init__(self, handle) -> None:
            self.handle = handle

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None:
            self.handle.close()

        def write(self, content: bytes) -> None:
            self.handle.write(content[: len(content) // 2])
            self.handle.flush()
            reach("write")
            self.handle.write(content[len(content) // 2 :])

    def open_counted(*args, **options):
        return Handle(open(*args, **options)) if "w" in args[1] else open(*args, **options)

    patches = [mock.patch.object(os, name, wrapped(name, getattr(os, name))) for name in FAULT_SITES]
    patches.append(mock.patch.object(atomic, "open", open_counted, create=True))
    for patch in patches:
        patch.start()
    try:
        yield log
    finally:
        for patch in patches:
            patch.stop()


def outcome_of(act: Callable[[], object]) -> str:
    """`"saved"`, or the one line of the problem."""
    try:
        act()
    except SystemProblem as problem:
        return str(problem)
    return "saved"


@pytest.fixture
def folder(tmp_path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


# ---- what is saved comes back --------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_bit_by_bit(folder):
    assert folder.newest() is None
    assert folder.steps() == []
    assert_is(save(folder, 123), 123)
    assert_is(folder.newest(), 123)
    assert_is(CheckpointFolder(folder.path).at(123), 123)


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    step=st.integers(0, 10**14),
)
def test_any_shape_and_dtype_comes_back(tmp_path_factory, shapes, dtype, step):
    folder = CheckpointFolder(tmp_path_factory.mktemp("any"))
    tensors = {f"t{n}": torch.rand(shape).mul(9).to(dtype) for n, shape in enumerate(shapes)}
    folder.save(step, {"model": tensors}, {})
    found = folder.newest().tensors("model")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == dtype for name in tensors)


def test_only_safetensors_and_json_are_written(folder):
    save(folder, 5)
    names = sorted(path.name for path in (folder.path / "step-000000005").iterdir())
    assert names == ["facts.json", "manifest.json", "model.safetensors", "optimizer.safetensors", "rng.safetensors"]
    assert os.listdir(folder.path) == ["step-000000005"]


def test_views_and_shared_memory_are_saved_as_plain_tensors(folder):
    weight = torch.arange(12.0).view(3, 4)
    folder.save(1, {"model": {"a": weight, "b": weight, "t": weight.T, "row": weight[1]}}, {})
    found = folder.newest().tensors("model")
    assert torch.equal(found["b"], weight)
    assert torch.equal(found["t"], weight.T)
    assert torch.equal(found["row"], weight[1])


def test_parameters_that_want_gradients_are_saved(folder):
    net = torch.nn.Linear(2, 1)
    folder.save(1, {"model": dict(net.named_parameters())}, {})
    assert torch.equal(folder.newest().tensors("model")["weight"], net.weight)


def test_an_unknown_part_is_named(folder):
    with pytest.raises(ModelFileError, match="part: expected one of model, optimizer, rng, got 'ema'"):
        save(folder, 1).tensors("ema")


def test_a_step_that_is_not_there_is_named(folder):
    save(folder, 1)
    with pytest.raises(ModelFileError, match="step-000000002"):
        folder.at(2)


def test_other_files_in_the_folder_are_left_alone(folder):
    folder.path.mkdir()
    names = ["notes.txt", "step-12", "step-0000000012", ".hidden", "step-000000001.bak"]
    for name in names:
        (folder.path / name).write_text("mine")
    for step in range(1, 6):
        save(folder, step)
    assert folder.steps() == [3, 4, 5]
    assert all((folder.path / name).read_text() == "mine" for name in names)


# ---- which ones stay -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_ones_stay(tmp_path, keep):
    folder = CheckpointFolder(tmp_path, keep)
    for step in range(10, 60, 10):
        save(folder, step)
    assert folder.steps() == list(range(10, 60, 10))[-keep:]
    assert not hidden(folder)


def test_the_only_sound_one_is_never_removed(tmp_path, caplog):
    for step in (1, 2, 3):
        save(CheckpointFolder(tmp_path), step)
    for step in (2, 3):
        (tmp_path / f"step-{step:09d}" / "model.safetensors").write_bytes(b"")
    folder = CheckpointFolder(tmp_path, keep=1)
    folder.tidy()
    assert folder.steps() == [1, 2, 3]
    assert_is(folder.newest(), 1)
    save(folder, 4)
    assert folder.steps() == [4]


def test_damaged_ones_do_not_count_among_those_that_stay(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    save(folder, 1)
    save(folder, 2)
    (tmp_path / "step-000000002" / "rng.safetensors").unlink()
    save(folder, 3)
    assert folder.steps() == [1, 2, 3]
    save(folder, 4)
    assert folder.steps() == [3, 4]


def test_what_cannot_be_removed_stays_with_a_warning(tmp_path, caplog, monkeypatch):
    folder = CheckpointFolder(tmp_path, keep=1)
    save(folder, 1)
    real = os.rename

    def rename(source, target):
        if str(target).endswith(".old"):
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    assert_is(save(folder, 2), 2)
    assert "step-000000001 cannot be removed: Input/output error" in caplog.text


# ---- saving again, and what is refused -----------------------------------------------------------------------------


def test_saving_the_same_again_changes_nothing(folder):
    first = save(folder, 5)
    before = {path.name: path.stat().st_mtime_ns for path in first.path.iterdir()}
    again = folder.save(5, parts_of(5), {**facts_of(5), "seconds": 3.0})
    assert_is(again, 5)
    assert before == {path.name: path.stat().st_mtime_ns for path in first.path.iterdir()}
    assert not hidden(folder)


def test_other_tensors_at_a_saved_step_are_refused(folder):
    save(folder, 5)
    with pytest.raises(OutputExistsError, match="step-000000005: exists already and holds other tensors"):
        folder.save(5, parts_of(6), facts_of(5))
    assert_is(folder.newest(), 5)
    assert not hidden(folder)


def test_an_earlier_step_than_the_newest_is_refused(folder):
    save(folder, 5)
    with pytest.raises(OutputExistsError, match="expected a step after 5, which is saved already, got 4"):
        save(folder, 4)


def test_a_damaged_one_of_the_same_step_is_replaced(folder, caplog):
    save(folder, 1)
    save(folder, 2)
    (folder.path / "step-000000002" / "facts.json").write_text("{}")
    again = CheckpointFolder(folder.path)
    assert_is(save(again, 2), 2)
    assert_is(again.newest(), 2)
    assert not hidden(folder)


def test_a_file_that_has_the_name_is_replaced(folder):
    folder.path.mkdir()
    (folder.path / "step-000000002").write_text("no directory")
    assert folder.newest() is None
    assert_is(save(folder, 2), 2)
    assert os.listdir(folder.path) == ["step-000000002"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_tensors_that_are_not_finite_are_refused(folder, part, bad):
    save(folder, 1)
    parts = parts_of(2)
    next(iter(parts[part].values()))[0, 0] = bad
    with pytest.raises(ModelFileError, match=f"{part}.safetensors: tensor .*: expected finite"):
        folder.save(2, parts, {})
    assert_is(folder.newest(), 1)
    assert not hidden(folder)


@pytest.mark.parametrize("facts", [{"x": float("nan")}, {"x": {1, 2}}, {"x": b"y"}, {"x": float("inf")}])
def test_facts_that_are_no_json_are_refused(folder, facts):
    with pytest.raises(ConfigError, match="facts: expected JSON values"):
        folder.save(2, parts_of(2), facts)
    assert os.listdir(folder.path) == []


@pytest.mark.parametrize("name", ["", "Model", "a/b", "../x", "a.b", ".a", "a" * 65])
def test_names_of_parts_are_plain(folder, name):
    with pytest.raises(ConfigError, match="parts: expected names of"):
        folder.save(2, {name: {}}, {})


@pytest.mark.parametrize("step", [-1, 10**15, 1.0, True, "3"])
def test_a_step_is_a_whole_number(folder, step):
    with pytest.raises(ConfigError, match="step: expected a whole number"):
        folder.save(step, parts_of(1), {})


def test_a_save_has_parts(folder):
    with pytest.raises(ConfigError, match="parts: expected at least one"):
        folder.save(1, {}, {})


@pytest.mark.parametrize("keep", [0, -1, 1.5, True, None])
def test_keep_is_a_whole_number_above_0(tmp_path, keep):
    with pytest.raises(ConfigError, match="keep: expected a whole number"):
        CheckpointFolder(tmp_path, keep)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "x").write_text("")
    folder = CheckpointFolder(tmp_path / "x")
    assert folder.newest() is None
    with pytest.raises(SystemProblem, match="x"):
        save(folder, 1)


# ---- damage --------------------------------------------------------------------------------------------------------


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    os.truncate(path, 0)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def add_space(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"', b' "', 1))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


FILE_DAMAGES = [
    flip_bit,
    truncate,
    lengthen,
    empty,
    zero,
    Path.unlink,
    replace_by_folder,
    replace_by_pipe,
    replace_by_loop,
]
FILES = ["model.safetensors", "rng.safetensors", "facts.json", "manifest.json"]


def change_manifest(**changes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        manifest = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({name: value for name, value in manifest.items() if value is not None}))

    return change


def swap_parts(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "optimizer.safetensors").rename(folder / "model.safetensors")
    (folder / "optimizer.safetensors").write_bytes(content)


def keep_only_an_empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def put_the_older_one_in_place(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-000000001"), folder)


FOLDER_DAMAGES = {
    "another format": change_manifest(format="hyena-glt/patcher/1"),
    "a later format": change_manifest(format="hyena-glt/checkpoint/2"),
    "no format": change_manifest(format=None),
    "another step": change_manifest(step=3),
    "no files": change_manifest(files={}),
    "files a list": change_manifest(files=["model.safetensors"]),
    "a path elsewhere": change_manifest(files={"facts.json": "0", "../step-000000001/facts.json": "0"}),
    "a hash that is no text": change_manifest(files={"facts.json": 1, "model.safetensors": None}),
    "an entry more": change_manifest(comment="edited"),
    "manifest no object": lambda folder: (folder / "manifest.json").write_text("[1]"),
    "manifest not UTF-8": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe{"),
    "parts swapped": swap_parts,
    "an empty folder": keep_only_an_empty_folder,
    "a copy of another": put_the_older_one_in_place,
}


def assert_is_passed_over(path: Path, caplog) -> None:
    """The one before is used, with one warning, and a save goes on."""
    folder = CheckpointFolder(path)
    assert_is(folder.newest(), 1)
    assert_is(folder.newest(), 1)
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "damaged checkpoint" in warnings[0]
    assert "step-000000002 is passed over: " in warnings[0]
    with pytest.raises(ModelFileError, match="step-000000002"):
        folder.at(2)
    assert_is(save(folder, 2), 2)
    assert_is(CheckpointFolder(path).newest(), 2)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", FILE_DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_found(folder, caplog, name, damage):
    save(folder, 1)
    damage(save(folder, 2).path / name)
    assert_is_passed_over(folder.path, caplog)


@pytest.mark.parametrize("damage", FOLDER_DAMAGES.values(), ids=FOLDER_DAMAGES)
def test_a_damaged_checkpoint_is_found(folder, caplog, damage):
    save(folder, 1)
    damage(save(folder, 2).path)
    assert_is_passed_over(folder.path, caplog)


@pytest.mark.parametrize("name", FILES)
def test_damage_is_found_by_the_process_that_wrote(folder, name, caplog):
    save(folder, 1)
    flip_bit(save(folder, 2).path / name)
    assert_is(folder.newest(), 1)


def test_nothing_but_damaged_ones_is_none(folder):
    empty(save(folder, 1).path / "manifest.json")
    assert folder.newest() is None


# ---- faults and interruptions at each operation --------------------------------------------------------------------


def test_the_manifest_is_last_and_all_is_synced_before_the_name(folder):
    with counted_operations(lambda number, name: None) as log:
        save(folder, 1)
    renamed = next(n for n, line in enumerate(log) if line.startswith("rename") and ".tmp" in line)
    links = [line for line in log[:renamed] if line.startswith("link")]
    assert len(links) == 5  # each file got its name inside the hidden folder before that got its own
    assert "manifest.json" in links[-1]
    assert "facts.json" in links[-2]
    assert sum(line.startswith("fsync") for line in log[:renamed]) >= 10  # each file and its folder
    assert log[renamed - 1].startswith("fsync")
    assert log[renamed + 2].startswith("fsync")  # of the folder, opened before
    assert sum(line == "write" for line in log) == 5


def test_an_error_at_any_operation_leaves_the_old_or_the_new(tmp_path, caplog):
    outcomes = []
    for number in range(1, 1000):
        folder = CheckpointFolder(tmp_path / str(number), keep=1)
        save(folder, 1)

        def fail(count: int, name: str, at: int = number) -> None:
            if count == at:
                raise OSError(errno.EIO, "Input/output error")

        with counted_operations(fail) as log:
            outcome = outcome_of(lambda folder=folder: save(folder, 2))
        if len(log) < number:
            assert outcome == "saved"
            break
        assert outcome == "saved" or "Input/output error" in outcome
        newest = CheckpointFolder(folder.path).newest()
        assert_is(newest, newest.step)
        outcomes.append((outcome == "saved", newest.step))
        assert newest.step == 2 if outcome == "saved" else newest.step in (1, 2)
        assert_is(save(CheckpointFolder(folder.path, keep=1), 3), 3)
        assert os.listdir(folder.path) == ["step-000000003"]
    assert {(False, 1), (True, 2)} <= set(outcomes)
    assert len(outcomes) > 40


@pytest.mark.parametrize("exception", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_leaves_the_old_one_and_nothing_else(folder, exception):
    save(folder, 1)

    def stop(count: int, name: str) -> None:
        if name == "write":
            raise exception

    with counted_operations(stop), pytest.raises(exception):
        save(folder, 2)
    assert os.listdir(folder.path) == ["step-000000001"]


@pytest.mark.parametrize("limit", [0, 1, 100, 300])
def test_a_full_disk_is_one_line_and_leaves_the_old_one(folder, limit):
    """A limit on the size of files stands for the disk: the system refuses the write that passes it."""
    save(folder, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(SystemProblem, match="cannot write: File too large") as caught:
            save(folder, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert os.listdir(folder.path) == ["step-000000001"]
    assert_is(folder.newest(), 1)


def test_a_kill_at_any_operation_leaves_the_old_or_the_new(tmp_path):
    """A child process ends, without any clean-up, at each operation of a save that replaces the only checkpoint."""
    done = subprocess.run([sys.executable, __file__, "kill", tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout)
    assert codes[-1] == 0
    assert set(codes[:-1]) == {KILLED}
    steps = []
    for number in range(len(codes)):
        folder = CheckpointFolder(tmp_path / str(number), keep=1)
        newest = folder.newest()
        assert_is(newest, newest.step)
        steps.append(newest.step)
        assert_is(save(folder, 3), 3)
        assert os.listdir(folder.path) == ["step-000000003"]
    assert steps == sorted(steps)  # the old one up to the rename, the new one from there on
    assert set(steps) == {1, 2}
    assert len(steps) > 40


@pytest.mark.slow
def test_kill_minus_9_at_random_times(tmp_path):
    """20 of 20: what is newest is whole, and the next process goes on from it without help."""
    done = subprocess.run([sys.executable, __file__, "random", tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    reached = json.loads(done.stdout)
    assert len(reached) == 20
    assert reached == sorted(reached)
    assert reached[-1] > reached[0]
    CheckpointFolder(tmp_path, keep=2).tidy()
    assert len(os.listdir(tmp_path)) == 2


def test_leavings_of_a_killed_writer_are_cleared(folder):
    save(folder, 1)
    for name in (".step-000000002.1.tmp", f".step-000000002.{os.getpid()}.tmp", ".step-000000001.99.old"):
        (folder.path / name).mkdir()
        (folder.path / name / "model.safetensors").write_bytes(b"half")
    (folder.path / ".step-000000003.5.tmp").write_text("a file in its place")
    save(folder, 2)
    assert folder.steps() == [1, 2]
    assert not hidden(folder)


def test_the_folder_of_a_living_writer_stays(folder):
    save(folder, 1)
    path = folder.path / ".step-000000002.1.tmp"
    path.mkdir()
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    folder.tidy()
    assert path.is_dir()
    os.close(descriptor)
    folder.tidy()
    assert not path.exists()


def test_reading_changes_nothing(folder):
    save(folder, 1)
    (folder.path / ".step-000000002.1.tmp").mkdir()
    folder.newest(), folder.steps(), folder.at(1)
    assert hidden(folder) == [".step-000000002.1.tmp"]


# ---- the process whose children end in the middle ------------------------------------------------------------------


def save_and_die(path: Path, number: int) -> None:
    """In a child: save step 2 over step 1, and end at that operation."""

    def die(count: int, name: str) -> None:
        if count == number:
            os._exit(KILLED)

    with counted_operations(die):
        save(CheckpointFolder(path, keep=1), 2)
    os._exit(0)


def kill_at_each(folder: Path) -> list[int]:
    codes: list[int] = []
    while not codes or codes[-1] != 0:
        path = folder / str(len(codes))
        save(CheckpointFolder(path, keep=1), 1)
        child = os.fork()
        if child == 0:
            with suppress(HyenaGLTError):
                save_and_die(path, len(codes) + 1)
            os._exit(1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return codes


def kill_at_random(path: Path) -> list[int]:
    """The newest step after each of 20 kills; every one of them is whole."""
    generator = torch.Generator().manual_seed(0)
    reached = []
    for _ in range(20):
        child = os.fork()
        if child == 0:
            write_for_ever(path)
        time.sleep(0.05 + 0.3 * float(torch.rand(1, generator=generator)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        newest = CheckpointFolder(path).newest()
        if newest is not None:
            assert_is(newest, newest.step)
        reached.append(newest.step if newest else 0)
    return reached


def write_for_ever(path: Path) -> None:
    folder = CheckpointFolder(path, keep=2)
    newest = folder.newest()
    step = newest.step if newest else 0
    while True:
        step += 1
        save(folder, step)


if __name__ == "__main__":
    torch.set_num_threads(1)
    work = {"kill": kill_at_each, "random": kill_at_random}[sys.argv[1]]
    print(json.dumps(work(Path(sys.argv[2]))))
