"""Seconds and memory of a call."""

from __future__ import annotations

import time

import numpy as np
import torch

from hyena_glt.diagnostics.cost import available_bytes, measured

CPU = torch.device("cpu")


def test_waiting_costs_wall_seconds_alone():
    value, cost = measured(lambda: time.sleep(0.2) or "done", CPU)
    assert value == "done"
    assert cost.wall_s >= 0.2
    assert cost.cpu_s < 0.1


def test_the_peak_is_seen_though_it_is_given_back():
    def work():
        np.ones(8 << 20)  # 64 MiB
        return 1

    _, small = measured(lambda: 1, CPU)
    _, large = measured(work, CPU)
    assert 60 << 20 < large.peak_bytes < 100 << 20
    assert small.peak_bytes < 8 << 20


def test_what_is_free_is_known_or_not_said():
    free = available_bytes(CPU)
    assert free is None or free > 1 << 20
