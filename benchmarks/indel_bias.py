"""Whether the length of an insertion or deletion alone gives a score.

    python benchmarks/indel_bias.py [--apart] [--model FOLDER] [--preset tiny] [--longest 50] [--repeats 200]
        [--window 256] [--rc none|avg] [--seed 0] [--threads 1] [--json out.json]

Random insertions and deletions in random sequence say nothing, so their mean log-likelihood difference has to be 0 at
every length. For each length from -LONGEST to LONGEST the table has the mean, the standard error that as many scores
apart would have, and z = mean / error. Beside it stands what windows of unequal length would give (the reference window
with the variant put in, all bases summed): about ln 4 nats for each base.

The indels of a length follow each other at one site, each in the sequence that the one before has made: a random
sequence with a random insertion is a random sequence again. What one sequence has by chance then counts once for the
indel that makes it and once against the next, so in the mean chance cancels, but for the first and last sequence, and
what a length gains or loses by itself stays: a close bound on a bias, in nats. It is no test at 2 standard errors,
since the mean of a chain varies less than the errors shown, which are those of independent scores.

With `--apart` each indel has sequence of its own: then about 4.6% of the lengths of an unbiased scorer lie beyond 2
standard errors by chance, and the z have a mean of 0 and a variance of 1.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from hyena_glt import HyenaGLT, HyenaGLTConfig
from hyena_glt.patching import calibrate
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.variants import Edit, PlacedEdit, VariantScorer, normalised
from hyena_glt.variants.readings import WindowReader
from hyena_glt.variants.reference import GenomeInMemory
from hyena_glt.variants.reference_check import fetcher
from hyena_glt.variants.windows import allele_windows

APART = 3  # windows from one indel to the next, so that no two share a base
BEFORE = 8  # bases that the site of a chain lies behind where windows begin, so that all shifts to the left share one

Reference = dict[str, bytes]


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--apart", action="store_true", help="each indel in sequence of its own")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--longest", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--rc", choices=["none", "avg"], default="none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lengths = [length for length in range(-options.longest, options.longest + 1) if length]
    reference, edits = (indels_apart if options.apart else chains)(lengths, options)
    net, label = load(options, reference)
    began = time.process_time()
    rows = measure(net, reference, lengths, edits, options)
    cpu_s = time.process_time() - began
    print(as_table(rows, label, options, cpu_s))
    if options.json:
        about = {name: getattr(options, name) for name in ("apart", "window", "rc", "repeats", "seed")}
        content = {"machine": machine(), "net": label, **about, "cpu_s": cpu_s, "summary": summary(rows), "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def load(options: argparse.Namespace, reference: Reference) -> tuple[HyenaGLT, str]:
    """The net of `--model`, or one of random weights; a net without patcher gets one fitted on the reference."""
    if options.model is not None:
        net, label = HyenaGLT.from_pretrained(options.model), options.model.name
    else:
        torch.manual_seed(options.seed)
        net = HyenaGLT(HyenaGLTConfig.preset(options.preset, genomic_vocab_size=4)).eval()
        label = f"untrained {options.preset} net, seed {options.seed}"
    if net.external_patcher is None and net.merger is None:
        net.external_patcher = calibrate(reference.values(), target_mean_length=16, max_patch_length=64).build()
    return net, label


def chains(lengths: list[int], options: argparse.Namespace) -> tuple[Reference, list[PlacedEdit]]:
    """Indels of a length one after the other at one site: `repeats` contigs and edits for each length.

    Behind the site stands one random string; the indel numbered k takes its bases k n to (k + 1) n away, or puts them
    back where they and all before them are missing.
    """
    before, around = options.window + BEFORE, 2 * options.window
    bases = [before + options.repeats * abs(length) + around for length in lengths]
    sequence = generate_random_genomic_sequence(sum(bases), seed=options.seed + 1).encode()
    places = list(accumulate(bases, initial=0))
    reference, edits = {}, []
    for length, start, end in zip(lengths, places[:-1], places[1:], strict=True):
        n = abs(length)
        left, right = sequence[start : start + before], sequence[start + before : end]
        for k in range(options.repeats):
            name = f"{length}:{k}"
            taken, there = right[k * n : (k + 1) * n], k if length < 0 else k + 1
            reference[name] = left + right[there * n : there * n + around]
            edits.append(PlacedEdit(name, Edit(before, taken, b"") if length < 0 else Edit(before, b"", taken)))
    return reference, edits


def indels_apart(lengths: list[int], options: argparse.Namespace) -> tuple[Reference, list[PlacedEdit]]:
    """`repeats` indels of each length, `APART` windows from each other on one contig."""
    random = np.random.default_rng(options.seed)
    starts = (np.arange(len(lengths) * options.repeats) + 1) * APART * options.window
    bases = int(starts[-1]) + APART * options.window
    sequence = generate_random_genomic_sequence(bases, seed=options.seed + 1).encode()
    every = zip(np.repeat(lengths, options.repeats).tolist(), starts.tolist(), strict=True)
    return {"r": sequence}, [PlacedEdit("r", draw(random, length, start, sequence)) for length, start in every]


def draw(random: np.random.Generator, length: int, start: int, sequence: bytes) -> Edit:
    """A random insertion (length > 0) or a deletion."""
    if length < 0:
        return Edit(start, sequence[start : start - length], b"")
    return Edit(start, b"", bytes(random.choice(np.frombuffer(b"ACGT", np.uint8), length)))


def measure(
    net: HyenaGLT, reference: Reference, lengths: list[int], edits: list[PlacedEdit], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row per length."""
    effects = VariantScorer(net, reference, window=options.window, rc=options.rc).score(edits)
    scores = np.array([effect.log_likelihood_difference for effect in effects]).reshape(len(lengths), options.repeats)
    errors = scores.std(axis=1, ddof=1) / options.repeats**0.5
    unequal = of_unequal_windows(net, reference, edits[:: options.repeats], options.window)
    return [
        {
            "length": length,
            "mean": float(row.mean()),
            "error": float(error),
            "z": float(row.mean() / error),
            "unequal": u,
        }
        for length, row, error, u in zip(lengths, scores, errors, unequal, strict=True)
    ]


