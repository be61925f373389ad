"""Parts of records: the blocks of a genome cut to the regions asked for, each region a sequence of its own."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal

from hyena_glt.errors import RegionError
from hyena_glt.sequences.alphabets import Alphabet
from hyena_glt.sequences.fasta import read_blocks
from hyena_glt.sequences.indexed_fasta import IndexedFasta
from hyena_glt.sequences.intervals import Interval, parse_region, read_bed
from hyena_glt.sequences.quoting import quoted
from hyena_glt.sequences.records import Block

Region = tuple[str, int, int | None]  # contig, 0-based start, end or None for the end of the contig


def wanted_regions(
    regions: Sequence[str],
    regions_file: str | os.PathLike[str] | None,
    *,
    overlapping: Literal["refused", "merged", "kept"] = "refused",
) -> list[Region]:
    """Regions of `-r` strings (1-based inclusive) and a `-R` BED file (0-based half-open), sorted.

    Args:
        regions: The strings.
        regions_file: The file, or None.
        overlapping: What becomes of regions that share bases; merged, they are one region.

    Raises:
        RegionError: A malformed region, or two that overlap where that is refused.
    """
    found: list[Region] = []
    for text in regions:
        contig, start, end = parse_region(text)
        found.append((contig, start or 0, end))
    if regions_file is not None:
        found += [(bed.contig, bed.start, bed.end) for bed in read_bed(regions_file)]
    found.sort(key=_place)
    if overlapping == "merged":
        return _merged(found)
    if overlapping == "refused":
        for before, after in pairwise(found):
            if before[0] == after[0] and _end(before) > after[1]:
                raise RegionError(f"regions {shown(before)} and {shown(after)} overlap; merge them")
    return found


def _merged(regions: Iterable[Region]) -> list[Region]:
    """Sorted regions, each joined with those that share a base with it."""
    merged: list[Region] = []
    for region in regions:
        if merged and merged[-1][0] == region[0] and _end(merged[-1]) > region[1]:
            contig, start, _ = merged[-1]
            merged[-1] = contig, start, max(merged[-1], region, key=_end)[2]
        else:
            merged.append(region)
    return merged


def _place(region: Region) -> tuple[str, int, float]:
    return *region[:2], _end(region)


def _end(region: Region) -> float:
    return math.inf if region[2] is None else region[2]


def shown(region: Region) -> str:
    """The region as a 1-based inclusive string."""
    contig, start, end = region
    return f"{contig}:{start + 1}-{'' if end is None else end}"


def region_blocks(
    path: str | os.PathLike[str], regions: Sequence[Region], alphabet: Alphabet, *, degap: bool = False
) -> Iterator[Block]:
    """The blocks of the regions, in the order of the file; random access where a fresh `.fai` lies beside it.

    Regions may overlap. Without an index those that begin before an earlier one has ended are held in memory meanwhile.

    Raises:
        RegionError: An unknown contig, or a region past the end of its contig.
    """
    if os.fspath(path) != "-" and not degap and has_fresh_index(path):
        return _indexed_blocks(Path(path), regions, alphabet)
    return cut_regions(read_blocks(path, alphabet=alphabet, degap=degap), regions, os.fspath(path))


def check_regions(regions: Iterable[Region], lengths: Mapping[str, int], path: str) -> None:
    """Refuse regions that do not lie on a contig.

    Raises:
        RegionError: An unknown contig, or a region past the end of its contig.
    """
    for region in regions:
        contig, start, end = region
        if contig not in lengths:
            raise RegionError(f"no contig named {quoted(contig)}", path=path)
        if start >= lengths[contig] or (end or 0) > lengths[contig]:
            raise _past_the_end(region, lengths[contig], path)


def has_fresh_index(path: str | os.PathLike[str]) -> bool:
    """Whether a `.fai` no older than the file lies beside it."""
    file, index = Path(path), Path(f"{os.fspath(path)}.fai")
    try:
        return index.stat().st_mtime_ns >= file.stat().st_mtime_ns
    except OSError:
        return False


def _indexed_blocks(path: Path, regions: Sequence[Region], alphabet: Alphabet) -> Iterator[Block]:
    with IndexedFasta(path) as fasta:
        order = {name: number for number, name in enumerate(fasta.names)}
        for contig, start, end in sorted(regions, key=lambda region: (order.get(region[0], -1), *_place(region))):
            stop = fasta.length(contig) if end is None else end
            if start >= stop:
                raise _past_the_end((contig, start, end), fasta.length(contig), path)
            sequence = fasta.fetch(Interval(contig, start, stop))
            alphabet.encode(sequence, record=contig, path=path, start=start)
            yield Block(contig, "", start, sequence, True, 0)


def cut_regions(blocks: Iterable[Block], regions: Sequence[Region], path: str) -> Iterator[Block]:
    """The parts of blocks that lie in regions, each region a record of its own, in the order of the blocks.

    Raises:
        RegionError: An unknown contig, or a region past the end of its contig; `path` is named.
    """
    by_contig: dict[str, list[Region]] = {}
    for region in regions:
        by_contig.setdefault(region[0], []).append(region)
    for contig, own in by_contig.items():
        by_contig[contig] = sorted(own, key=_place)
    held: dict[int, list[Block]] = {}  # of regions that have begun and not ended, the first to begin first
    for block in blocks:
        waiting = by_contig.get(block.name, [])
        for number, piece in _cut_block(block, waiting):
            held.setdefault(number, []).append(piece)
            yield from _pieces_in_turn(held)
        if block.last:
            check_regions(waiting, {block.name: block.start + len(block.sequence)}, path)
            by_contig.pop(block.name, None)
    check_regions(chain(*by_contig.values()), {}, path)


def _pieces_in_turn(held: dict[int, list[Block]]) -> Iterator[Block]:
    """What is held of the first region, and of those behind it as soon as those before them have ended."""
    while held:
        first = next(iter(held))
        pieces, held[first] = held[first], []
        yield from pieces
        if not (pieces and pieces[-1].last):
            return
        del held[first]


def _cut_block(block: Block, regions: Iterable[Region]) -> Iterator[tuple[int, Block]]:
    """The piece of each region that lies in a block, with the region's number."""
    end = block.start + len(block.sequence)
    for number, (_, start, stop) in enumerate(regions):
        first, behind = max(start, block.start), min(end if stop is None else stop, end)
        if first >= behind:
            continue
        piece = block.sequence[first - block.start : behind - block.start]
        is_last = block.last if stop is None else behind == stop
        yield number, Block(block.name, block.description, first, piece, is_last, block.line)


def _past_the_end(region: Region, length: int, path: str | os.PathLike[str]) -> RegionError:
    return RegionError(
        f"region {shown(region)} goes past the contig, which has {length:,} bases", path=path, record=region[0]
    )
