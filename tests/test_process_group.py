"""Processes that are started again agree on a part of the store that the dead have not written to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from hyena_glt.process_group import HELLO, WELCOME, prefix_for_all

WORLD, TIMEOUT = 3, timedelta(seconds=30)


def agreed(store):
    with ThreadPoolExecutor(WORLD) as pool:
        found = [pool.submit(prefix_for_all, store, rank, WORLD, TIMEOUT) for rank in reversed(range(WORLD))]
        return {future.result(60) for future in found}


def test_each_life_has_a_prefix_of_its_own():
    store = dist.HashStore()
    first, second = agreed(store), agreed(store)
    assert len(first) == len(second) == 1
    assert first != second


def test_names_of_the_dead_change_nothing():
    store = dist.HashStore()
    for rank in range(1, WORLD):
        store.set(f"{HELLO}/{rank}", "dead")
    store.set(f"{WELCOME}/dead", "stale")
    (prefix,) = agreed(store)
    assert prefix != "stale"


def test_rank_0_does_not_wait_for_ever():
    with pytest.raises(RuntimeError, match="waiting for rank 1"):
        prefix_for_all(dist.HashStore(), 0, 2, timedelta(seconds=0.1))
