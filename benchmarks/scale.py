"""Rates of one core on a real genome, carried to 3.1 Gb, 1,000 and 100,000 genomes, with what would break first.

    python benchmarks/scale.py [GENOME.fa[.gz]] [--repeats 3] [--copies 4] [--embed-bases 400000]
        [--sizes tiny base] [--json out.json]

Without a genome, a simulated one of 4.6 Mb is used. Everything runs in this process on one thread; seconds are CPU
seconds (`time.process_time`), medians of `--repeats`, so that other work on the machine counts little. Each work is
done on one copy of the genome and on several: the difference is its rate, the rest is paid once per run. Nets are
random: their rate does not depend on the weights. Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from machine import machine

from hyena_glt import HyenaGLT, HyenaGLTConfig, PatcherArgs
from hyena_glt.patching.genome import patch_blocks, score_blocks
from hyena_glt.patching.scan import ScanRule
from hyena_glt.patching.survey import GenomeSurvey, survey_genome
from hyena_glt.processing import process_genomes
from hyena_glt.processing.distributed_genomes import SHARD_BASES
from hyena_glt.sequences.alphabets import DNA
from hyena_glt.sequences.fasta import read_blocks, read_records, write_fasta
from hyena_glt.sequences.records import Record
from hyena_glt.sequences.simulate import simulate_genome

Row = dict[str, Any]
HUMAN_BASES = 3.1e9
COLLECTIONS = (1_000, 100_000)  # genomes
CORES = (1, 16, 256)
TARGET_LENGTH = 16.0  # mean patch, bases
WINDOW = 8192
SECONDS_PER_HOUR = 3600
PLAN_BYTES = 300  # of a genome in plan and manifest
FIT = "fit, calibrate, patch, each genome by itself"


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genome", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--embed-bases", type=int, default=400_000)
    parser.add_argument("--sizes", nargs="*", default=["tiny", "base"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        genome = options.genome or simulated(folder)
        about, rows = text_rates(genome, folder, options.copies, options.repeats)
        for size in options.sizes:
            rows.append(embed_rate(genome, folder, size, options.embed_bases, options.repeats))
    about["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {"machine": machine(), "genome": options.genome.name if options.genome else "simulated", **about}
    result["rows"] = rows
    print(as_markdown(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def simulated(folder: Path) -> Path:
    """A genome that is generated, as a file."""
    path = folder / "genome.fa"
    write_fasta(path, simulate_genome(length=4_600_000).records)
    return path


def copies_of(genome: Path, folder: Path, copies: int) -> Path:
    """A file with the records of the genome so many times, compressed if the genome is."""
    path = folder / f"copies-{copies}.fa{genome.suffix if genome.suffix == '.gz' else ''}"
    records = list(read_records(genome))
    named = (replace(record, name=f"{record.name}_{copy}") for copy in range(copies) for record in records)
    write_fasta(path, named)
    return path


def text_rates(genome: Path, folder: Path, copies: int, repeats: int) -> tuple[Row, list[Row]]:
    """Rates of everything that needs no net, and facts of the genome."""
    one, many = (copies_of(genome, folder, count) for count in (1, copies))
    survey = survey_genome(read_blocks(one), DNA)
    assert survey.model is not None
    args = PatcherArgs(threshold=calibrated(survey))
    bases = survey.symbols

    def patch(path: Path, model: Any) -> int:
        return sum(p.lengths.size for p in patch_blocks(read_blocks(path), DNA, model, args, entropies=False))

    def fit_and_patch(path: Path) -> int:
        own = survey_genome(read_blocks(path), DNA)
        calibrated(own)
        return patch(path, own.model)

    def entropies(path: Path) -> int:
        scored = score_blocks(read_blocks(path), DNA, survey.model, reuse=True)
        return sum(part.scores.entropies.size for part in scored)

    work: dict[str, Callable[[Path], object]] = {
        "read and check": lambda path: sum(len(block.sequence) for block in read_blocks(path)),
        "entropy of every base, saved model": entropies,
        "patch, saved patcher": lambda path: patch(path, survey.model),
        FIT: fit_and_patch,
    }
    rows = [rate(name, run, (one, bases), (many, copies * bases), repeats) for name, run in work.items()]
    content = genome.read_bytes()
    seconds = cpu_seconds(lambda: hashlib.sha256(content).hexdigest(), repeats)
    size = len(content)
    return {"bases": bases, "file_bytes": size, "sha256_bytes_per_second": size / seconds}, rows


def calibrated(survey: GenomeSurvey) -> float:
    """Threshold for patches of `TARGET_LENGTH`, nats."""
    return survey.calibrate(ScanRule("threshold", threshold=0.0), TARGET_LENGTH).threshold


def embed_rate(genome: Path, folder: Path, size: str, num_bases: int, repeats: int) -> Row:
    """Rate of `process_genomes`: reading, patches, net, Parquet, hashes."""
    sequence = next(iter(read_records(genome))).sequence[:num_bases]
    files = []
    for length in (len(sequence) // 4, len(sequence)):
        path = folder / f"part-{size}-{length}.fa"
        write_fasta(path, [Record("part", "", sequence[:length], 1)])
        files.append((path, length))
    survey = survey_genome(read_blocks(files[1][0]), DNA)
    patcher = PatcherArgs(threshold=calibrated(survey), max_patch_length=64, entropy_model=survey.model).build()
    config = HyenaGLTConfig.preset(size, causal=False, genomic_vocab_size=4, alphabet="dna")
    net = HyenaGLT(config, patcher).eval()
    runs = count()

    def embed(path: Path) -> None:
        output = folder / f"{size}-{next(runs)}"
        process_genomes(path, net, output=output, window=WINDOW, batch_size=2, device="cpu")

    return rate(f"embed, `{size}`, {WINDOW:,} bases a window", embed, *files, repeats)


def rate(name: str, run: Callable[[Path], object], few: tuple[Path, int], many: tuple[Path, int], repeats: int) -> Row:
    """Seconds that a run costs in any case, and bases per CPU second beyond that."""
    first, last = (cpu_seconds(partial(run, path), repeats) for path, _ in (few, many))
    per_base = max(last - first, 1e-9) / (many[1] - few[1])
    row = {
        "work": name,
        "bases": [few[1], many[1]],
        "cpu_seconds": [first, last],
        "bases_per_second": 1 / per_base,
        "once_seconds": max(first - few[1] * per_base, 0.0),
    }
    print(f"{name}: {1e-6 / per_base:.3f} Mbases per CPU second, {row['once_seconds']:.2f} s once", file=sys.stderr)
    return row


def cpu_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of several runs after one to warm up."""
    run()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return max(statistics.median(found), 1e-9)


