"""Chunks of an endless sequence -> windows cut at patch starts, in memory that does not grow.

    chunk -> tokens -> StartSequence (one for the whole stream) -> patches -> windows of whole patches

Which windows come does not depend on how the sequence is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.errors import ConfigError
from hyena_glt.model.block_starts import StartSequence
from hyena_glt.model.sources import Piece, encode_piece
from hyena_glt.patching.patcher import Patcher

BLOCK = 1 << 16  # letters taken at a time, whatever the size of the chunks


@dataclass(frozen=True, slots=True, eq=False)
class StreamWindow:
    """Whole patches that go through the net together. The first ones, the context, were in the window before."""

    start: int  # 0-based position of the first token in the stream
    tokens: NDArray[np.int64]  # (length,) byte tokens
    patch_lengths: NDArray[np.int64]  # (num_patches,) sums to length
    known_starts: NDArray[np.bool_]  # (length,) False at a start that its own token forced
    next_starts_patch: bool  # the past alone tells that the token behind the window starts a patch
    num_context: int  # tokens that were in the window before
    num_context_patches: int


class StreamCutter:
    """Cuts one stream into windows of at most `window_size` tokens.

    A window takes as many patches as fit. It begins with the patches that start within the last `overlap` tokens of
    the one before, or with fewer of them where the next patch would not fit otherwise.

    Args:
        patcher: Decides boundaries from the past alone.
        window_size: Tokens.
        overlap: Tokens, less than `window_size`.

    Raises:
        ConfigError: A patcher that needs the whole sequence.
    """

    def __init__(self, patcher: Patcher, window_size: int, overlap: int) -> None:
        self._starts = StartSequence(patcher)
        self._size, self._overlap = window_size, overlap
        self._base = 0  # position of the first token that is kept
        self._tokens = np.zeros(0, np.int64)
        self._known = np.zeros(0, np.bool_)
        self._edges = np.zeros(1, np.int64)  # patch starts, and the end of the last complete patch
        self._first = 0  # edge where the next window begins
        self._done = 0  # edge up to which windows have come
        self._is_last_known = False  # the past tells that a token behind the end of the stream would start a patch

    @property
    def num_tokens(self) -> int:
        """Tokens fed so far."""
        return self._base + self._tokens.size

    def feed(self, chunk: Piece) -> Iterator[StreamWindow]:
        """The windows that are complete with the next chunk: one token behind a window is needed to end it.

        Args:
            chunk: str, bytes or 1-D tokens; may be empty.

        Raises:
            ConfigError: A patch longer than a window, or a source that cannot be streamed.
            PatchingError: No sequence, or PAD.
        """
        for tokens in _blocks(chunk):
            lengths = self._starts.feed(self._starts.symbols(tokens))
            self._tokens = np.concatenate([self._tokens, tokens.numpy()])
            self._known = np.concatenate([self._known, self._starts.known])
            self._add_edges(lengths)
            yield from self._windows(is_end=False)
            self._forget()

    def finish(self) -> Iterator[StreamWindow]:
        """The windows of what is left; none where every token has been in one."""
        self._is_last_known = int(self._edges[-1]) == self.num_tokens
        self._add_edges(self._starts.finish())
        yield from self._windows(is_end=True)

    def _add_edges(self, lengths: NDArray[np.int64]) -> None:
        self._edges = np.concatenate([self._edges, self._edges[-1] + np.cumsum(lengths)])

    def _windows(self, is_end: bool) -> Iterator[StreamWindow]:
        while (last := self._last_edge(is_end)) is not None:
            yield self._window(last)
            end = self._edges[last]
            self._done = last
            self._first = int(np.searchsorted(self._edges, end - self._overlap))

    def _last_edge(self, is_end: bool) -> int | None:
        """Index of the edge where the next window ends; None while that is not known, or when nothing is left."""
        while True:
            begin = int(self._edges[self._first])
            is_full = self.num_tokens - begin > self._size
            if not is_full and not (is_end and self._done < self._edges.size - 1):
                return None
            last = int(np.searchsorted(self._edges, begin + self._size, side="right")) - 1
            if last > self._done:
                return last
            if self._first == self._done:
                raise ConfigError(
                    f"window_size: expected at least one patch to fit, got {self._size} and a longer patch at position "
                    f"{begin} of the stream; give the patcher a max_patch_length of at most {self._size}"
                )
            self._first += 1

    def _window(self, last: int) -> StreamWindow:
        begin, end, done = (int(self._edges[index]) for index in (self._first, last, self._done))
        here = slice(begin - self._base, end - self._base)
        is_inside = end < self.num_tokens
        return StreamWindow(
            start=begin,
            tokens=self._tokens[here],
            patch_lengths=np.diff(self._edges[self._first : last + 1]),
            known_starts=self._known[here],
            next_starts_patch=bool(self._known[end - self._base]) if is_inside else self._is_last_known,
            num_context=done - begin,
            num_context_patches=self._done - self._first,
        )

    def _forget(self) -> None:
        """Drop what no window needs any more."""
        begin = int(self._edges[self._first])
        self._tokens, self._known = self._tokens[begin - self._base :].copy(), self._known[begin - self._base :].copy()
        self._edges = self._edges[self._first :].copy()
        self._done -= self._first
        self._base, self._first = begin, 0


def _blocks(chunk: Piece) -> Iterator[Tensor]:
    """Tokens of a chunk, some at a time, `(<= 4 * BLOCK,)` int64."""
    if not isinstance(chunk, str | bytes | bytearray) and not (isinstance(chunk, Tensor) and chunk.ndim == 1):
        encode_piece(chunk)
    for first in range(0, len(chunk), BLOCK):
        yield encode_piece(chunk[first : first + BLOCK])
