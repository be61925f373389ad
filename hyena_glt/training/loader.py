"""Windows in an order that a seed draws -> batches of tokens with their patches, endlessly, resumable at any batch.

    WindowTable, patches -> WindowLoader -> Batch

Nothing here is random: order and strand are hashes of seed, epoch and window, so the state of a loader is three
numbers, and no generator is touched.
"""

from __future__ import annotations

import hashlib
import json
import logging
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.errors import ConfigError, ModelFileError
from hyena_glt.model.sources import patch_rows
from hyena_glt.patching.patcher import Patcher
from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID
from hyena_glt.training.corpus import Corpus, Symbols, Whole, draw_keys
from hyena_glt.training.patched_corpus import PatchedCorpus, StaticPatches, WindowPatches, describe_patcher
from hyena_glt.training.windows import WindowTable

Patches = PatchedCorpus | StaticPatches | Patcher | str | float | None

ORDER_SALT, STRAND_SALT, SHIFT_SALT = 3, 4, 6
SALT_BITS = 8  # below the epoch
FORMAT = "hyena-glt/window-loader/1"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Windows side by side."""

    tokens: Tensor  # (batch, length) int64 byte tokens, rows padded with -1 at the end
    patch_lengths: Tensor | None  # (batch, max_patches) int64, right-padded with 0; None: the net cuts by itself
    known_starts: Tensor | None  # (batch, length) bool, False at a start that its own base forced; None: all known
    window_ids: Tensor  # (batch,) int64, rows of the window table
    places: Tensor  # (batch, 3) int64 contig, start, end on the forward strand
    reversed: Tensor  # (batch,) bool, True for the reverse complement of the window
    epoch: int  # from 0 on
    index: int  # of the batch in its epoch, from 0 on

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same on another device."""

        def moved(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=non_blocking)

        return replace(
            self,
            tokens=moved(self.tokens),
            patch_lengths=None if self.patch_lengths is None else moved(self.patch_lengths),
            known_starts=None if self.known_starts is None else moved(self.known_starts),
            window_ids=moved(self.window_ids),
            places=moved(self.places),
            reversed=moved(self.reversed),
        )


