"""Many sequences -> batches -> one output per sequence, with what the patching saved.

sequences -> batches of similar length -> patches -> forward -> outputs without padding, in the order of the input
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hyena_glt.errors import ConfigError, DataError, PatchingError
from hyena_glt.model.inputs import PatchedTokens, check_tokens
from hyena_glt.model.outputs import HyenaGLTOutput
from hyena_glt.model.sources import Piece, encode_piece, join_patches, pad_rows, patch_rows, stack_rows
from hyena_glt.tokens.byte_tokenizer import PAD_ID

if TYPE_CHECKING:
    from hyena_glt.model.hyena_glt import HyenaGLT

TIMED_RUNS = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class PerformanceStats:
    """How long a run took, and on request how that compares with byte mode."""

    num_sequences: int
    num_bases: int  # tokens of the sequences, without padding
    num_patches: int
    patching_s: float
    model_s: float
    measure: Callable[[], tuple[float, float]] = field(repr=False)  # seconds of one batch, byte mode and patched

    @property
    def elapsed_s(self) -> float:
        """Seconds of patching and of the net."""
        return self.patching_s + self.model_s

    @property
    def bases_per_s(self) -> float:
        """Bases per second of both together; 0.0 where nothing ran."""
        return self.num_bases / self.elapsed_s if self.elapsed_s else 0.0

    @cached_property
    def batch_times_s(self) -> tuple[float, float]:
        """Seconds of one batch in byte mode and with patches, measured when first asked for (which takes that long)."""
        return self.measure()

    @cached_property
    def speedup(self) -> float:
        """Seconds of the same net in byte mode over seconds with patches, patching included, on one batch.

        Measured when first asked for, on the batch of middling length, the better of two runs each. NaN where there
        was no base.
        """
        byte_mode, patched = self.batch_times_s
        return byte_mode / patched if patched else float("nan")


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchResult:
    """What `batch_process_with_patching` gives, in the order of the sequences."""

    outputs: list[HyenaGLTOutput]  # one per sequence, (1, ...) without padding
    compression_stats: Tensor  # (num_sequences,) float64, tokens per patch; 0.0 for an empty sequence
    performance_stats: PerformanceStats


def forward_patches(
    net: HyenaGLT,
    patches: Sequence[Sequence[Piece]],
    boundaries: Sequence[Any] | None = None,
    max_length: int | None = None,
    global_position_offset: int | Sequence[int] | Tensor = 0,
) -> list[HyenaGLTOutput]:
    """One forward for many sequences that are cut already. `HyenaGLT.batch_forward_with_patches` says the rest."""
    offsets = _offsets(global_position_offset, len(patches))
    if boundaries is not None and len(boundaries) != len(patches):
        raise PatchingError(f"boundaries: expected starts for each of {len(patches)} sequences, got {len(boundaries)}")
    rows = []
    for index, pieces in enumerate(patches):
        if isinstance(pieces, str | bytes):
            raise PatchingError("patches: expected a list of pieces for each sequence, got one list of pieces")
        row = join_patches(pieces, None if boundaries is None else boundaries[index], int(offsets[index]))
        _check_length(row, max_length, index)
        rows.append(row)
    return split_rows(net._run(stack_rows(rows), offsets)) if rows else []


def process_sequences(
    net: HyenaGLT, patcher: Any, sequences: Piece | Sequence[Piece], batch_size: int = 32
) -> BatchResult:
    """Cut and run many sequences. `HyenaGLT.batch_process_with_patching` says the rest."""
    if batch_size < 1:
        raise ConfigError(f"batch_size: expected at least 1, got {batch_size}")
    rows = encode_each(sequences)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    outputs: list[HyenaGLTOutput | None] = [None] * len(rows)
    patching_s = model_s = 0.0
    with torch.no_grad():
        for batch in batches:
            tokens = _batch(rows, batch)
            patched, seconds = _timed(net, partial(patch_rows, patcher, tokens))
            patching_s += seconds
            output, seconds = _timed(net, partial(net._run, patched, 0))
            model_s += seconds
            for index, row in zip(batch, split_rows(output), strict=True):
                outputs[index] = row
    results = [output for output in outputs if output is not None]
    middle = _batch(rows, batches[len(batches) // 2]) if batches else torch.zeros(0, 0, dtype=torch.int64)
    return BatchResult(
        outputs=results,
        compression_stats=torch.tensor([output.compression_ratio for output in results], dtype=torch.float64),
        performance_stats=PerformanceStats(
            num_sequences=len(rows),
            num_bases=sum(len(row) for row in rows),
            num_patches=sum(output.patch_lengths.shape[1] for output in results),
            patching_s=patching_s,
            model_s=model_s,
            measure=partial(time_against_byte_mode, net, patcher, middle),
        ),
    )


def encode_each(sequences: Piece | Sequence[Piece]) -> list[Tensor]:
    """Byte tokens of each sequence, `(length,)` int64 without padding; one sequence is a list of one.

    Raises:
        PatchingError: Something that is no sequence.
    """
    if isinstance(sequences, Tensor) and sequences.ndim == 2:
        check_tokens(sequences)
        return [row[row != PAD_ID].long() for row in sequences]
    if isinstance(sequences, str | bytes | bytearray | Tensor):
        return [encode_piece(sequences)]
    if not isinstance(sequences, Iterable):
        raise PatchingError(f"sequences: expected one or a list of them, got {type(sequences).__name__}")
    return [encode_piece(sequence) for sequence in sequences]


def split_rows(output: HyenaGLTOutput) -> list[HyenaGLTOutput]:
    """The output of each sequence of a batch, without padding."""
    return [output.row(index) for index in range(len(output.patch_lengths))]


@torch.no_grad()
def time_against_byte_mode(net: HyenaGLT, patcher: Any, tokens: Tensor) -> tuple[float, float]:
    """Seconds of one batch in byte mode and with patches, patching included: the better of two runs each.

    Every run scores the tokens anew, whatever cache the patcher has.

    Args:
        net: The net.
        patcher: Cuts the tokens.
        tokens: `(batch, length)` int64, PAD tails.

    Returns:
        `(byte_mode_s, patched_s)`; NaN for both where there is no token.
    """
    if not bool((tokens != PAD_ID).any()):
        return float("nan"), float("nan")
    ones = PatchedTokens(tokens=tokens, patch_lengths=(tokens != PAD_ID).long())
    byte_mode, patched = [], []
    with _without_cache(patcher):
        for _ in range(TIMED_RUNS):
            byte_mode.append(_timed(net, lambda: net._run(ones, 0))[1])
            patched.append(_timed(net, lambda: net._run(patch_rows(patcher, tokens), 0))[1])
    return min(byte_mode), min(patched)


@contextmanager
def _without_cache(patcher: Any) -> Iterator[None]:
    cache = getattr(patcher, "cache", None)
    if cache is None:
        yield
        return
    patcher.cache = None
    try:
        yield
    finally:
        patcher.cache = cache


def _timed(net: HyenaGLT, work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and its seconds, the device's queue included."""
    _finish(net)
    start = time.perf_counter()
    value = work()
    _finish(net)
    return value, time.perf_counter() - start


