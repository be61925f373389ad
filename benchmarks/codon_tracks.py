"""Tracks that start patches in step with codons, and controls that do not: do boundaries and lengths matter there?

    python benchmarks/codon_tracks.py GENOME.fa.gz -o runs/codons [--size 9] [--least 600] [--seed 0]
    python benchmarks/patching_pays.py GENOME.fa.gz --tracks runs/codons/*.bedgraph --settings --measure
    python benchmarks/patching_pays.py GENOME.fa.gz --tracks runs/codons/*.bedgraph --settings --seconds 300

Genes are open reading frames of `--least` bases, the longest first, without overlap. The first five tracks cut every
`--size` bases, a multiple of 3, and four of them begin anew at each end of a gene:

- `codon`: from the first base of the first codon on, so each patch holds whole codons;
- `codon1`, `codon2`: one and two bases later, so patches break codons, but the net is told as much about genes;
- `drawn`: from an offset of 0, 1 or 2 that is drawn for each gene, so the net is not told the frame;
- `regular`: along the contig, with no regard to genes.

The last two have patches of `--size` bases on average, with no regard to genes either:

- `irregular`: of lengths drawn evenly from a third of that to five thirds;
- `threes`: of lengths drawn evenly from the multiples of 3 among these, so that within a gene all patches start at one
  place of a codon.

`codon` against `codon1` and `codon2` is what the place of a boundary in a codon is worth. `codon` against `drawn` and
`regular` holds what the frame is worth too, which the net would not have before it has read the gene. `regular` against
`threes` is what unequal lengths cost as such, `threes` against `irregular` what it costs that the place in a codon
changes from patch to patch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hyena_glt.sequences.atomic import atomic_write
from hyena_glt.sequences.fasta import read_records

STARTS, STOPS = ("ATG", "GTG", "TTG"), ("TAA", "TAG", "TGA")
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")
GENE_TRACKS = ("codon", "codon1", "codon2", "drawn")
TRACKS = (*GENE_TRACKS, "regular", "irregular", "threes")


def main() -> None:
    """Write one bedGraph for each way to cut."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genome", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    parser.add_argument("--size", type=int, default=9, help="bases of a patch, a multiple of 3")
    parser.add_argument("--least", type=int, default=600, help="bases of a gene")
    parser.add_argument("--seed", type=int, default=0, help="of the offsets of `drawn`")
    options = parser.parse_args()
    if options.size % 3:
        parser.error(f"--size: expected a multiple of 3, got {options.size}")
    options.output.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(options.seed)
    lines: dict[str, list[str]] = {name: [] for name in TRACKS}
    for record in read_records(options.genome):
        length = len(record.sequence)
        genes = longest_genes(bytes(record.sequence).upper(), options.least)
        covered = sum(end - start for start, end in genes)
        print(f"{record.name}: {len(genes):,} genes, {covered / length:.1%} of {length:,} bases")
        for name, starts in starts_of(genes, length, options.size, random).items():
            lines[name] += [f"{record.name}\t{place - 1}\t{place}\t1\n" for place in np.unique(starts)[1:].tolist()]
    for name, content in lines.items():
        with atomic_write(options.output / f"{name}.bedgraph", "w", overwrite=True) as handle:
            handle.writelines(content)


def starts_of(
    genes: list[tuple[int, int]], length: int, size: int, random: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """Of each track where patches start; 0 is one of them."""
    offsets = [*(np.full(len(genes), shift) for shift in range(3)), random.integers(0, 3, len(genes))]
    found = {}
    for name, offset in zip(GENE_TRACKS, offsets, strict=True):
        edges = pieces(genes, offset, length).tolist()
        found[name] = np.concatenate([np.arange(start, end, size) for start, end in edges])
    found["regular"] = np.arange(0, length, size)
    for name, lengths in (
        ("irregular", np.arange(size // 3, 5 * size // 3 + 1)),
        ("threes", np.arange((size // 3 + 2) // 3 * 3, 5 * size // 3 + 1, 3)),
    ):
        ends = np.cumsum(random.choice(lengths, length // int(lengths[0])))
        found[name] = np.concatenate([[0], ends[ends < length]])
    return found


def longest_genes(sequence: bytes, least: int) -> list[tuple[int, int]]:
    """Reading frames of at least so many bases on both strands, the longest first, none over another; ascending."""
    found = list(frames(sequence, least))
    length = len(sequence)
    found += [(length - end, length - start) for start, end in frames(sequence.translate(COMPLEMENT)[::-1], least)]
    taken = np.zeros(length, np.bool_)
    kept = []
    for start, end in sorted(found, key=lambda gene: (gene[0] - gene[1], gene)):
        if not taken[start:end].any():
            taken[start:end] = True
            kept.append((start, end))
    return sorted(kept)


def frames(sequence: bytes, least: int) -> Iterator[tuple[int, int]]:
    """Of each stretch without a stop codon the part from its first start codon on, the stop codon included."""
    letters = np.frombuffer(sequence, np.uint8)
    for frame in range(3):
        codons = letters[frame : frame + (letters.size - frame) // 3 * 3].reshape(-1, 3)
        stops = np.flatnonzero(is_one_of(codons, STOPS))
        starts = np.flatnonzero(is_one_of(codons, STARTS))
        firsts = np.searchsorted(starts, np.concatenate([[0], stops[:-1] + 1]))
        for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True):
            if first < starts.size and (stop + 1 - starts[first]) * 3 >= least:
                yield frame + 3 * int(starts[first]), frame + 3 * (stop + 1)


def is_one_of(codons: NDArray[np.uint8], names: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which of `(codons, 3)` letters spell one of the names, `(codons,)`."""
    spelled = np.array([list(name.encode()) for name in names], np.uint8)
    return np.asarray((codons[:, None] == spelled).all(-1).any(-1))


def pieces(genes: list[tuple[int, int]], offsets: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Genes, moved to the right by their offsets, and what lies between them: `(pieces, 2)` starts and ends."""
    edges = (np.array(genes).reshape(-1, 2) + offsets[:, None]).reshape(-1)
    edges = np.minimum(np.concatenate([[0], edges, [length]]), length)
    return np.stack([edges[:-1], edges[1:]], axis=1)


if __name__ == "__main__":
    main()
