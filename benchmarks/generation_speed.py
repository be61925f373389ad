"""Cached generation, per token, against one full patched forward for each token.

    python benchmarks/generation_speed.py [--preset base] [--context 4096] [--patch 16] [--tokens 128] [--repeats 15]
        [--long-filter implicit exponential] [--threads 1] [--json out.json]

Batch 1, float32, random weights, static patches. Cached: a stream has taken the context; then `--tokens` letters are
drawn one by one as `generate` draws them, each drawn letter fed before the next. Tokens are a whole number of patches,
so that the trunk's steps count in their true share; the mean over a run is one value, the median of `--repeats` runs
counts. Of these runs the median step that closes a patch and the median step that does not stand beside it. Full: one
forward over the context with the patching in it, in inference mode, as it would be needed for every token; median of
`--repeats`. The two alternate, and the ratio is the median of the ratios of each pair, whose two halves met the same
machine within a second; their quartiles stand beside it. CPU seconds of the process give the ratio a second time: they
do not count what other processes take away.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.model import NetStream
from hyena_glt.model.generation import Sampling
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.tokens import ByteTokenizer

GOAL = 150


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--long-filter", nargs="*", default=["implicit", "exponential"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.tokens % options.patch:
        parser.error("--tokens: expected a multiple of --patch, so that the trunk's steps have their true share")
    torch.set_num_threads(options.threads)
    rows = [measure(options, long_filter) for long_filter in options.long_filter]
    print(as_table(rows, options))
    if options.json:
        about = {name: getattr(options, name) for name in ("preset", "context", "patch", "tokens", "threads")}
        content = {"machine": machine(), "torch": torch.__version__, **about, "goal": GOAL, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


@torch.inference_mode()
def measure(options: argparse.Namespace, long_filter: str) -> dict[str, Any]:
    """Milliseconds per token both ways, and their ratio."""
    torch.manual_seed(0)
    with torch.inference_mode(False):
        config = HyenaGLTConfig.preset(options.preset, long_filter=long_filter)
        net = HyenaGLT(config, Patcher(patching_mode="static", patch_size=options.patch, device="cpu")).eval()
    text = generate_random_genomic_sequence(options.context, seed=1)
    stream = net.stream()
    logits = stream.feed(text).logits[0, -1]
    draw(stream, logits, options.patch, [])  # compiles what has to be compiled
    runs: dict[str, list[tuple[float, float]]] = {"cached": [], "full": []}
    steps: list[tuple[float, bool]] = []
    for _ in range(options.repeats):
        run = stream.fork()  # the same context in every run
        runs["cached"].append(timed(lambda: draw(run, logits, options.tokens, steps), options.tokens))  # noqa: B023
        runs["full"].append(timed(lambda: net.forward_with_patching(text, return_position_info=False), 1))
    cached, full = ([statistics.median(part) for part in zip(*runs[name], strict=True)] for name in runs)
    ratios, cpu_ratios = (
        [whole[clock] / token[clock] for token, whole in zip(runs["cached"], runs["full"], strict=True)]
        for clock in (0, 1)
    )
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "long_filter": long_filter,
        "cached_ms": cached[0],
        "byte_step_ms": statistics.median([ms for ms, closes in steps if not closes]),
        "patch_step_ms": statistics.median([ms for ms, closes in steps if closes]),
        "full_ms": full[0],
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [low, high],
        "cached_cpu_ms": cached[1],
        "full_cpu_ms": full[1],
        "cpu_ratio": statistics.median(cpu_ratios),
    }


def draw(stream: NetStream, logits: torch.Tensor, count: int, steps: list[tuple[float, bool]]) -> None:
    """Draw and feed letters; notes each step's milliseconds and whether it closed a patch."""
    letters = ByteTokenizer().encode("ACGT")
    sampling, draws = Sampling(top_p=0.95), np.random.default_rng(0)
    for _ in range(count):
        start = time.perf_counter()
        heights = sampling.probabilities(logits[letters]).cumsum(0).numpy()
        choice = int(heights.searchsorted(draws.random() * heights[-1], side="right"))
        output = stream.feed(letters[choice : choice + 1])
        logits = output.logits[0, -1]
        steps.append((1e3 * (time.perf_counter() - start), output.patch_lengths.numel() > 0))


def timed(run: Any, count: int) -> tuple[float, float]:
    """Wall and CPU milliseconds of a call, divided by `count`."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return 1e3 * (time.perf_counter() - wall) / count, 1e3 * (time.process_time() - cpu) / count


def as_table(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The result as Markdown."""
    lines = [
        f"{machine()}, torch {torch.__version__}, {options.threads} thread(s); preset {options.preset}, "
        f"{options.context:,} bases of context, {options.patch} bases per patch, {options.tokens} tokens",
        f"Goal: a cached token at least {GOAL}x faster than a full patched forward (4,096 bases, base, 16 per patch).",
        "",
    ]
    heads = ["long filter", "cached, ms per token", "step in a patch, ms", "step that closes one, ms"]
    heads += ["full forward, ms", "ratio (quartiles)", "cached, CPU ms", "full, CPU ms", "ratio, CPU"]
    lines += [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows:
        numbers = [f"{row[name]:.2f}" for name in ("cached_ms", "byte_step_ms", "patch_step_ms")]
        low, high = row["ratio_quartiles"]
        numbers += [f"{row['full_ms']:.0f}", f"{row['ratio']:.0f} ({low:.0f} to {high:.0f})"]
        numbers += [f"{row['cached_cpu_ms']:.2f}"]
        numbers += [f"{row['full_cpu_ms']:.0f}", f"{row['cpu_ratio']:.0f}"]
        lines.append(f"| {' | '.join([row['long_filter'], *numbers])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
