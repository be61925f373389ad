"""The process group of `torchrun`'s processes, of those that are alive now.

`torchrun` keeps one store of keys over all restarts of its processes, so a process that is started again can read the
address of one that has died and connect to nobody (https://github.com/pytorch/pytorch/issues/135712). `join` agrees on
a part of the store that no earlier process has written to. How often each node has restarted is no name for it: nodes
count by themselves.

`leave` ends the threads of gloo, which otherwise may let go of a tensor when Python has begun to end; the process then
aborts with "terminate called without an active exception" (https://github.com/pytorch/pytorch/pull/179291). They end
with the last reference to their group, so nothing may hold one. `torch.distributed.nn.functional` would, as the default
of an argument, were it first imported when there is a group, as `DistributedDataParallel` does; hence the import here.
"""

from __future__ import annotations

import gc
import time
from datetime import timedelta
from uuid import uuid4

import torch.distributed as dist
import torch.distributed.nn.functional  # noqa: F401, see above

HELLO, WELCOME, SEEN = "hyena-glt/hello", "hyena-glt/welcome", "hyena-glt/seen"
POLL_S = 0.02


def join(backend: str, *, rank: int, world: int, timeout: timedelta) -> None:
    """`torch.distributed.init_process_group` for processes that may have been restarted; `MASTER_ADDR` says where.

    Raises:
        RuntimeError: The others do not come within the timeout.
    """
    store, _, _ = next(dist.rendezvous("env://", rank, world, timeout=timeout))
    store.set_timeout(timeout)
    own_part = dist.PrefixStore(prefix_for_all(store, rank, world, timeout), store)
    dist.init_process_group(backend, store=own_part, rank=rank, world_size=world, timeout=timeout)


def leave() -> None:
    """`torch.distributed.destroy_process_group`, after what holds the group in cycles of references has gone."""
    gc.collect()
    dist.destroy_process_group()


def prefix_for_all(store: dist.Store, rank: int, world: int, timeout: timedelta) -> str:
    """A name that rank 0 draws and every process learns, whatever processes of an earlier life have left in the store.

    Each process says a name of its own and waits for the answer to that name, which only a living rank 0 can give.
    Rank 0 answers until all have seen the name that it drew itself: names of the dead are answered too, and not seen.
    """
    own = uuid4().hex
    if rank:
        store.set(f"{HELLO}/{rank}", own)
        prefix = store.get(f"{WELCOME}/{own}").decode()
        store.set(f"{SEEN}/{prefix}/{rank}", "")
        return prefix
    end = time.monotonic() + timeout.total_seconds()
    answered: dict[int, bytes] = {}
    missing = list(range(1, world))
    while missing := [other for other in missing if not store.check([f"{SEEN}/{own}/{other}"])]:
        for other in missing:
            if store.check([f"{HELLO}/{other}"]) and (name := store.get(f"{HELLO}/{other}")) != answered.get(other):
                store.set(f"{WELCOME}/{name.decode()}", own)
                answered[other] = name
        if time.monotonic() > end:
            raise RuntimeError(f"timed out waiting for rank {missing[0]}")
        time.sleep(POLL_S)
    return own
