"""Scores that were computed before, found again by the content of the row and the identity of its source.

    source, tokens of one row -> sha256 -> scores and forced starts, from memory or a folder, or computed

Row by row, so that a result never depends on the batch; only the rows that miss are scored.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hyena_glt.__about__ import __version__
from hyena_glt.config import AdvancedPatcherConfig
from hyena_glt.errors import ConfigError
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.cache_folder import CacheFolder, RowScores
from hyena_glt.patching.rows import TokenRows
from hyena_glt.patching.sources import AutoEntropy, Scored, score_rows

MAX_BYTES = 1 << 28
MAX_FOLDER_BYTES = 1 << 32
ENTRY_BYTES = 512  # that the key and the objects of an entry take, about
NARROW = (np.uint8, np.uint16, np.int64)  # types that tokens are hashed in, the first that holds them


class SourceIdentity(NamedTuple):
    """What tells one source of scores from another."""

    text: bytes
    is_lasting: bool  # the same in another process, so that a folder may use it


class EntropyCache:
    """Entropies by content, bounded in bytes, the least recently used go first. `Patcher(..., cache=EntropyCache())`.

    A patcher has no cache unless it is given one: a context model scores about as fast as a hash is computed. It pays
    where a source is slow (a network, `MixEntropy`, `auto`) and rows come again: epochs, thresholds tried one by one.

    A source is known by its type, the version of this package and `describe()`, if that has a hash (`...sha256`) of
    all that was learned. Any other object or callable is known by being the same object, and its scores are kept in
    memory only; torch modules also by the version counters of their weights. After changing such a source in a way
    that counters do not see (`weight.data`, a closure), call `clear`.

    Args:
        max_bytes: Of scores kept in memory; 0 keeps none.
        folder: Where scores are kept for other runs and processes; None for nowhere.
        max_folder_bytes: Of the files there.

    Raises:
        ConfigError: A negative number of bytes.
        SystemProblem: The folder cannot be made.

    Example:
        >>> from hyena_glt.patching import Patcher
        >>> patcher = Patcher(threshold=1.3, max_patch_length=16, cache=EntropyCache())
        >>> again = [patcher.patch("ACGTTGCAAC" * 5)[1] for _ in range(2)]
        >>> patcher.cache.hits, patcher.cache.misses, bool((again[0] == again[1]).all())
        (1, 1, True)
    """

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        folder: str | os.PathLike[str] | None = None,
        *,
        max_folder_bytes: int = MAX_FOLDER_BYTES,
    ) -> None:
        for name, value in (("max_bytes", max_bytes), ("max_folder_bytes", max_folder_bytes)):
            if value < 0:
                raise ConfigError(f"{name}: expected 0 or more, got {value}")
        self.max_bytes = max_bytes
        self.folder = None if folder is None else CacheFolder(folder, max_folder_bytes)
        self.hits = 0  # rows that were found
        self.misses = 0  # rows that had to be scored
        self._bytes = 0
        self._rows: OrderedDict[str, RowScores] = OrderedDict()  # the least recently used first
        self._lock = threading.Lock()
        self._objects = _ObjectNumbers()

    @classmethod
    def from_config(
        cls,
        config: AdvancedPatcherConfig,
        folder: str | os.PathLike[str] | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> EntropyCache | None:
        """The cache of a patcher that is run by this configuration; None with `no_cache`."""
        return None if config.no_cache else cls(max_bytes, folder)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets an empty cache of the same size on the same folder."""
        place = (None, MAX_FOLDER_BYTES) if self.folder is None else (self.folder.path, self.folder.max_bytes)
        return _rebuilt, (self.max_bytes, *place)

    def __len__(self) -> int:
        """Rows in memory."""
        return len(self._rows)

    def __repr__(self) -> str:
        place = "" if self.folder is None else f", folder={str(self.folder.path)!r}"
        return f"EntropyCache({self.max_bytes}{place}): {len(self)} rows, {self.hits} hits, {self.misses} misses"

    @property
    def bytes(self) -> int:
        """Bytes that the rows in memory take."""
        return self._bytes

    def clear(self) -> None:
        """Forget every row, those in the folder too."""
        with self._lock:
            self._rows.clear()
            self._bytes = self.hits = self.misses = 0
        if self.folder is not None:
            self.folder.clear()

    def score_rows(self, source: Any, rows: TokenRows, args: PatcherArgs) -> Scored:
        """As `sources.score_rows`, without scoring again what is known.

        Raises:
            PatchingError: Scores of another length, or NaN.
        """
        identity = self._identity(source, args)
        keys = [row_key(identity, rows.row(index)) for index in range(rows.lengths.size)]
        found = self._found(keys, rows.lengths, identity.is_lasting)
        firsts = {key: index for index, key in reversed(list(enumerate(keys))) if key not in found}
        self.misses += len(firsts)
        self.hits += len(keys) - len(firsts)
        if not firsts:
            return _laid_out(rows, [found[key] for key in keys])
        missing = sorted(firsts.values())
        scored = score_rows(source, _some_rows(rows, missing), args)
        for place, index in enumerate(missing):
            found[keys[index]] = _row_of(scored, place, int(rows.lengths[index]))
            self._keep(keys[index], found[keys[index]], identity.is_lasting)
        return scored if len(missing) == len(keys) else _laid_out(rows, [found[key] for key in keys])

    def _found(self, keys: list[str], lengths: NDArray[np.int64], on_disk: bool) -> dict[str, RowScores]:
        found: dict[str, RowScores] = {}
        for key, length in zip(keys, lengths.tolist(), strict=True):
            if key in found:
                continue
            with self._lock:
                row = self._rows.get(key)
                if row is not None:
                    self._rows.move_to_end(key)
            if row is None and on_disk and self.folder is not None:
                row = self.folder.read(key, length)
                if row is not None:
                    self._keep(key, row, on_disk=False)
            if row is not None:
                found[key] = row
        return found

    def _keep(self, key: str, row: RowScores, on_disk: bool) -> None:
        """Put a row into memory, and into the folder."""
        size = row.nbytes + ENTRY_BYTES
        with self._lock:
            if size <= self.max_bytes and key not in self._rows:
                self._rows[key] = row
                self._bytes += size
            while self._bytes > self.max_bytes:
                _, oldest = self._rows.popitem(last=False)
                self._bytes -= oldest.nbytes + ENTRY_BYTES
        if on_disk and self.folder is not None:
            self.folder.write(key, row)

    def _identity(self, source: Any, args: PatcherArgs) -> SourceIdentity:
        kind = f"{type(source).__module__}.{type(source).__qualname__}"
        about = {"name": source.name} if isinstance(source, AutoEntropy) else _lasting_description(source)
        facts: list[Any] = [__version__, kind]
        if not isinstance(source, AutoEntropy) and not hasattr(source, "entropies"):
            facts += [args.patching_device, args.patching_batch_size]  # a network's last bits may depend on them
        with suppress(TypeError, ValueError):  # a description that is no JSON
            if about is not None:
                return SourceIdentity(json.dumps([*facts, about], sort_keys=True).encode(), is_lasting=True)
        own = [self._objects.number(source), *_module_versions(source)]
        return SourceIdentity(json.dumps([*facts, own]).encode(), is_lasting=False)


