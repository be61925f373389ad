"""Lines of a run, cut back to a checkpoint, and losses that stand out."""

from __future__ import annotations

import json
import math
import sys
import types

import pytest

from hyena_glt.errors import SystemProblem
from hyena_glt.training.metrics_log import MetricsLog, SpikeWatch, cut_back


@pytest.fixture
def log(tmp_path, monkeypatch):
    """`log(last_step)`: a log in one folder, without TensorBoard; `log.notes` holds what it said."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    def open_log(last_step: int, is_rounded_off: bool = True) -> MetricsLog:
        return MetricsLog(tmp_path, last_step, open_log.notes.append, is_rounded_off)

    open_log.notes = []
    return open_log


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def fill(log, steps):
    for step in steps:
        log.write("train", step, {"loss": 0.1 * step}, {"elapsed_s": 1.5})
        if step % 2 == 0:
            log.write("evaluation", step, {"bits_per_base": 1.9})
    log.sync()
    log.close()


def test_lines_are_json_with_timings_apart(log):
    fill(first := log(0), range(1, 3))
    assert lines(first.path) == [
        {"kind": "train", "step": 1, "loss": 0.1, "timings": {"elapsed_s": 1.5}},
        {"kind": "train", "step": 2, "loss": 0.2, "timings": {"elapsed_s": 1.5}},
        {"kind": "evaluation", "step": 2, "bits_per_base": 1.9},
    ]
    assert len(log.notes) == 1
    assert "TensorBoard" in log.notes[0]


@pytest.mark.parametrize("last", range(7))
def test_a_resumed_log_equals_an_undisturbed_one(log, last):
    fill(first := log(0), range(1, 7))
    whole = first.path.read_bytes()
    fill(log(last), range(last + 1, 7))
    assert first.path.read_bytes() == whole


def test_the_evaluation_of_the_last_step_is_cut_where_it_will_be_made_again(log):
    fill(first := log(0), range(1, 5))
    log(4, is_rounded_off=False).close()
    kept = [(line["kind"], line["step"]) for line in lines(first.path)]
    assert kept == [("train", 1), ("train", 2), ("evaluation", 2), ("train", 3), ("train", 4)]


@pytest.mark.parametrize("torn", [b'{"kind": "train", "st', b'{"kind": "train", "step": 3}', b"\xff\xfe\n", b"[1]\n"])
def test_half_a_line_is_removed(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    sound = b'{"kind": "train", "step": 1}\n'
    path.write_bytes(sound + torn)
    cut_back(path, 9)
    assert path.read_bytes() == sound
    cut_back(tmp_path / "absent.jsonl", 9)


def test_a_folder_that_cannot_be_written_is_named(log, tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(SystemProblem, match=r"metrics\.jsonl"):
        log(0)


def test_numbers_that_are_not_finite_are_no_json(log):
    log = log(0)
    with pytest.raises(ValueError, match="JSON"):
        log.write("train", 1, {"loss": math.nan})
    log.close()


def test_a_spike_stands_six_deviations_above_the_last_losses():
    watch = SpikeWatch()
    assert watch.limit() == math.inf
    calm = [1.0 + 0.01 * (-1) ** step for step in range(400)]
    assert not any(watch.is_spike(loss) for loss in calm)
    assert len(watch.losses) == 200
    assert watch.limit() == pytest.approx(1.06)
    assert not watch.is_spike(1.0599)
    assert watch.is_spike(1.2)


def test_a_watch_goes_on_from_its_losses():
    losses = [2.0 - 0.001 * step for step in range(300)]
    whole, part = SpikeWatch(), SpikeWatch()
    for loss in losses:
        whole.is_spike(loss)
    for loss in losses[:123]:
        part.is_spike(loss)
    part = SpikeWatch(json.loads(json.dumps(list(part.losses))))
    for loss in losses[123:]:
        part.is_spike(loss)
    assert whole.limit() == part.limit()


def test_few_losses_make_no_spike():
    watch = SpikeWatch([1.0] * 19)
    assert not watch.is_spike(50.0)


def test_figures_go_to_tensorboard_where_it_is_installed(tmp_path, monkeypatch):
    class Board:
        calls: list[tuple] = []  # noqa: RUF012 - one for the whole test

        def __init__(self, folder, purge_step):
            self.calls.append(("open", purge_step))

        def add_scalar(self, name, value, step):
            self.calls.append((name, value, step))

        add_text = add_scalar

        def flush(self):
            self.calls.append(("flush",))

        def close(self):
            self.calls.append(("close",))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Board))
    notes = []
    log = MetricsLog(tmp_path, 4, notes.append)
    log.write("train", 5, {"loss": 1.5, "windows": [1]}, {"elapsed_s": 2.0})
    log.write("sample", 5, {"sequence": "ACGT"})
    log.sync()
    log.close()
    assert notes == []
    assert Board.calls == [
        ("open", 5),
        ("train/loss", 1.5, 5),
        ("train/elapsed_s", 2.0, 5),
        ("sample/sequence", "ACGT", 5),
        ("flush",),
        ("close",),
    ]
