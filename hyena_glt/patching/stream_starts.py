"""Starts after symbols of some class, decided as the symbols arrive: space and both bpe modes in a stream.

The same rule as `class_start_mask`, with the last two symbols carried from chunk to chunk. numpy only; torch is
loaded when a table of classes is made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.scan import Bools

ENDS_FIRST_OF_RUN, ENDS_ALWAYS = 1, 2  # as in `space_starts`, which loads torch


class ClassStarts:
    """Starts of one sequence from the classes of its symbols.

    Args:
        always: Symbols at the start of the sequence that start a patch whatever the classes.

    Example:
        >>> starts = ClassStarts(always=1)
        >>> starts.feed(np.array([0, 2], np.uint8)).tolist(), starts.feed(np.array([0, 0], np.uint8)).tolist()
        ([True, False], [True, False])
    """

    def __init__(self, always: int) -> None:
        self._always = always
        self._before = np.zeros(2, np.uint8)  # classes of the last two symbols
        self._seen = 0

    def feed(self, kinds: NDArray[np.uint8]) -> Bools:
        """True where a patch starts, `(n,)`.

        Args:
            kinds: `(n,)` uint8: 2 ends a patch, 1 ends it where the symbol before is of class 0, 0 goes on.
        """
        known = np.concatenate([self._before, kinds])
        before, last = known[:-2], known[1:-1]
        starts = (last == ENDS_ALWAYS) | ((last == ENDS_FIRST_OF_RUN) & (before == 0))
        starts[: max(0, self._always - self._seen)] = True
        self._before, self._seen = known[-2:].copy(), self._seen + kinds.size
        return starts


class TokenStarts:
    """Starts of space mode, or of bpe mode with delimiters in the tokens, for one sequence that arrives in chunks.

    Args:
        args: Mode, `delimiter_chars` and encoding.

    Raises:
        ConfigError: A delimiter that is not one byte in the encoding.
    """

    def __init__(self, args: PatcherArgs) -> None:
        from hyena_glt.patching.start_masks import token_classes
        from hyena_glt.tokens.byte_tokenizer import OFFSET

        classes, always = token_classes(args)
        self._of_token = classes.numpy()  # (260,) uint8
        self._of_byte = self._of_token[OFFSET:]
        self._starts = ClassStarts(always)

    def feed(self, symbols: NDArray[np.uint8] | NDArray[np.int64]) -> Bools:
        """True where a patch starts, `(n,)`.

        Args:
            symbols: `(n,)` bytes as uint8, or tokens >= 0 as int64; tokens past the table are taken for its last.
        """
        if symbols.dtype == np.uint8:
            return self._starts.feed(self._of_byte[symbols])
        return self._starts.feed(self._of_token[np.minimum(symbols, self._of_token.size - 1)])
