"""Training throughput and peak memory: byte mode against patches of several kinds.

    python benchmarks/training_speed.py [GENOME.fa.gz] [--sizes tiny small] [--settings byte static-8 ...]
        [--devices cpu cuda] [--window 8192] [--batch 4] [--repeats 3] [--threads 1]
        [--cells runs/training_speed.jsonl] [--json out.json] [--markdown out.md]

A step is forward, backward, clipping and AdamW on a batch of windows, of a causal net over the four letters. Patches
are cut before the steps that are timed, as `hyena-glt pretrain` does once for a run (`cut, s` says what a batch takes);
learned boundaries are part of the step. Entropy patches come from an order-8 context model of the same sequence,
calibrated to a mean of 8. Without a genome a simulated one is read; its content hardly matters to the speed.

Every row is a process of its own. Seconds are medians of `--repeats` steps after one warm-up step; above 30 s a step is
not repeated. Peak memory is above what the process held before the net was made, a step of 64 bases behind it: resident
memory on the CPU, allocated memory on CUDA. Rows are written to `--cells` as they finish and are not measured again, so
remove that file where the code has changed. CUDA is measured where there is one, unless `--devices` says otherwise.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import machine
from network_speed import memory_bytes, reset_peak

HERE = Path(__file__).resolve()
SETTINGS: dict[str, dict[str, Any]] = {
    "byte": {"mode": "static", "size": 1.0},
    "static-8": {"mode": "static", "size": 8.0},
    "static-16": {"mode": "static", "size": 16.0},
    "entropy-8": {"mode": "entropy", "size": 8.0},
    "learned-8": {"mode": "learned", "size": 8.0},
}
COLUMNS = ("size", "patches", "bases per patch", "step, s", "CPU, s", "kilobases/s", "times byte mode", "by CPU")
COLUMNS += ("peak, MiB", "share of byte mode", "cut, s")
ORDER = 8  # of the context model
CLIP = 1.0
WARM_UP_BASES = 64
REPEAT_LIMIT_S = 30.0  # seconds of a step above which it is not repeated


def main() -> None:
    """Measure what is missing, print the table, write JSON and Markdown."""
    options = parsed_options()
    from classification import FinishedCells

    cells = FinishedCells.read(options.cells)
    rows = []
    for key in keys_of(options):
        cell = cells.get(key)
        if cell is None:
            cell = cells.add(key, **measured_apart(key, options))
            print(
                f"{key['device']} {key['size']} {key['setting']}: {cell['step_s']:.3g} s", file=sys.stderr, flush=True
            )
        rows.append({**key, **{name: value for name, value in cell.items() if name != "key"}})
    table = as_table(rows)
    print(table)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text(table + "\n")


def parsed_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genome", nargs="?", type=Path, help="FASTA; none: a simulated genome")
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small"], help="presets")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--devices", nargs="+", help="none: cpu, and cuda where there is one")
    parser.add_argument("--window", type=int, default=8192, help="bases")
    parser.add_argument("--batch", type=int, default=4, help="windows of a step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="on the CPU")
    parser.add_argument("--cells", type=Path, default=Path("runs/training_speed.jsonl"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--row", help=argparse.SUPPRESS)  # one key as JSON: measure it in this process
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps(measured(json.loads(options.row), options.genome)))
        raise SystemExit
    return options


def keys_of(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What is measured, one row each."""
    import torch

    devices = options.devices or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        where = {"machine": machine(), "torch": torch.__version__, "threads": options.threads}
        if device != "cpu":
            where["accelerator"] = torch.cuda.get_device_name()
        for size in options.sizes:
            for setting in options.settings:
                yield {
                    "device": device,
                    "size": size,
                    "setting": setting,
                    "window": options.window,
                    "batch": options.batch,
                    "repeats": options.repeats,
                    "genome": options.genome.name if options.genome else None,
                    **where,
                }


