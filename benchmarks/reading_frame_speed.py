"""What reading frames cost a forward: the same untrained net with and without, in turn in one process.

    python benchmarks/reading_frame_speed.py [--length 32768] [--sizes 1 16] [--rounds 12] [--threads 1]

Preset `tiny`, four letters, equal patches, no gradients, on the CPU; the median of the rounds but for the first two.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from machine import machine

from hyena_glt import HyenaGLT, HyenaGLTConfig
from hyena_glt.tokens import ByteTokenizer

FIRST_ROUNDS = 2


@torch.no_grad()
def main() -> None:
    """Print one line for each patch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=32_768)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    nets = [
        HyenaGLT(HyenaGLTConfig.preset("tiny", genomic_vocab_size=4, reading_frame=frame)).eval()
        for frame in (True, False)
    ]
    letters = torch.randint(0, 4, (options.length,)).tolist()
    tokens = ByteTokenizer().encode("".join("ACGT"[letter] for letter in letters)).unsqueeze(0)
    print(f"{machine()}, {options.threads} thread(s)\n")
    print("| bases per patch | with, s | without, s | ratio |\n| --- | --- | --- | --- |")
    for size in options.sizes:
        lengths = torch.full((1, options.length // size), size)
        rounds = [[seconds_of(net, tokens, lengths) for net in nets] for _ in range(FIRST_ROUNDS + options.rounds)]
        with_frame, without = (statistics.median(column) for column in zip(*rounds[FIRST_ROUNDS:], strict=True))
        print(f"| {size} | {with_frame:.4f} | {without:.4f} | {with_frame / without:.3f} |")


def seconds_of(net: HyenaGLT, tokens: torch.Tensor, lengths: torch.Tensor) -> float:
    """Seconds of one forward."""
    began = time.perf_counter()
    net(tokens, lengths)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
