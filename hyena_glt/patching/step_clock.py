"""How long each step of patching takes."""

from __future__ import annotations

import time

import torch

from hyena_glt.patching.rows import TokenRows

STEPS = (
    "calculate_entropies",
    "find_entropy_patch_start_ids",
    "patch_lengths_from_start_ids",
    "postprocessing_patch_lengths",
)


def new_log() -> dict[str, float]:
    """Zero seconds for every step, and zero tokens."""
    return {**dict.fromkeys(STEPS, 0.0), "tokens": 0}


class StepClock:
    """Adds the seconds since the step before to a log; does nothing without one."""

    def __init__(self, log: dict[str, float] | None) -> None:
        self._log = log
        self._last = 0.0 if log is None else time.perf_counter()

    def lap(self, step: str, done: TokenRows | None = None) -> None:
        """End a step; with `done`, count its tokens."""
        if self._log is None:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self._log[step] += now - self._last
        self._log["tokens"] += 0 if done is None else done.num_tokens
        self._last = now
