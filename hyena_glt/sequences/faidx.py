"""The `.fai` index of a FASTA file: found, checked for age and fit, or built anew; `.gzi` beside it for BGZF.

htslib writes the index; our strict parser reads the file first, because htslib lets duplicate names and empty
records pass. An index is put beside the FASTA whole or not at all, so that any number of processes may start
cold; in a read-only folder it is kept in memory.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import DataError, SequenceFormatError, SystemProblem
from hyena_glt.sequences.alphabets import BYTES
from hyena_glt.sequences.atomic import atomic_write
from hyena_glt.sequences.chunks import ChunkReader, sniff
from hyena_glt.sequences.decompress import open_bytes
from hyena_glt.sequences.fasta_parser import parse_fasta

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 18
TAIL_BYTES = 1 << 12


class Entry(NamedTuple):
    """One line of a `.fai`."""

    length: int  # bases
    offset: int  # byte of the first base, in the uncompressed file
    line_bases: int
    line_width: int  # bases and line end


class Index(NamedTuple):
    """A `.fai` and, for BGZF, the block starts of the `.gzi`."""

    entries: dict[str, Entry]
    blocks: NDArray[np.uint64] | None  # (num_blocks, 2): compressed offset, uncompressed offset


def load_index(path: str, *, is_bgzf: bool) -> Index:
    """Load the index beside a FASTA file, or build it where it is missing, stale or does not fit.

    Raises:
        DataError: The file is no FASTA that can be indexed.
        SystemProblem: It cannot be read.
    """
    return fresh_index(path, is_bgzf=is_bgzf) or _build_index(path, is_bgzf)


def fresh_index(path: str, *, is_bgzf: bool) -> Index | None:
    """Load the index beside a FASTA file; None where it is missing, older than the file or does not fit."""
    return None if _is_stale(path, is_bgzf) else _read_index(path, is_bgzf)


def _is_stale(path: str, is_bgzf: bool) -> bool:
    try:
        changed = os.stat(path).st_mtime_ns
        return any(os.stat(side).st_mtime_ns < changed for side in _side_files(path, is_bgzf))
    except OSError:
        return True


def _side_files(path: str, is_bgzf: bool) -> list[str]:
    return [f"{path}.fai", f"{path}.gzi"] if is_bgzf else [f"{path}.fai"]


def _read_index(path: str, is_bgzf: bool) -> Index | None:
    """Read the side files; None where they are damaged or were made for another file."""
    try:
        entries = parse_fai(Path(f"{path}.fai").read_bytes())
        blocks = parse_gzi(Path(f"{path}.gzi").read_bytes()) if is_bgzf else None
    except (OSError, ValueError):
        return None
    return Index(entries, blocks) if is_bgzf or _fits(path, entries) else None


def parse_fai(text: bytes) -> dict[str, Entry]:
    """Parse the text of a `.fai`.

    Raises:
        ValueError: It is damaged.
    """
    entries: dict[str, Entry] = {}
    for line in text.decode().removesuffix("\n").split("\n"):
        name, length, offset, line_bases, line_width = line.split("\t")
        entry = Entry(int(length), int(offset), int(line_bases), int(line_width))
        if not (name and name not in entries and min(entry) >= 0 and 0 < entry.line_bases < entry.line_width):
            raise ValueError("damaged .fai")
        entries[name] = entry
    return entries


def parse_gzi(raw: bytes) -> NDArray[np.uint64]:
    """Parse a `.gzi`: `(num_blocks, 2)` uint64, compressed and uncompressed offset of each BGZF block.

    Raises:
        ValueError: It is damaged.
    """
    numbers = np.frombuffer(raw, dtype="<u8")
    if not len(numbers) or len(numbers) != 1 + 2 * int(numbers[0]):
        raise ValueError("damaged .gzi")
    return np.concatenate([np.zeros((1, 2), np.uint64), numbers[1:].reshape(-1, 2)])


def _fits(path: str, entries: dict[str, Entry]) -> bool:
    """Check that after the last indexed base nothing but line ends follows."""
    end = max(byte_offset(entry, entry.length - 1) + 1 for entry in entries.values())
    size = os.path.getsize(path)
    if not 0 <= size - end <= TAIL_BYTES:
        return False
    with open(path, "rb") as file:
        file.seek(end)
        return not file.read().strip()


def byte_offset(entry: Entry, base: int) -> int:
    """Give the place of a base in the uncompressed file."""
    line, column = divmod(base, entry.line_bases)
    return entry.offset + line * entry.line_width + column


def _build_index(path: str, is_bgzf: bool) -> Index:
    before = os.stat(path)
    _check_records(path)
    with tempfile.TemporaryDirectory(prefix="hyena-glt-") as folder:
        fai, gzi = f"{folder}/fai", f"{folder}/gzi"
        _run_faidx(path, fai, gzi)
        made = [Path(fai).read_bytes(), *([Path(gzi).read_bytes()] if is_bgzf else [])]
    after = os.stat(path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError("the file changed while it was being indexed; run again", path=path)
    _keep(path, dict(zip(_side_files(path, is_bgzf), made, strict=True)))
    return Index(parse_fai(made[0]), parse_gzi(made[1]) if is_bgzf else None)


def _check_records(path: str) -> None:
    with open_bytes(path) as source:
        reader = ChunkReader(source, READ_BYTES)
        marker, line = sniff(reader, path)
        if marker != b">":
            raise SequenceFormatError("a FASTQ file cannot be indexed; read it from start to end", path=path)
        for _ in parse_fasta(reader, path=path, line=line, alphabet=BYTES, degap=False):
            pass


def _run_faidx(path: str, fai: str, gzi: str) -> None:
    import pysam

    verbosity = pysam.set_verbosity(0)
    try:
        pysam.faidx(path, "--fai-idx", fai, "--gzi-idx", gzi)
    except pysam.SamtoolsError:
        raise SequenceFormatError(
            "cannot be indexed: lines of a record differ in length; wrap them evenly or read without regions",
            path=path,
            line=_first_uneven_line(path),
        ) from None
    finally:
        pysam.set_verbosity(verbosity)


def _first_uneven_line(path: str) -> int | None:
    """Find the line that follows a shorter one, or is longer than the first, within a record."""
    width = last = 0
    with open_bytes(path) as source:
        number, rest = 0, b""
        while chunk := source.read(READ_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for text in lines:
                number += 1
                if text.startswith(b">"):
                    width = last = 0
                elif width and (last != width or len(text) > width):
                    return number
                else:
                    width, last = width or len(text), len(text)
    return number + 1 if rest else None


def _keep(path: str, side_files: dict[str, bytes]) -> None:
    for name, content in side_files.items():
        try:
            with atomic_write(name, overwrite=True) as handle:
                handle.write(content)
        except SystemProblem as error:
            logger.info("index of %s is kept in memory only: %s", path, error)
            return
