"""Trees without alignment against reference trees: normalised Robinson-Foulds distance of every metric.

    python benchmarks/trees.py ../shared/data/phylo [--model FOLDER | --untrained] [--threads 2] [--json out.json]

Every distance goes through neighbour joining of scikit-bio. Beside ours stand the exact Mash distance by sourmash
(k 11, scaled 1) and, on aligned sets, Hamming and Jukes-Cantor distances of the alignment, which see what the others do
not. CPU seconds are those of the distances of a set, without reading and joining.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from hyena_glt.evolution import DistanceMatrix, Genome, build_tree, compare_with_net, genome_distances
from hyena_glt.sequences.fasta import read_records

# name -> sequences, reference tree, whether they are aligned
SETS = {
    "mammal mtDNA": ("mammal_mtDNA_7.fasta.gz", "mammal_mtDNA_7.accepted.nwk", False),
    "zika": ("zika.fasta.gz", "zika.nwk", True),
    "H3N2 NA": ("h3n2_na_20.fasta", "h3n2_na_20.nwk", True),
    "primate BRCA1": ("primate_brca1.fasta", "primate_brca1.tree", True),
}
NET_METRICS = ("representation", "wasserstein", "combined")


def main() -> None:
    """Measure every set, print the table, write the JSON."""
    options = arguments()
    net, label = load_net(options)
    rows = []
    for name, (fasta, tree, is_aligned) in SETS.items():
        genomes = [
            Genome.of(record.name, record.sequence) for record in read_records(options.folder / fasta, degap=True)
        ]
        for metric, measure in measures(genomes, options, net, is_aligned, options.folder / fasta).items():
            begin = time.process_time()
            distances = measure()
            seconds = time.process_time() - begin
            distance = robinson_foulds(distances, options.folder / tree)
            rows.append({"set": name, "genomes": len(genomes), "metric": metric, "rf": distance, "cpu_s": seconds})
            print(rows[-1], file=sys.stderr, flush=True)
    print(as_table(rows, label))
    if options.json:
        content = {"machine": machine(), "threads": options.threads, "weights": label, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def measures(
    genomes: list[Genome], options: argparse.Namespace, net: Any, is_aligned: bool, fasta: Path
) -> dict[str, Callable[[], DistanceMatrix]]:
    """Every way to get distances of one set, by name."""
    found: dict[str, Callable[[], DistanceMatrix]] = {
        "compression": lambda: genome_distances(genomes, threads=options.threads),
        "kmer 11": lambda: genome_distances(genomes, "kmer"),
        "kmer 21": lambda: genome_distances(genomes, "kmer", k=21),
        "sourmash 11": lambda: by_sourmash(genomes, 11),
    }
    if net is not None:
        for metric in NET_METRICS:
            found[metric] = lambda metric=metric: compare_with_net(genomes, net, metric=metric).distances()
    if is_aligned:
        found["Hamming (aligned)"] = lambda: by_alignment(fasta, jukes_cantor=False)
        found["Jukes-Cantor (aligned)"] = lambda: by_alignment(fasta, jukes_cantor=True)
    return found


def by_sourmash(genomes: list[Genome], k: int) -> DistanceMatrix:
    """Mash distances of the Jaccard indices that sourmash finds among all words."""
    import sourmash

    sketches = [sourmash.MinHash(n=0, ksize=k, scaled=1) for _ in genomes]
    for sketch, genome in zip(sketches, genomes, strict=True):
        for sequence in genome.sequences:
            sketch.add_sequence(sequence.decode(), force=True)
    values = np.zeros((len(genomes), len(genomes)))
    for i, one in enumerate(sketches):
        for j, two in enumerate(sketches[:i]):
            jaccard = one.jaccard(two)
            values[i, j] = values[j, i] = min(1.0, -np.log(2 * jaccard / (1 + jaccard)) / k) if jaccard else 1.0
    return DistanceMatrix.of([genome.name for genome in genomes], values)


def by_alignment(fasta: Path, *, jukes_cantor: bool) -> DistanceMatrix:
    """Share of the columns that differ, among those where both have a letter; or its Jukes-Cantor correction."""
    records = list(read_records(fasta, alphabet="bytes"))
    columns = np.stack([np.frombuffer(record.sequence.upper(), np.uint8) for record in records])
    is_letter = np.isin(columns, np.frombuffer(b"ACGT", np.uint8))
    values = np.zeros((len(records), len(records)))
    for i, row in enumerate(columns):
        both = is_letter[i] & is_letter
        values[i] = ((row != columns) & both).sum(1) / both.sum(1)
    if jukes_cantor:
        values = -0.75 * np.log(1 - 4 * values / 3)
    return DistanceMatrix.of([record.name for record in records], np.abs(values))


def robinson_foulds(distances: DistanceMatrix, reference: Path) -> float:
    """Share of the splits of both trees that only one has, by scikit-bio."""
    from skbio import TreeNode

    tree = build_tree(distances).tree
    return float(tree.compare_rfd(TreeNode.read(str(reference), convert_underscores=False), proportion=True))


def load_net(options: argparse.Namespace) -> tuple[Any, str]:
    """The net that was asked for, and what its weights are; None without one."""
    from hyena_glt.cli.nets import open_net

    if options.model is None and not options.untrained:
        return None, "no net"
    return open_net(options.model, untrained=options.untrained, causal=False, threads=options.threads)


def as_table(rows: list[dict[str, Any]], label: str) -> str:
    """A Markdown table: metrics by sets."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    cells = {(row["metric"], row["set"]): f"{row['rf']:.3f} ({row['cpu_s']:.2f} s)" for row in rows}
    lines = [f"Normalised Robinson-Foulds distance (CPU seconds). {machine()}; {label}.", ""]
    lines += ["| metric | " + " | ".join(sets) + " |", "| --- |" + " --- |" * len(sets)]
    lines += [f"| {m} | " + " | ".join(cells.get((m, s), "-") for s in sets) + " |" for m in metrics]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--untrained", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
