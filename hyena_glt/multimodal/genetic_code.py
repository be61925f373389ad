"""Codons -> amino acids, by the numbered tables of NCBI (the ones that sequence databases name)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError
from hyena_glt.sequences.alphabets import AMBIGUOUS, DNA

# Codons in the order TTT, TTC, TTA, TTG, TCT, ...; below them M where a codon may start a protein.
_TABLES = {
    1: (
        "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
        "---M---------------M---------------M----------------------------",
    ),
    2: (
        "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIMMTTTTNNKKSS**VVVVAAAADDEEGGGG",
        "--------------------------------MMMM---------------M------------",
    ),
    3: (
        "FFLLSSSSYY**CCWWTTTTPPPPHHQQRRRRIIMMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
        "----------------------------------MM---------------M------------",
    ),
    4: (
        "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
        "--MM---------------M------------MMMM---------------M------------",
    ),
    5: (
        "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIMMTTTTNNKKSSSSVVVVAAAADDEEGGGG",
        "---M----------------------------MMMM---------------M------------",
    ),
    6: (
        "FFLLSSSSYYQQCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
        "-----------------------------------M----------------------------",
    ),
    11: (
        "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
        "---M---------------M------------MMMM---------------M------------",
    ),
    12: (
        "FFLLSSSSYY**CC*WLLLSPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
        "-------------------M---------------M----------------------------",
    ),
    25: (
        "FFLLSSSSYY**CCGWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
        "---M-------------------------------M---------------M------------",
    ),
}
GENETIC_CODES = tuple(_TABLES)
_UNKNOWN = 64  # entry for a codon with an ambiguous base
CODON_ORDER = "TCAG"


def translate(sequence: bytes | str, table: int = 1, *, from_start: bool = False) -> bytes:
    """The protein that a coding sequence stands for, in its first frame.

    Args:
        sequence: DNA or RNA; one or two bases after the last whole codon are left out.
        table: Number of the genetic code, one of `GENETIC_CODES`.
        from_start: The first codon starts the protein: where the table allows that, it is read as M.

    Returns:
        Amino acids, upper case: `*` for a stop, `X` for a codon with an ambiguous base.

    Raises:
        AlphabetError: A symbol that is no base.
        ConfigError: A table that is not here.

    Example:
        >>> translate("ATGGCTTGA"), translate("ATGGCTTGA", table=4), translate("TTGGCT", 11, from_start=True)
        (b'MA*', b'MAW', b'MA')
    """
    letters, starts = _letters(table)
    codons = _codons(DNA.encode(sequence))
    protein = letters[codons]
    if from_start and codons.size and starts[codons[0]]:
        protein[0] = ord("M")
    return protein.tobytes()


def _codons(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Numbers of the whole codons in the order of the alphabet (AAA 0, AAC 1, ...), `(length // 3,)`."""
    triplets = codes[: codes.size // 3 * 3].reshape(-1, 3).astype(np.int64)
    numbers = triplets @ np.array([16, 4, 1])
    numbers[(triplets == AMBIGUOUS).any(axis=1)] = _UNKNOWN
    return numbers


@cache
def _letters(table: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """`(65,)` amino acids and `(65,)` allowed starts by codon number, not to be changed."""
    if table not in _TABLES:
        raise ConfigError(f"genetic code: expected one of {', '.join(map(str, GENETIC_CODES))}, got {table}")
    amino_acids, starts = (np.frombuffer(text.encode(), np.uint8) for text in _TABLES[table])
    place = np.array([CODON_ORDER.index(base) for base in DNA.letters])
    order = (place[:, None, None] * 16 + place[None, :, None] * 4 + place).ravel()
    return np.append(amino_acids[order], np.uint8(ord("X"))), np.append(starts[order] == ord("M"), False)
