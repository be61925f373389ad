"""Whether the length of an insertion or deletion alone gives a score.

    python benchmarks/indel_bias.py [--rounds 10] [--model FOLDER] [--preset tiny] [--longest 50] [--repeats 200]
        [--window 256] [--rc none|avg] [--seed 0] [--threads 1] [--json out.json]

Random insertions and deletions in random sequence say nothing, so their mean log-likelihood difference has to be 0 at
every length from -LONGEST to LONGEST. A round scores REPEATS of each length, each in sequence of its own. Chance alone
puts 4.6% of the means of a round beyond 2 of their standard errors, so of 100 lengths some in nearly every round: one
round can't tell a bias from chance. Many can, since chance shrinks with the root of their number and a bias does not.
For each length the table has the mean of the first round and of all, each also divided by its own standard error (z).
Above it stands whether the means of all lie within 2 standard errors of *one* round, as its own would but for chance.

Beside it stands what windows of unequal length would give (the reference window with the variant put in, all bases
summed): about ln 4 nats for each base.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from numpy.typing import NDArray

from hyena_glt import HyenaGLT, HyenaGLTConfig
from hyena_glt.patching import calibrate
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.variants import Edit, PlacedEdit, VariantScorer, normalised
from hyena_glt.variants.readings import WindowReader
from hyena_glt.variants.reference import GenomeInMemory
from hyena_glt.variants.reference_check import fetcher
from hyena_glt.variants.windows import allele_windows

FloatArray = NDArray[np.float64]

CONTIG = "random"
APART = 3  # windows from one indel to the next, so that no two share a base


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="of REPEATS indels at each length")
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
    sequence, edits = indels(lengths, options, round_=0)
    net, label = load(options, sequence)
    began = time.process_time()
    unequal = of_unequal_windows(net, sequence, edits[:: options.repeats], options.window)
    scores = [score(net, sequence, edits, options)]
    for round_ in range(1, options.rounds):
        print(f"{round_} of {options.rounds} rounds: {time.process_time() - began:.0f} CPU s", file=sys.stderr)
        scores.append(score(net, *indels(lengths, options, round_), options))
    rows = [
        {"length": length, "first": statistics_of(of_length[0]), "all": statistics_of(of_length), "unequal": u}
        for length, of_length, u in zip(lengths, np.stack(scores, axis=1), unequal, strict=True)
    ]
    cpu_s = time.process_time() - began
    print(as_table(rows, label, options, cpu_s))
    if options.json:
        about = {name: getattr(options, name) for name in ("rounds", "window", "rc", "repeats", "seed")}
        content = {"machine": machine(), "net": label, **about, "cpu_s": cpu_s, "summary": summary(rows), "rows": rows}
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


def indels(lengths: list[int], options: argparse.Namespace, round_: int) -> tuple[bytes, list[PlacedEdit]]:
    """Random sequence and a round of `repeats` indels of each length in it, `APART` windows from each other."""
    random = np.random.default_rng([options.seed, round_])
    starts = (np.arange(len(lengths) * options.repeats) + 1) * APART * options.window
    bases = int(starts[-1]) + APART * options.window
    sequence = generate_random_genomic_sequence(bases, seed=int(random.integers(2**31))).encode()
    every = zip(np.repeat(lengths, options.repeats).tolist(), starts.tolist(), strict=True)
    return sequence, [PlacedEdit(CONTIG, draw(random, length, start, sequence)) for length, start in every]


def draw(random: np.random.Generator, length: int, start: int, sequence: bytes) -> Edit:
    """A random insertion (length > 0) or a deletion."""
    if length < 0:
        return Edit(start, sequence[start : start - length], b"")
    return Edit(start, b"", bytes(random.choice(np.frombuffer(b"ACGT", np.uint8), length)))


def score(net: HyenaGLT, sequence: bytes, edits: list[PlacedEdit], options: argparse.Namespace) -> FloatArray:
    """Log-likelihood differences `(length, repeat)`."""
    effects = VariantScorer(net, {CONTIG: sequence}, window=options.window, rc=options.rc).score(edits)
    return np.array([effect.log_likelihood_difference for effect in effects]).reshape(-1, options.repeats)


def statistics_of(scores: FloatArray) -> dict[str, float]:
    """Mean of the scores of a length, its standard error, and z."""
    mean, error = float(scores.mean()), float(scores.std(ddof=1) / scores.size**0.5)
    return {"mean": mean, "error": error, "z": mean / error}


def of_unequal_windows(net: HyenaGLT, sequence: bytes, edits: list[PlacedEdit], window: int) -> list[float]:
    """The same difference where the ALT window is longer or shorter by the indel, one draw a length."""
    genome, reader = GenomeInMemory({CONTIG: sequence}), WindowReader(net, 16)
    pairs = []
    for contig, edit in edits:
        fetch = fetcher(genome, contig)
        edit = normalised(edit, fetch)
        _, first, ref, _ = allele_windows(edit, fetch, genome.length(contig), window)
        pairs += [ref, ref[:first] + edit.alt + ref[first + len(edit.ref) :]]
    sums = [float(reading.log_likelihoods.astype(np.float64).sum()) for reading in reader.read(pairs)]
    return [alt - ref for ref, alt in zip(sums[::2], sums[1::2], strict=True)]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all lengths."""
    of = {key: {name: np.array([row[key][name] for row in rows]) for name in rows[0][key]} for key in ("first", "all")}
    lengths = [row["length"] for row in rows]
    means, unequal = of["all"]["mean"], [row["unequal"] for row in rows]
    return {
        "lengths": len(rows),
        **{
            key: {
                "beyond_2_errors": int((abs(found["z"]) > 2).sum()),
                "largest_z": float(abs(found["z"]).max()),
                "mean_z": float(found["z"].mean()),
                "variance_z": float(found["z"].var(ddof=1)),
            }
            for key, found in of.items()
        },
        "largest_mean": float(abs(means).max()),
        "largest_mean_in_errors_of_one_round": float((abs(means) / of["first"]["error"]).max()),
        "nats_per_base_of_length": float(np.polyfit(lengths, means, 1)[0]),
        "nats_per_base_with_unequal_windows": float(np.polyfit(lengths, unequal, 1)[0]),
    }