def row_key(identity: SourceIdentity, tokens: NDArray[np.int64]) -> str:
    """Key of one row scored by one source: 64 hexadecimal digits."""
    lowest, highest = (int(tokens.min()), int(tokens.max())) if tokens.size else (0, 0)
    kind = next(t for t in NARROW if t is np.int64 or (lowest >= 0 and highest <= np.iinfo(t).max))
    digest = hashlib.sha256(f"{len(identity.text)} {kind.__name__} ".encode() + identity.text)
    digest.update(np.ascontiguousarray(tokens, kind).data)
    return digest.hexdigest()


class _ObjectNumbers:
    """A number for each live object, never given again: an `id` is, once its object has gone."""

    def __init__(self) -> None:
        self._numbers: dict[int, tuple[Callable[[], Any], int]] = {}
        self._next = count()

    def number(self, item: Any) -> int:
        of, number = self._numbers.get(id(item), (lambda: None, -1))
        if of() is not item:
            number = next(self._next)
            self._numbers[id(item)] = (_reference(item), number)
        return number


def _reference(item: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(item)
    except TypeError:
        return lambda: item


def _lasting_description(source: Any) -> dict[str, Any] | None:
    """What `describe` says, where it has a hash of what was learned (None: nothing was)."""
    describe = getattr(source, "describe", None)
    about = describe() if callable(describe) else None
    is_hashed = isinstance(about, dict) and any(str(key).endswith("sha256") for key in about)
    return about if is_hashed else None


def _module_versions(source: Any) -> list[Any]:
    """Counters that change with the weights of a torch module, or of the one that a method belongs to."""
    owner = source if isinstance(source, nn.Module) else getattr(source, "__self__", None)
    if not isinstance(owner, nn.Module):
        return []
    weights = [*owner.parameters(), *owner.buffers()]
    return [owner.training, *([weight.data_ptr(), weight._version] for weight in weights)]


def _some_rows(rows: TokenRows, indices: list[int]) -> TokenRows:
    """These rows alone, no wider than the longest of them."""
    if len(indices) == rows.lengths.size:
        return rows
    lengths = rows.lengths[indices]
    width = int(lengths.max(initial=0))
    return TokenRows(rows.tokens[indices, :width], lengths, is_ragged=bool((lengths != width).any()))


def _row_of(scored: Scored, row: int, length: int) -> RowScores:
    """A copy of one row."""
    scores = scored.scores[row, :length].detach().cpu().numpy().astype(np.float32)
    forced = np.zeros(0, np.int64) if scored.forced is None else np.flatnonzero(scored.forced[row, :length])
    return RowScores(scores, forced)


def _laid_out(rows: TokenRows, found: list[RowScores]) -> Scored:
    scores = np.zeros(rows.tokens.shape, np.float32)
    forced = np.zeros(rows.tokens.shape, np.bool_) if any(row.forced.size for row in found) else None
    for index, row in enumerate(found):
        scores[index, : row.scores.size] = row.scores
        if forced is not None:
            forced[index, row.forced] = True
    return Scored(torch.from_numpy(scores).to(rows.tokens.device), forced)


def _rebuilt(max_bytes: int, folder: Any, max_folder_bytes: int) -> EntropyCache:
    return EntropyCache(max_bytes, folder, max_folder_bytes=max_folder_bytes)