def as_markdown(result: Row) -> str:
    """Both tables."""
    bases, size = result["bases"], result["file_bytes"]
    lines = [
        f"{result['machine']}; torch {torch.__version__}; genome: {result['genome']}, {bases / 1e6:.2f} Mb in "
        f"{size / 1e6:.2f} MB; one thread, CPU seconds.",
        "",
        "| work | Mbases per core and second | seconds once | 3.1 Gb | "
        + " | ".join(f"{n:,} genomes" for n in COLLECTIONS)
        + " |",
        "| --- | --- | --- | --- | " + " | ".join("---" for _ in COLLECTIONS) + " |",
    ]
    for row in result["rows"]:
        speed, once = row["bases_per_second"], row["once_seconds"]
        times = [once + HUMAN_BASES / speed]
        times += [number * bases / speed + once * (number if row["work"] == FIT else 1) for number in COLLECTIONS]
        cells = " | ".join(core_time(seconds) for seconds in times)
        lines.append(f"| {row['work']} | {speed / 1e6:.3g} | {once:.2f} | {cells} |")
    lines += ["", *limits(result)]
    return "\n".join(lines)


def limits(result: Row) -> list[str]:
    """What grows with the collection, and by how much."""
    bases, size = result["bases"], result["file_bytes"]
    counts = (1, *COLLECTIONS)
    embed = [row for row in result["rows"] if row["work"].startswith("embed")]
    slowest = min(row["bases_per_second"] for row in embed) if embed else None
    per_shard = max(SHARD_BASES // bases, 1)
    hashing = result["sha256_bytes_per_second"]
    rows = [
        ("bases", [f"{number * bases / 1e9:,.3g} Gb" for number in counts]),
        ("input, as this file is stored", [f"{number * size / 1e9:,.3g} GB" for number in counts]),
        ("hashing the input once", [core_time(number * size / hashing) for number in counts]),
        ("shards, two files each", [f"{-(-number // per_shard):,}" for number in counts]),
        ("plan and manifest, about", [f"{number * PLAN_BYTES / 1e6:,.3g} MB" for number in counts]),
    ]
    head = "| what | " + " | ".join(f"{number:,} genomes" if number > 1 else "1 genome" for number in counts) + " |"
    lines = [head, "| --- |" + " --- |" * len(counts)]
    lines += [f"| {name} | {' | '.join(values)} |" for name, values in rows]
    lines += ["", f"Peak memory of this process, all of the above: {result['peak_bytes'] / 1e9:.2f} GB."]
    if slowest:
        need = slowest * size / bases
        wanted = ", ".join(f"{cores * need / 1e6:.3g} MB/s with {cores} core{'s' * (cores > 1)}" for cores in CORES)
        lines.append(f"Input that the slowest net above can use: {wanted}.")
    return lines


def core_time(seconds: float) -> str:
    """A time that a person can compare."""
    for unit, length in (("core years", 365 * 24), ("core days", 24), ("core hours", 1)):
        if seconds >= length * SECONDS_PER_HOUR:
            return f"{seconds / length / SECONDS_PER_HOUR:,.3g} {unit}"
    return f"{seconds:,.3g} core seconds"


if __name__ == "__main__":
    main()
