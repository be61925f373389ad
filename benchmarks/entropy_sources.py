"""What each entropy source knows and costs: bits per base on sequence it was not fitted on, and bases per second.

    python benchmarks/entropy_sources.py --fit A.fa --score B.fa [--fit C.fa --score D.fa ...] [--neural-seconds 120]
    python benchmarks/entropy_sources.py --halves GENOME.fa

Each pair is one data set: fitted on the first file, scored on the second; `--halves` fits on the first half of a
genome and scores the second. One thread, one process; the time of scoring alone, after a short run that compiles the
loops, and beside it the time of the fit. `mix` needs no fit: it is measured from scratch, and primed with what the
others were fitted on. The network is trained for `--neural-seconds` and scores the first `--neural-bases` only.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from hyena_glt.entropies import MarkovEntropy, MixEntropy, NeuralEntropy
from hyena_glt.entropies.network_fit import FitOptions
from hyena_glt.sequences.fasta import read_records

Row = dict[str, Any]
ORDERS = (8, None, 12)  # None: chosen by the amount of data


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fit", type=Path, action="append", default=[])
    parser.add_argument("--score", type=Path, action="append", default=[])
    parser.add_argument("--halves", type=Path, action="append", default=[])
    parser.add_argument("--neural-seconds", type=float, default=120.0)
    parser.add_argument("--neural-bases", type=int, default=500_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if len(options.fit) != len(options.score) or not options.fit + options.halves:
        parser.error("give --fit and --score in pairs, or --halves")
    torch.set_num_threads(1)
    sets = [halves(path) for path in options.halves]
    sets += [
        (f"{b.name}, fitted on {a.name}", read(a), read(b)) for a, b in zip(options.fit, options.score, strict=True)
    ]
    tables = []
    for name, fitted, scored in sets:
        rows = measured_sources(fitted, scored, options.neural_seconds, options.neural_bases)
        tables.append({"data": name, "fitted_bases": size(fitted), "scored_bases": size(scored), "rows": rows})
        print(as_table(tables[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "tables": tables}, indent=2) + "\n")


def read(path: Path) -> list[bytes]:
    """The sequences of a file."""
    return [record.sequence for record in read_records(path)]


def halves(path: Path) -> tuple[str, list[bytes], list[bytes]]:
    """The first and the second half of a genome's longest sequence."""
    sequence = max(read(path), key=len)
    middle = len(sequence) // 2
    return f"second half of {path.name}, fitted on the first", [sequence[:middle]], [sequence[middle:]]


def size(sequences: list[bytes]) -> int:
    """Bases in all."""
    return sum(map(len, sequences))


def measured_sources(fitted: list[bytes], scored: list[bytes], seconds: float, bases: int) -> list[Row]:
    """One row for each source."""
    rows = []
    for order in ORDERS:
        rows.append(measured(lambda k=order: MarkovEntropy.fit(fitted, order=k), scored, "markov, order "))
        rows[-1]["source"] += "" if order else " (default)"
    rows.append(measured(MixEntropy, scored, "mix, from scratch"))
    rows.append(measured(lambda: MixEntropy.fit(fitted), scored, "mix, primed"))
    if seconds > 0:
        options = FitOptions(seconds=seconds, steps=None, device="cpu")
        piece = [scored[0][:bases]]
        row = measured(lambda: NeuralEntropy.fit(fitted, options=options, held_out=0.0), piece, "neural, ")
        rows.append(row)
    return rows


def measured(make: Callable[[], Any], scored: list[bytes], name: str) -> Row:
    """Fit, then score."""
    started = time.perf_counter()
    model = make()
    fit_seconds = time.perf_counter() - started
    model.score(codes_of(model, scored[0][:5000]))
    started, nats, letters = time.perf_counter(), 0.0, 0
    for sequence in scored:
        codes = codes_of(model, sequence)
        nats += float(model.score(codes).surprises.sum(dtype=np.float64))
        letters += int((codes < model.alphabet.size).sum())
    score_seconds = time.perf_counter() - started
    about = model.describe()
    detail = (
        f"{model.order}" if name.endswith("order ") else f"{about['parameters']:,} weights" if "neural" in name else ""
    )
    return {
        "source": name + detail,
        "bits_per_base": nats / letters / math.log(2.0),
        "bases": size(scored),
        "bases_per_second": size(scored) / score_seconds,
        "fit_seconds": fit_seconds,
    }


def codes_of(model: Any, sequence: bytes) -> np.ndarray:
    """Symbol codes of a sequence."""
    return model.alphabet.encode(sequence)


def as_table(table: Row) -> str:
    """One data set as Markdown."""
    lines = [
        f"{machine()}; {table['data']} ({table['fitted_bases'] / 1e6:.2f} Mb, {table['scored_bases'] / 1e6:.2f} Mb)",
        "",
        "| source | bits per base | bases per second | fit, s |",
        "| --- | --- | --- | --- |",
    ]
    for row in table["rows"]:
        note = "" if row["bases"] == table["scored_bases"] else f" (first {row['bases'] / 1e6:.1f} Mb)"
        lines.append(
            f"| {row['source']} | {row['bits_per_base']:.4f}{note} | {row['bases_per_second']:,.0f} "
            f"| {row['fit_seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