class WindowLoader:
    """An endless iterator over the windows of a table, each once in an epoch.

    An epoch's order is one permutation drawn from `(seed, epoch)` and dealt out to the ranks in turns: the windows of
    all ranks together are the same for any number of ranks. Every rank has the same number of batches in an epoch.
    The last one of an epoch may be smaller; where fewer windows than ranks are left over, the first ranks have one
    window more than `batch_size` in it instead.

    Args:
        corpus: What the windows are of.
        table: The windows.
        batch_size: Windows of a batch, on each rank.
        seed: Of order and strands.
        rank: This process, from 0 on.
        world: Number of processes.
        reverse_complement: Give each window, once in an epoch, on one of its strands: drawn from seed, epoch and
            window.
        shift: Move all windows of an epoch by as many bases, less than the table's stride: drawn from seed and epoch.
            So windows, and patches that are counted from their start, fall elsewhere in each epoch; a window stays in
            its region, so up to a stride of bases at the region's beginning is left out of an epoch.
        patches: A `PatchedCorpus`; a number for static patches of that size; `"byte"`; a `Patcher`, which cuts each
            window by itself when its batch is made; None where the net cuts.
        drop_last: Leave out the windows of an epoch that fill no batch on all ranks.

    Raises:
        ConfigError: A number out of range, a table or patches of another corpus, or too few windows.
        AlphabetError: `reverse_complement` in an alphabet without complement.

    Example:
        >>> from hyena_glt.training import Corpus, Regions
        >>> corpus = Corpus.from_sequences({"a": "ACGT" * 5})
        >>> loader = WindowLoader(corpus, WindowTable(Regions.whole(corpus), 8), batch_size=2, seed=0, patches=4)
        >>> [(batch.epoch, batch.index, len(batch)) for batch, _ in zip(loader, range(3))]
        [(0, 0, 2), (0, 1, 1), (1, 0, 2)]
    """

    def __init__(
        self,
        corpus: Corpus,
        table: WindowTable,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        reverse_complement: bool = True,
        shift: bool = False,
        patches: Patches = None,
        drop_last: bool = False,
    ) -> None:
        self.corpus, self.table, self.patches = corpus, table, resolve_patches(patches, corpus, reverse_complement)
        self.batch_size, self.seed = _whole("batch_size", batch_size, 1), _whole("seed", seed, 0)
        self.rank, self.world = _whole("rank", rank, 0), _whole("world", world, 1)
        self.reverse_complement, self.shift, self.drop_last = bool(reverse_complement), bool(shift), bool(drop_last)
        if self.rank >= self.world:
            raise ConfigError(f"rank: expected less than world {self.world}, got {self.rank}")
        _check_table(table, corpus)
        if reverse_complement:
            _ = corpus.complements  # refuses alphabets without complement
        least = self.batch_size * self.world if self.drop_last else self.world
        if len(table) < least:
            raise ConfigError(f"table: expected at least {least} windows for {self.world} ranks, got {len(table)}")
        self._epoch = 0
        self._taken = 0  # windows of this epoch that all ranks had before this loader dealt them out
        self._index_at_taken = 0  # batches of this epoch before that
        self._step = 0  # batches of this epoch since then
        self._order = (-1, np.zeros(0, np.int64))  # of which epoch, and the windows

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        while self._step >= self._num_steps():
            self._skip_rest()
        first, last = self._span(self._step)
        ids = self._windows_in_order()[first + self.rank : last : self.world]
        epoch, index = self._epoch, self._index_at_taken + self._step
        strands, shift = self._strands(epoch, ids), self._shift(epoch)
        batch = make_batch(self.corpus, self.table, ids, strands, self.patches, epoch, index, shift)
        self._step += 1
        return batch

    @property
    def num_batches(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        return self._count_steps(len(self.table))

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins, and what the order depends on; plain JSON, the same on every rank."""
        taken = self._span(self._step - 1)[1] if self._step else self._taken
        return {
            "format": FORMAT,
            "epoch": self._epoch,
            "taken": taken,  # windows of the epoch, on all ranks together
            "index": self._index_at_taken + self._step,
            "settings": dict(self._settings),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the batch that a loader with this state would have given next.

        The number of ranks and the batch size may have changed: then the rest of the epoch is dealt out anew.

        Raises:
            ModelFileError: No state of a loader.
            ConfigError: A state of other windows, patches, seed or options; the message names the first difference.
        """
        epoch, taken, index, settings = _read_state(state)
        for name, own in self._settings.items():
            if settings.get(name) != own:
                raise ConfigError(f"loader state: {name} was {settings.get(name)!r}, now it is {own!r}")
        if taken > len(self.table):
            raise ModelFileError(f"loader state: expected at most {len(self.table)} windows taken, got {taken}")
        self._epoch, self._taken, self._index_at_taken, self._step = epoch, taken, index, 0

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """What the batches depend on beside the place; hashed once."""
        return {
            "corpus_sha256": self.corpus.sha256,
            "windows_sha256": self.table.sha256,
            "patches": describe_patches(self.patches),
            "seed": self.seed,
            "reverse_complement": self.reverse_complement,
            "shift": self.shift,
            "drop_last": self.drop_last,
        }

    def _num_steps(self) -> int:
        """Batches of this epoch since its windows were dealt out."""
        return self._count_steps(len(self.table) - self._taken)

    def _count_steps(self, num_windows: int) -> int:
        steps, rest = divmod(num_windows, self.batch_size * self.world)
        return steps + (rest >= self.world and not self.drop_last)

    def _span(self, step: int) -> tuple[int, int]:
        """First and last place in the epoch's order of a batch, on all ranks together."""
        together = self.batch_size * self.world
        first = self._taken + step * together
        is_last = step + 1 == self._num_steps() and not self.drop_last
        return first, len(self.table) if is_last else first + together

    def _skip_rest(self) -> None:
        """Begin the next epoch."""
        rest = len(self.table) - self._taken
        if not self._num_steps() and rest and not self.drop_last:
            logger.warning(
                "epoch %d: %d windows are left out, fewer than the %d ranks that go on", self._epoch, rest, self.world
            )
        self._epoch += 1
        self._taken = self._index_at_taken = self._step = 0

    def _windows_in_order(self) -> Whole:
        if self._order[0] != self._epoch:
            keys = draw_keys(self.seed, ORDER_SALT | self._epoch << SALT_BITS, np.arange(len(self.table)))
            self._order = (self._epoch, np.argsort(keys, kind="stable"))
        return self._order[1]

    def _strands(self, epoch: int, ids: Whole) -> NDArray[np.bool_]:
        if not self.reverse_complement:
            return np.zeros(len(ids), np.bool_)
        return draw_keys(self.seed, STRAND_SALT | epoch << SALT_BITS, ids) >> np.uint64(63) == 1

    def _shift(self, epoch: int) -> int:
        if not self.shift:
            return 0
        return int(draw_keys(self.seed, SHIFT_SALT, np.array([epoch]))[0] % np.uint64(self.table.stride))


def eval_batches(corpus: Corpus, table: WindowTable, batch_size: int, patches: Patches = None) -> Iterator[Batch]:
    """Every window once, in the order of the table, forward strand.

    Args:
        corpus: What the windows are of.
        table: The windows.
        batch_size: Windows of a batch; the last one may have fewer.
        patches: As in `WindowLoader`.

    Raises:
        ConfigError: A batch size below 1, or a table or patches of another corpus.
    """
    size = _whole("batch_size", batch_size, 1)
    _check_table(table, corpus)
    resolved = resolve_patches(patches, corpus, False)
    return (
        make_batch(corpus, table, ids, np.zeros(len(ids), np.bool_), resolved, 0, index)
        for index, ids in enumerate(
            np.arange(first, min(first + size, len(table))) for first in range(0, len(table), size)
        )
    )


def make_batch(
    corpus: Corpus,
    table: WindowTable,
    ids: Whole,
    is_reversed: NDArray[np.bool_],
    patches: PatchedCorpus | StaticPatches | Patcher | None,
    epoch: int,
    index: int,
    shift: int = 0,
) -> Batch:
    """The batch of these windows.

    Args:
        corpus: What the windows are of.
        table: The windows.
        ids: `(batch,)` int64 rows of the table.
        is_reversed: `(batch,)` bool, True for the reverse complement.
        patches: What cuts them; None: nothing.
        epoch: Kept in the batch.
        index: Kept in the batch.
        shift: Bases that the windows are moved by.
    """
    windows = table.moved(ids, shift)
    tokens = torch.from_numpy(read_windows(corpus, windows, is_reversed))
    cut = _cut(patches, windows, is_reversed, tokens)
    return Batch(
        tokens=tokens,
        patch_lengths=None if cut is None else cut.patch_lengths,
        known_starts=None if cut is None else cut.known_starts,
        window_ids=torch.from_numpy(ids.astype(np.int64)),
        places=torch.from_numpy(windows),
        reversed=torch.from_numpy(is_reversed),
        epoch=epoch,
        index=index,
    )


def read_windows(corpus: Corpus, windows: Whole, is_reversed: NDArray[np.bool_]) -> Whole:
    """Byte tokens of windows, `(batch, longest)` int64, rows padded with -1 at the end.

    Args:
        corpus: What the windows are of.
        windows: `(batch, 3)` int64 contig, start, end on the forward strand, inside the contigs.
        is_reversed: `(batch,)` bool, True for the reverse complement.
    """
    lengths = windows[:, 2] - windows[:, 1]
    tokens = np.empty((len(windows), int(lengths.max(initial=0))), np.int64)
    complements = corpus.complements if is_reversed.any() else np.zeros(256, np.uint8)
    first = corpus.starts[windows[:, 0]] + windows[:, 1]
    fill_tokens(corpus.symbols, complements, first, lengths, is_reversed, tokens)
    return tokens


@njit(cache=True, nogil=True)
def fill_tokens(symbols: Symbols, complements, first, lengths, is_reversed, tokens):
    """Tokens of each window into `(batch, longest)`, padding behind."""
    for row in range(first.size):
        length = lengths[row]
        here = symbols[first[row] : first[row] + length]
        if is_reversed[row]:
            for place in range(length):
                tokens[row, place] = np.int64(complements[here[length - 1 - place]]) + OFFSET
        else:
            for place in range(length):
                tokens[row, place] = np.int64(here[place]) + OFFSET
        tokens[row, length:] = PAD_ID


def resolve_patches(
    patches: Patches, corpus: Corpus, reverse_complement: bool
) -> PatchedCorpus | StaticPatches | Patcher | None:
    """What a user names as patches, checked.

    Raises:
        ConfigError: Nothing that cuts, patches of another corpus, of one strand only, or overlapping ones.
    """
    if isinstance(patches, str):
        if patches != "byte":
            raise ConfigError(f"patches: expected 'byte', a size, a PatchedCorpus, a Patcher or None, got {patches!r}")
        return StaticPatches(1)
    if isinstance(patches, int | float) and not isinstance(patches, bool):
        return StaticPatches(float(patches))
    if isinstance(patches, PatchedCorpus):
        if patches.corpus_sha256 != corpus.sha256:
            raise ConfigError("patches: expected those of this corpus, got those of another; cut this one")
        if reverse_complement and patches.num_strands == 1:
            raise ConfigError("patches: only the forward strand was cut; cut both or use reverse_complement=False")
        return patches
    if getattr(patches, "overlap", 0):
        raise ConfigError("overlap: expected a patcher without overlap; patches of training cover each base once")
    if patches is None or isinstance(patches, StaticPatches) or hasattr(patches, "patch"):
        return patches  # type: ignore[return-value]
    raise ConfigError(f"patches: expected 'byte', a size, a PatchedCorpus, a Patcher or None, got {patches!r}")


def describe_patches(patches: PatchedCorpus | StaticPatches | Patcher | None) -> str:
    """What tells resolved patches from others; of a patcher whose model has no hash, only the class."""
    if patches is None:
        return "none"
    if isinstance(patches, PatchedCorpus | StaticPatches):
        return patches.describe()
    try:
        about = json.dumps(describe_patcher(patches), sort_keys=True)
    except (ConfigError, AttributeError):
        return f"patcher {type(patches).__name__}"
    return f"patcher {hashlib.sha256(about.encode()).hexdigest()}"


def _cut(
    patches: PatchedCorpus | StaticPatches | Patcher | None,
    windows: Whole,
    is_reversed: NDArray[np.bool_],
    tokens: Tensor,
) -> WindowPatches | None:
    if patches is None:
        return None
    if isinstance(patches, PatchedCorpus):
        return patches.cut(windows, is_reversed)
    if isinstance(patches, StaticPatches):
        return patches.cut(windows[:, 2] - windows[:, 1])
    rows = patch_rows(patches, tokens)
    return WindowPatches(rows.patch_lengths, rows.known_starts)


def _check_table(table: WindowTable, corpus: Corpus) -> None:
    if table.corpus.sha256 != corpus.sha256:
        raise ConfigError("table: expected windows of this corpus, got those of another")


def _whole(name: str, value: int, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ConfigError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return number


def _read_state(state: Any) -> tuple[int, int, int, Mapping[str, Any]]:
    if not isinstance(state, Mapping) or state.get("format") != FORMAT:
        got = state.get("format") if isinstance(state, Mapping) else type(state).__name__
        raise ModelFileError(f"loader state: expected the format {FORMAT!r}, got {got!r}")
    epoch, taken, index = (_count(state.get(name)) for name in ("epoch", "taken", "index"))
    settings = state.get("settings")
    if epoch is None or taken is None or index is None or not isinstance(settings, Mapping):
        raise ModelFileError(f"loader state: expected epoch, taken and index from 0 on, and settings; got {state!r}")
    return epoch, taken, index, settings


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
