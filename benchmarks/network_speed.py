"""Speed and memory of the network: patches against bytes, against the textbook, streaming against recomputing.

    python benchmarks/network_speed.py [--quick] [--only forward curve training textbook generation million]
        [--repeats 3] [--threads 1] [--longest-byte-mode 60] [--json out.json]

Every row is a process of its own, so that peak memory (above what the process held after its imports) belongs to that
row alone; the modules that numba imports with the first call of a compiled loop, about 60 MiB, count as imports. Wall
and CPU seconds are medians of `--repeats` runs after one warm-up on a short sequence; a run above 20 s is not repeated.
Rows that are compared run in turn, where none takes above 10 s for three rounds, of which the medians count: a slow
phase of the machine then falls on all of them. Ratios are medians of those within a round, and given of both kinds of
seconds, since a busy machine stretches the wall seconds. Weights are random. Patching by static
patches is part of every `forward` row. Byte mode runs only where it is expected to take less than `--longest-byte-mode`
seconds, judged by the length before it; what is left out is said. `--quick` takes preset `tiny` and short sequences: it
checks the script, its ratios mean nothing.

The textbook Hyena is that of `textbook_hyena.py`. The long convolution alone is measured by `long_conv.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SECTIONS = ("forward", "curve", "training", "textbook", "generation", "million")
DOCUMENTED = 8.2  # times faster, as the documents claim without saying for which patches
REPEAT_LIMIT = 20.0  # seconds above which a run is not repeated
ROUNDS, ROUND_LIMIT = 3, 10.0  # of rows that are compared, and the seconds of a row above which there is one
GOALS = {
    "forward": "patched >= 12x faster than byte mode, 8k to 131k",
    "curve": "speed-up over 4 to 64 bases per patch, and where the 8.2x of the documents lies",
    "training": "backward + optimizer step >= 6x faster than byte mode at 8k",
    "textbook": "patched >= 10x faster than the textbook at 32k and beyond, <= 1/3 of its memory; byte mode >= 1.8x",
    "generation": "a cached token >= 150x faster than a full patched forward, 4k context, base",
    "million": "one million bases in one forward of small, below 20 GiB",
}


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--longest-byte-mode", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--row", help=argparse.SUPPRESS)  # one configuration as JSON: measure it in this process
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps(measure_row(json.loads(options.row))))
        return
    import torch
    from machine import machine

    about = f"{machine()}, torch {torch.__version__}, {options.threads} thread(s)"
    print(about + (", quick: the ratios mean nothing" if options.quick else ""))
    sections = {name: run_section(name, options) for name in SECTIONS if name in options.only}
    for name, rows in sections.items():
        print("\n".join(["", f"## {name}", f"Goal: {GOALS[name]}.", "", as_table(rows)]))
    if options.json:
        content = {"machine": about, "quick": options.quick, "goals": GOALS, "sections": sections}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def run_section(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one section, each with its ratio to what it is compared with."""
    sections: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
        "forward": forward_rows,
        "curve": curve_rows,
        "training": training_rows,
        "textbook": textbook_rows,
        "generation": generation_rows,
        "million": million_rows,
    }
    return sections[name](options)


def forward_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Patches of 16 against the same network byte by byte, patching included."""
    lengths = [1024, 2048] if options.quick else [8192, 32768, 131072]
    rows: list[dict[str, Any]] = []
    byte_seconds_per_base = 0.0
    for length in lengths:
        shape = {"task": "forward", "preset": preset(options), "length": length}
        expected = byte_seconds_per_base * length
        if expected > options.longest_byte_mode:
            left_out = f"byte mode, {length:,} bases: left out, about {expected:.0f} s"
            rows += [run_row(options, **shape, patch=16), {"what": left_out}]
            continue
        rows += in_turn(options, {**shape, "patch": 16}, {**shape, "patch": 1})
        byte_seconds_per_base = rows[-1]["wall_s"] / length
    return rows


def curve_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Patch lengths from 4 to 64 against byte mode."""
    length = 1024 if options.quick else 8192
    shape = {"task": "forward", "preset": preset(options), "length": length}
    sizes = [4, 16] if options.quick else [4, 8, 16, 32, 64]
    rows = in_turn(options, *({**shape, "patch": size} for size in (*sizes, 1)))
    place = patch_length_at(sizes, [row["times_faster_cpu"] for row in rows[:-1]], DOCUMENTED)
    where = "is not within these patch lengths" if place is None else f"falls at about {place:.1f} bases per patch"
    return [*rows, {"what": f"{DOCUMENTED}x {where} (CPU seconds)", "bases_per_patch": place}]


