"""How much memory this process, or a CUDA device, holds above what it held at a moment, and held at most since."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # see proc(5)
CPU_MESSAGES = ("can't allocate memory", "not enough memory")


class MemoryMeter(Protocol):
    """Bytes above the moment when the meter was made."""

    def held(self) -> int:
        """Now; below 0 where memory was given back."""

    def begin(self) -> None:
        """Forget the highest mark."""

    def peak(self) -> int:
        """Highest since `begin`, at least 0."""

    def release(self) -> None:
        """Give back what is free but still counted."""


def memory_meter(device: torch.device) -> MemoryMeter:
    """A meter of the memory that nets on this device take."""
    return CudaMeter(device) if device.type == "cuda" else ProcessMeter()


class ProcessMeter:
    """Resident memory of this process.

    On Linux the highest mark is the kernel's (`VmHWM`), reset through `/proc/self/clear_refs`. Where it cannot be
    reset, a mark that did not rise since `begin` says nothing, and what is held now counts. Without `/proc` the mark
    of `getrusage` takes the place of both.
    """

    def __init__(self) -> None:
        self._start = resident_bytes()
        self._mark = 0
        self.begin()

    def held(self) -> int:
        return resident_bytes() - self._start

    def begin(self) -> None:
        with suppress(OSError):
            CLEAR.write_text(RESET_PEAK)
        self._mark = highest_bytes()

    def peak(self) -> int:
        highest, now = highest_bytes(), resident_bytes()
        return max((highest if highest > self._mark else now) - self._start, 0)

    def release(self) -> None:
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


class CudaMeter:
    """What tensors take on a CUDA device, by PyTorch's allocator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = torch.cuda.memory_allocated(device)

    def held(self) -> int:
        return torch.cuda.memory_allocated(self._device) - self._start

    def begin(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int:
        return max(torch.cuda.max_memory_allocated(self._device) - self._start, 0)

    def release(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()


def resident_bytes() -> int:
    """Resident memory of this process; where the system does not say, the highest so far."""
    return _status_bytes("VmRSS")


def highest_bytes() -> int:
    """Highest resident memory of this process since its start, or since the mark was reset."""
    return _status_bytes("VmHWM")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whatever device, and not that something is wrong."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_MESSAGES)


def _status_bytes(key: str) -> int:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
