"""Byte tokens folded to a small vocabulary: the letters of an alphabet and one ambiguity symbol.

Ids 0 to 3 stay special, the letters follow in the order of the alphabet, the ambiguity symbol is last. Lower
and upper case, and U and T, share an id; every ambiguous symbol (N, R, X, ...) has the last one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hyena_glt.errors import AlphabetError
from hyena_glt.sequences.alphabets import AMBIGUOUS, INVALID, get_alphabet
from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID

REFUSED = -2


class SmallVocabulary:
    """Maps byte tokens to the ids of one alphabet.

    Args:
        alphabet: `"dna"`, `"rna"` or `"protein"`.

    Example:
        >>> SmallVocabulary("dna").fold(torch.tensor([[69, 101, 82, -1]])).tolist()
        [[4, 4, 8, -1]]
    """

    def __init__(self, alphabet: str) -> None:
        self.alphabet = get_alphabet(alphabet)
        self.letters = self.alphabet.letters
        self.ambiguous_id = OFFSET + self.alphabet.size
        self.size = self.ambiguous_id + 1
        self._table = self._build_table()

    def _build_table(self) -> Tensor:
        """`(261,)` int64: the id of token `t` at entry `t + 1`, `REFUSED` for what the alphabet lacks."""
        codes = torch.tensor(list(self.alphabet.code_table), dtype=torch.int64)
        ids = codes + OFFSET
        ids[codes == AMBIGUOUS] = self.ambiguous_id
        ids[codes == INVALID] = REFUSED
        specials = torch.arange(PAD_ID, OFFSET)
        return torch.cat([specials, ids])

    def fold(self, tokens: Tensor) -> Tensor:
        """Small ids of byte tokens.

        Args:
            tokens: `(batch, length)` int64 in [-1, 260); -1 is padding and stays.

        Returns:
            `(batch, length)` int64 in [-1, size).

        Raises:
            AlphabetError: A byte that the alphabet does not have; the row and position are named.
        """
        ids = self._table.to(tokens.device)[tokens + 1]
        refused = ids == REFUSED
        if bool(refused.any()):
            self._refuse(tokens, refused)
        return ids

    def _refuse(self, tokens: Tensor, refused: Tensor) -> None:
        row, column = (int(value) for value in refused.nonzero()[0])
        symbol = chr(int(tokens[row, column]) - OFFSET)
        hint = "; gaps can be removed with --degap" if symbol in "-." else ""
        raise AlphabetError(
            f"symbol {symbol!r} at position {column + 1} is not in the {self.alphabet.name} alphabet{hint}",
            record=f"row {row}",
        )

    def unfold(self, ids: Tensor) -> Tensor:
        """Byte tokens of small ids: the alphabet's letters, `N` or `X` for the ambiguity symbol."""
        ambiguity = "X" if self.alphabet.name == "protein" else "N"
        letters = torch.tensor([ord(letter) + OFFSET for letter in self.letters + ambiguity])
        table = torch.cat([torch.arange(PAD_ID, OFFSET), letters])
        return table.to(ids.device)[ids + 1]
