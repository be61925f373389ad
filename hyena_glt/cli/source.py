"""A genome as a command reads it: once or several times, whole or in regions, from a file or stdin."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

from hyena_glt.cli.outputs import command_line
from hyena_glt.cli.runtime import Background
from hyena_glt.errors import DataError, UsageError
from hyena_glt.sequences.alphabets import Alphabet, get_alphabet
from hyena_glt.sequences.atomic import sha256_file
from hyena_glt.sequences.fasta import BLOCK_SIZE, read_blocks
from hyena_glt.sequences.records import Block
from hyena_glt.sequences.regions import Region, region_blocks, wanted_regions
from hyena_glt.tracks.provenance import Provenance, beside_details

KEPT_SYMBOLS = 1 << 26  # bases of a genome that is kept in memory between two passes, at most


@dataclass(frozen=True)
class GenomeSource:
    """Where the blocks come from. `path` may be a spooled copy; `name` is what the user typed."""

    path: Path
    name: str
    alphabet: Alphabet
    degap: bool
    regions: list[Region]
    reread: bool = True  # the blocks will be asked for more than once
    block_size: int = BLOCK_SIZE  # bytes of text read at a time
    others: tuple[Path, ...] = ()  # more files, whose records follow
    beside: tuple[Path | None, ...] = ()  # other files and folders that the command reads
    _hash: Background[str] | None = None
    _kept: list[Block] = field(default_factory=list, repr=False)

    def blocks(self) -> Iterator[Block]:
        """The blocks that were asked for, from the beginning."""
        if not self.regions:
            return self.all_blocks()
        blocks = region_blocks(self.path, self.regions, self.alphabet, degap=self.degap)
        return blocks if str(self.path) == self.name else _renamed(blocks, self.name)

    def all_blocks(self) -> Iterator[Block]:
        """Every block of the file, from the beginning: models are fitted on all of it, whatever the regions.

        A genome of at most `KEPT_SYMBOLS` is read once and kept for the next time.
        """
        if self._kept:
            return iter(self._kept)
        options: dict[str, Any] = {"alphabet": self.alphabet, "degap": self.degap, "block_size": self.block_size}
        blocks = chain.from_iterable(read_blocks(path, **options) for path in (self.path, *self.others))
        return self._keeping(blocks if str(self.path) == self.name else _renamed(blocks, self.name))

    def contigs(self) -> Iterator[bytes]:
        """Each sequence of the file, whole."""
        parts: list[bytes] = []
        for block in self.all_blocks():
            parts.append(block.sequence)
            if block.last:
                yield b"".join(parts)
                parts = []

    def _keeping(self, blocks: Iterator[Block]) -> Iterator[Block]:
        kept: list[Block] = []
        room = KEPT_SYMBOLS if self.reread else 0
        for block in blocks:
            room -= len(block.sequence)
            if room >= 0:
                kept.append(block)
            else:
                kept.clear()
            yield block
        self._kept.extend(kept)

    def provenance(self) -> Provenance:
        """The command as typed, and which input it reads."""
        names = [self.name, *map(str, self.others)]
        details = {"input": " ".join(names), "input_sha256": self.sha256, **self._beside_details}
        return Provenance(command_line(), details)

    @cached_property
    def _beside_details(self) -> dict[str, str]:
        return beside_details(self.beside)

    @property
    def sha256(self) -> str | None:
        """Hash of the input as it lies on the disk (of several files: of their hashes); None for a stdin read once."""
        return None if self._hash is None else self._hash.result()


def check_stdin() -> None:
    """Refuse to wait for somebody to type a genome.

    Raises:
        UsageError: Standard input is a terminal.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        raise UsageError("no input: give a file, or pipe one in (standard input is a terminal)")


@contextmanager
def open_genome(
    path: Path,
    alphabet: str,
    *,
    degap: bool = False,
    regions: Sequence[str] | None = None,
    regions_file: Path | None = None,
    may_overlap: bool = False,
    reread: bool = True,
    block_size: int = BLOCK_SIZE,
    threads: int = 1,
    others: Sequence[Path] = (),
    beside: Sequence[Path | None] = (),
) -> Iterator[GenomeSource]:
    """A genome that can be read again; stdin is spooled to a temporary file if it has to be.

    Args:
        path, alphabet, degap, reread, block_size: As `GenomeSource` has them.
        regions, regions_file: What is to be read of it.
        may_overlap: Whether regions may share bases, which are then read more than once.
        threads: With more than one the input is hashed in the background.
        others: More files, whose records follow.
        beside: Other files and folders that the command reads: another content makes another output.

    Raises:
        UsageError: Stdin among several files, or regions of several, or a terminal as stdin.
    """
    wanted = wanted_regions(regions or [], regions_file, overlapping="kept" if may_overlap else "refused")
    if others and (wanted or "-" in map(str, (path, *others))):
        raise UsageError("several genomes are read whole and from files: leave out - and the regions")
    if str(path) == "-":
        check_stdin()
    letters, read = get_alphabet(alphabet), (*beside, regions_file)
    if str(path) != "-" or not reread:
        digest = None if str(path) == "-" else Background(partial(_sha256, (path, *others)), threads)
        yield GenomeSource(path, str(path), letters, degap, wanted, reread, block_size, tuple(others), read, digest)
        return
    with tempfile.NamedTemporaryFile(prefix="hyena-glt-stdin-") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool, 1 << 20)
        spool.flush()
        digest = Background(partial(sha256_file, Path(spool.name)), threads)
        yield GenomeSource(Path(spool.name), "-", letters, degap, wanted, beside=read, _hash=digest)


def _sha256(paths: Sequence[Path]) -> str:
    """Hash of a file, or of the hashes of several."""
    digests = [sha256_file(path) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _renamed(blocks: Iterator[Block], name: str) -> Iterator[Block]:
    """The same blocks; errors name what the user typed, not the spooled copy."""
    try:
        yield from blocks
    except DataError as problem:
        raise type(problem)(problem.message, path=name, line=problem.line, record=problem.record) from None


def counted(blocks: Iterator[Block], advance: Callable[[int], None]) -> Iterator[Block]:
    """The same blocks, each reported to a progress bar when it has been used."""
    for block in blocks:
        yield block
        advance(len(block.sequence))
