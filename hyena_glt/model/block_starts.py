"""Where patches start in a sequence that arrives in blocks, each patch closed as soon as the past can tell.

    symbols -> StartSequence (a patcher's rule)        -> patch lengths, known starts
    probabilities -> LearnedStarts (the net's own)  ----^

Patch by patch this equals what a patcher, or the merger of the net, gives for the whole sequence.
"""

from __future__ import annotations

from copy import copy, deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.model.adaptive_merger import AdaptiveTokenMerger
from hyena_glt.patching import scan_kernels as kernels
from hyena_glt.patching.online import Symbols, TokenSequence
from hyena_glt.patching.patcher import Patcher
from hyena_glt.patching.scan import NO_BOOLS, Bools, Lengths, Scanner


class LookingScanner(Scanner):
    """A scanner that decides about the token after a block in every mode, and keeps which starts were forced.

    In mode mask, entry `i` of what is fed is about token `i + 1`.
    """

    known: Bools = NO_BOOLS  # (n,) of the tokens fed last; False at a start that only the forced mask made

    def feed(self, scores: NDArray[Any], forced: Bools | None = None) -> Lengths:
        """As `Scanner.feed`."""
        self.known = np.ones(scores.size, np.bool_)
        if self.rule.mode == "mask" and scores.size:
            return self._close(scores, forced, shift=1)
        return super().feed(scores, forced)

    def _force_first(self, forced: Bools | None) -> Lengths:
        opening = super()._force_first(forced)
        self.known[:1] = not opening.size
        return opening

    def _close(self, starts: Bools, forced: Bools | None, shift: int) -> Lengths:
        first, cap = self._seen + shift, self.rule.cap
        edges = NO_BOOLS if forced is None else np.ascontiguousarray(forced)
        room = np.count_nonzero(starts) + np.count_nonzero(edges) + (first + starts.size - self._last_start) // cap
        lengths, known = np.empty(room, np.int64), np.ones(starts.size, np.bool_)
        count, self._last_start = kernels.close_patches(
            np.ascontiguousarray(starts), edges, first, self._last_start, self.rule.shortest, cap, lengths, known
        )
        self.known[1:] = known[:-1]
        self._seen += starts.size
        return lengths[:count]


class StartSequence(TokenSequence):
    """Cuts one sequence as `OnlinePatcher` does, each patch as soon as its last byte is fed where that can be known."""

    _scanner: LookingScanner

    def __init__(self, patcher: Patcher) -> None:
        super().__init__(patcher)
        self._scanner = LookingScanner(self._scanner.rule)

    @property
    def known(self) -> Bools:
        """`(n,)` bool of the tokens fed last; False at a start that its own token forced."""
        return self._scanner.known

    def feed(self, symbols: Symbols, entropies: Any = None, preds: Any = None) -> Lengths:
        """`(num_patches,)` int64: the patches that are complete now, as far as the past and these tokens tell."""
        if self._token_starts is None:
            return super().feed(symbols, entropies, preds)
        starts = self._token_starts.feed(symbols)
        following = deepcopy(self._token_starts).feed(np.zeros(1, symbols.dtype))
        return self._scanner.feed(np.concatenate([starts[1:], following])[: starts.size])

    def fork(self) -> StartSequence:
        """An independent copy; the patcher and its model are shared."""
        model = getattr(self._stream, "model", None)
        shared = {} if model is None else {id(model): model}
        other = copy(self)
        other._scanner = copy(self._scanner)  # holds numbers, and arrays that are never written to
        for name in ("_token_starts", "_starts_predicted", "_stream", "_encoder"):
            setattr(other, name, deepcopy(getattr(self, name), shared))
        return other


class LearnedStarts:
    """Cuts one sequence as `AdaptiveTokenMerger.cut` does; a patch that is full is complete at its last byte.

    Args:
        merger: Gives the limits.
    """

    def __init__(self, merger: AdaptiveTokenMerger) -> None:
        self.known: Bools = NO_BOOLS  # (n,) of the bytes fed last; False at a start that its own byte decided
        self._shortest, self._cap = merger.shortest, merger.cap or kernels.NO_CAP
        self._seen = self._last_start = 0

    def feed(self, chances: Tensor) -> Lengths:
        """`(num_patches,)` int64: the patches that are complete now, from `(n,)` probabilities of a start."""
        starts = np.append((chances >= 0.5).cpu().numpy(), False)  # of the byte to come only the cap can tell
        first, open_start = self._seen, self._last_start
        lengths = np.empty(np.count_nonzero(starts) + (first + starts.size - open_start) // self._cap + 1, np.int64)
        count, self._last_start = kernels.close_patches(
            starts, NO_BOOLS, first, open_start, self._shortest, self._cap, lengths, NO_BOOLS
        )
        lengths = lengths[: int(count)]
        self.known = np.ones(len(chances), np.bool_)
        self.known[(open_start + lengths.cumsum() - first)[lengths != self._cap]] = False
        self._seen += len(chances)
        return lengths

    def fork(self) -> LearnedStarts:
        """An independent copy."""
        return copy(self)
