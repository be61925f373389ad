"""Forward of the network with patches of 16 bases against the same network in byte mode.

    python benchmarks/network.py [--preset base] [--lengths 8192 32768] [--patch 16] [--repeats 3] [--json out.json]

Random weights, batch 1, one thread, patch lengths given (patching itself is measured by genome_to_patches.py). The
best of `--repeats` for the patched form, one run for byte mode, which is slow.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from machine import machine

from hyena_glt import HyenaGLT, HyenaGLTConfig
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.tokens import ByteTokenizer


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--lengths", type=int, nargs="*", default=[8192, 32768])
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = HyenaGLT(HyenaGLTConfig.preset(options.preset)).eval()
    rows = [measure(net, length, options.patch, options.repeats) for length in options.lengths]
    weights = sum(parameter.numel() for parameter in net.parameters())
    print(as_table(rows, options.preset, weights))
    if options.json:
        content = {"machine": machine(), "preset": options.preset, "weights": weights, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def measure(net: HyenaGLT, length: int, patch: int, repeats: int) -> dict[str, Any]:
    """Seconds of one forward, patched and byte by byte."""
    tokens = ByteTokenizer().encode(generate_random_genomic_sequence(length, seed=length)).unsqueeze(0)
    patched = torch.full((1, length // patch), patch)
    forward(net, tokens, patched)
    seconds = min(forward(net, tokens, patched) for _ in range(repeats))
    by_byte = forward(net, tokens, torch.ones(1, length, dtype=torch.int64))
    return {"length": length, "patch": patch, "patched_seconds": seconds, "byte_seconds": by_byte}


@torch.inference_mode()
def forward(net: HyenaGLT, tokens: torch.Tensor, patch_lengths: torch.Tensor) -> float:
    """Wall seconds."""
    start = time.perf_counter()
    net(tokens, patch_lengths, return_position_info=False)
    return time.perf_counter() - start


def as_table(rows: list[dict[str, Any]], preset: str, weights: int) -> str:
    """The result as Markdown."""
    lines = [f"{machine()}, torch {torch.__version__}, one thread; preset {preset}, {weights / 1e6:.1f} M weights", ""]
    lines += ["| bases | patched, s | byte mode, s | ratio |", "| --- | --- | --- | --- |"]
    for row in rows:
        ratio = row["byte_seconds"] / row["patched_seconds"]
        lines.append(f"| {row['length']:,} | {row['patched_seconds']:.2f} | {row['byte_seconds']:.1f} | {ratio:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
