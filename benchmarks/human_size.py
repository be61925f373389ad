"""A genome of human size, generated, through `hyena-glt patch` and `hyena-glt stream`: seconds and peak memory.

    python benchmarks/human_size.py [--share 1.0] [--folder DIR] [--json out.json]

The contigs have the lengths of GRCh38 (3.09 Gb), or `--share` of them, with human base composition and runs of N;
nothing of a real genome is in them. `patch` fits, calibrates and patches a FASTA file in two passes to BED; `stream`
reads the same bases from a pipe in one pass, with the patcher that `calibrate` saved for one contig. Each is a new
process, measured from outside. Needs about 20 GB of disk in `--folder` for the whole genome and its patches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from child_usage import run_measured
from machine import machine

GRCH38 = {  # contig -> bases
    "chr1": 248_956_422,
    "chr2": 242_193_529,
    "chr3": 198_295_559,
    "chr4": 190_214_555,
    "chr5": 181_538_259,
    "chr6": 170_805_979,
    "chr7": 159_345_973,
    "chr8": 145_138_636,
    "chr9": 138_394_717,
    "chr10": 133_797_422,
    "chr11": 135_086_622,
    "chr12": 133_275_309,
    "chr13": 114_364_328,
    "chr14": 107_043_718,
    "chr15": 101_991_189,
    "chr16": 90_338_345,
    "chr17": 83_257_441,
    "chr18": 80_373_285,
    "chr19": 58_617_616,
    "chr20": 64_444_167,
    "chr21": 46_709_983,
    "chr22": 50_818_468,
    "chrX": 156_040_895,
    "chrY": 57_227_415,
    "chrM": 16_569,
}
AT_SHARE = 0.59  # of the bases of the human genome
LINE = 80  # bases
BLOCK = LINE << 16  # bases generated at a time
TELOMERE, CENTROMERE = 10_000, 0.01  # N at either end, and share of the contig that is N in its middle


def main() -> None:
    """Generate, run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    contigs = {name: max(int(length * options.share), 1000) for name, length in GRCH38.items()}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        genome = folder / "genome.fa"
        seconds = timed_generation(genome, contigs)
        rows = [measured_patch(genome, 1), measured_stream(folder, contigs), measured_patch(genome, 2)]
    result = {
        "machine": machine(),
        "contigs": len(contigs),
        "bases": sum(contigs.values()),
        "seconds_to_generate": seconds,
        "runs": rows,
    }
    print(as_table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def fasta(contigs: dict[str, int], seed: int = 0) -> Iterator[bytes]:
    """FASTA text of random contigs, in pieces."""
    rng = np.random.default_rng(seed)
    at = round(256 * AT_SHARE / 2)
    letters = np.frombuffer(b"A" * at + b"T" * at + b"C" * (128 - at) + b"G" * (128 - at), np.uint8)
    for name, length in contigs.items():
        yield f">{name}\n".encode()
        for start in range(0, length, BLOCK):
            size = min(BLOCK, length - start)
            bases = letters[rng.integers(0, 256, size, dtype=np.uint8)]
            mask_runs(bases, start, length)
            whole = size // LINE * LINE
            lines = np.full((whole // LINE, LINE + 1), ord("\n"), np.uint8)
            lines[:, :LINE] = bases[:whole].reshape(-1, LINE)
            yield lines.tobytes()
            if whole < size:
                yield bases[whole:].tobytes() + b"\n"


def mask_runs(bases: np.ndarray, start: int, length: int) -> None:
    """Put N at the ends and in the middle of a contig; `bases` are those from `start` on."""
    end = min(TELOMERE, length // 10)
    half = int(length * CENTROMERE / 2)
    for first, stop in ((0, end), (length // 2 - half, length // 2 + half), (length - end, length)):
        bases[max(first - start, 0) : max(stop - start, 0)] = ord("N")


def timed_generation(path: Path, contigs: dict[str, int]) -> float:
    """Write the genome; seconds."""
    started = time.perf_counter()
    with path.open("wb") as handle:
        for piece in fasta(contigs):
            handle.write(piece)
    return time.perf_counter() - started


def measured_patch(genome: Path, threads: int) -> dict[str, Any]:
    """`hyena-glt patch` with its defaults, to BED and statistics."""
    output, stats = genome.with_suffix(".bed"), genome.with_suffix(".json")
    for path in (output, stats):
        path.unlink(missing_ok=True)
    words = ["patch", str(genome), "-o", str(output), "--stats", str(stats), "-@", str(threads)]
    row = measured(words, None)
    facts = json.loads(stats.read_text())
    output.unlink()
    return {"command": f"patch -@ {threads}", **row, "bases": facts["bases"], "mean_length": facts["mean_length"]}


def measured_stream(folder: Path, contigs: dict[str, int]) -> dict[str, Any]:
    """`hyena-glt stream` from a pipe, with a patcher calibrated on the last large contig."""
    small, patcher, stats = folder / "small.fa", folder / "patcher.json", folder / "stream.json"
    timed_generation(small, {"chrY": contigs["chrY"]})
    measured(["calibrate", str(small), "-o", str(patcher)], None)
    words = ["stream", "-", "--patcher", str(patcher), "-o", str(folder / "s.bed"), "--stats", str(stats)]
    row = measured(words, contigs)
    facts = json.loads(stats.read_text())
    return {"command": "stream", **row, "bases": facts["bases"], "mean_length": facts["mean_length"]}


def measured(words: list[str], piped: dict[str, int] | None) -> dict[str, Any]:
    """Seconds and peak memory of one process; its stdin is the FASTA text of the contigs."""
    usage = run_measured(
        [sys.executable, "-m", "hyena_glt", *words],
        feed=partial(feed, contigs=piped) if piped else None,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if usage.exit_code:
        raise SystemExit(f"hyena-glt {' '.join(words)}: exit code {usage.exit_code}")
    return {"seconds": usage.wall_s, "peak_bytes": usage.peak_bytes, "cpu_seconds": usage.cpu_s}


def feed(handle: IO[bytes], contigs: dict[str, int]) -> None:
    """Write the FASTA text into a pipe."""
    with handle:
        for piece in fasta(contigs):
            handle.write(piece)


def as_table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"{result['machine']}; {result['bases'] / 1e9:.3f} Gb generated in {result['contigs']} contigs",
        "",
        "| command | seconds | CPU seconds | Mbases/s | peak memory (MiB) | mean length |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["runs"]:
        lines.append(
            f"| {row['command']} | {row['seconds']:.0f} | {row['cpu_seconds']:.0f} "
            f"| {row['bases'] / row['seconds'] / 1e6:.1f} | {row['peak_bytes'] / 2**20:.0f} "
            f"| {row['mean_length']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
