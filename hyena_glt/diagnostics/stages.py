"""A forward taken apart: seconds, peak memory and operations of each stage, from hooks on the net's own modules.

tokens -> patcher (entropies, boundaries) -> net (positions ... logits), every moment counted for exactly one stage
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from hyena_glt.diagnostics.cost import finish, fresh_meter
from hyena_glt.diagnostics.flops import flop_counter, unseen_flops
from hyena_glt.errors import DataError
from hyena_glt.model import HyenaGLT, LearnedPatcher
from hyena_glt.model.sources import patch_rows
from hyena_glt.ops.shifted_sum import compiled_loops_read
from hyena_glt.patching import Patcher
from hyena_glt.patching.sources import AutoEntropy, resolve_source
from hyena_glt.tokens.byte_tokenizer import PAD_ID

READ, ENTROPIES, BOUNDARIES, POSITIONS, OTHER = "read", "entropies", "boundaries", "positions", "other"
EMBEDDING, POOLING, LOGITS = "embed bytes + hashes", "pooling", "logits"
STAGES = (
    READ,
    ENTROPIES,
    BOUNDARIES,
    POSITIONS,
    EMBEDDING,
    "local encoder",
    POOLING,
    "trunk",
    "bridge",
    "decoder",
    LOGITS,
    OTHER,
)
WARM_UP_TOKENS = 256


@dataclass(frozen=True, slots=True)
class StageFigures:
    """One stage, summed over the batches."""

    name: str
    wall_s: float
    cpu_s: float
    peak_bytes: int | None  # of one batch: highest memory of the process in this stage, above that before the batch
    flops: float | None  # None where nothing of the stage is counted


@dataclass(frozen=True, slots=True)
class StageProfile:
    """Every stage in the order of the data, and the whole by a clock of its own."""

    stages: list[StageFigures]
    wall_s: float  # of all batches, patching included
    cpu_s: float
    num_batches: int
    num_bases: int
    num_patches: int
    clock: Literal["wall", "cpu"]  # whose seconds the shares are of: a busy machine stretches wall seconds

    def stage(self, name: str) -> StageFigures:
        """The figures of one stage."""
        return next(stage for stage in self.stages if stage.name == name)

    def seconds(self, stage: StageFigures) -> float:
        """Of a stage, by the clock of the profile."""
        return stage.wall_s if self.clock == "wall" else stage.cpu_s

    def share(self, name: str) -> float:
        """Part of the seconds of all stages."""
        total = sum(self.seconds(stage) for stage in self.stages)
        return self.seconds(self.stage(name)) / total if total else 0.0

    def ns_per_base(self, stage: StageFigures) -> float:
        """Nanoseconds per base."""
        return self.seconds(stage) * 1e9 / self.num_bases if self.num_bases else 0.0

    @property
    def flops_per_base(self) -> float:
        """Of all stages that are counted."""
        return sum(stage.flops or 0.0 for stage in self.stages) / self.num_bases if self.num_bases else 0.0

    def with_read(self, wall_s: float, cpu_s: float) -> StageProfile:
        """The same with what reading these bases took, which happens before anything is run."""
        stages = [replace(s, wall_s=wall_s, cpu_s=cpu_s) if s.name == READ else s for s in self.stages]
        return replace(self, stages=stages, wall_s=self.wall_s + wall_s, cpu_s=self.cpu_s + cpu_s)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: each stage with its share, nanoseconds and operations per base, and the whole."""
        rows = []
        for stage in self.stages:
            per_base = None if stage.flops is None else stage.flops / max(self.num_bases, 1)
            derived = {"share": self.share(stage.name), "ns_per_base": self.ns_per_base(stage)}
            rows.append({**asdict(stage), **derived, "flops_per_base": per_base})
        return {
            "clock": self.clock,
            "stages": rows,
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "num_batches": self.num_batches,
            "num_bases": self.num_bases,
            "num_patches": self.num_patches,
            "flops_per_base": self.flops_per_base,
        }


def profile_stages(net: HyenaGLT, patcher: Any | None, batches: Sequence[Tensor]) -> StageProfile:
    """Time every batch by stages; then measure the memory and count the operations of the first.

    A short forward comes before, uncounted. On CUDA the device is waited for at every change of stage, and on a CPU
    bridge, decoder and logits run whole instead of in blocks: both cost time that a plain forward does not take.

    Args:
        net: The net; it runs in evaluation mode and without gradients.
        patcher: What cuts; None: the net's own. Patches do not overlap.
        batches: Each `(batch, length)` int64 byte tokens, PAD tails; at least one.

    Raises:
        DataError: No batch, or one without a token.
        ConfigError: No patcher.
    """
    if not batches or not all(bool((tokens != PAD_ID).any()) for tokens in batches):
        raise DataError("batches: expected at least one, each with tokens")
    patcher = net.patcher() if patcher is None else patcher
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            forward(net, patcher, batches[0][:, :WARM_UP_TOKENS])
            return _profiled(net, patcher, batches)
    finally:
        net.train(was_training)


