"""FASTA in, BED out: time of every stage, and of the whole command from outside.

    python benchmarks/genome_to_patches.py [GENOME.fa] [--copies 10] [--repeats 3] [--json out.json]

Without a genome, a simulated one of 4.6 Mb is used. The stages run on one thread in this process, medians of
`--repeats`; the command runs as a new process with `-@ 1` and `-@ 2` on one copy and on `--copies` copies of the
genome: the difference of the two is free of start-up and of the cost of the tables, which does not grow with the input.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from child_usage import Usage, run_measured
from machine import machine

from hyena_glt.entropies.markov import MarkovFitter
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.block_decisions import decide_blocks
from hyena_glt.patching.genome import patch_blocks
from hyena_glt.patching.scan import Scanner, ScanRule
from hyena_glt.patching.survey import survey_genome
from hyena_glt.sequences.alphabets import DNA
from hyena_glt.sequences.atomic import atomic_write
from hyena_glt.sequences.fasta import read_blocks, read_records
from hyena_glt.sequences.simulate import simulate_genome
from hyena_glt.tracks.patches import BedWriter, PatchBatch

Row = dict[str, Any]


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genome", nargs="?", type=Path)
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one, many = plain_copies(options.genome, Path(folder), options.copies)
        outside = whole_command(one, many, options.repeats)  # first: a child's peak memory counts from its parent's
        rows = stages(many, options.repeats)
    result = {"machine": machine(), "genome": str(options.genome or "simulated"), "stages": rows, "command": outside}
    print(as_table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def plain_copies(genome: Path | None, folder: Path, copies: int) -> tuple[Path, Path]:
    """One and many copies of a genome as plain FASTA of 80 bases a line."""
    records = simulate_genome(length=4_600_000).records if genome is None else list(read_records(genome))
    paths = folder / "one.fa", folder / "many.fa"
    for path, number in zip(paths, (1, copies), strict=True):
        with path.open("wb") as handle:
            for copy in range(number):
                for record in records:
                    handle.write(f">{record.name}_{copy}\n".encode())
                    lines = [record.sequence[i : i + 80] for i in range(0, len(record.sequence), 80)]
                    handle.write(b"\n".join(lines) + b"\n")
    return paths


def stages(path: Path, repeats: int) -> list[Row]:
    """Median seconds of each stage on the same input."""
    blocks = list(read_blocks(path))
    codes = [DNA.encode(block.sequence) for block in blocks]
    bases = sum(map(len, codes))
    survey = survey_genome(read_blocks(path), DNA)
    model = survey.model
    assert model is not None
    rule = ScanRule("threshold", threshold=0.0)
    found = survey.calibrate(rule, 16)
    args = PatcherArgs(threshold=found.threshold)
    decided = list(decide_blocks(blocks, DNA, model, lambda contig: args, entropies=False))
    patched = list(patch_blocks(blocks, DNA, model, args, entropies=False))

    def fit() -> None:
        fitter = MarkovFitter("dna", model.order)
        for block in codes:
            fitter.feed(block)
        fitter.finish()

    def scan() -> None:
        scanner = Scanner(ScanRule("threshold", threshold=found.threshold))
        for part in decided:
            scanner.feed(part.decisive, part.forced_starts)

    def write() -> None:
        with atomic_write(path.with_suffix(".bed"), overwrite=True) as handle:
            writer = BedWriter(handle, None)
            for part in patched:
                writer.write(PatchBatch(part.block.name, part.patch_start, part.lengths, part.mean_surprises))

    work: dict[str, Callable[[], object]] = {
        "read and check": lambda: sum(len(block.sequence) for block in read_blocks(path)),
        "code": lambda: [DNA.encode(block.sequence) for block in blocks],
        f"fit (order {model.order})": fit,
        "calibrate": lambda: survey.calibrate(rule, 16),
        "code and look up": lambda: sum(
            part.decisive.size for part in decide_blocks(blocks, DNA, model, lambda contig: args, entropies=False)
        ),
        "scan": scan,
        "read, code, look up, scan, means": lambda: sum(
            p.lengths.size for p in patch_blocks(read_blocks(path), DNA, model, args, entropies=False)
        ),
        "write BED": write,
    }
    return [stage_row(name, bases, run, repeats) for name, run in work.items()]


def stage_row(name: str, bases: int, run: Callable[[], object], repeats: int) -> Row:
    """Median of several runs after one to warm up."""
    run()
    seconds = statistics.median(timed(run) for _ in range(repeats))
    return {"stage": name, "bases": bases, "seconds": seconds, "megabases_per_second": bases / seconds / 1e6}


def timed(run: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def whole_command(one: Path, many: Path, repeats: int) -> list[Row]:
    """`hyena-glt patch` to plain BED with one thread and two, in turn: medians, differences, peak memory."""
    bases = [sum(len(block.sequence) for block in read_blocks(path)) for path in (one, many)]
    peak = run_command(one, 1).peak_bytes  # and compiles the kernels where they are not cached
    seconds: dict[tuple[Path, int], list[float]] = {(path, threads): [] for path in (one, many) for threads in (1, 2)}
    for _ in range(repeats):
        for (path, threads), times in seconds.items():
            usage = run_command(path, threads)
            times.append(usage.wall_s)
            peak = max(peak, usage.peak_bytes)
    rows = []
    for threads in (1, 2):
        first, all_copies = (statistics.median(seconds[path, threads]) for path in (one, many))
        rows.append(
            {
                "threads": threads,
                "seconds_one": first,
                "seconds_many": all_copies,
                "all_seconds": {"one": seconds[one, threads], "many": seconds[many, threads]},
                "bases_one": bases[0],
                "bases_many": bases[1],
                "megabases_per_second": (bases[1] - bases[0]) / (all_copies - first) / 1e6,
                "peak_bytes": peak,
            }
        )
    return rows


def run_command(path: Path, threads: int) -> Usage:
    """What one process takes."""
    output = path.with_suffix(".out.bed")
    output.unlink(missing_ok=True)
    words = [sys.executable, "-m", "hyena_glt", "patch", str(path), "-o", str(output), "-@", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    usage = run_measured(words, stdout=DEVNULL, stderr=DEVNULL, env=environment)
    if usage.exit_code:
        raise SystemExit(f"{' '.join(words)}: exit code {usage.exit_code}")
    return usage


def as_table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"{result['machine']}; genome: {result['genome']}",
        "",
        "| stage | seconds | Mbases/s |",
        "| --- | --- | --- |",
    ]
    for row in result["stages"]:
        lines.append(f"| {row['stage']} | {row['seconds']:.3f} | {row['megabases_per_second']:.0f} |")
    one, two = result["command"]
    lines += [
        "",
        f"| `hyena-glt patch` to BED | {one['bases_one'] / 1e6:.1f} Mb | {one['bases_many'] / 1e6:.1f} Mb "
        "| difference, Mbases/s |",
        "| --- | --- | --- | --- |",
    ]
    for row in (one, two):
        lines.append(
            f"| `-@ {row['threads']}` | {row['seconds_one']:.2f} s | {row['seconds_many']:.2f} s "
            f"| {row['megabases_per_second']:.1f} |"
        )
    ratio = two["megabases_per_second"] / one["megabases_per_second"]
    lines += ["", f"Two threads: {ratio:.2f} times one. Peak memory {one['peak_bytes'] / 2**20:.0f} MiB."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
