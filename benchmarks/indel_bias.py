"""Whether the length of an insertion or deletion alone gives a score.

    python benchmarks/indel_bias.py [--model FOLDER] [--preset tiny] [--longest 50] [--repeats 200] [--window 256]
        [--rc none|avg] [--seed 0] [--threads 1] [--json out.json]

Random insertions and deletions in random sequence say nothing, so their mean log-likelihood difference has to be 0 at
every length, up to chance. Each has sequence of its own, so that no two share their chance. For each length from
-LONGEST to LONGEST the table has the mean, its standard error and z = mean / error. Of unbiased scores about 4.6% of
the lengths lie beyond 2 standard errors by chance, and the z have a mean of 0 and a variance of 1. Beside it stands
what windows of unequal length would give (the reference window with the variant put in, all bases summed): about ln 4
nats for each base.
"""

from __future__ import annotations

import argparse
import json
import time
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
from hyena_glt.variants.windows import allele_windows

APART = 3  # windows from one indel to the next, so that no two share a base


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    bases = (2 * options.longest * options.repeats + 2) * APART * options.window
    sequence = generate_random_genomic_sequence(bases, seed=options.seed + 1).encode()
    net, label = load(options, sequence)
    began = time.process_time()
    rows = measure(net, sequence, options)
    cpu_s = time.process_time() - began
    print(as_table(rows, label, options, cpu_s))
    if options.json:
        about = {"net": label, "window": options.window, "rc": options.rc, "repeats": options.repeats}
        content = {"machine": machine(), **about, "cpu_s": cpu_s, "summary": summary(rows), "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def load(options: argparse.Namespace, sequence: bytes) -> tuple[HyenaGLT, str]:
    """The net of `--model`, or one of random weights; a net without patcher gets one fitted on the sequence."""
    if options.model is not None:
        net, label = HyenaGLT.from_pretrained(options.model), options.model.name
    else:
        torch.manual_seed(options.seed)
        net = HyenaGLT(HyenaGLTConfig.preset(options.preset, genomic_vocab_size=4)).eval()
        label = f"untrained {options.preset} net, seed {options.seed}"
    if net.external_patcher is None and net.merger is None:
        net.external_patcher = calibrate([sequence], target_mean_length=16, max_patch_length=64).build()
    return net, label


def measure(net: HyenaGLT, sequence: bytes, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per length."""
    random = np.random.default_rng(options.seed)
    lengths = [length for length in range(-options.longest, options.longest + 1) if length]
    starts = (np.arange(len(lengths) * options.repeats) + 1) * APART * options.window
    every = zip(np.repeat(lengths, options.repeats).tolist(), starts.tolist(), strict=True)
    edits = [draw(random, length, start, sequence) for length, start in every]
    scorer = VariantScorer(net, {"r": sequence}, window=options.window, rc=options.rc)
    effects = scorer.score([PlacedEdit("r", edit) for edit in edits])
    scores = np.array([effect.log_likelihood_difference for effect in effects]).reshape(len(lengths), options.repeats)
    errors = scores.std(axis=1, ddof=1) / options.repeats**0.5
    few = [edits[i * options.repeats] for i in range(len(lengths))]
    unequal = of_unequal_windows(net, sequence, few, options.window)
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


def draw(random: np.random.Generator, length: int, start: int, sequence: bytes) -> Edit:
    """A random insertion (length > 0) or a deletion."""
    if length < 0:
        return Edit(start, sequence[start : start - length], b"")
    return Edit(start, b"", bytes(random.choice(np.frombuffer(b"ACGT", np.uint8), length)))


def of_unequal_windows(net: HyenaGLT, sequence: bytes, edits: list[Edit], window: int) -> list[float]:
    """The same difference where the ALT window is longer or shorter by the indel, one draw a length."""
    reader = WindowReader(net, 16)
    pairs = []
    for edit in edits:
        edit = normalised(edit, lambda start, end: sequence[start:end])
        _, first, ref, _ = allele_windows(edit, lambda start, end: sequence[start:end], len(sequence), window)
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
        f"{options.repeats} indels a length, {cpu_s:.0f} CPU seconds",
        f"{found['beyond_2_errors']} of {found['lengths']} lengths beyond 2 standard errors (by chance "
        f"{0.0455 * found['lengths']:.1f}); largest |z| {found['largest_z']:.2f}, mean z {found['mean_z']:.3f}, "
        f"variance of z {found['variance_z']:.2f}",
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