def forward(net: HyenaGLT, patcher: Any, tokens: Tensor) -> int:
    """Cut and run one batch; the number of its patches."""
    if isinstance(patcher, LearnedPatcher):
        return int((net(tokens, return_position_info=False).patch_lengths > 0).sum())
    patched = patch_rows(patcher, tokens)
    output = net(patched.tokens, patched.patch_lengths, patched.known_starts, return_position_info=False)
    return int((output.patch_lengths > 0).sum())


def _profiled(net: HyenaGLT, patcher: Any, batches: Sequence[Tensor]) -> StageProfile:
    finish(net.device)
    timed, wall, cpu, num_patches = Seconds(net.device), 0.0, 0.0, []
    for tokens in batches:
        start = time.perf_counter(), time.process_time()
        timed.restart()
        num_patches.append(run_watched(net, patcher, tokens, timed))
        wall, cpu = wall + time.perf_counter() - start[0], cpu + time.process_time() - start[1]
    peaks = Peaks(net.device)
    run_watched(net, patcher, batches[0], peaks)
    with flop_counter() as counter:
        counted = Operations(counter.get_total_flops)
        run_watched(net, patcher, batches[0], counted)
    sizes = [int((tokens != PAD_ID).sum()) for tokens in batches]
    compiled = compiled_loops_read(net.head.project.weight) and net.config.mixed_precision == "fp32"
    unseen = unseen_flops(net.config, sizes[0], num_patches[0], compiled)
    flops = {name: counted.found.get(name, 0) + unseen.get(name, 0.0) for name in {*counted.found, *unseen}}
    scale = sum(sizes) / sizes[0]
    figures = [
        StageFigures(
            name,
            *timed.found.get(name, (0.0, 0.0)),
            peaks.found.get(name),
            flops[name] * scale if flops.get(name) else None,
        )
        for name in STAGES
    ]
    clock: Literal["wall", "cpu"] = "cpu" if net.device.type == "cpu" else "wall"
    return StageProfile(figures, wall, cpu, len(batches), sum(sizes), sum(num_patches), clock)


class Seconds:
    """Wall and CPU seconds by stage; each stage begins at the moment when the one before ended."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.found: dict[str, tuple[float, float]] = {}
        self.restart()

    def restart(self) -> None:
        """The next stage begins now."""
        finish(self.device)
        self._last = time.perf_counter(), time.process_time()

    def begin(self, stage: str) -> None:
        """A stage begins."""

    def end(self, stage: str) -> None:
        """And ends."""
        finish(self.device)
        wall, cpu = self.found.get(stage, (0.0, 0.0))
        now = time.perf_counter(), time.process_time()
        self.found[stage] = wall + now[0] - self._last[0], cpu + now[1] - self._last[1]
        self._last = now


class Peaks:
    """Peak memory by stage, above that before the first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.found: dict[str, int] = {}
        self._meter = fresh_meter(device)

    def begin(self, stage: str) -> None:
        """A stage begins."""
        finish(self.device)
        self._meter.begin()

    def end(self, stage: str) -> None:
        """And ends."""
        finish(self.device)
        self.found[stage] = max(self.found.get(stage, 0), self._meter.peak())


class Operations:
    """Operations by stage.

    Args:
        total: How many there were so far.
    """

    def __init__(self, total: Callable[[], int]) -> None:
        self.found: dict[str, int] = {}
        self._total, self._last = total, 0

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self._last = self._total()

    def end(self, stage: str) -> None:
        """And ends."""
        self.found[stage] = self.found.get(stage, 0) + self._total() - self._last


class Marks:
    """Stages as named ranges of the profiler that is recording."""

    def __init__(self) -> None:
        self._range: Any = None

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self._range = record_function(f"stage: {stage}")
        self._range.__enter__()

    def end(self, stage: str) -> None:
        """And ends."""
        self._range.__exit__(None, None, None)


@dataclass(slots=True)
class Watch:
    """Which stage runs now. What it tells is told every change, in order and without gaps."""

    listener: Any  # has begin(stage) and end(stage)
    _open: list[str] = field(default_factory=list)

    def enter(self, stage: str) -> None:
        """A stage begins within the one that runs."""
        if self._open:
            self.listener.end(self._open[-1])
        self._open.append(stage)
        self.listener.begin(stage)

    def leave(self) -> None:
        """It ends; the one around it goes on."""
        self.listener.end(self._open.pop())
        if self._open:
            self.listener.begin(self._open[-1])

    def become(self, stage: str) -> None:
        """What runs now is another stage, until something else is said."""
        self.listener.end(self._open[-1])
        self._open[-1] = stage
        self.listener.begin(stage)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage while the block runs."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()


