"""Bits per base of nets that learn their boundaries, against nets with static patches of the same mean length.

    python benchmarks/learned_boundaries.py ecoli.fna.gz [--targets 8] [--seeds 0 1] [--seconds 60] [--steps N]
        [--preset tiny] [--length 1024] [--batch 4] [--test-bases 131072] [--max-patch 32] [--json out.json]

A causal net over the four letters is trained on windows of the first half of the longest contig and asked for windows
spread over the second half. Every run has the same processor time (or, with --steps, the same number of steps), one
thread; nets of one seed see the same windows. The learned net runs first: the static net gets its mean patch length on
the test windows, so both run the trunk equally often. A context table fitted on the first half stands beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import Tensor

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.sequences.fasta import read_records
from hyena_glt.tokens import ByteTokenizer

LEARNING_RATE = 2e-3
WARM_UP = 0.05  # of a run
CLIP = 1.0
KINDS = ("learned", "static")


def main() -> None:
    """Train, measure, print the table, write the JSON."""
    options = arguments()
    torch.set_num_threads(1)
    sequence = max((record.sequence for record in read_records(options.fasta)), key=len)
    half = len(sequence) // 2
    train, test = sequence[:half], windows(sequence[half:], options.length, options.test_bases)
    table = MarkovEntropy.fit([train])
    table_bits = table.bits_per_base([ByteTokenizer().decode(row) for row in test])
    rows: list[dict[str, Any]] = []
    for target in options.targets:
        for seed in options.seeds:
            learned = run(learned_net(options, target, seed), train, test, options, seed)
            static = run(static_net(options, learned["mean_length"], seed), train, test, options, seed)
            for name, result in zip(KINDS, (learned, static), strict=True):
                rows.append({"boundaries": name, "target": target, "seed": seed, **result})
                print(rows[-1], file=sys.stderr)
    print(as_table(rows, options, test.numel(), table.order, table_bits))
    if options.json:
        asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        content = {"machine": machine(), "torch": torch.__version__, "options": asked, "table_bits": table_bits}
        options.json.write_text(json.dumps({**content, "rows": rows}, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--targets", type=float, nargs="+", default=[8.0], help="mean patch lengths, bases")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time of one training")
    parser.add_argument("--steps", type=int, help="steps of one training, in place of a time")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--length", type=int, default=1024, help="bases of a window")
    parser.add_argument("--batch", type=int, default=4, help="windows of a step")
    parser.add_argument("--test-bases", type=int, default=1 << 17)
    parser.add_argument("--max-patch", type=int, default=32, help="cap of learned patches, bases")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def windows(sequence: bytes, length: int, num_bases: int) -> Tensor:
    """Windows at equal distances: `(rows, length)` byte tokens."""
    count = min(num_bases, len(sequence)) // length
    step = (len(sequence) - length) // max(count - 1, 1)
    return torch.stack([ByteTokenizer().encode(sequence[i * step : i * step + length]) for i in range(count)])


def learned_net(options: argparse.Namespace, target: float, seed: int) -> HyenaGLT:
    """A fresh net that learns its boundaries around a target length."""
    torch.manual_seed(seed)
    limits = {"target_patch_length": target, "max_patch_length": options.max_patch}
    return HyenaGLT(HyenaGLTConfig.preset(options.preset, genomic_vocab_size=4, boundaries="learned", **limits))


def static_net(options: argparse.Namespace, patch_size: float, seed: int) -> HyenaGLT:
    """A fresh net with patches of one size, which may be a fraction."""
    torch.manual_seed(seed)
    patcher = Patcher(patching_mode="static", patch_size=patch_size)
    return HyenaGLT(HyenaGLTConfig.preset(options.preset, genomic_vocab_size=4), external_patcher=patcher)


def run(net: HyenaGLT, train: bytes, test: Tensor, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train one net and measure it."""
    num_steps, seconds = fit(net, random_windows(train, options, seed), options)
    bits, mean_length = evaluate(net.eval(), test, options.batch)
    return {"bits_per_base": bits, "mean_length": mean_length, "steps": num_steps, "seconds": seconds}


def random_windows(train: bytes, options: argparse.Namespace, seed: int) -> Callable[[], Tensor]:
    """A function that draws `(batch, length)` byte tokens, the same ones for the same seed."""
    tokens, generator = ByteTokenizer().encode(train), torch.Generator().manual_seed(seed)
    offsets = torch.arange(options.length)

    def draw() -> Tensor:
        starts = torch.randint(len(tokens) - options.length, (options.batch, 1), generator=generator)
        return tokens[starts + offsets]

    return draw


def fit(net: HyenaGLT, draw: Callable[[], Tensor], options: argparse.Namespace) -> tuple[int, float]:
    """Train for the time or the steps asked for; gives steps and seconds of the processor."""
    optimizer = torch.optim.AdamW(net.train().parameters(), lr=LEARNING_RATE)
    begin, num_steps, done = time.process_time(), 0, 0.0
    while done < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(done / WARM_UP + 0.01, 1) * (1 + math.cos(math.pi * done)) / 2
        output = net(draw(), compute_loss=True)
        assert output.loss is not None
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        num_steps += 1
        seconds = time.process_time() - begin
        done = num_steps / options.steps if options.steps else seconds / options.seconds
    return num_steps, seconds


@torch.inference_mode()
def evaluate(net: HyenaGLT, test: Tensor, batch: int) -> tuple[float, float]:
    """Bits per predicted base (a window's first base has no prediction), and bases per patch."""
    bits = num_patches = 0.0
    for rows in test.split(batch):
        output = net(rows)
        targets = net.vocabulary_ids(rows)[:, 1:]
        bits += float(torch.nn.functional.cross_entropy(output.logits[:, :-1].mT, targets, reduction="sum"))
        num_patches += int(output.positions.patch_mask.sum())
    return bits / math.log(2) / (test.numel() - len(test)), test.numel() / num_patches


def as_table(rows: list[dict[str, Any]], options: argparse.Namespace, num_test: int, order: int, table: float) -> str:
    """The result as Markdown: means over the seeds, and the mean and range of the paired differences."""
    length = f"{options.steps} steps" if options.steps else f"{options.seconds:g} s of processor time"
    lines = [f"{machine()}, torch {torch.__version__}, one thread; preset {options.preset}, {length} a run"]
    lines += [f"tested on {num_test:,} bases; a context table of order {order}: {table:.4f} bits per base", ""]
    lines += ["| target | boundaries | bases per patch | steps | bits per base | of each seed |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for target in options.targets:
        pair = {name: [r for r in rows if (r["target"], r["boundaries"]) == (target, name)] for name in KINDS}
        for name, runs in pair.items():
            means = {key: statistics.mean(r[key] for r in runs) for key in ("mean_length", "steps", "bits_per_base")}
            each = ", ".join(f"{r['bits_per_base']:.4f}" for r in runs)
            lines.append(
                f"| {target:g} | {name} | {means['mean_length']:.2f} | {means['steps']:.0f} "
                f"| {means['bits_per_base']:.4f} | {each} |"
            )
        gains = [s["bits_per_base"] - a["bits_per_base"] for a, s in zip(pair["learned"], pair["static"], strict=True)]
        lines.append(f"| {target:g} | static - learned | | | {statistics.mean(gains):+.4f} | {span(gains)} |")
    return "\n".join(lines)


def span(values: list[float]) -> str:
    """The smallest and the largest."""
    return f"{min(values):+.4f} to {max(values):+.4f}"


if __name__ == "__main__":
    main()
