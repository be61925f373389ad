"""What a net says about windows: the log-likelihood of each base, the mean state, the patches.

    windows -> WindowReader   whole windows in batches: any net, any device
            -> StreamReader   a reference window once, and of each allele the half with the variant in it

Both give the same numbers up to float rounding. The net is passed in and used through its public calls alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.errors import HyenaGLTError, SystemProblem
from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]
Whole = NDArray[np.int64]

SHORTEST_STREAMED = 1024  # bases; shorter windows are faster in batches
CPU_BATCH = 16  # windows shorter than that, of a forward on the CPU; longer ones gain nothing there from a batch
GPU_BATCH = 8
NO_FLOATS: Floats = np.zeros(0, np.float32)
NO_WHOLE: Whole = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One window as a net sees it."""

    begin: int  # place of the first base in `log_likelihoods`
    log_likelihoods: Floats  # (length - begin,) nats of each base given those before it; 0 for the first of all
    state_sum: Sums  # (hidden,) sum of the trunk's patch states
    patch_lengths: Whole  # (num_patches,)

    @property
    def mean_state(self) -> Sums:
        """`(hidden,)` mean patch state."""
        return self.state_sum / max(self.patch_lengths.size, 1)

    @property
    def length_variance(self) -> float:
        """Variance of the patch lengths with n - 1 in the denominator, as `torch.var`; 0.0 for one patch."""
        return float(self.patch_lengths.var(ddof=1)) if self.patch_lengths.size > 1 else 0.0

    @property
    def bases_per_patch(self) -> float:
        """Compression."""
        return float(self.patch_lengths.sum()) / self.patch_lengths.size if self.patch_lengths.size else 0.0

    def log_likelihood_at(self, places: Whole) -> float:
        """Sum over places of the window, nats."""
        return float(self.log_likelihoods[places - self.begin].astype(np.float64).sum())


class Tail(NamedTuple):
    """An allele's window in terms of the reference window that it shares its beginning with."""

    first: int  # place from which they may differ
    window: bytes


class WindowReader:
    """Reads whole windows in batches.

    Out of memory halves the batch, down to one window, and keeps the size that worked.

    Args:
        net: A causal `HyenaGLT` in evaluation mode with a patcher.
        batch_size: Windows of a forward; changes speed and memory, results by rounding only.
    """

    def __init__(self, net: Any, batch_size: int) -> None:
        self.net, self.batch_size = net, batch_size

    def read(self, windows: Sequence[bytes]) -> Iterator[Reading]:
        """Readings in the order of the windows, which have any length of at least 1.

        Raises:
            SystemProblem: A single window does not fit in memory.
        """
        at = 0
        while at < len(windows):
            batch = windows[at : at + self.batch_size]
            try:
                readings = self._read_batch(batch)
            except (MemoryError, RuntimeError) as problem:
                if not is_out_of_memory(problem):
                    raise
                self._halve(len(batch), len(batch[0]))
                continue
            yield from readings
            at += len(batch)

    def _halve(self, count: int, length: int) -> None:
        if count == 1:
            raise SystemProblem(f"out of memory with one window of {length:,} bases; give a shorter --window") from None
        self.batch_size = count // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _read_batch(self, windows: Sequence[bytes]) -> list[Reading]:
        tokens = _padded_tokens(windows)
        output = self.net(tokens, return_position_info=False)
        targets = self.net.vocabulary_ids(tokens.to(output.logits.device))[:, 1:]
        likelihoods = log_likelihoods(output.logits[:, :-1], targets.clamp_min(0)).cpu().numpy()
        sums = output.last_hidden_state.double().sum(dim=1).cpu().numpy()  # padding holds zeros
        lengths = output.patch_lengths.cpu().numpy()
        return [
            Reading(
                0,
                np.concatenate([np.zeros(1, np.float32), likelihoods[row, : len(window) - 1]]),
                sums[row],
                lengths[row][lengths[row] > 0],
            )
            for row, window in enumerate(windows)
        ]


class StreamReader:
    """Reads the first half of a reference window once; of each allele that begins to differ behind it, the rest alone.

    Where a window is divided depends on nothing but `half`, so a reading is bitwise the same whichever other alleles
    share the reference window, and however many.

    Args:
        net: A causal `HyenaGLT` in evaluation mode whose patcher can be streamed.
        half: Bases of the first part.
    """

    def __init__(self, net: Any, half: int) -> None:
        self.net, self.half = net, half

    def read(self, reference: bytes, tails: Sequence[Tail]) -> tuple[Reading, list[Reading]]:
        """The reading of a reference window, and those of windows that begin as it does, in order."""
        start = _StreamRun(self.net.stream(), np.zeros(self.net.config.hidden_size))
        middle = start.fork()
        middle.feed(reference[: self.half])
        readings = [
            self._rest(middle, tail.window[self.half :]) if tail.first >= self.half else self._whole(start, tail.window)
            for tail in tails
        ]
        return middle.finish(reference[self.half :]), readings

    def _rest(self, middle: _StreamRun, bases: bytes) -> Reading:
        return middle.fork().finish(bases)

    def _whole(self, start: _StreamRun, window: bytes) -> Reading:
        """Divided as the reference is, so that no change gives no difference."""
        run = start.fork()
        run.feed(window[: self.half])
        return run.finish(window[self.half :])