def patch_length_at(sizes: list[int], ratios: list[float], wanted: float) -> float | None:
    """Where the curve first reaches a ratio, on a straight line between logarithms; None: nowhere."""
    points = list(zip(sizes, ratios, strict=True))
    for (left, low), (right, high) in pairwise(points):
        if low <= wanted <= high and low < high:
            share = math.log(wanted / low) / math.log(high / low)
            return left * (right / left) ** share
    return None


def training_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One step of forward, backward and AdamW."""
    length = 512 if options.quick else 8192
    shape = {"task": "training", "preset": preset(options), "length": length}
    return in_turn(options, {**shape, "patch": 16}, {**shape, "patch": 1})


def textbook_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The network at the width and depth of a textbook Hyena, with a long filter in every block, as that has."""
    shapes = [(2, 128)] if options.quick else [(2, 128), (4, 256)]
    rows: list[dict[str, Any]] = []
    for depth, width in shapes:
        for length in [1024] if options.quick else [32768, 131072]:
            shape = {"depth": depth, "width": width, "length": length}
            ours = [{"task": "forward", "patch": size, **shape} for size in (16, 1)]
            rows += in_turn(options, *ours, {"task": "textbook", **shape})
    return rows


def generation_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds per new token: one step of the stream against one full patched forward."""
    length = 256 if options.quick else 4096
    rows = []
    for long_filter in ("implicit", "exponential"):
        shape = {"preset": preset(options), "length": length, "patch": 16, "long_filter": long_filter}
        rows += in_turn(options, {"task": "generate", **shape}, {"task": "recompute", **shape})
    return rows


def million_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One forward over a million bases."""
    size, length = ("tiny", 1 << 15) if options.quick else ("small", 1_000_000)
    return [run_row(options, task="forward", preset=size, length=length, patch=16)]


def preset(options: argparse.Namespace) -> str:
    """The size that is measured."""
    return "tiny" if options.quick else "base"


def run_row(options: argparse.Namespace, **row: Any) -> dict[str, Any]:
    """Measure one configuration in a process of its own."""
    row |= {"repeats": 1 if options.quick else options.repeats, "threads": options.threads}
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    command = [sys.executable, str(Path(__file__).resolve()), "--row", json.dumps(row)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{row}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(options: argparse.Namespace, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure rows one after the other, several times; all but the last with how much faster and smaller they are."""
    rounds: list[list[dict[str, Any]]] = []
    while len(rounds) < (1 if options.quick else ROUNDS):
        rounds.append([run_row(options, **row) for row in rows])
        if max(row["wall_s"] for row in rounds[-1]) > ROUND_LIMIT:
            break
    found = []
    for place, row in enumerate(rounds[0]):
        own, last = [turn[place] for turn in rounds], [turn[-1] for turn in rounds]
        measured = {key: statistics.median(each[key] for each in own) for key in ("wall_s", "cpu_s", "peak_mib")}
        if place < len(rows) - 1:
            measured |= {"times_faster": median_ratio(last, own, "wall_s")}
            measured |= {"times_faster_cpu": median_ratio(last, own, "cpu_s")}
            measured |= {"memory_share": median_ratio(own, last, "peak_mib") if last[0]["peak_mib"] else None}
        found.append({**row, **measured, "rounds": own})
    return found


def median_ratio(above: list[dict[str, Any]], below: list[dict[str, Any]], key: str) -> float:
    """Median over the rounds."""
    return statistics.median(a[key] / b[key] for a, b in zip(above, below, strict=True))


def measure_row(row: dict[str, Any]) -> dict[str, Any]:
    """Seconds and peak memory of one configuration, in this process."""
    import textbook_hyena  # noqa: F401  (imports are not part of the memory)
    import torch

    import hyena_glt.model.generation
    import hyena_glt.model.hyena_glt
    import hyena_glt.patching.patcher
    import hyena_glt.sequences.simulate  # noqa: F401

    torch.set_num_threads(row["threads"])
    torch.manual_seed(0)
    load_compiler()
    imported = memory_bytes("VmRSS")
    if row["task"] == "textbook":
        run, warm_up, what = textbook_task(row)
    else:
        run, warm_up, what = network_task(row)
    warm_up()
    reset_peak()
    wall, cpu, per_run = repeated(run, row["repeats"])
    return {
        "what": what,
        "wall_s": wall / per_run,
        "cpu_s": cpu / per_run,
        "peak_mib": (memory_bytes("VmHWM") - imported) / 2**20,
        "length": row["length"],
    }


def load_compiler() -> None:
    """Have numba import what it imports with the first call of a compiled loop."""
    from numba import njit

    njit(lambda x: x)(0)


def network_task(row: dict[str, Any]) -> tuple[Callable[[], int], Callable[[], object], str]:
    """What is timed, a warm-up, and a name; the timed call returns how many tokens or passes it stands for."""
    import torch

    from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
    from hyena_glt.model.generation import Sampling
    from hyena_glt.sequences.simulate import generate_random_genomic_sequence

    changes = {"long_filter": row["long_filter"]} if "long_filter" in row else {}
    if "width" in row:
        shape = {"hidden_size": row["width"], "num_layers": row["depth"], "trunk_layout": ("long",)}
        config = HyenaGLTConfig(**shape, **changes)
        name = f"patched {row['depth']}x{row['width']}"
    else:
        config, name = HyenaGLTConfig.preset(row["preset"], **changes), row["preset"]
    net = HyenaGLT(config, Patcher(patching_mode="static", patch_size=row["patch"], device="cpu")).eval()
    text = generate_random_genomic_sequence(row["length"], seed=row["length"])
    mode = "byte mode" if row["patch"] == 1 else f"{row['patch']} bases per patch"
    what = f"{name}, {mode}, {row['length']:,} bases"
    task = row["task"]

    @torch.no_grad()
    def forward(sequence: str = text) -> int:
        net.forward_with_patching(sequence, return_position_info=False)
        return 1

    if task == "forward":
        return forward, lambda: forward(text[:256]), what
    if task == "recompute":
        return forward, lambda: forward(text[:256]), f"{what}, {row['long_filter']}, full forward per token"
    if task == "training":
        optimizer = torch.optim.AdamW(net.train().parameters())

        def step(sequence: str = text) -> int:
            tokens = torch.tensor([[byte + 4 for byte in sequence.encode()]])
            net(tokens, compute_loss=True).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return 1

        return step, lambda: step(text[:256]), f"training step, {what}"
    stream, letters = net.stream(), [byte + 4 for byte in b"ACGT"]
    new_tokens = 8 * row["patch"]

    def steps() -> int:
        for letter in text[:new_tokens]:  # the text decides, so that every run does the same; a draw is made as well
            Sampling(top_p=0.95).probabilities(stream.feed(letter).logits[0, -1, letters])
        return new_tokens

    return steps, lambda: (stream.feed(text), steps()), f"{what} of context, {row['long_filter']}, cached token"


def textbook_task(row: dict[str, Any]) -> tuple[Callable[[], int], Callable[[], object], str]:
    """The textbook Hyena over bytes."""
    import torch
    from textbook_hyena import TextbookHyena

    net = TextbookHyena(width=row["width"], depth=row["depth"], vocab=260).eval()
    tokens = torch.randint(69, 89, (1, row["length"]))

    @torch.no_grad()
    def forward(ids: Any = tokens) -> int:
        net(ids)
        return 1

    return forward, lambda: forward(tokens[:, :256]), f"textbook {row['depth']}x{row['width']}, {row['length']:,} bases"


def repeated(run: Callable[[], int], repeats: int) -> tuple[float, float, int]:
    """Median wall and CPU seconds of a call, and how many passes one call stands for."""
    walls, cpus, passes = [], [], 1
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        passes = run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        if walls[-1] > REPEAT_LIMIT:
            break
    return statistics.median(walls), statistics.median(cpus), passes


def memory_bytes(key: str) -> int:
    """`VmRSS` (now) or `VmHWM` (highest) of this process; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def reset_peak() -> None:
    """Let the highest mark start from here; without the right to do so the peak includes the building of the net."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def as_table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown; memory is above what the process held after its imports, weights included."""
    lines = [
        "| what | wall, s | CPU, s | peak, MiB | times faster | by CPU | memory share |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if "wall_s" not in row:
            lines.append(f"| {row['what']} | | | | | | |")
            continue
        faster, faster_cpu, share = (row.get(key) for key in ("times_faster", "times_faster_cpu", "memory_share"))
        cells = [
            row["what"],
            f"{row['wall_s']:.4g}",
            f"{row['cpu_s']:.4g}",
            f"{row['peak_mib']:,.0f}",
            "" if faster is None else f"{faster:.1f}",
            "" if faster_cpu is None else f"{faster_cpu:.1f}",
            "" if share is None else f"{share:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
