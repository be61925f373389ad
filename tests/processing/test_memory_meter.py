"""Memory is read from the kernel, and what says that it ran out is told from what says that something is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hyena_glt.errors import ConfigError
from hyena_glt.processing import memory_meter as meters
from hyena_glt.processing.memory_meter import CudaMeter, ProcessMeter, highest_bytes, is_out_of_memory, memory_meter

MIB = 1 << 20
SIZE = 256 * MIB


def test_a_peak_is_seen_after_it_is_over():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process cannot be reset here")
    meter = memory_meter(torch.device("cpu"))
    block = np.ones(SIZE, np.uint8)
    assert meter.held() == pytest.approx(SIZE, abs=16 * MIB)
    del block
    assert meter.peak() == pytest.approx(SIZE, abs=16 * MIB)
    meter.release()
    meter.begin()
    assert meter.peak() < 16 * MIB
    assert meter.held() < 16 * MIB


def test_a_mark_that_cannot_be_reset_counts_only_once_it_rises(monkeypatch):
    monkeypatch.setattr(meters, "CLEAR", Path("/nowhere/clear_refs"))
    monkeypatch.setattr(meters, "highest_bytes", lambda: 1000 * MIB)
    monkeypatch.setattr(meters, "resident_bytes", lambda: 100 * MIB)
    meter = ProcessMeter()
    assert meter.peak() == 0
    monkeypatch.setattr(meters, "resident_bytes", lambda: 150 * MIB)
    assert meter.peak() == 50 * MIB
    monkeypatch.setattr(meters, "highest_bytes", lambda: 1001 * MIB)
    assert meter.peak() == 901 * MIB


def test_without_proc_the_mark_of_the_system_call_is_used(monkeypatch):
    kernel = highest_bytes()
    monkeypatch.setattr(meters, "STATUS", Path("/nowhere/status"))
    assert highest_bytes() > 0.2 * kernel
    assert ProcessMeter().held() == 0


def test_a_cuda_device_is_measured_by_the_allocator(monkeypatch):
    """Without a device: PyTorch's counters are stood in for, of one that held 100 before."""
    device = torch.device("cuda", 1)
    counters = {"now": 100, "highest": 500}

    def read(name):
        def counter(asked):
            assert asked == device
            return counters[name]

        return counter

    monkeypatch.setattr(torch.cuda, "memory_allocated", read("now"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", read("highest"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda asked: counters.update(highest=counters["now"]))
    meter = memory_meter(device)
    assert isinstance(meter, CudaMeter)
    meter.begin()
    assert (meter.held(), meter.peak()) == (0, 0)
    counters.update(now=130, highest=190)
    assert (meter.held(), meter.peak()) == (30, 90)
    meter.begin()
    assert meter.peak() == 30
    counters.update(now=60, highest=80)
    assert (meter.held(), meter.peak()) == (-40, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_highest_mark_of_a_cuda_device():
    device = torch.device("cuda", 0)
    meter = memory_meter(device)
    meter.begin()
    block = torch.ones(SIZE, dtype=torch.uint8, device=device)
    assert meter.held() == SIZE
    del block
    assert (meter.held(), meter.peak()) == (0, SIZE)
    meter.begin()
    assert meter.peak() == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("can't allocate memory"), False),
        (ConfigError("memory_limit_gb: expected more"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected
