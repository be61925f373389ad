"""Patch starts of a whole corpus, decided once and cut to windows: a bit for each base and strand.

    Corpus, Patcher -> patches of every contig on both strands -> patch lengths of any window

A window has the patches of its contig, cut at its two ends. So its patches know what lies before it on the contig,
and a patcher that keeps to the past tells a causal net nothing of the future.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.__about__ import __version__
from hyena_glt.config import PatchingModeEnum
from hyena_glt.errors import ConfigError, HyenaGLTError, RegionError
from hyena_glt.model.streaming import StartSequence
from hyena_glt.patching.patcher import Patcher
from hyena_glt.patching.sources import AutoEntropy, resolve_bpe_network, resolve_source
from hyena_glt.patching.tokenizer_starts import find_tokenizer_file
from hyena_glt.sequences.atomic import atomic_write, make_folder, sha256_file
from hyena_glt.training.corpus import Corpus, Whole, contig_slices, draw_keys

FORMAT = "hyena-glt/patched-corpus/1"
SUFFIX = ".safetensors"
FED_AT_ONCE = 1 << 18  # symbols
SHUFFLE_SALT = 2  # of the draws that put patches in random order
NOT_DECIDING = {  # options that change no boundary, and names of what is told by its hash
    "calibration",
    "device",
    "entropy_model_checkpoint_dir",
    "log_time",
    "model_name",
    "realtime_patching",
}

BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
NUM_BITS = BITS.sum(1, dtype=np.uint8)  # of each byte
LOWEST_BIT = BITS.argmax(1)  # place of the lowest bit that is set, 0 to 7; 0 of the byte 0

logger = logging.getLogger(__name__)


class WindowPatches(NamedTuple):
    """Patches of a batch of windows."""

    patch_lengths: Tensor  # (batch, max_patches) int64, right-padded with 0
    known_starts: Tensor | None  # (batch, length) bool, False at a start that its own base forced; None: all known


@dataclass(frozen=True, eq=False)
class StaticPatches:
    """Patches of equal size from the first base of each window on; size 1 is byte mode.

    Args:
        size: Bases, at least 1; a fraction is kept on average (4.5 gives 4, 5, 4, 5, ...).

    Raises:
        ConfigError: A size below 1.

    Example:
        >>> StaticPatches(4).cut(np.array([10, 3])).patch_lengths.tolist()
        [[4, 4, 2], [3, 0, 0]]
    """

    size: float

    def __post_init__(self) -> None:
        if not (1 <= self.size < math.inf):
            raise ConfigError(f"patches: expected a static size of at least 1 base, got {self.size}")

    def cut(self, lengths: Whole) -> WindowPatches:
        """Patches of windows of `lengths` `(batch,)` bases."""
        longest = int(lengths.max(initial=0))
        edges = np.floor(np.arange(math.ceil(longest / self.size) + 1) * self.size).astype(np.int64)
        edges = edges[: int(np.searchsorted(edges, longest)) + 1]
        cut = np.diff(np.minimum(edges, lengths[:, None]), axis=1)
        return WindowPatches(torch.from_numpy(cut), None)

    def describe(self) -> str:
        """What tells these patches from others."""
        return f"static {float(self.size)!r}"


@dataclass(frozen=True, eq=False, repr=False)
class PatchedCorpus:
    """Where patches start on every contig of a corpus. Build it with `from_patcher`.

    Takes a bit of memory for each base and strand.

    Example:
        >>> corpus = Corpus.from_sequences({"a": "ACGTACGTAC"})
        >>> patched = PatchedCorpus.from_patcher(corpus, Patcher(patching_mode="static", patch_size=4))
        >>> patched.cut(np.array([[0, 2, 10]]), np.array([False])).patch_lengths.tolist()
        [[2, 4, 2]]
    """

    corpus_sha256: str
    contig_lengths: Whole  # (contigs,)
    starts: NDArray[np.uint8]  # (strands, bytes): bits, the lowest first; each contig begins with a byte of its own
    forced: tuple[Whole, ...]  # for each strand the bits that only their own base made a start, ascending
    is_causal: bool  # False where a boundary can depend on what follows it
    first_bytes: Whole = field(init=False)  # (contigs,) of each contig in `starts`

    def __post_init__(self) -> None:
        sizes = _bytes_of(self.contig_lengths)
        object.__setattr__(self, "first_bytes", sizes.cumsum() - sizes)

    @classmethod
    def from_patcher(
        cls,
        corpus: Corpus,
        patcher: Patcher,
        *,
        reverse_complement: bool = True,
        cache_folder: str | os.PathLike[str] | None = None,
    ) -> PatchedCorpus:
        """Cut every contig, on both strands by itself.

        A patcher that decides online runs over blocks; any other (top-k, `auto`, a tokenizer, a network that looks at
        windows) gets one strand of a contig at a time, whole. Starts equal those of `Patcher.patch_with_starts`.

        Args:
            corpus: Its contigs.
            patcher: Any mode without overlap.
            reverse_complement: Cut the other strand too.
            cache_folder: Where the result is kept, under a hash of the sequences, the options and the model; several
                processes may share the folder. None: nowhere.

        Raises:
            ConfigError: Overlapping patches; a track and the other strand; a cache and a model without a hash.
            AlphabetError: The other strand of an alphabet without complement.
            SystemProblem: The folder cannot be made.
        """
        if patcher.args.overlap:
            raise ConfigError("overlap: expected a patcher without overlap; patches of training cover each base once")
        if cache_folder is None:
            return _patch_corpus(corpus, patcher, reverse_complement)
        key = cache_key(corpus, patcher, reverse_complement)
        path = make_folder(cache_folder) / f"{key}{SUFFIX}"
        found = _read(path, key, corpus, 1 + reverse_complement)
        if found is not None:
            return found
        patched = _patch_corpus(corpus, patcher, reverse_complement)
        _write(path, key, patched)
        return patched

    def __repr__(self) -> str:
        strands = " and ".join("+-"[: self.num_strands])
        return f"PatchedCorpus({len(self.contig_lengths)} contigs, {strands}, mean {self.mean_length:.2f} bases)"

    @property
    def num_strands(self) -> int:
        """2, or 1 without the other strand."""
        return len(self.starts)

    @cached_property
    def mean_length(self) -> float:
        """Bases of a patch on average, over all strands."""
        num_patches = int(NUM_BITS[self.starts].sum(dtype=np.int64))
        return self.num_strands * int(self.contig_lengths.sum()) / num_patches

    @cached_property
    def sha256(self) -> str:
        """Hash of the corpus and all starts, 64 hexadecimal digits."""
        return hashlib.sha256(self.corpus_sha256.encode() + _digest(self.starts, self.forced).tobytes()).hexdigest()

    def describe(self) -> str:
        """What tells these patches from others."""
        return f"corpus {self.sha256}"

    def patch_lengths(self, contig: int, *, reverse: bool = False) -> Whole:
        """Patch lengths of a whole contig on one strand, `(patches,)` int64; they sum to its length."""
        length, first = int(self.contig_lengths[contig]), int(self.first_bytes[contig])
        packed = self.starts[int(reverse), first : first + -(-length // 8)]
        starts = np.flatnonzero(np.unpackbits(packed, count=length, bitorder="little"))
        return np.diff(starts, append=length)

    def shuffled(self, seed: int, corpus: Corpus) -> PatchedCorpus:
        """The same patch lengths on each contig and strand, in an order that the seed draws.

        A control for experiments: patches of the same number and lengths whose places tell nothing of the letters.
        Lengths stay in their stretch of letters, and those of ambiguity symbols in their run: the one patch of a
        centromere of N would else lie over sequence. Edges of such runs are starts that only their own base makes.

        Args:
            seed: Of the order.
            corpus: The one that was cut.
        """
        starts, forced = np.zeros_like(self.starts), []
        for strand in range(self.num_strands):
            places = []
            for contig, first in enumerate(self.first_bytes.tolist()):
                lengths = self.patch_lengths(contig, reverse=bool(strand))
                edges = _edges_of_runs(corpus, contig, reverse=bool(strand))
                stretch = np.searchsorted(edges, lengths.cumsum() - lengths, side="right")
                keys = draw_keys(seed, SHUFFLE_SALT + ((2 * contig + strand) << 8), np.arange(len(lengths)))
                lengths = lengths[np.lexsort([keys, stretch])]
                is_start = np.zeros(int(self.contig_lengths[contig]), np.bool_)
                is_start[lengths.cumsum() - lengths] = True
                _put(starts[strand], first, is_start)
                places.append(edges[is_start[edges]] + 8 * first)
            forced.append(np.concatenate(places))
        return replace(self, starts=starts, forced=tuple(forced), is_causal=True)

    def cut(self, windows: Whole, is_reversed: NDArray[np.bool_]) -> WindowPatches:
        """Patches of windows, cut at their ends.

        Args:
            windows: `(batch, 3)` int64 contig, start, end on the forward strand.
            is_reversed: `(batch,)` bool; True for the window's reverse complement.

        Returns:
            Each row of the lengths sums to its window.

        Raises:
            RegionError: A window outside its contig.
            ConfigError: A reversed window, but only one strand was cut.
        """
        first, lengths = self._places(windows, is_reversed)
        strand = is_reversed.astype(np.int64)
        counts = np.empty(len(windows), np.int64)
        count_patches(self.starts, strand, first, lengths, counts)
        cut = np.zeros((len(windows), int(counts.max(initial=0))), np.int64)
        fill_patches(self.starts, strand, first, lengths, cut)
        return WindowPatches(torch.from_numpy(cut), self._known(strand, first, lengths))

    def _places(self, windows: Whole, is_reversed: NDArray[np.bool_]) -> tuple[Whole, Whole]:
        """First bit and number of bits of each window, in the reading order of its strand."""
        contigs, starts, ends = windows.T
        is_contig = (contigs >= 0) & (contigs < len(self.contig_lengths))
        length = self.contig_lengths[np.where(is_contig, contigs, 0)]
        outside = ~is_contig | (starts < 0) | (starts > ends) | (ends > length)
        if outside.any():
            contig, start, end = windows[int(outside.argmax())].tolist()
            raise RegionError(f"window: expected a place of the corpus, got [{start}, {end}) of contig {contig}")
        if self.num_strands == 1 and is_reversed.any():
            raise ConfigError("patches: only the forward strand was cut; cut both or use reverse_complement=False")
        return self.first_bytes[contigs] * 8 + np.where(is_reversed, length - ends, starts), ends - starts

    def _known(self, strand: Whole, first: Whole, lengths: Whole) -> Tensor | None:
        if not any(places.size for places in self.forced):
            return None
        known = np.ones((len(first), int(lengths.max(initial=0))), np.bool_)
        for index, places in enumerate(self.forced):
            rows = np.flatnonzero(strand == index)
            low = np.searchsorted(places, first[rows])
            counts = np.searchsorted(places, first[rows] + lengths[rows]) - low
            row = np.repeat(rows, counts)
            nth = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
            known[row, places[np.repeat(low, counts) + nth] - first[row]] = False
        return torch.from_numpy(known)


@njit(cache=True, nogil=True)
def count_patches(bits, strand, first, lengths, counts):
    """Patches of each window; its first base starts one whatever its bit says."""
    for row in range(first.size):
        begin, end = first[row] + 1, first[row] + lengths[row]
        count = np.int64(lengths[row] > 0)
        for place in range(begin >> 3, (end + 7) >> 3):
            count += NUM_BITS[bits_between(bits[strand[row], place], place, begin, end)]
        counts[row] = count


@njit(cache=True, nogil=True)
def fill_patches(bits, strand, first, lengths, patch_lengths):
    """Patch lengths of each window, `(batch, most patches)`, which held zeros."""
    for row in range(first.size):
        begin, end = first[row] + 1, first[row] + lengths[row]
        patch, last = 0, first[row]
        for place in range(begin >> 3, (end + 7) >> 3):
            byte = bits_between(bits[strand[row], place], place, begin, end)
            while byte:
                start = 8 * place + LOWEST_BIT[byte]
                patch_lengths[row, patch] = start - last
                patch, last = patch + 1, start
                byte &= byte - 1
        if last < end:
            patch_lengths[row, patch] = end - last


@njit(cache=True, nogil=True, inline="always")
def bits_between(byte, place, begin, end):
    """A byte of bits without those before bit `begin` and from bit `end` on."""
    kept = np.int64(byte)
    if place == begin >> 3:
        kept &= 0xFF << (begin & 7)
    if place == end >> 3:
        kept &= (1 << (end & 7)) - 1
    return kept


def cache_key(corpus: Corpus, patcher: Patcher, reverse_complement: bool) -> str:
    """Hash of all that decides the patches of a corpus: 64 hexadecimal digits.

    Raises:
        ConfigError: The patcher's model does not say by a hash what it learned.
    """
    about = [FORMAT, __version__, corpus.sha256, corpus.alphabet.name, reverse_complement, describe_patcher(patcher)]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def describe_patcher(patcher: Patcher) -> dict[str, Any]:
    """Everything that decides a patcher's boundaries, as JSON.

    Raises:
        ConfigError: Its model does not say by a hash what it learned.
    """
    args = patcher.args
    about: dict[str, Any] = args.model_dump(mode="json", exclude=NOT_DECIDING)
    if args.patching_mode is PatchingModeEnum.static:
        about["patch_size"] = args.static_patch_size
    if args.uses_scores or args.patching_mode is PatchingModeEnum.bpe_patcher:
        about["source"] = _describe_source(patcher)
    if args.patching_mode is PatchingModeEnum.bpe and args.model_name is not None:
        about["source"] = sha256_file(find_tokenizer_file(args.model_name))
    return about


def _describe_source(patcher: Patcher) -> dict[str, Any]:
    is_network = patcher.args.patching_mode is PatchingModeEnum.bpe_patcher
    source = resolve_bpe_network(patcher.args) if is_network else resolve_source(patcher.args)
    kind = f"{type(source).__module__}.{type(source).__qualname__}"
    if isinstance(source, AutoEntropy):
        return {"kind": kind}
    describe = getattr(source, "describe", None)
    about = describe() if callable(describe) else {}
    if not any(str(name).endswith("sha256") for name in about):
        raise ConfigError(
            f"entropy_model: {type(source).__name__} does not say by a hash what it learned, so its patches cannot be "
            "told from those of another model; leave the cache out"
        )
    return {"kind": kind, **about}


def _patch_corpus(corpus: Corpus, patcher: Patcher, reverse_complement: bool) -> PatchedCorpus:
    lengths = corpus.contigs.lengths
    sizes = _bytes_of(lengths)
    first_bytes = sizes.cumsum() - sizes
    starts = np.zeros((1 + reverse_complement, int(sizes.sum())), np.uint8)
    forced = []
    first_patcher = _bound(patcher, corpus.contigs.names[0], False)
    cut = _cut_online if _decides_online(first_patcher) else _cut_whole
    for strand in range(1 + reverse_complement):
        places = []
        for contig, first in enumerate(first_bytes.tolist()):
            bound = _bound(patcher, corpus.contigs.names[contig], bool(strand))
            is_start, own = cut(corpus, contig, bound, bool(strand))
            _put(starts[strand], first, is_start)
            places.append(own + 8 * first)
        forced.append(np.concatenate(places))
    return PatchedCorpus(corpus.sha256, lengths, starts, tuple(forced), first_patcher.is_causal)


def _cut_online(corpus: Corpus, contig: int, patcher: Patcher, reverse: bool) -> tuple[NDArray[np.bool_], Whole]:
    """Starts of one strand, `(length,)` bool, and the places of those that only their own base made."""
    is_start = np.zeros(int(corpus.contigs.lengths[contig]), np.bool_)
    sequence, own = StartSequence(patcher), []
    fed = complete = 0
    for symbols in contig_slices(corpus, contig, FED_AT_ONCE, reverse=reverse):
        lengths = sequence.feed(symbols)
        own.append(np.flatnonzero(~sequence.known) + fed)
        is_start[complete + lengths.cumsum() - lengths] = True
        complete += int(lengths.sum())
        fed += symbols.size
    is_start[complete : complete + 1] = True  # of the patch that is open at the end
    return is_start, np.concatenate(own)


def _cut_whole(corpus: Corpus, contig: int, patcher: Patcher, reverse: bool) -> tuple[NDArray[np.bool_], Whole]:
    """As `_cut_online`, by a patcher that needs the whole strand."""
    symbols = corpus.sequence(contig, reverse=reverse)
    rows = patcher.patch_with_starts([symbols.tobytes()])
    lengths = rows.patch_lengths[0].cpu().numpy()
    is_start = np.zeros(symbols.size, np.bool_)
    is_start[lengths.cumsum() - lengths] = True
    return is_start, np.flatnonzero(~rows.known_starts[0].cpu().numpy())


def _bound(patcher: Patcher, contig: str, reverse: bool) -> Patcher:
    """The patcher itself; with a track, which scores places and not letters, one that is bound to the contig."""
    track = patcher.args.entropy_model
    if not hasattr(track, "contig"):
        return patcher
    if reverse:
        raise ConfigError("reverse_complement: a track scores the forward strand only; use reverse_complement=False")
    return Patcher(patcher.args.model_copy(update={"entropy_model": track.contig(contig)}))


def _decides_online(patcher: Patcher) -> bool:
    """Whether one symbol can be fed; a patcher that cannot be streamed says so by a ConfigError."""
    try:
        StartSequence(patcher).feed(np.frombuffer(b"A", np.uint8))
    except ConfigError:
        return False
    return True


def _edges_of_runs(corpus: Corpus, contig: int, *, reverse: bool) -> Whole:
    """Where runs of ambiguity symbols begin and end inside a contig, ascending in the reading order of its strand."""
    first, length = int(corpus.starts[contig]), int(corpus.contigs.lengths[contig])
    runs = corpus.ambiguous_runs
    low, high = np.searchsorted(runs[:, 0], [first, first + length])
    edges = runs[low:high].reshape(-1) - first
    edges = edges[(edges > 0) & (edges < length)]
    return length - edges[::-1] if reverse else edges


def _bytes_of(lengths: Whole) -> Whole:
    return -(-lengths // 8)


def _put(row: NDArray[np.uint8], first: int, is_start: NDArray[np.bool_]) -> None:
    packed = np.packbits(is_start, bitorder="little")
    row[first : first + packed.size] = packed


def _digest(starts: NDArray[np.uint8], forced: tuple[Whole, ...]) -> NDArray[np.uint8]:
    digest = hashlib.sha256(f"{starts.shape} {[places.size for places in forced]} ".encode())
    for part in (starts, *forced):
        digest.update(np.ascontiguousarray(part).data)
    return np.frombuffer(digest.digest(), np.uint8)


def _write(path: Path, key: str, patched: PatchedCorpus) -> None:
    """Keep the starts. A disk that is full or read-only costs the file, not the work: it is logged."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {f"forced_{strand}": places for strand, places in enumerate(patched.forced)}
    arrays |= {"starts": patched.starts, "sha256": _digest(patched.starts, patched.forced)}
    about = {"format": FORMAT, "key": key, "is_causal": patched.is_causal}
    try:
        with atomic_write(path, overwrite=True) as handle:
            handle.write(save(arrays, metadata={"hyena_glt": json.dumps(about, sort_keys=True)}))
    except (HyenaGLTError, OSError) as problem:
        logger.warning("patch cache: going on without keeping the patches (%s)", problem)


def _read(path: Path, key: str, corpus: Corpus, num_strands: int) -> PatchedCorpus | None:
    """What `_write` made for this key; None where there is nothing that can be trusted."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    lengths = corpus.contigs.lengths
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("hyena_glt", "{}"))
            starts, sha256 = file.get_tensor("starts"), file.get_tensor("sha256")
            forced = tuple(file.get_tensor(f"forced_{strand}") for strand in range(num_strands))
        is_ours = about["format"] == FORMAT and about["key"] == key and isinstance(about["is_causal"], bool)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError):
        is_ours = False
    if is_ours:
        is_ours = starts.dtype == np.uint8 and starts.shape == (num_strands, int(_bytes_of(lengths).sum()))
        is_ours = is_ours and all(places.dtype == np.int64 and places.ndim == 1 for places in forced)
        is_ours = is_ours and np.array_equal(_digest(starts, forced), sha256)
    if not is_ours:
        logger.warning("patch cache: %s is damaged or of another format; the patches are cut again", path)
        return None
    return PatchedCorpus(corpus.sha256, lengths, starts, forced, about["is_causal"])