class _StreamRun:
    """A stream, and what has been read of its window so far."""

    def __init__(self, stream: Any, state_sum: Sums) -> None:
        self._stream, self._sum = stream, state_sum
        self._begin = self._fed = 0
        self._last_logits: Tensor | None = None  # (1, 1, vocab), of the base to come
        self._likelihoods: list[Floats] = []
        self._lengths: list[Whole] = []

    def fork(self) -> _StreamRun:
        """Goes on from here by itself; its log-likelihoods begin here."""
        other = _StreamRun(self._stream.fork(), self._sum)
        other._begin = other._fed = self._fed
        other._last_logits, other._lengths = self._last_logits, list(self._lengths)
        return other

    def feed(self, piece: bytes) -> None:
        """Read the next bases, maybe none."""
        self._take(piece, self._stream.feed(piece))

    def finish(self, piece: bytes) -> Reading:
        """The reading of all that was fed and of the last bases, maybe none; the stream ends."""
        self._take(piece, self._stream.finish(piece))
        return Reading(self._begin, _joined(self._likelihoods, NO_FLOATS), self._sum, _joined(self._lengths, NO_WHOLE))

    def _take(self, piece: bytes, output: Any) -> None:
        if output.patch_lengths.numel():
            self._sum = self._sum + output.last_hidden_state[0].double().sum(0).cpu().numpy()
            self._lengths.append(output.patch_lengths[0].numpy())
        if not piece:
            return
        before = self._last_logits
        logits = output.logits[:, :-1] if before is None else torch.cat([before, output.logits[:, :-1]], dim=1)
        targets = self._stream.net.vocabulary_ids(_padded_tokens([piece]).to(logits.device))
        targets = targets[:, len(piece) - logits.shape[1] :]
        first = NO_FLOATS if before is not None else np.zeros(1, np.float32)
        self._likelihoods += [first, log_likelihoods(logits, targets)[0].cpu().numpy()]
        self._last_logits = output.logits[:, -1:].clone()
        self._fed += len(piece)


def can_stream(net: Any, window: int) -> bool:
    """Whether `StreamReader` works for a net and pays: on the CPU, in longer windows, with a causal patcher."""
    if net.device.type != "cpu" or window < SHORTEST_STREAMED:
        return False
    try:
        net.stream().feed(b"A")
    except HyenaGLTError:
        return False
    return True


def default_batch(net: Any, window: int) -> int:
    """Windows of a forward."""
    if net.device.type != "cpu":
        return GPU_BATCH
    return CPU_BATCH if window < SHORTEST_STREAMED else 1


def log_likelihoods(logits: Tensor, targets: Tensor) -> Tensor:
    """`(batch, length)` float32 nats of `targets` `(batch, length)` ids under `(batch, length, vocab)` logits."""
    return logits.float().log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def cosine_distance(one: Sums, other: Sums) -> float:
    """1 - cosine of two vectors, in [0, 2] and exact near 0; 0.0 where both are zero, 1.0 where one is."""
    sizes = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if 0.0 in sizes:
        return 0.0 if sizes == (0.0, 0.0) else 1.0
    difference = one / sizes[0] - other / sizes[1]
    return 0.5 * float(difference @ difference)


def is_out_of_memory(problem: BaseException) -> bool:
    """Tell running out of memory from every other error."""
    words = str(problem).lower()
    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or (
        isinstance(problem, RuntimeError) and ("out of memory" in words or "can't allocate memory" in words)
    )


def all_finite(values: Sequence[float]) -> bool:
    """Whether every number is finite."""
    return all(map(math.isfinite, values))


def _joined(parts: Sequence[Any], nothing: Any) -> Any:
    return np.concatenate(parts) if parts else nothing


def _padded_tokens(windows: Sequence[bytes]) -> Tensor:
    """`(batch, longest)` int64 byte tokens, PAD tails."""
    rows = np.full((len(windows), max(map(len, windows))), PAD_ID, np.int64)
    for row, window in zip(rows, windows, strict=True):
        row[: len(window)] = np.frombuffer(window, np.uint8)
        row[: len(window)] += OFFSET
    return torch.from_numpy(rows)
