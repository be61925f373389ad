"""Seconds and peak memory of a call, in this process."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hyena_glt.processing.memory_meter import MemoryMeter, memory_meter


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call took."""

    wall_s: float
    cpu_s: float  # of all threads of the process
    peak_bytes: int  # above what was held before


def measured(work: Callable[[], Any], device: torch.device) -> tuple[Any, Cost]:
    """What a call gives, and its cost; on CUDA its queue is waited for.

    Args:
        work: The call.
        device: Where it computes.
    """
    finish(device)
    meter = fresh_meter(device)
    meter.begin()
    wall, cpu = time.perf_counter(), time.process_time()
    value = work()
    finish(device)
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    return value, Cost(*seconds, meter.peak())


def finish(device: torch.device) -> None:
    """Wait for what the device still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fresh_meter(device: torch.device) -> MemoryMeter:
    """A meter that starts after free memory was given back.

    Garbage is not looked for, unlike in the meter's `release`: that takes longer than many a run.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        with suppress(OSError, AttributeError):  # other C libraries have no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
    return memory_meter(device)


def available_bytes(device: torch.device) -> int | None:
    """Memory that is free for new tensors; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
