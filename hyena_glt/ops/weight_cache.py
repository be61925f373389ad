"""Values that follow from weights alone, kept while the weights stay as they are and gradients are off.

An entry knows its weights by storage, version, dtype, device and shape, and holds their storage, so that no other
tensor can come to lie at the same address. An optimizer step, `load_state_dict` and `.to()` all change one of
these. Only a write through `.data` or through memory shared with numpy goes unseen, as it does by autograd:
call `WEIGHT_CACHE.clear()` after one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")
DEFAULT_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class _Entry(Generic[Value]):
    held: tuple[Tensor, ...]  # aliases of the weights
    versions: tuple[int, ...]
    value: Value
    num_bytes: int


class WeightCache:
    """Least recently used values out first, within `max_bytes` in all.

    Args:
        max_bytes: Bound of the values and the weights they hold together.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = Lock()

    @property
    def num_bytes(self) -> int:
        """Memory of everything kept."""
        return sum(entry.num_bytes for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def accepts(self, weights: Sequence[Tensor], num_bytes: int) -> bool:
        """Whether a value of this size would be kept: gradients off, ordinary weights, a quarter of the bound."""
        return (
            not torch.compiler.is_compiling()
            and not torch.is_grad_enabled()
            and num_bytes <= self.max_bytes // 4
            and all(type(weight) in (Tensor, torch.nn.Parameter) and not weight.is_inference() for weight in weights)
        )

    def get(
        self,
        kind: Hashable,
        weights: Sequence[Tensor],
        compute: Callable[[], Value],
        tensors: Callable[[Value], Sequence[Tensor]],
    ) -> Value:
        """The kept value, or `compute()` where there is none for these weights as they are now.

        Args:
            kind: What the value depends on beside the weights.
            weights: What it is computed from.
            compute: Computes it.
            tensors: The tensors of a value, to count their memory.
        """
        if not weights or not self.accepts(weights, 0):
            return compute()
        try:
            key = (kind, *((w.data_ptr(), w.device, w.dtype, w.shape, w.stride()) for w in weights))
        except RuntimeError:  # tensors without storage, as inside torch.func.vmap
            return compute()
        versions = tuple(weight._version for weight in weights)
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.versions == versions:
                self._entries.move_to_end(key)
                return entry.value
        value = compute()
        held = tuple(weight.detach() for weight in weights)
        num_bytes = sum(tensor.untyped_storage().nbytes() for tensor in (*held, *tensors(value)))
        self._keep(key, _Entry(held, versions, value, num_bytes))
        return value

    def _keep(self, key: Hashable, entry: _Entry) -> None:
        with self._lock:
            self._entries.pop(key, None)
            if entry.num_bytes > self.max_bytes:
                return
            self._entries[key] = entry
            while self.num_bytes > self.max_bytes:
                self._entries.popitem(last=False)


WEIGHT_CACHE = WeightCache()
