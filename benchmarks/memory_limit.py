"""Is a memory limit kept? Peak of a fresh process above its start, as a share of the limit, for nets and limits.

    python benchmarks/memory_limit.py [--nets small base] [--limits 0.25 0.5 1 2 4] [--mode entropy] [--json out.json]

Each row is one process that runs two batches of `MemoryOptimizedProcessor` over sequences of `32,768 * limit` bases;
the results of the first are still held while the second is made, as in a plain loop. The peak is the kernel's mark
(`VmHWM`) over the whole run, reset once before it; loading libraries and compiled loops and choosing the batch size
count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

from machine import machine

BASES_PER_GIB = 32_768
PATCH = 16  # bases, mean
NUM_SEQUENCES, NUM_BATCHES = 64, 2
GIB = 1 << 30
LINUX_RESET = Path("/proc/self/clear_refs")


def main() -> None:
    """Measure each row in a process of its own, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=["small", "base"])
    parser.add_argument("--limits", nargs="+", type=float, default=[0.25, 0.5, 1, 2, 4], help="GiB")
    parser.add_argument("--mode", choices=["static", "entropy"], default="static", help="of the patcher")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure_row(json.loads(options.row))))
        return
    if not LINUX_RESET.exists():
        sys.exit("the highest mark of a process can be reset on Linux only")
    rows = []
    for net in options.nets:
        for limit in options.limits:
            asked = json.dumps({"net": net, "limit": limit, "mode": options.mode})
            done = subprocess.run(
                [sys.executable, __file__, "--row", asked], capture_output=True, text=True, check=True
            )
            rows.append(json.loads(done.stdout))
            print(as_line(rows[-1]), file=sys.stderr, flush=True)
    print(as_table(rows))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


def measure_row(row: dict[str, Any]) -> dict[str, Any]:
    """Peak and batches of one limit, in this process."""
    import torch

    from hyena_glt import HyenaGLT, HyenaGLTConfig
    from hyena_glt.errors import ConfigError
    from hyena_glt.processing import MemoryOptimizedProcessor, memory_meter
    from hyena_glt.sequences.simulate import generate_random_genomic_sequence

    torch.set_num_threads(1)
    torch.manual_seed(0)
    length = int(BASES_PER_GIB * row["limit"])
    net = HyenaGLT(HyenaGLTConfig.preset(row["net"]), patcher_of(row["mode"])).eval()
    text = generate_random_genomic_sequence(length)
    LINUX_RESET.write_text("5")
    memory_meter.CLEAR = Path(os.devnull)  # the processor resets the mark for each batch; here it is that of the run
    before, cpu = memory_meter.resident_bytes(), time.process_time()
    processor = MemoryOptimizedProcessor(net, None, row["limit"])
    found = {**row, "length": length, "sizes": [], "refused": ""}
    try:
        batches = processor.process_with_memory_management([text] * NUM_SEQUENCES)
        for batch in islice(batches, NUM_BATCHES):
            found["sizes"].append(len(batch["results"]))
    except ConfigError as error:
        found["refused"] = str(error)
    peak = memory_meter.highest_bytes() - before
    return {**found, "peak_gib": peak / GIB, "share": peak / GIB / row["limit"], "cpu_s": time.process_time() - cpu}


def patcher_of(mode: str) -> Any:
    """Static patches, or entropy patches by a model and a threshold that are ready."""
    from hyena_glt import Patcher
    from hyena_glt.entropies import MarkovEntropy
    from hyena_glt.patching import calibrate
    from hyena_glt.sequences.simulate import generate_random_genomic_sequence

    if mode == "static":
        return Patcher(patching_mode="static", patch_size=PATCH, device="cpu")
    genome = [generate_random_genomic_sequence(1 << 20, seed=1)]
    model = MarkovEntropy.fit(genome)
    return calibrate(genome, entropy_model=model, target_mean_length=PATCH, max_patch_length=64).build()


def as_table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    head = "| net | limit, GiB | bases | sequences of each batch | peak, GiB | peak / limit | CPU, s |"
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- | --- |", *map(as_line, rows)])


def as_line(row: dict[str, Any]) -> str:
    """One row of the table."""
    sizes = "refused" if row["refused"] else ", ".join(map(str, row["sizes"]))
    figures = f"{row['peak_gib']:.3f} | {row['share']:.2f} | {row['cpu_s']:.1f}"
    return f"| {row['net']} | {row['limit']:g} | {row['length']:,} | {sizes} | {figures} |"


if __name__ == "__main__":
    main()
