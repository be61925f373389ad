"""A genome to try things on: seeded, made in a moment, with the kinds of structure that real ones have.

Only the raw 64-bit stream of PCG64 is used, which NumPy promises to keep: a seed gives the same bases in any
version.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError
from hyena_glt.sequences.alphabets import DNA, reverse_complement
from hyena_glt.sequences.annotations import Feature
from hyena_glt.sequences.atomic import atomic_write, make_folder
from hyena_glt.sequences.fasta import write_fasta
from hyena_glt.sequences.records import Record

# Codons per thousand in the order TTT TTC TTA TTG TCT ... GGG, rounded from E. coli genes; stops have 0.
CODONS = ["".join(bases) for bases in product("TCAG", repeat=3)]
CODON_USAGE = (
    22, 16, 14, 13, 10, 9, 9, 9, 18, 12, 0, 0, 5, 6, 0, 14,
    12, 10, 4, 48, 8, 5, 9, 21, 13, 9, 15, 28, 20, 20, 4, 6,
    30, 24, 7, 26, 10, 22, 9, 14, 21, 21, 35, 12, 10, 15, 4, 2,
    20, 14, 12, 24, 17, 24, 21, 30, 33, 19, 39, 19, 26, 27, 10, 11,
)  # fmt: skip
CODON_BIAS = 1.5  # exponent on the usage: above 1, so that a small genome shows it
STOP_CODONS = ("TAA", "TAA", "TAA", "TGA", "TGA", "TAG")
GENE_CODONS = (80, 420)
SPACER_BASES = (60, 320)
REPEAT_FAMILY_BASES = (900, 310)
REPEAT_DIVERGENCE = 0.05
TANDEM_DIVERGENCE = 0.01
ISOCHORE_BASES = 10_000
GC_RANGE = (0.34, 0.62)
CONTIG_NAMES = ("sim_chr1", "sim_plasmid")
FIRST_CONTIG_SHARE = 0.75
LINE_WIDTH = 60
MIN_LENGTH = 4_000

ELEMENT_WEIGHTS = (0.76, 0.12, 0.06, 0.06)  # gene, dispersed repeat, tandem repeat, low complexity


class Element(NamedTuple):
    """What is put between two spacers."""

    kind: str
    bases: bytes  # as the + strand reads them
    strand: str
    name: str


class Dice:
    """Random draws from the raw stream of a seeded PCG64."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, size: int) -> NDArray[np.float64]:
        """Draw `(size,)` float64 in [0, 1)."""
        return (self._bits.random_raw(size) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integer(self, low: int, high: int) -> int:
        """Draw one integer of `low .. high`, both included."""
        return low + int(self.uniform(1)[0] * (high - low + 1))

    def choices(self, weights: NDArray[np.float64], size: int) -> NDArray[np.int64]:
        """Draw `(size,)` indices with the given weights."""
        bounds = np.cumsum(weights) / np.sum(weights)
        return np.searchsorted(bounds[:-1], self.uniform(size), side="right")

    def bases(self, gc: NDArray[np.float64]) -> bytes:
        """Draw one base per entry of `gc`, the chance of G or C there."""
        is_gc, is_second = self.uniform(len(gc)) < gc, self.uniform(len(gc)) < 0.5
        return np.frombuffer(b"ATGC", np.uint8)[2 * is_gc + is_second].tobytes()


@dataclass(frozen=True)
class SimulatedGenome:
    """Contigs and what was put on them, in the order in which `write_genome` writes both."""

    records: list[Record]
    features: list[Feature]

    def write_genome(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> tuple[Path, Path]:
        """Write `genome.fa` and `genome.gff3` into a folder, which is made if need be; returns both paths.

        Raises:
            OutputExistsError: One of them is there already.
            SystemProblem: The folder cannot be written.
        """
        folder = make_folder(folder)
        fasta, gff = folder / "genome.fa", folder / "genome.gff3"
        with atomic_write(fasta, overwrite=overwrite) as handle:
            write_fasta(handle, self.records, LINE_WIDTH)
        with atomic_write(gff, "w", overwrite=overwrite) as handle:
            handle.writelines(_gff_lines(self))
        return fasta, gff


def generate_random_genomic_sequence(length: int, seed: int = 0) -> str:
    """Draw `length` bases, each of A, C, G and T with the same chance.

    Raises:
        ConfigError: Negative length or seed.
    """
    if length < 0 or seed < 0:
        raise ConfigError(f"expected length >= 0 and seed >= 0, got {length} and {seed}")
    codes = np.random.PCG64(seed).random_raw(length) >> np.uint64(62)
    return np.frombuffer(b"ACGT", np.uint8)[codes].tobytes().decode()


def simulate_genome(seed: int = 7, length: int = 200_000) -> SimulatedGenome:
    """Make a small genome of two contigs.

    Bases between genes follow a GC content that drifts along the contig. Genes stand on both strands: ATG,
    codons with a biased usage, a stop. Copies of two repeat families are scattered on both strands, each with
    5% of its bases changed; they, tandem repeats and poly-A are soft-masked. Each contig has a run of N.

    Args:
        seed: Same seed, same genome.
        length: Bases of both contigs together, at least 4,000.

    Raises:
        ConfigError: `length` is too small, or the seed negative.
    """
    if length < MIN_LENGTH or seed < 0:
        raise ConfigError(f"expected length >= {MIN_LENGTH:,} and seed >= 0, got {length} and {seed}")
    dice = Dice(seed)
    families = [dice.bases(np.full(size, 0.5)) for size in REPEAT_FAMILY_BASES]
    first = int(length * FIRST_CONTIG_SHARE)
    contigs = [
        ContigBuilder(name, size, dice, families)
        for name, size in zip(CONTIG_NAMES, (first, length - first), strict=True)
    ]
    for contig in contigs:
        contig.fill()
    return _numbered(contigs, f"simulated, seed {seed}")


class ContigBuilder:
    """One contig, filled from left to right: spacer, element, spacer, element, ..."""

    def __init__(self, name: str, length: int, dice: Dice, families: list[bytes]) -> None:
        self.name, self.dice, self.families = name, dice, families
        self.gc = _drifting_gc(length, dice)
        self.bases = bytearray(dice.bases(self.gc))
        self.features: list[Feature] = []
        self.num_genes = 0

    def fill(self) -> None:
        """Put the elements on the background, the run of N last."""
        position = self.dice.integer(*SPACER_BASES)
        while position + len((element := self._element()).bases) <= len(self.bases):
            self._put(position, element)
            position += len(element.bases) + self.dice.integer(*SPACER_BASES)
        self._put_gap()

    def _element(self) -> Element:
        makers = (self._gene, self._dispersed_repeat, self._tandem_repeat, self._poly_a)
        return makers[self.dice.choices(np.array(ELEMENT_WEIGHTS), 1)[0]]()

    def _gene(self) -> Element:
        self.num_genes += 1
        return self._on_a_strand("gene", draw_gene(self.dice), f"{self.name}_gene{self.num_genes:04d}")

    def _dispersed_repeat(self) -> Element:
        family = self.dice.integer(0, len(self.families) - 1)
        copy = _diverged(self.families[family], REPEAT_DIVERGENCE, self.dice)
        return self._on_a_strand("dispersed_repeat", copy.lower(), f"family{family + 1}")

    def _tandem_repeat(self) -> Element:
        unit = self.dice.bases(np.full(self.dice.integer(2, 12), 0.5))
        copies = _diverged(unit * self.dice.integer(12, 40), TANDEM_DIVERGENCE, self.dice)
        return Element("tandem_repeat", copies.lower(), ".", f"({unit.decode()})n")

    def _poly_a(self) -> Element:
        return Element("low_complexity_region", b"a" * self.dice.integer(30, 120), ".", "poly-A")

    def _on_a_strand(self, kind: str, bases: bytes, name: str) -> Element:
        if self.dice.integer(0, 1):
            return Element(kind, reverse_complement(bases), "-", name)
        return Element(kind, bases, "+", name)

    def _put(self, start: int, element: Element) -> None:
        end = start + len(element.bases)
        self.bases[start:end] = element.bases
        place = (self.name, start, end, element.strand)
        self.features.append(Feature(*place, element.kind, element.name, None, 0))
        if element.kind == "gene":
            self.features.append(Feature(*place, "CDS", element.name, 0, 0))

    def _put_gap(self) -> None:
        """Put a run of N into the longest free stretch of the contig's second half."""
        taken = np.zeros(len(self.bases), bool)
        for feature in self.features:
            taken[feature.start : feature.end] = True
        start, end = _longest_free(taken, len(taken) // 2)
        start, end = start + (end - start) // 4, end - (end - start) // 4
        self.bases[start:end] = b"N" * (end - start)
        self.features.append(Feature(self.name, start, end, ".", "gap", "N-run", None, 0))
        self.features.sort(key=lambda feature: (feature.start, -feature.end, feature.kind != "gene"))


def _numbered(contigs: list[ContigBuilder], description: str) -> SimulatedGenome:
    """Give every record and feature the line on which `write_genome` puts it."""
    records, line = [], 1
    for contig in contigs:
        records.append(Record(contig.name, description, bytes(contig.bases), line))
        line += 1 + -(-len(contig.bases) // LINE_WIDTH)
    lines = count(2 + len(contigs))
    features = [replace(feature, line=next(lines)) for contig in contigs for feature in contig.features]
    return SimulatedGenome(records, features)


def draw_gene(dice: Dice) -> bytes:
    """Draw a reading frame on the + strand: ATG, codons by `CODON_USAGE`, a stop."""
    drawn = dice.choices(np.array(CODON_USAGE) ** CODON_BIAS, dice.integer(*GENE_CODONS))
    stop = STOP_CODONS[dice.integer(0, len(STOP_CODONS) - 1)]
    return "".join(["ATG", *(CODONS[index] for index in drawn), stop]).encode()


def _drifting_gc(length: int, dice: Dice) -> NDArray[np.float64]:
    low, high = GC_RANGE
    knots = low + (high - low) * dice.uniform(length // ISOCHORE_BASES + 2)
    return np.interp(np.arange(length) / ISOCHORE_BASES, np.arange(len(knots)), knots)


def _diverged(bases: bytes, rate: float, dice: Dice) -> bytes:
    """Replace a share of the bases by other bases."""
    codes = DNA.encode(bases)
    changed = dice.uniform(len(codes)) < rate
    shift = 1 + (dice.uniform(len(codes)) * 3).astype(np.uint8)
    return np.frombuffer(b"ACGT", np.uint8)[(codes + changed * shift) % 4].tobytes()


def _longest_free(taken: NDArray[np.bool_], begin: int) -> tuple[int, int]:
    edges = np.flatnonzero(np.diff(taken[begin:].astype(np.int8), prepend=1, append=1))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return begin, begin
    longest = int(np.argmax(ends - starts))
    return begin + int(starts[longest]), begin + int(ends[longest])


def _gff_lines(genome: SimulatedGenome) -> Iterator[str]:
    yield "##gff-version 3\n"
    for record in genome.records:
        yield f"##sequence-region {record.name} 1 {len(record.sequence)}\n"
    for feature in genome.features:
        phase = "." if feature.phase is None else feature.phase
        place = f"{feature.contig}\thyena-glt\t{feature.kind}\t{feature.start + 1}\t{feature.end}"
        yield f"{place}\t.\t{feature.strand}\t{phase}\tName={feature.name}\n"
