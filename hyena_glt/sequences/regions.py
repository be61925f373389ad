"""Parts of records: the blocks of a genome cut to the regions asked for, each region a sequence of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path

from hyena_glt.errors import RegionError
from hyena_glt.sequences.alphabets import Alphabet
from hyena_glt.sequences.fasta import read_blocks
from hyena_glt.sequences.indexed_fasta import IndexedFasta
from hyena_glt.sequences.intervals import Interval, parse_region, read_bed
from hyena_glt.sequences.quoting import quoted
from hyena_glt.sequences.records import Block

Region = tuple[str, int, int | None]  # contig, 0-based start, end or None for the end of the contig


def wanted_regions(regions: Sequence[str], regions_file: str | os.PathLike[str] | None) -> list[Region]:
    """Regions of `-r` strings (1-based inclusive) and a `-R` BED file (0-based half-open), sorted.

    Raises:
        RegionError: A malformed region, or two that overlap.
    """
    found: list[Region] = []
    for text in regions:
        contig, start, end = parse_region(text)
        found.append((contig, start or 0, end))
    if regions_file is not None:
        found += [(bed.contig, bed.start, bed.end) for bed in read_bed(regions_file)]
    found.sort(key=lambda region: region[:2])
    for before, after in pairwise(found):
        if before[0] == after[0] and (before[2] is None or before[2] > after[1]):
            raise RegionError(f"regions {shown(before)} and {shown(after)} overlap; merge them")
    return found


def shown(region: Region) -> str:
    """The region as a 1-based inclusive string."""
    contig, start, end = region
    return f"{contig}:{start + 1}-{'' if end is None else end}"


def region_blocks(
    path: str | os.PathLike[str], regions: Sequence[Region], alphabet: Alphabet, *, degap: bool = False
) -> Iterator[Block]:
    """The blocks of the regions, in the order of the file; random access where a fresh `.fai` lies beside it.

    Raises:
        RegionError: An unknown contig, or a region past the end of its contig.
    """
    if os.fspath(path) != "-" and not degap and has_fresh_index(path):
        return _indexed_blocks(Path(path), regions, alphabet)
    return _cut_blocks(read_blocks(path, alphabet=alphabet, degap=degap), regions, os.fspath(path))


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
        for contig, start, end in sorted(regions, key=lambda r: (order.get(r[0], -1), r[1])):
            stop = fasta.length(contig) if end is None else end
            if start >= stop:
                raise _past_the_end((contig, start, end), fasta.length(contig), path)
            sequence = fasta.fetch(Interval(contig, start, stop))
            alphabet.encode(sequence, record=contig, path=path, start=start)
            yield Block(contig, "", start, sequence, True, 0)


def _cut_blocks(blocks: Iterable[Block], regions: Sequence[Region], path: str) -> Iterator[Block]:
    by_contig: dict[str, list[Region]] = {}
    for region in regions:
        by_contig.setdefault(region[0], []).append(region)
    for block in blocks:
        waiting = by_contig.get(block.name, [])
        yield from _cut_block(block, waiting)
        if block.last:
            check_regions(waiting, {block.name: block.start + len(block.sequence)}, path)
            by_contig.pop(block.name, None)
    check_regions(chain(*by_contig.values()), {}, path)


def _cut_block(block: Block, regions: Iterable[Region]) -> Iterator[Block]:
    end = block.start + len(block.sequence)
    for _, start, stop in regions:
        first, behind = max(start, block.start), min(end if stop is None else stop, end)
        if first >= behind:
            continue
        piece = block.sequence[first - block.start : behind - block.start]
        is_last = block.last if stop is None else behind == stop
        yield Block(block.name, block.description, first, piece, is_last, block.line)


def _past_the_end(region: Region, length: int, path: str | os.PathLike[str]) -> RegionError:
    return RegionError(
        f"region {shown(region)} goes past the contig, which has {length:,} bases", path=path, record=region[0]
    )