def measured_apart(key: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Measure one row in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(key["threads"])}
    command = [sys.executable, str(HERE), *([str(options.genome)] if options.genome else []), "--row", json.dumps(key)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{key}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(key: dict[str, Any], genome: Path | None) -> dict[str, Any]:
    """Seconds of a step, peak memory and bases per patch, in this process."""
    import torch

    torch.set_num_threads(key["threads"])
    torch.manual_seed(0)
    on_cuda = key["device"] != "cpu"
    tokens, lengths, cut_s, mean = cut_batch(key, genome)
    tokens = tokens.to(key["device"])
    lengths = None if lengths is None else lengths.to(key["device"])
    few = None if lengths is None else torch.ones_like(tokens[:, :WARM_UP_BASES])
    train_step(*fresh(key), tokens[:, :WARM_UP_BASES], few)  # the compiled loops and the libraries are not the net's
    gc.collect()
    held = torch.cuda.memory_allocated() if on_cuda else memory_bytes("VmRSS")
    net, optimizer = fresh(key)
    train_step(net, optimizer, tokens, lengths)  # allocates the state of the optimizer
    reset_peak()
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    runs: list[tuple[float, float, float]] = []
    while len(runs) < key["repeats"] and (not runs or runs[-1][0] <= REPEAT_LIMIT_S):
        runs.append(train_step(net, optimizer, tokens, lengths))
    peak = torch.cuda.max_memory_allocated() if on_cuda else memory_bytes("VmHWM")
    seconds = statistics.median(run[0] for run in runs)
    return {
        "step_s": seconds,
        "cpu_s": statistics.median(run[1] for run in runs),
        "bases_per_s": tokens.numel() / seconds,
        "peak_mib": (peak - held) / 2**20,
        "cut_s": cut_s,
        "bases_per_patch": runs[-1][2] if mean is None else mean,
        "num_weights": sum(weight.numel() for weight in net.parameters()),
        "steps": len(runs),
    }


def fresh(key: dict[str, Any]) -> tuple[Any, Any]:
    """A net of random weights and its optimizer."""
    import torch

    from hyena_glt import HyenaGLT, HyenaGLTConfig

    net = HyenaGLT(HyenaGLTConfig.preset(key["size"], **net_options(key))).to(key["device"]).train()
    return net, torch.optim.AdamW(net.parameters())


def train_step(net: Any, optimizer: Any, tokens: Any, lengths: Any) -> tuple[float, float, float]:
    """Wall and CPU seconds of a step, and its bases per patch."""
    import torch

    wall, cpu = time.perf_counter(), time.process_time()
    output = net(tokens, lengths, compute_loss=True, return_position_info=False)
    output.loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
    optimizer.step()
    optimizer.zero_grad()
    if tokens.is_cuda:
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, tokens.numel() / int(output.positions.patch_mask.sum())


def net_options(key: dict[str, Any]) -> dict[str, Any]:
    """Fields of the configuration."""
    setting = SETTINGS[key["setting"]]
    fields: dict[str, Any] = {"causal": True, "genomic_vocab_size": 4}
    if setting["mode"] == "learned":
        fields |= {"boundaries": "learned", "target_patch_length": setting["size"], "max_patch_length": 64}
    return fields


def cut_batch(key: dict[str, Any], genome: Path | None) -> tuple[Any, Any, float, float | None]:
    """Tokens `(batch, window)`, patch lengths or None, seconds that the cutting took, bases per patch or None."""
    import torch

    from hyena_glt import Patcher
    from hyena_glt.entropies import MarkovEntropy
    from hyena_glt.patching import calibrate
    from hyena_glt.tokens import ByteTokenizer

    sequence, window = long_sequence(genome, key["batch"] * key["window"]), key["window"]
    rows = [ByteTokenizer().encode(sequence[first * window : (first + 1) * window]) for first in range(key["batch"])]
    tokens, setting = torch.stack(rows), SETTINGS[key["setting"]]
    if setting["mode"] == "learned":
        return tokens, None, 0.0, None
    if setting["mode"] == "entropy":
        model = MarkovEntropy.fit([sequence], order=ORDER)
        limits = {"target_mean_length": setting["size"], "max_patch_length": 64}
        patcher = calibrate([sequence], entropy_model=model, device="cpu", **limits).build()
    else:
        patcher = Patcher(patching_mode="static", patch_size=setting["size"], device="cpu")
    patcher.patch(tokens[:1])  # compiles
    began = time.perf_counter()
    lengths, _ = patcher.patch(tokens)
    return tokens, lengths, time.perf_counter() - began, tokens.numel() / int((lengths > 0).sum())


def long_sequence(genome: Path | None, at_least: int) -> bytes:
    """The longest contig of a genome, upper case and without N; a simulated one has at least 200,000 bases."""
    from hyena_glt.sequences.fasta import read_records
    from hyena_glt.sequences.simulate import simulate_genome

    if genome is None:
        sequences = [record.sequence for record in simulate_genome(length=max(4 * at_least, 200_000)).records]
    else:
        sequences = [record.sequence for record in read_records(genome)]
    sequence = max((text.upper().replace(b"N", b"") for text in sequences), key=len)
    if len(sequence) < at_least:
        raise SystemExit(f"expected a contig of at least {at_least:,} bases, got {len(sequence):,}")
    return sequence


def as_table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown; ratios are to byte mode of the same device and size."""
    by_byte = {(row["device"], row["size"]): row for row in rows if row["setting"] == "byte"}
    lines = []
    for device in dict.fromkeys(row["device"] for row in rows):
        here = [row for row in rows if row["device"] == device]
        about = here[0].get("accelerator") or f"{here[0]['machine']}, {here[0]['threads']} thread(s)"
        lines += [
            f"{about}, torch {here[0]['torch']}; {here[0]['batch']} windows of {here[0]['window']:,} bases a step",
            "",
            f"| {' | '.join(COLUMNS)} |",
            f"|{' --- |' * len(COLUMNS)}",
        ]
        for row in here:
            base = by_byte.get((device, row["size"]))
            cells = [
                row["size"],
                row["setting"],
                f"{row['bases_per_patch']:.2f}",
                f"{row['step_s']:.3g}",
                f"{row['cpu_s']:.3g}",
                f"{row['bases_per_s'] / 1e3:.1f}",
                "" if base is None else f"{base['step_s'] / row['step_s']:.1f}",
                "" if base is None else f"{base['cpu_s'] / row['cpu_s']:.1f}",
                f"{row['peak_mib']:,.0f}",
                "" if base is None else f"{row['peak_mib'] / base['peak_mib']:.2f}",
                f"{row['cut_s']:.3g}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    main()