def _finish(net: HyenaGLT) -> None:
    if net.device.type == "cuda":
        torch.cuda.synchronize(net.device)


def _batch(rows: Sequence[Tensor], indices: Sequence[int]) -> Tensor:
    tokens = pad_rows([rows[index] for index in indices], PAD_ID)
    check_tokens(tokens)
    return tokens


def _offsets(offset: int | Sequence[int] | Tensor, count: int) -> Tensor:
    offsets = torch.as_tensor(offset, dtype=torch.int64).cpu()
    if offsets.ndim == 0:
        return offsets.expand(count)
    if tuple(offsets.shape) != (count,):
        shape = tuple(offsets.shape)
        raise PatchingError(f"global_position_offset: expected one int or {count} of them, got shape {shape}")
    return offsets


def _check_length(row: PatchedTokens, max_length: int | None, index: int) -> None:
    if max_length is not None and (bases := _num_bases(row)) > max_length:
        raise DataError(
            f"expected at most max_length={max_length} bases, got {bases}; cut it into windows or raise max_length",
            record=f"sequence {index}",
        )


def _num_bases(row: PatchedTokens) -> int:
    """Bases of one sequence; those that patches share count once."""
    lengths = row.patch_lengths[0]
    if row.patch_starts is None or not len(lengths):
        return int(lengths.sum())
    return int(row.patch_starts[0].diff().minimum(lengths[:-1]).sum() + lengths[-1])
