"""A genome as distances see it: its contigs, the codes of its letters, and a hash of both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import DataError
from hyena_glt.sequences.alphabets import AMBIGUOUS, GAPS, Alphabet, get_alphabet
from hyena_glt.sequences.quoting import quoted, shown

UPPER = bytes(range(256)).upper()


@dataclass(frozen=True, eq=False)
class Genome:
    """Sequences under one name. Build it with `of`, which checks them.

    An ambiguity symbol stands for no letter: it costs nothing, ends what was remembered of the letters before it,
    and is in no word. Contigs meet as if such a symbol stood between them. Case means nothing.
    """

    name: str
    sequences: tuple[bytes, ...]  # upper case, without gaps
    alphabet: Alphabet
    path: str | None = None  # the file that messages name

    @classmethod
    def of(
        cls,
        name: str,
        sequences: str | bytes | Iterable[str | bytes],
        alphabet: str | Alphabet = "dna",
        *,
        degap: bool = False,
        path: str | None = None,
    ) -> Genome:
        """A genome of one sequence or of several contigs.

        Args:
            name: Of the genome.
            sequences: Letters and ambiguity symbols of the alphabet, either case.
            alphabet: "dna", "rna", "protein" or "bytes".
            degap: Remove alignment gaps `-` and `.` in place of refusing them.
            path: File that the sequences came from, for messages.

        Raises:
            DataError: No letter in the sequences.
            AlphabetError: A symbol that the alphabet does not have; gaps are named as such.
        """
        letters = get_alphabet(alphabet)
        listed = [sequences] if isinstance(sequences, str | bytes) else list(sequences)
        raw = [part.encode() if isinstance(part, str) else bytes(part) for part in listed]
        if letters.has_ambiguity:
            raw = [part.translate(UPPER, GAPS if degap else b"") for part in raw]
        genome = cls(name, tuple(raw), letters, path)
        if not genome.num_letters:
            raise genome.refusal(f"expected a letter of alphabet {letters.name}, got none; leave it out")
        return genome

    def refusal(self, message: str) -> DataError:
        """An error that names file and genome."""
        return DataError(message, path=self.path, record=shown(self.name))

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """`(length,)` symbol codes of all contigs, `AMBIGUOUS` at ambiguity symbols and between contigs."""
        parts = [self.alphabet.encode(part, record=self.name, path=self.path) for part in self.sequences]
        if not self.alphabet.has_ambiguity:
            return np.concatenate(parts) if parts else np.zeros(0, np.uint8)
        between = np.array([AMBIGUOUS], np.uint8)
        joined = [piece for part in parts for piece in (part, between)][:-1]
        return np.concatenate(joined) if joined else np.zeros(0, np.uint8)

    @property
    def num_letters(self) -> int:
        """Symbols that are one letter."""
        return int(np.count_nonzero(self.codes < self.alphabet.size)) if self.alphabet.size < 256 else self.codes.size

    @cached_property
    def sha256(self) -> str:
        """Hash of the contigs in their order; the name does not count."""
        digest = hashlib.sha256(self.alphabet.name.encode())
        for part in self.sequences:
            digest.update(f"\n{len(part)}\n".encode())
            digest.update(part)
        return digest.hexdigest()


def check_genomes(genomes: Sequence[Genome]) -> None:
    """Refuse what cannot be compared.

    Raises:
        DataError: Fewer than two genomes, two of one name, or different alphabets.
    """
    if len(genomes) < 2:
        path = genomes[0].path if genomes else None
        raise DataError(f"expected two genomes or more to compare, got {len(genomes)}", path=path)
    seen: set[str] = set()
    for genome in genomes:
        if genome.name in seen:
            raise DataError(f"two genomes of the name {quoted(genome.name)}; names have to differ", path=genome.path)
        seen.add(genome.name)
        if genome.alphabet.name != genomes[0].alphabet.name:
            raise genome.refusal(f"expected alphabet {genomes[0].alphabet.name}, got {genome.alphabet.name}")


def first_copies(genomes: Sequence[Genome]) -> list[int]:
    """For each genome the index of the first one of the same content: work is done for that one alone."""
    first: dict[str, int] = {}
    return [first.setdefault(genome.sha256, index) for index, genome in enumerate(genomes)]


def block_edges(length: int, blocks: int) -> NDArray[np.int64]:
    """Where the blocks of a sequence begin and end: `(blocks + 1,)`, of equal length up to one symbol."""
    return np.arange(blocks + 1, dtype=np.int64) * length // blocks


def block_sums(values: NDArray[np.floating], blocks: int) -> NDArray[np.float64]:
    """Sum of the values, `(length,)`, in each of `blocks` equal stretches: `(blocks,)`."""
    running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.diff(running[block_edges(values.size, blocks)])
