"""Bits per base of the context model: what it says of itself, and what the other half of the genome says.

    python benchmarks/context_model.py GENOME.fa [--orders 8 9 10] [--json out.json]

The model is fitted on the first half of each record and scored on the second.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from machine import machine

from hyena_glt.entropies.markov import MarkovEntropy
from hyena_glt.sequences.fasta import read_records


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genome", type=Path)
    parser.add_argument("--orders", type=int, nargs="*", default=[8, 9, 10])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sequences = [record.sequence for record in read_records(options.genome)]
    firsts = [sequence[: len(sequence) // 2] for sequence in sequences]
    seconds = [sequence[len(sequence) // 2 :] for sequence in sequences]
    rows = [measure(order, firsts, seconds) for order in [None, *options.orders]]
    print(as_table(rows, options.genome))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


def measure(order: int | None, firsts: list[bytes], seconds: list[bytes]) -> dict[str, Any]:
    """Fit on one half, score the other."""
    start = time.perf_counter()
    model = MarkovEntropy.fit(firsts, order=order)
    elapsed = time.perf_counter() - start
    return {
        "default": order is None,
        "order": model.order,
        "leave_one_out_bits": model.held_out_bits,
        "second_half_bits": model.bits_per_base(seconds),
        "fit_seconds": elapsed,
    }


def as_table(rows: list[dict[str, Any]], genome: Path) -> str:
    """The result as Markdown."""
    lines = [f"{machine()}; genome: {genome.name}", ""]
    lines += ["| order | leave-one-out, first half | second half | fit, s |", "| --- | --- | --- | --- |"]
    for row in rows:
        order = f"{row['order']} (default)" if row["default"] else str(row["order"])
        figures = f"{row['leave_one_out_bits']:.4f} | {row['second_half_bits']:.4f} | {row['fit_seconds']:.2f}"
        lines.append(f"| {order} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