def as_table(rows: list[dict[str, Any]], label: str, options: argparse.Namespace, cpu_s: float) -> str:
    """The result as Markdown."""
    found = summary(rows)
    sizes = {"first": f"{options.repeats:,} indels a length", "all": f"{options.repeats * options.rounds:,} a length"}
    lines = [
        f"{machine()}, torch {torch.__version__}; {label}; window {options.window}, rc {options.rc}, "
        f"{options.rounds} rounds, {cpu_s:.0f} CPU seconds",
        *(
            f"{size}: {found[key]['beyond_2_errors']} of {found['lengths']} lengths beyond 2 standard errors "
            f"(by chance {0.0455 * len(rows):.1f}), largest |z| {found[key]['largest_z']:.2f}, "
            f"mean z {found[key]['mean_z']:.3f}, variance of z {found[key]['variance_z']:.2f}"
            for key, size in sizes.items()
        ),
        f"Largest |mean| of {sizes['all']} {found['largest_mean']:.3f} nats, at most "
        f"{found['largest_mean_in_errors_of_one_round']:.2f} standard errors of one round; slope over length "
        f"{found['nats_per_base_of_length']:+.5f} nats per base, with unequal windows "
        f"{found['nats_per_base_with_unequal_windows']:+.3f}",
        "",
        f"| length | {sizes['first']}: mean, nats | z | {sizes['all']}: mean, nats | z | unequal windows, one draw |",
        "| --- " * 6 + "|",
    ]
    for row in rows:
        one, every = row["first"], row["all"]
        cells = f"{one['mean']:+.4f} | {one['z']:+.2f} | {every['mean']:+.4f} | {every['z']:+.2f}"
        lines.append(f"| {row['length']:+d} | {cells} | {row['unequal']:+.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
