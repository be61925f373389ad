"""The parts of a bigWig that the library follows without a look, checked first: it crashes where they are damaged.

Layout: Kent et al., "BigWig and BigBed: enabling browsing of large distributed datasets", Bioinformatics 2010,
supplement: header, zoom headers, the B+ tree of contig names, the index of the data, and the magic number again.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from hyena_glt.errors import AnnotationError
from hyena_glt.sequences.decompress import open_file

BIGWIG_MAGIC, CONTIG_TREE_MAGIC, INDEX_MAGIC = 0x888FFC26, 0x78CA8C91, 0x2468ACE0
HEADER_BYTES = 64
LONGEST_NAME = 1 << 12
DEEPEST_TREE = 32


def bigwig_contigs(path: str) -> dict[str, int]:
    """Contigs of a bigWig and their lengths in bases, in the order of the file.

    Raises:
        AnnotationError: The file is cut short, or its parts are not where they should be.
        SystemProblem: It cannot be read.
    """
    with open_file(path) as file:
        try:
            return _Header(file, os.path.getsize(path)).contigs()
        except (struct.error, UnicodeDecodeError, ValueError) as problem:
            raise AnnotationError(f"truncated or damaged bigWig ({problem}); copy it again", path=path) from None


class _Header:
    """Reads numbers at offsets; raises ValueError where they cannot be."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._order = "<" if self._bytes(0, 4) == BIGWIG_MAGIC.to_bytes(4, "little") else ">"

    def contigs(self) -> dict[str, int]:
        """Check every part, and give the contigs."""
        _, _, zoom_levels, contig_tree, data, index = self._numbers("IHHQQQ", 0)
        zooms = [self._numbers("IIQQ", HEADER_BYTES + 24 * level)[2:] for level in range(zoom_levels)]
        if data > self._size or any(zoom_data > self._size for zoom_data, _ in zooms):
            raise ValueError("data behind the end")
        for offset in (index, *(zoom_index for _, zoom_index in zooms)):
            self._expect(INDEX_MAGIC, offset, "index")
        self._expect(BIGWIG_MAGIC, self._size - 4, "end")
        return self._contigs(contig_tree)

    def _contigs(self, offset: int) -> dict[str, int]:
        self._expect(CONTIG_TREE_MAGIC, offset, "contig tree")
        _, block_size, key_size, value_size, num_contigs, _ = self._numbers("IIIIQQ", offset)
        if not 1 <= key_size <= LONGEST_NAME or value_size != 8 or num_contigs > self._size:
            raise ValueError(f"a contig tree of {num_contigs} names, {key_size} bytes each")
        leaves = list(self._leaves(offset + 32, block_size, key_size, DEEPEST_TREE))
        by_number = {number: (name, length) for name, number, length in leaves}
        if len(leaves) != num_contigs or sorted(by_number) != list(range(num_contigs)):
            raise ValueError(f"expected {num_contigs} contigs, found {len(leaves)}")
        contigs = dict(by_number[number] for number in range(num_contigs))
        if len(contigs) != num_contigs or not all(name.isprintable() and name for name in contigs):
            raise ValueError("contig names that are empty, not printable or there twice")
        return contigs

    def _leaves(self, offset: int, block_size: int, key_size: int, depth: int) -> Iterator[tuple[str, int, int]]:
        """Name, number and length of each contig under a node of the tree."""
        is_leaf, _, items = self._numbers("BBH", offset)
        if is_leaf > 1 or items > block_size or not depth:
            raise ValueError("a node of the contig tree that cannot be")
        for place in range(offset + 4, offset + 4 + items * (key_size + 8), key_size + 8):
            if is_leaf:
                name = self._bytes(place, key_size).rstrip(b"\0").decode()
                number, length = self._numbers("II", place + key_size)
                yield name, number, length
            else:
                (child,) = self._numbers("Q", place + key_size)
                yield from self._leaves(child, block_size, key_size, depth - 1)

    def _expect(self, magic: int, offset: int, part: str) -> None:
        if self._numbers("I", offset) != (magic,):
            raise ValueError(f"no {part} at byte {offset:,} of {self._size:,}")

    def _numbers(self, form: str, offset: int) -> tuple[int, ...]:
        form = self._order + form
        return struct.unpack(form, self._bytes(offset, struct.calcsize(form)))

    def _bytes(self, offset: int, count: int) -> bytes:
        if not 0 <= offset <= self._size - count:
            raise ValueError(f"cut short: byte {offset + count:,} of {self._size:,}")
        self._file.seek(offset)
        return self._file.read(count)
