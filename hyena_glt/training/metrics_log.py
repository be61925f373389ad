"""Figures of a run on the disk: `metrics.jsonl`, one JSON object a line, TensorBoard where it is installed, spikes.

Every line has `kind` and `step`. What depends on the clock stands in `timings`, so that two runs of one recipe agree
in all the rest.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hyena_glt.errors import SystemProblem
from hyena_glt.sequences.atomic import atomic_write

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
ROUNDING_OFF = ("evaluation", "sample")  # what follows the other lines of a step
SPIKE_WINDOW = 200  # steps
SPIKE_LEAST = 20  # steps before any loss is called a spike
SPIKE_DEVIATIONS = 6.0


class MetricsLog:
    """Appends lines; what an interrupted run wrote after its last checkpoint is cut off when it is opened.

    Args:
        folder: Of the run.
        last_step: Lines of later steps are removed.
        note: Told once where TensorBoard is not installed.
        is_rounded_off: False removes the evaluation and the sample of the last step as well: they will be made again.

    Raises:
        SystemProblem: The file cannot be written.
    """

    def __init__(self, folder: Path, last_step: int, note: Callable[[str], None], is_rounded_off: bool = True) -> None:
        self.path = folder / METRICS_FILE
        cut_back(self.path, last_step, is_rounded_off)
        try:
            self._file = open(self.path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115
        except OSError as error:
            raise SystemProblem(f"{self.path}: cannot write: {error.strerror}") from error
        self._board = _open_board(folder / TENSORBOARD_FOLDER, last_step, note)

    def write(
        self, kind: str, step: int, values: Mapping[str, Any], timings: Mapping[str, float] | None = None
    ) -> None:
        """Add one line.

        Args:
            kind: `"train"`, `"evaluation"`, `"sample"` or `"spike"`.
            step: Updates that are done.
            values: Finite numbers, texts, lists.
            timings: Numbers that depend on the clock.

        Raises:
            SystemProblem: The disk is full, ...
        """
        line: dict[str, Any] = {"kind": kind, "step": step, **values}
        if timings is not None:
            line["timings"] = dict(timings)
        try:
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise SystemProblem(f"{self.path}: cannot write: {error.strerror}") from error
        if self._board is not None:
            self._show(kind, step, {**values, **(timings or {})})

    def sync(self) -> None:
        """Bring all lines to the disk; called before the checkpoint that they belong to.

        Raises:
            SystemProblem: The disk is full, ...
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise SystemProblem(f"{self.path}: cannot write: {error.strerror}") from error
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def _show(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, step)
            elif isinstance(value, str):
                self._board.add_text(f"{kind}/{name}", value, step)


class SpikeWatch:
    """Tells losses that stand out of those before them: above mean + 6 standard deviations of the last 200.

    Args:
        losses: The last ones of an earlier part of the run.
    """

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self.losses = deque(losses, SPIKE_WINDOW)

    def limit(self) -> float:
        """The loss above which one is a spike; infinite while there are too few to tell."""
        if len(self.losses) < SPIKE_LEAST:
            return math.inf
        mean = math.fsum(self.losses) / len(self.losses)
        variance = math.fsum((loss - mean) ** 2 for loss in self.losses) / len(self.losses)
        return mean + SPIKE_DEVIATIONS * math.sqrt(variance)

    def is_spike(self, loss: float) -> bool:
        """Whether a loss is one; it joins the others either way."""
        above = loss > self.limit()
        self.losses.append(loss)
        return above


def cut_back(path: Path, last_step: int, is_rounded_off: bool = True) -> None:
    """Remove the lines after `last_step`, and what a killed process left half-written.

    Raises:
        SystemProblem: The file cannot be read or written.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise SystemProblem(f"{path}: cannot read: {error.strerror}") from error
    kept = 0
    for line in text.splitlines(keepends=True):
        kind, step = _kind_and_step(line)
        if step is None or step > last_step or (step == last_step and not is_rounded_off and kind in ROUNDING_OFF):
            break
        kept += len(line)
    if kept < len(text):
        with atomic_write(path, overwrite=True) as handle:
            handle.write(text[:kept])


def _kind_and_step(line: bytes) -> tuple[str | None, int | None]:
    """What a whole line says; None twice for half a line."""
    if not line.endswith(b"\n"):
        return None, None
    try:
        content = json.loads(line)
        kind, step = content["kind"], content["step"]
    except (ValueError, KeyError, TypeError):
        return None, None
    return (kind, step) if isinstance(kind, str) and isinstance(step, int) else (None, None)


def _open_board(folder: Path, last_step: int, note: Callable[[str], None]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        note("TensorBoard is not installed (extra train); figures go to metrics.jsonl alone")
        return None
    return SummaryWriter(str(folder), purge_step=last_step + 1)
