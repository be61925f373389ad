"""Alphabets: which bytes a sequence may hold, the code of each, and the reverse complement.

First stage of the chain: every reader checks its bytes against an `Alphabet`, context tables count its codes.

- Lower case (soft mask) has the code of its upper case; `soft_mask` gives the mask itself.
- T and U share one code in DNA and in RNA.
- IUPAC codes and N (protein: X B Z J U O and the stop `*`) are legal and have the code `AMBIGUOUS`: they are
  never taken for one particular letter.
- Gaps `-` and `.` belong to no alphabet but BYTES.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import AlphabetError
from hyena_glt.sequences.quoting import quoted, shown

AMBIGUOUS = 254
INVALID = 255
GAPS = b"-."

Text = TypeVar("Text", str, bytes)


@dataclass(frozen=True)
class Alphabet:
    """A set of symbols with codes.

    Args:
        name: What `--alphabet` calls it.
        letters: The real letters; the code of a letter is its index.
        bits: Bits that one code takes in a context table.
        synonyms: Other spelling of a letter -> that letter (U for T and the reverse).
        ambiguous: Legal symbols that stand for more than one letter, or for none.
        complements: Symbol -> symbol on the other strand, upper case; empty where there is no other strand.
    """

    name: str
    letters: str
    bits: int
    synonyms: Mapping[str, str] = field(default_factory=dict, hash=False)
    ambiguous: str = ""
    complements: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def size(self) -> int:
        """Number of real letters."""
        return len(self.letters)

    @property
    def has_ambiguity(self) -> bool:
        """True where `AMBIGUOUS` and `INVALID` occur among the codes; False for BYTES."""
        return self.size < 256

    @cached_property
    def code_table(self) -> bytes:
        """256 bytes for `bytes.translate`: byte -> code, `AMBIGUOUS` or `INVALID`."""
        if not self.has_ambiguity:
            return bytes(range(256))
        codes = {letter: index for index, letter in enumerate(self.letters)}
        codes |= {symbol: codes[letter] for symbol, letter in self.synonyms.items()}
        codes |= dict.fromkeys(self.ambiguous, AMBIGUOUS)
        return _byte_table(codes, default=bytes([INVALID]) * 256)

    @cached_property
    def symbols(self) -> bytes:
        """Every byte that a sequence of this alphabet may hold, both cases."""
        if not self.has_ambiguity:
            return bytes(range(256))
        return bytes(byte for byte in range(256) if self.code_table[byte] != INVALID)

    @cached_property
    def complement_table(self) -> bytes:
        """256 bytes for `bytes.translate`: byte -> its complement, case kept, other bytes unchanged.

        Raises:
            AlphabetError: The alphabet has no complement (protein, bytes).
        """
        if not self.complements:
            raise AlphabetError(f"alphabet {self.name!r} has no complement; expected 'dna' or 'rna'")
        pairs = {symbol: ord(partner) for symbol, partner in self.complements.items()}
        table = bytearray(_byte_table(pairs, default=bytes(range(256))))
        for symbol, partner in self.complements.items():
            table[ord(symbol.lower())] = ord(partner.lower())
        return bytes(table)

    def encode(
        self,
        sequence: bytes | str,
        *,
        record: str | None = None,
        path: str | PathLike[str] | None = None,
        start: int = 0,
    ) -> NDArray[np.uint8]:
        """Code every symbol of a sequence.

        Args:
            sequence: Symbols, either case, no line ends.
            record: Name of the record, for the message.
            path: File the sequence came from, for the message.
            start: 0-based offset of `sequence` in its record, for the message.

        Returns:
            `(length,)` uint8 codes; `AMBIGUOUS` where the symbol is no single letter.

        Raises:
            AlphabetError: A symbol outside the alphabet; names the first one and its 1-based position.

        Example:
            >>> DNA.encode(b"ACgtN").tolist()
            [0, 1, 2, 3, 254]
        """
        raw = sequence.encode() if isinstance(sequence, str) else bytes(sequence)
        codes = raw.translate(self.code_table)
        if self.has_ambiguity and (bad := codes.find(INVALID)) >= 0:
            message = f"position {start + bad + 1}: {self.refusal(raw[bad : bad + 4])}"
            raise AlphabetError(message, path=path, record=None if record is None else shown(record))
        return np.frombuffer(codes, dtype=np.uint8)

    def refusal(self, symbols: bytes) -> str:
        """Say why the first symbol is not in the alphabet (up to 4 bytes, so that UTF-8 is shown whole)."""
        symbol = _first_character(symbols)
        if symbol in ("-", "."):
            return f"'{symbol}' is an alignment gap, not a {self.name} symbol; remove gaps with --degap"
        return f"expected a {self.name} symbol ({self._expected()}), got {quoted(symbol)}{_hint(self, symbol)}"

    def _expected(self) -> str:
        extra = "".join(self.synonyms) + self.ambiguous
        return f"{self.letters} or {extra}"


def get_alphabet(name: str | Alphabet) -> Alphabet:
    """Find an alphabet by the name that `--alphabet` takes: dna, rna, protein or bytes.

    Raises:
        AlphabetError: Unknown name.
    """
    if isinstance(name, Alphabet):
        return name
    if name not in _BY_NAME:
        raise AlphabetError(f"alphabet: expected one of {', '.join(_BY_NAME)}, got {quoted(str(name))}")
    return _BY_NAME[name]


def reverse_complement(sequence: Text, alphabet: str | Alphabet = "dna") -> Text:
    """Read the other strand: complemented and reversed, IUPAC codes included, case kept.

    Over DNA the complement of A is T, over RNA it is U; U and T are both complemented to A.

    Args:
        sequence: `str` or `bytes`; the result has the same type.
        alphabet: DNA or RNA.

    Raises:
        AlphabetError: The alphabet has no complement, or a symbol is not in it.

    Example:
        >>> reverse_complement("AACgtN")
        'NacGTT'
    """
    alphabet = get_alphabet(alphabet)
    table = alphabet.complement_table
    alphabet.encode(sequence)
    if isinstance(sequence, str):
        return sequence.encode().translate(table)[::-1].decode()
    return sequence.translate(table)[::-1]


def soft_mask(sequence: bytes) -> NDArray[np.bool_]:
    """Mark the lower-case symbols: `(length,)` bool."""
    symbols = np.frombuffer(sequence, dtype=np.uint8)
    return (symbols >= ord("a")) & (symbols <= ord("z"))


def _byte_table(values: Mapping[str, int], default: bytes) -> bytes:
    table = bytearray(default)
    for symbol, value in values.items():
        table[ord(symbol)] = table[ord(symbol.lower())] = value
    return bytes(table)


def _first_character(raw: bytes) -> str | bytes:
    """Decode the first character of up to 4 bytes; an undecodable byte comes back alone."""
    for length in range(1, len(raw) + 1):
        try:
            return raw[:length].decode()
        except UnicodeDecodeError:
            continue
    return raw[:1]


def _hint(alphabet: Alphabet, symbol: str | bytes) -> str:
    if symbol == ">":
        return "; is a line break missing before '>'?"
    if symbol in PROTEIN_SYMBOLS and alphabet is not PROTEIN:
        return "; for protein use --alphabet protein"
    return ""


_IUPAC_PAIRS = {
    "A": "T", "C": "G", "G": "C", "T": "A", "U": "A",
    "R": "Y", "Y": "R", "S": "S", "W": "W", "K": "M", "M": "K",
    "B": "V", "V": "B", "D": "H", "H": "D", "N": "N",
}  # fmt: skip

DNA = Alphabet("dna", "ACGT", 2, {"U": "T"}, "RYSWKMBDHVN", _IUPAC_PAIRS)
RNA = Alphabet("rna", "ACGU", 2, {"T": "U"}, "RYSWKMBDHVN", _IUPAC_PAIRS | {"A": "U"})
PROTEIN = Alphabet("protein", "ACDEFGHIKLMNPQRSTVWY", 5, ambiguous="XBZJUO*")
PROTEIN_SYMBOLS = set(PROTEIN.symbols.decode())
BYTES = Alphabet("bytes", "".join(map(chr, range(256))), 8)

_BY_NAME = {alphabet.name: alphabet for alphabet in (DNA, RNA, PROTEIN, BYTES)}