def run_watched(net: HyenaGLT, patcher: Any, tokens: Tensor, listener: Any) -> int:
    """Cut and run one batch while a listener hears of the stages; the number of patches.

    Args:
        net: The net, with its hooks only meanwhile.
        patcher: What cuts.
        tokens: `(batch, length)` int64, PAD tails.
        listener: Has `begin(stage)` and `end(stage)`; each moment lies in exactly one stage.
    """
    watch = Watch(listener)
    with watch.stage(OTHER), hooked(net, watch), watched_patcher(patcher, watch) as watched:
        return forward(net, watched, tokens)


@contextmanager
def hooked(net: HyenaGLT, watch: Watch) -> Iterator[None]:
    """Hooks that tell when the modules of a net begin and end.

    `positions` is the time from the end of the local encoder to the pooling, in which the net derives them from the
    patch lengths, and the modules that make vectors of them. Learned boundaries are the merger's.
    """
    encoder = net.local_encoder
    stages: list[tuple[nn.Module | None, str]] = [
        (encoder, "local encoder"),
        (encoder.embedding, EMBEDDING),
        (net.merger, BOUNDARIES),
        (net.pooling, POOLING),
        (net.pooling.positions, POSITIONS),
        (net.trunk, "trunk"),
        (net.bridge, "bridge"),
        (net.bridge.offsets, POSITIONS),
        (net.local_decoder, "decoder"),
        (net.head, LOGITS),
    ]
    handles = []
    try:
        # The first hooks registered before a module and the last after it are the outermost.
        handles.append(net.pooling.register_forward_pre_hook(lambda *_: watch.become(OTHER)))
        for module, stage in stages:
            if module is not None:
                handles.append(module.register_forward_pre_hook(lambda *_, stage=stage: watch.enter(stage)))
                handles.append(module.register_forward_hook(lambda *_: watch.leave()))
        handles.append(encoder.register_forward_hook(lambda *_: watch.become(POSITIONS)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watched_patcher(patcher: Any, watch: Watch) -> Iterator[Any]:
    """A patcher that tells when it cuts, and when its source of scores works; learned boundaries are the net's."""
    if isinstance(patcher, LearnedPatcher):
        yield patcher
        return
    source = resolve_source(patcher.args) if isinstance(patcher, Patcher) and patcher.args.uses_scores else None
    if source is None:
        yield WatchedPatcher(patcher, watch)
        return
    args = patcher.args.model_copy(update={"entropy_model": watched_source(source, watch)})
    yield WatchedPatcher(Patcher(args), watch)


class WatchedPatcher:
    """A patcher as a net uses it."""

    def __init__(self, patcher: Any, watch: Watch) -> None:
        self._patcher, self._watch = patcher, watch

    def patch_with_starts(self, tokens: Tensor) -> Any:
        """What the patcher gives, as the stage of the boundaries."""
        with self._watch.stage(BOUNDARIES):
            if hasattr(self._patcher, "patch_with_starts"):
                return self._patcher.patch_with_starts(tokens)
            return patch_rows(self._patcher, tokens)


def watched_source(source: Any, watch: Watch) -> Any:
    """A source of scores that tells when it works."""
    if isinstance(source, AutoEntropy):
        return WatchedAuto(source, watch)
    if hasattr(source, "entropies"):
        return WatchedSource(source, watch)

    def score(*given: Any, **options: Any) -> Any:
        with watch.stage(ENTROPIES):
            return source(*given, **options)

    return score


class WatchedAuto(AutoEntropy):
    """Models fitted on each sequence."""

    def __init__(self, source: AutoEntropy, watch: Watch) -> None:
        self._source, self._watch = source, watch

    def score(self, tokens: Any) -> Any:
        """As the source has it."""
        with self._watch.stage(ENTROPIES):
            return self._source.score(tokens)

    def entropies(self, tokens: Any) -> Any:
        """What `score` gives first; a source has this."""
        return self.score(tokens)[0]


class WatchedSource:
    """An entropy source; what it has beside its scores is its own."""

    def __init__(self, source: Any, watch: Watch) -> None:
        self._source, self._watch = source, watch
        if hasattr(source, "forced_starts"):
            self.forced_starts = self._forced_starts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_source"], name)

    def entropies(self, tokens: Any) -> Any:
        """As the source has them."""
        with self._watch.stage(ENTROPIES):
            return self._source.entropies(tokens)

    def _forced_starts(self, tokens: Any) -> Any:
        with self._watch.stage(ENTROPIES):
            return self._source.forced_starts(tokens)
