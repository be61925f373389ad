"""One process or several: who takes part, the net spread over them, and the few numbers they agree on.

    torchrun -> RANK, WORLD_SIZE, LOCAL_RANK -> Engine -> prepare(net) -> scaled_loss -> gradients equal on every rank

With one process every method is a plain computation and no process group exists.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any, Literal, Self, TypeVar, cast, get_args, overload
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hyena_glt import process_group
from hyena_glt.errors import ConfigError, HyenaGLTError, ModelFileError, SystemProblem
from hyena_glt.ops.weight_cache import WEIGHT_CACHE
from hyena_glt.patching.devices import resolve_device

Strategy = Literal["ddp", "fsdp2"]
OWN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
VARIABLES = (*OWN_VARIABLES, "MASTER_ADDR", "MASTER_PORT")
TIMEOUT_S = 600.0
LARGEST_PORT = 65535

Key = TypeVar("Key")


class Engine:
    """The processes of a training run, seen from one of them.

    Every method that speaks of all ranks is called by all of them, in the same order.

    Args:
        device: Where this process computes.
        rank: This process, 0 to `world - 1`.
        world: Processes.
        strategy: `"ddp"` keeps the whole net in each process, `"fsdp2"` a share of each weight.

    Example:
        >>> with Engine.from_environment(device="cpu") as engine:
        ...     net = engine.prepare(nn.Linear(2, 1))
        ...     engine.rank, engine.world, engine.is_main
        (0, 1, True)
    """

    def __init__(self, device: torch.device, *, rank: int = 0, world: int = 1, strategy: Strategy = "ddp") -> None:
        self.device = device
        self.rank = rank
        self.world = world
        self.strategy = strategy
        self._is_open = world > 1
        self._replicas: WeakSet[DistributedDataParallel] = WeakSet()

    @classmethod
    def from_environment(
        cls, device: str = "auto", strategy: Strategy = "ddp", *, timeout_s: float = TIMEOUT_S
    ) -> Self:
        """Join the processes that `torchrun` has started, or work alone where it has not.

        Args:
            device: `"auto"` (CUDA where there is one), `"cpu"`, `"cuda"`; with one process `"cuda:N"` as well.
            strategy: `"ddp"` or `"fsdp2"`.
            timeout_s: Seconds that a process waits for the others.

        Raises:
            ConfigError: Variables of `torchrun` that are missing or out of range, an unknown device or strategy.
            SystemProblem: CUDA is asked for and not there, or the other processes cannot be reached.
        """
        if strategy not in get_args(Strategy):
            raise ConfigError(f"strategy: expected one of {', '.join(get_args(Strategy))}, got {strategy!r}")
        if not 0 < timeout_s < math.inf:
            raise ConfigError(f"timeout_s: expected seconds above 0, got {timeout_s!r}")
        place = _read_environment()
        chosen = _choose_device(device, place)
        if place.world == 1:
            return cls(chosen, strategy=strategy)
        if dist.is_initialized():
            raise ConfigError("engine: a process group exists already; close it first")
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        with _lost_peers_named(place.rank, place.world, RuntimeError):
            process_group.join(backend, rank=place.rank, world=place.world, timeout=timedelta(seconds=timeout_s))
        return cls(chosen, rank=place.rank, world=place.world, strategy=strategy)

    @property
    def is_main(self) -> bool:
        """True on rank 0, which writes files."""
        return self.rank == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the process group; the others, if they still wait for this process, get an error.

        Nets that `prepare` has spread cannot be called any more; those inside them can, with `"ddp"`.
        """
        if self._is_open:
            self._is_open = False
            self._release_groups()
            process_group.leave()

    def prepare(self, net: nn.Module) -> nn.Module:
        """Move a net to the device and spread it; every rank starts from the weights of rank 0.

        Make the optimizer afterwards, from `engine.unwrap(prepared).named_parameters()`: FSDP2 puts new
        parameters into the net. Call the prepared net itself, never a method of what is inside it.

        Args:
            net: Changed in place with `"fsdp2"`.

        Returns:
            The net to train.
        """
        net = net.to(self.device)
        if self.world == 1:
            return net
        with self.watched():
            if self.strategy == "fsdp2":
                return self._sharded(net)
            return self._replicated(net)

    def unwrap(self, net: nn.Module) -> nn.Module:
        """The net as it was built: without the wrapper of `prepare` and of `torch.compile`."""
        while True:
            inner = getattr(net, "_orig_mod", None)
            if isinstance(net, DistributedDataParallel):
                inner = net.module
            if inner is None:
                return net
            net = inner

    def full_state(self, net: nn.Module) -> dict[str, Tensor]:
        """All weights of a prepared net by their plain names, on the CPU of rank 0; empty on the other ranks.

        A collective with FSDP2: every rank calls it.
        """
        state: dict[str, Tensor] = {}
        with self.watched():
            for name, tensor in self.unwrap(net).state_dict().items():
                whole = whole_tensor(tensor.detach())
                if self.is_main:
                    state[name] = whole.to("cpu", copy=True)
        return state

    def load_full_state(self, net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put weights by their plain names into a prepared net, all of them and no others.

        Args:
            net: What `prepare` gave.
            tensors: The same on every rank: each reads the checkpoint.

        Raises:
            ModelFileError: A tensor is missing, unknown, or of another shape or dtype; nothing has changed then.
        """
        state = self.unwrap(net).state_dict()
        _check_fits(state, tensors)
        with self.watched(), torch.no_grad():
            for name, current in state.items():
                current.copy_(spread_like(tensors[name], current))

    @contextmanager
    def no_sync(self, net: nn.Module) -> Iterator[None]:
        """Keep gradients to this rank within the block, forward and backward: for all but the last of a sum.

        Args:
            net: What `prepare` gave.

        Raises:
            ConfigError: Another net, where there are several processes.
        """
        wrapped = getattr(net, "_orig_mod", net)
        if self.world == 1:
            yield
        elif isinstance(wrapped, DistributedDataParallel):
            with wrapped.no_sync():
                yield
        elif hasattr(wrapped, "set_requires_gradient_sync"):
            sharded = cast(Any, wrapped)
            sharded.set_requires_gradient_sync(False)
            try:
                yield
            finally:
                sharded.set_requires_gradient_sync(True)
        else:
            raise ConfigError(f"no_sync: expected the net that prepare gave, got {type(net).__name__}")

    def scaled_loss(self, sum_of_losses: Tensor, num_targets: float, total: float | None = None) -> Tensor:
        """The loss to run backward from, so that gradients are those of the mean over the targets of all ranks.

        DDP and FSDP2 average gradients over ranks; where ranks have unequal numbers of targets, the mean of
        their means is not the mean of all.

        Args:
            sum_of_losses: 0-d, nats; this rank's sum over its targets, of one part of a batch.
            num_targets: Targets in that sum.
            total: Targets of the whole update: all ranks, and all parts where gradients are accumulated, as
                `engine.sum(targets of this rank)` gives it. None: this part is all, and the ranks agree here.

        Returns:
            0-d; its mean over the ranks is the mean loss. 0 without targets.
        """
        everything = self.sum(float(num_targets)) if total is None else float(total)
        return sum_of_losses * self.world / max(everything, 1.0)

    def all_true(self, flag: bool | Tensor) -> bool:
        """True where the flag is true on every rank."""
        if self.world == 1:
            return bool(flag)
        value = torch.tensor(int(bool(flag)), device=self.device)
        with self.watched():
            dist.all_reduce(value, op=dist.ReduceOp.MIN)
        return bool(value)

    @overload
    def sum(self, values: float | Tensor) -> float: ...
    @overload
    def sum(self, values: Mapping[Key, float]) -> dict[Key, float]: ...
    @overload
    def sum(self, values: Sequence[float]) -> list[float]: ...

    def sum(self, values: Any) -> Any:
        """Sums over the ranks in float64, the same on every rank.

        Args:
            values: A number or a tensor of one, a sequence of numbers, or numbers by name: the same names in
                the same order everywhere.

        Returns:
            A float, a list or a dict.
        """
        if isinstance(values, Mapping):
            return dict(zip(values, self.sum(list(values.values())), strict=True))
        if isinstance(values, Sequence):
            return self._summed([float(value) for value in values])
        return self._summed([float(values)])[0]

    @overload
    def mean(self, values: float | Tensor) -> float: ...
    @overload
    def mean(self, values: Mapping[Key, float]) -> dict[Key, float]: ...
    @overload
    def mean(self, values: Sequence[float]) -> list[float]: ...

    def mean(self, values: Any) -> Any:
        """Means over the ranks; as `sum`. Each rank counts the same, however many targets it had."""
        if isinstance(values, Mapping):
            return {name: value / self.world for name, value in self.sum(values).items()}
        if isinstance(values, Sequence):
            return [value / self.world for value in self.sum(values)]
        return self.sum(values) / self.world

    def from_main(self, value: float) -> float:
        """The number that rank 0 has, on every rank: such as the step to resume from."""
        return self.sum(value if self.is_main else 0.0)

    def stack(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of every rank, such as states of random generators, for a checkpoint.

        Args:
            tensors: The same names, shapes and dtypes on every rank.

        Returns:
            By name `(world, ...)` on the CPU; row `r` is of rank `r`.
        """
        if self.world == 1:
            return {name: tensor.detach().cpu().clone().unsqueeze(0) for name, tensor in tensors.items()}
        stacked = {}
        with self.watched():
            for name, tensor in tensors.items():
                own = tensor.detach().to(self.device).contiguous()
                rows = [torch.empty_like(own) for _ in range(self.world)]
                dist.all_gather(rows, own)
                stacked[name] = torch.stack(rows).cpu()
        return stacked

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            self.all_true(True)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Name the end of another process as such, also where it shows in a forward, a backward or an update.

        Raises:
            SystemProblem: Another process has ended, or has not answered in time.
        """
        with _lost_peers_named(self.rank, self.world):
            yield

    def _summed(self, values: list[float]) -> list[float]:
        if self.world == 1 or not values:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        with self.watched():
            dist.all_reduce(total)
        return total.tolist()

    def _replicated(self, net: nn.Module) -> nn.Module:
        """DDP without sending buffers in each forward: they are constants."""
        options: dict[str, Any] = {"device_ids": [self.device.index] if self.device.type == "cuda" else None}
        known = signature(DistributedDataParallel.__init__).parameters
        options["forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"] = False
        replica = DistributedDataParallel(net, **options)
        self._replicas.add(replica)
        return replica

    def _release_groups(self) -> None:
        """Take the process group from all that outlives the engine and holds it, so that its threads end."""
        for replica in self._replicas:
            del replica.reducer, replica.logger, replica.process_group
        if self.strategy == "fsdp2":
            from torch.distributed.tensor import debug

            forget = getattr(debug, "_clear_sharding_prop_cache", None)  # no public name, and not in each version
            if forget is not None:
                forget()

    def _sharded(self, net: nn.Module) -> nn.Module:
        """Shard the blocks of the trunk one by one, then the rest as one group."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        with torch.no_grad():
            for tensor in (*net.parameters(), *net.buffers()):
                dist.broadcast(tensor, src=0)
        mesh = init_device_mesh(self.device.type, (self.world,))
        blocks = getattr(getattr(net, "trunk", None), "blocks", ())
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(net, mesh=mesh)
        net.register_forward_pre_hook(_forget_cached_weights)
        return net


def is_sharded(tensor: Tensor) -> bool:
    """True for a `DTensor`, of which each rank has a share."""
    return hasattr(tensor, "full_tensor")


def whole_tensor(tensor: Tensor) -> Tensor:
    """A sharded tensor put together, by all ranks at once; any other tensor as it is."""
    return cast(Any, tensor).full_tensor() if is_sharded(tensor) else tensor


def spread_like(whole: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of another, sharded in the same way; all ranks call it with the same tensor."""
    whole = whole.to(like.device)
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    sharded = cast(Any, like)
    return distribute_tensor(whole, sharded.device_mesh, sharded.placements)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """What `torchrun` says of this process."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0


def _read_environment() -> _Place:
    """The variables of `torchrun`; one process where none of its own is set."""
    if not any(name in os.environ for name in OWN_VARIABLES):
        return _Place()
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"environment: {', '.join(missing)} not set, though others of {', '.join(VARIABLES)} are; "
            "start with torchrun, or unset them all to run one process"
        )
    world = _read_number("WORLD_SIZE", 1, None)
    rank = _read_number("RANK", 0, world - 1)
    _read_number("MASTER_PORT", 1, LARGEST_PORT)
    return _Place(rank=rank, world=world, local_rank=_read_number("LOCAL_RANK", 0, world - 1))


def _read_number(name: str, low: int, high: int | None) -> int:
    text = os.environ[name]
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if number < low or (high is not None and number > high):
        limit = f"from {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"environment: {name}: expected a whole number {limit}, got {text!r}")
    return number


def _choose_device(name: str, place: _Place) -> torch.device:
    """The device of this process: with several, CUDA device number `LOCAL_RANK`."""
    device = resolve_device(name)
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: expected auto, cpu or cuda, got {name!r}")
    if device.type == "cpu":
        return torch.device("cpu")
    if device.index is None:
        return torch.device("cuda", _local_device(place.local_rank))
    if place.world > 1:
        raise ConfigError(f"device: expected auto, cpu or cuda with {place.world} processes, got {name!r}")
    return device


def _local_device(local_rank: int) -> int:
    found = torch.cuda.device_count()
    if local_rank >= found:
        raise SystemProblem(f"device: expected a CUDA device for LOCAL_RANK {local_rank}, found {found}")
    return local_rank


def _check_fits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for kind, names in (("missing", expected.keys() - found.keys()), ("unexpected", found.keys() - expected.keys())):
        if names:
            raise ModelFileError(f"weights: {len(names)} {kind} tensors, such as {min(names)}")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape or tensor.dtype != found[name].dtype:
            want, got = (f"{item.dtype} {tuple(item.shape)}" for item in (tensor, found[name]))
            raise ModelFileError(f"weights: tensor {name}: expected {want}, got {got}")


def _forget_cached_weights(*_: object) -> None:
    """FSDP2 frees the memory of weights and fills it again at the same version, which the cache cannot see."""
    WEIGHT_CACHE.clear()


@contextmanager
def _lost_peers_named(rank: int, world: int, kind: type[Exception] | None = None) -> Iterator[None]:
    """Turn the errors of a lost process (or all of a kind) into a `SystemProblem`."""
    try:
        yield
    except HyenaGLTError:
        raise
    except Exception as error:
        if not (_is_lost_peer(error) or (kind is not None and isinstance(error, kind))):
            raise
        raise SystemProblem(
            f"rank {rank} of {world}: another process has ended or does not answer; see its messages ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """The first sentence of an error, without the place in the source that it may begin with."""
    text = re.sub(r"^\[[^]]*\]\s*", "", str(error).strip()) or type(error).__name__
    return text.splitlines()[0].split(". ")[0][:160]


def _is_lost_peer(error: Exception) -> bool:
    is_ours = isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "NCCL" in str(error)
    return is_ours and isinstance(error, RuntimeError)
