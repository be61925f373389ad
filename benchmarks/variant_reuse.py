"""What it saves to run the bases before a variant once, and a reference window once for its neighbours.

    python benchmarks/variant_reuse.py [--preset tiny] [--window 8192] [--alleles 1 3 12] [--repeats 3] [--threads 1]
        [--json out.json]

`--alleles` different SNVs lie within one shared window. Alone: a REF and an ALT window in full for each. Shared: the
REF window in full once, an ALT window in full for each. Taken up: the state of the net in the middle of the REF window
goes on for each ALT. CPU seconds of the process, the least of `--repeats` runs, and the largest difference between the
scores of the last two.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import machine

from hyena_glt import HyenaGLT, HyenaGLTConfig
from hyena_glt.patching import calibrate
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.variants import Edit, PlacedEdit, VariantScorer


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--window", type=int, default=8192)
    parser.add_argument("--alleles", type=int, nargs="*", default=[1, 3, 12])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(options, count) for count in options.alleles]
    print(as_table(rows, options))
    if options.json:
        about = {name: getattr(options, name) for name in ("preset", "window", "repeats", "threads")}
        options.json.write_text(json.dumps({"machine": machine(), **about, "rows": rows}, indent=2) + "\n")


def measure(options: argparse.Namespace, count: int) -> dict[str, Any]:
    """CPU seconds the three ways."""
    sequence = generate_random_genomic_sequence(4 * options.window, seed=1).encode()
    torch.manual_seed(0)
    patcher = calibrate([sequence], target_mean_length=16, max_patch_length=64).build()
    net = HyenaGLT(HyenaGLTConfig.preset(options.preset, genomic_vocab_size=4), patcher).eval()
    edits = [snv(sequence, 2 * options.window + place) for place in range(count)]
    full, taken_up = (
        VariantScorer(net, {"r": sequence}, window=options.window, rc="none", reuse=r) for r in (False, True)
    )
    seconds = {
        "alone": least(lambda: [full.score([edit]) for edit in edits], options.repeats),
        "shared": least(lambda: full.score(edits), options.repeats),
        "taken_up": least(lambda: taken_up.score(edits), options.repeats),
    }
    both = zip(full.score(edits), taken_up.score(edits), strict=True)
    difference = max(abs((a.log_likelihood_difference or 0) - (b.log_likelihood_difference or 0)) for a, b in both)
    return {"alleles": count, **seconds, "difference": difference}


def snv(sequence: bytes, place: int) -> PlacedEdit:
    """A base replaced by another."""
    base = sequence[place : place + 1]
    return PlacedEdit("r", Edit(place, base, b"A" if base != b"A" else b"C"))


def least(run: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of the fastest run, after one to warm up."""
    run()
    found = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return min(found)


def as_table(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The result as Markdown."""
    lines = [
        f"{machine()}, torch {torch.__version__}, {options.threads} thread(s); preset {options.preset}, "
        f"window {options.window:,}, untrained, CPU seconds",
        "",
        "| alleles | alone | REF shared | state taken up | gain | of it by the state | largest difference, nats |",
        "| --- " * 7 + "|",
    ]
    for row in rows:
        seconds = [f"{row[name]:.3f}" for name in ("alone", "shared", "taken_up")]
        gains = [f"{row['alone'] / row['taken_up']:.2f}x", f"{row['shared'] / row['taken_up']:.2f}x"]
        cells = [str(row["alleles"]), *seconds, *gains, f"{row['difference']:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
