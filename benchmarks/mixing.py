"""Bits per base and bases per second of `MixEntropy` beside the order-k table, from scratch in one pass.

    python benchmarks/mixing.py GENOME.fa [--repeats 3] [--json out.json]

`MarkovEntropy` is fitted on the same sequence, so its figure is the leave-one-out one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from machine import machine

from hyena_glt.entropies import MarkovEntropy, MixEntropy
from hyena_glt.sequences.fasta import read_records


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genome", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sequences = [record.sequence for record in read_records(options.genome)]
    bases = sum(map(len, sequences))
    MixEntropy().bits_per_base([sequences[0][:1000]])  # compiles
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        bits = MixEntropy().bits_per_base(sequences)
        seconds.append(time.perf_counter() - start)
    table = MarkovEntropy.fit(sequences)
    speed = bases / statistics.median(seconds) / 1e6
    print(f"{machine()}; genome: {options.genome.name}\n")
    print("| source | bits per base | Mbases/s |\n| --- | --- | --- |")
    print(f"| mix | {bits:.4f} | {speed:.2f} |")
    print(f"| markov, order {table.order} (leave-one-out) | {table.held_out_bits:.4f} | |")
    if options.json:
        rows = {"mix_bits": bits, "mix_megabases_per_second": speed, "markov_bits": table.held_out_bits}
        options.json.write_text(json.dumps({"machine": machine(), **rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
