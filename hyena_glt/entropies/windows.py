"""Logits of a network over sequences of any length, in overlapping windows of one fixed size.

Which window answers for a token depends on the token's position alone, and the network is only ever called with
tokens of one shape, `(batch_size, window)`, each window in the same row of its call: nothing but the tokens up to
its own can change a logit, whatever the length of the sequence and however it is cut into blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hyena_glt.errors import ConfigError, PatchingError, SystemProblem

FILL = 0  # token after the end of a sequence, where a causal network is not read


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Window `k` begins at token `k * (window - overlap)`.

    Args:
        window: Tokens that the network sees at once.
        overlap: First tokens of every window but the first that are context only.
        batch_size: Windows in one call; the windows `g * batch_size` and following make call `g`.

    Raises:
        ConfigError: A window below 2 tokens, an overlap that leaves nothing, or no window in a call.
    """

    window: int = 8192
    overlap: int = 1024
    batch_size: int = 1

    def __post_init__(self) -> None:
        for name in ("window", "overlap", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name}: expected an integer, got {value!r}")
        if self.window < 2 or self.batch_size < 1:
            raise ConfigError(
                f"expected window >= 2 and batch_size >= 1, got window {self.window} and batch_size {self.batch_size}"
            )
        if not 0 <= self.overlap < self.window:
            raise ConfigError(f"overlap: expected 0 to {self.window - 1} tokens, got {self.overlap}")

    @property
    def step(self) -> int:
        """Tokens from one window's beginning to the next one's."""
        return self.window - self.overlap

    def owner(self, position: int) -> int:
        """The window that answers for a token."""
        return 0 if position < self.window else 1 + (position - self.window) // self.step

    def owned(self, index: int) -> tuple[int, int]:
        """`(first, end)` of the tokens that a window answers for."""
        start = index * self.step
        return start + (self.overlap if index else 0), start + self.window


class WindowLogits(NamedTuple):
    """What the network says of one window, and which part of it counts.

    Whatever is computed from the logits is computed from all of them and cut afterwards: vectorised functions round
    the last elements of an array in another way than the rest.
    """

    position: int  # in the sequence, of the first token that the window answers for
    logits: Tensor  # (window, outputs) float32
    part: slice  # rows of the tokens that it answers for


def windowed_logits(
    network: Callable[[Tensor], Any],
    plan: WindowPlan,
    tokens: NDArray[np.integer[Any]],
    *,
    origin: int = 0,
    first: int = 0,
    device: torch.device | None = None,
) -> Iterator[WindowLogits]:
    """Logits after each token, window by window; never all of them at once.

    Args:
        network: Causal: `(batch_size, window)` int64 tokens to logits `(batch_size, window, outputs)`, or an object
            that has them as `.logits`.
        plan: The windows.
        tokens: `(length,)` integers >= 0, from position `origin` on, where the window of token `first` begins.
        origin: Position in the sequence of the first of the tokens.
        first: Position of the first token whose logits are wanted.
        device: Where the network runs.

    Yields:
        The windows that answer for the tokens from `first` on, in their order.

    Raises:
        PatchingError: Logits that do not fit the tokens.
    """
    end = origin + tokens.size
    if first >= end:
        return
    lowest, highest = plan.owner(first), plan.owner(end - 1)
    for call in range(lowest // plan.batch_size, highest // plan.batch_size + 1):
        rows = range(call * plan.batch_size, (call + 1) * plan.batch_size)
        wanted = [index for index in rows if lowest <= index <= highest]
        batch = np.full((plan.batch_size, plan.window), FILL, np.int64)
        for index in wanted:
            start = index * plan.step - origin
            part = tokens[start : start + plan.window]
            batch[index % plan.batch_size, : part.size] = part
        logits = _run(network, torch.from_numpy(batch), device)
        for index in wanted:
            begin, stop = plan.owned(index)
            begin, stop, start = max(begin, first), min(stop, end), index * plan.step
            yield WindowLogits(begin, logits[index % plan.batch_size], slice(begin - start, stop - start))


def _run(network: Callable[[Tensor], Any], batch: Tensor, device: torch.device | None) -> Tensor:
    with torch.inference_mode(), _full_float32(device):
        output = network(batch if device is None else batch.to(device))
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[:2] != batch.shape:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise PatchingError(f"logits: expected (*{tuple(batch.shape)}, outputs) from the network, got {got}")
    return logits.float()


def _full_float32(device: torch.device | None) -> AbstractContextManager[Any]:
    """No TF32 in convolutions, whose 10 bits of mantissa would move boundaries; products have none by default."""
    if device is None or device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def network_device(name: str, network: Any) -> torch.device:
    """The device of that name; "auto" is where the network's weights are.

    Raises:
        ConfigError: No such kind of device.
        SystemProblem: CUDA is asked for and not there.
    """
    if name == "auto":
        weights = network.parameters() if isinstance(network, nn.Module) else iter(())
        return next((weight.device for weight in weights), torch.device("cpu"))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found <= (device.index or 0):
            raise SystemProblem(f"device: expected a CUDA device for {name!r}, found {found}; use 'auto' or 'cpu'")
    return device
