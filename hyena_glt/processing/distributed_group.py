"""The processes of one job, seen from one of them: they agree on success and bring their bytes to rank 0.

Only results travel between processes that infer, as bytes on the CPU, so the group is always gloo: a group of NCCL
that is there already stays as it is. One process needs no group. Nothing is pickled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hyena_glt import process_group
from hyena_glt.errors import ConfigError, HyenaGLTError, SystemProblem
from hyena_glt.patching.devices import resolve_device

Result = TypeVar("Result")
TIMEOUT_S = 1800.0
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
SENT_AT_ONCE = 1 << 28  # bytes


class ProcessGroup:
    """The processes that work together.

    Every method that speaks of all ranks is called by all of them, in the same order.

    Args:
        rank: This process, 0 to `world - 1`.
        world: Processes.
        timeout_s: Seconds that one waits for the others.

    Raises:
        ConfigError: A rank out of range, or no address to meet at.
        SystemProblem: The other processes cannot be reached.
    """

    def __init__(self, rank: int = 0, world: int = 1, *, timeout_s: float = TIMEOUT_S) -> None:
        self.rank, self.world = check_rank(rank, world)
        self._group: Any = None
        self._is_own = False
        if world > 1:
            self._join(timedelta(seconds=timeout_s))

    @classmethod
    def from_environment(cls, *, timeout_s: float = TIMEOUT_S) -> Self:
        """The processes that `torchrun` has started; one where it has not.

        Raises:
            ConfigError: `RANK` and `WORLD_SIZE` that are no numbers, or only one of them.
        """
        return cls(*environment_rank(), timeout_s=timeout_s)

    @property
    def is_main(self) -> bool:
        """True on rank 0."""
        return self.rank == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the group if it was made here."""
        if self._is_own and dist.is_initialized():
            process_group.leave()
        self._is_own = False

    def together(self, work: Callable[[], Result]) -> Result:
        """Do something on every rank, and fail on every rank where it fails on one.

        Raises:
            HyenaGLTError: What this rank met.
            SystemProblem: Another rank has failed.
        """
        if self.world == 1:
            return work()
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:  # raised below, once the others know
            failure = error
        failed = self.maximum(torch.tensor([self.rank + 1 if failure else 0]))
        if failure is not None:
            raise failure
        if int(failed[0]):
            raise SystemProblem(f"rank {self.rank} of {self.world}: rank {int(failed[0]) - 1} has failed; see there")
        return result

    def maximum(self, values: Tensor) -> Tensor:
        """The largest value over the ranks, element by element, on every rank; integers on the CPU."""
        if self.world == 1:
            return values
        largest = values.clone()
        with self._lost_peers_named():
            dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self._group)
        return largest

    def gather_bytes(self, payload: bytes) -> list[bytes]:
        """The payloads of all ranks in their order on rank 0; on the others an empty list."""
        if self.world == 1:
            return [payload]
        with self._lost_peers_named():
            if self.is_main:
                return [payload, *(self._receive(rank) for rank in range(1, self.world))]
            self._send(payload)
        return []

    def _send(self, payload: bytes) -> None:
        dist.send(torch.tensor([len(payload)]), 0, group=self._group)
        content = torch.frombuffer(bytearray(payload), dtype=torch.uint8) if payload else torch.empty(0)
        for piece in content.split(SENT_AT_ONCE) if payload else ():
            dist.send(piece, 0, group=self._group)

    def _receive(self, rank: int) -> bytes:
        size = torch.zeros(1, dtype=torch.int64)
        dist.recv(size, rank, group=self._group)
        content = torch.empty(int(size), dtype=torch.uint8)
        for piece in content.split(SENT_AT_ONCE) if int(size) else ():
            dist.recv(piece, rank, group=self._group)
        return content.numpy().tobytes()

    def _join(self, timeout: timedelta) -> None:
        if dist.is_initialized():
            found = dist.get_rank(), dist.get_world_size()
            if found != (self.rank, self.world):
                raise ConfigError(
                    f"process group: expected rank {self.rank} of {self.world}, got rank {found[0]} of {found[1]}"
                )
            with self._lost_peers_named():
                self._group = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
            return
        if missing := [name for name in ADDRESS if not os.environ.get(name)]:
            raise ConfigError(
                f"environment: {', '.join(missing)} not set, so {self.world} processes cannot meet; "
                "start with torchrun, or use setup_distributed_processing"
            )
        with self._lost_peers_named():
            process_group.join("gloo", rank=self.rank, world=self.world, timeout=timeout)
        self._is_own = True

    @contextmanager
    def _lost_peers_named(self) -> Iterator[None]:
        try:
            yield
        except HyenaGLTError:
            raise
        except (RuntimeError, ValueError) as error:  # gloo's own, of which there are many kinds
            text = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
            raise SystemProblem(
                f"rank {self.rank} of {self.world}: another process has ended or does not answer ({text})"
            ) from error


def environment_rank() -> tuple[int, int]:
    """Rank and number of processes as `torchrun` says; `(0, 1)` where it does not.

    Raises:
        ConfigError: No whole numbers, or only one of them.
    """
    names = ("RANK", "WORLD_SIZE")
    texts = [os.environ.get(name) for name in names]
    if not any(texts):
        return 0, 1
    for name, text in zip(names, texts, strict=True):
        if text is None or not (text.isascii() and text.isdigit()):
            raise ConfigError(f"environment: {name}: expected a whole number, got {text!r}; start with torchrun")
    return check_rank(int(texts[0] or 0), int(texts[1] or 0))


def check_rank(rank: int, world: int) -> tuple[int, int]:
    """Rank and number of processes, if they fit.

    Raises:
        ConfigError: They do not.
    """
    if isinstance(world, bool) or not isinstance(world, int) or world < 1:
        raise ConfigError(f"world_size: expected a whole number of at least 1, got {world!r}")
    if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank < world:
        raise ConfigError(f"rank: expected a whole number from 0 to {world - 1}, got {rank!r}")
    return rank, world


def rank_device(device: str, rank: int, world: int) -> torch.device:
    """The device of one of several processes on a machine: each its own CUDA device, or all the CPU.

    Args:
        device: `auto` (CUDA where there is one), `cpu`, `cuda`; with one process `cuda:N` as well.
        rank: The process, from 0 on; under `torchrun` `LOCAL_RANK` counts in its place.
        world: Processes.

    Raises:
        ConfigError: An unknown device, or one device named for several processes.
        SystemProblem: Fewer CUDA devices than processes.
    """
    chosen = resolve_device(device)
    if chosen is None:
        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: expected auto, cpu or cuda, got {device!r}")
    if chosen.type == "cpu" or (chosen.index is not None and world == 1):
        return chosen
    if chosen.index is not None:
        raise ConfigError(f"device: expected auto, cpu or cuda with {world} processes, got {device!r}")
    local = os.environ.get("LOCAL_RANK", "")
    place = int(local) if local.isdigit() else rank
    if place >= (found := torch.cuda.device_count()):
        raise SystemProblem(f"device: expected a CUDA device for process {place}, found {found}; use fewer, or the CPU")
    return torch.device("cuda", place)