def of_unequal_windows(net: HyenaGLT, reference: Reference, edits: list[PlacedEdit], window: int) -> list[float]:
    """The same difference where the ALT window is longer or shorter by the indel, one draw a length."""
    genome, reader = GenomeInMemory(reference), WindowReader(net, 16)
    pairs = []
    for contig, edit in edits:
        fetch = fetcher(genome, contig)
        edit = normalised(edit, fetch)
        _, first, ref, _ = allele_windows(edit, fetch, genome.length(contig), window)
        pairs += [ref, ref[:first] + edit.alt + ref[first + len(edit.ref) :]]
    sums = [float(reading.log_likelihoods.astype(np.float64).sum()) for reading in reader.read(pairs)]
    return [alt - ref for ref, alt in zip(sums[::2], sums[1::2], strict=True)]


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Over all lengths."""
    z = np.array([row["z"] for row in rows])
    slope = np.polyfit([row["length"] for row in rows], [row["mean"] for row in rows], 1)[0]
    slope_unequal = np.polyfit([row["length"] for row in rows], [row["unequal"] for row in rows], 1)[0]
    return {
        "lengths": len(rows),
        "beyond_2_errors": int((abs(z) > 2).sum()),
        "largest_z": float(abs(z).max()),
        "largest_mean": max(abs(row["mean"]) for row in rows),
        "mean_z": float(z.mean()),
        "variance_z": float(z.var(ddof=1)),
        "nats_per_base_of_length": float(slope),
        "nats_per_base_with_unequal_windows": float(slope_unequal),
    }


def as_table(rows: list[dict[str, Any]], label: str, options: argparse.Namespace, cpu_s: float) -> str:
    """The result as Markdown."""
    found = summary(rows)
    lines = [
        f"{machine()}, torch {torch.__version__}; {label}; window {options.window}, rc {options.rc}, "
        f"{options.repeats} indels a length, {'apart' if options.apart else 'in a chain'}, {cpu_s:.0f} CPU seconds",
        f"{found['beyond_2_errors']} of {found['lengths']} lengths beyond 2 standard errors"
        f"{f' (by chance {0.0455 * len(rows):.1f})' if options.apart else ''}; largest |z| {found['largest_z']:.2f}, "
        f"largest |mean| {found['largest_mean']:.3f} nats, mean z {found['mean_z']:.3f}, variance of z "
        f"{found['variance_z']:.2f}",
        f"Slope over length: {found['nats_per_base_of_length']:+.5f} nats per base; with unequal windows "
        f"{found['nats_per_base_with_unequal_windows']:+.3f}",
        "",
        "| length | mean, nats | standard error | z | unequal windows, one draw |",
        "| --- " * 5 + "|",
    ]
    lines += [
        f"| {r['length']:+d} | {r['mean']:+.4f} | {r['error']:.4f} | {r['z']:+.2f} | {r['unequal']:+.1f} |"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
