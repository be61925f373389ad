"""The long convolution alone, against its textbook form, and a single step against computing anew.

    python benchmarks/long_conv.py [--channels 128] [--lengths 4096 32768 131072] [--repeats 9] [--json out.json]

One thread, batch 1, float32. Textbook: FFTs of the signal and of the filter padded to twice the length, product,
inverse FFT, all channels in one piece, the filter's spectrum computed in every call. Ours: blocks of channels with
the spectrum kept. Both run in turn, the medians of `--repeats` rounds count, wall and CPU; the ratio is of CPU
seconds, which a busy machine stretches less. Peak memory is of one run, above what was held before it. Errors are
against the textbook form in float64, over its largest value. Measured so are taps of any kind, which go through FFTs,
and a sum of 16 exponentials a channel (`long_filter: exponential`), which goes through chunks. A single step is one
output with the history at hand (a dot product, or a recurrence where the filter is a sum of exponentials).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from machine import machine
from network_speed import memory_bytes, reset_peak
from textbook_hyena import fft_conv
from torch import Tensor

from hyena_glt.layers import ExplicitFilter, ExponentialFilter
from hyena_glt.layers.hyena_operator import channels_per_block
from hyena_glt.layers.lag_filter import LagFilter, PreparedConv
from hyena_glt.ops.fftconv import prepare_filter

CONVOLUTIONS = ("textbook", "ours", "exponential")


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--lengths", type=int, nargs="*", default=[4096, 32768, 131072])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.inference_mode():
        rows = [measure(options.channels, length, options.repeats) for length in options.lengths]
    print(as_table(rows, options.channels))
    if options.json:
        content = {"machine": machine(), "torch": torch.__version__, "channels": options.channels, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def measure(channels: int, length: int, repeats: int) -> dict[str, Any]:
    """Milliseconds and relative errors at one length."""
    u, h = torch.randn(1, channels, length), torch.randn(channels, length) / length**0.5
    block = channels_per_block(1, length)
    prepared = [prepare_filter(taps, length) for taps in h.split(block)]
    explicit, exponential = ExplicitFilter(channels, length), ExponentialFilter(channels, 16)
    explicit.taps.copy_(h)
    chunked, sums = list(exponential.prepared(length, block, torch.float32)), exponential(length)
    runs = {
        "textbook": lambda: fft_conv(u, h),
        "ours": lambda: blockwise(prepared, u, block),
        "exponential": lambda: blockwise(chunked, u, block),
        "step": single_step(explicit, u),
        "exponential_step": single_step(exponential, u),
    }
    wall, cpu = medians_in_turn(runs, repeats)
    exact, exact_sums = (fft_conv(u.double(), taps) for taps in (h.double(), exponential.double()(length)))
    return {
        "length": length,
        **{f"{name}_ms": 1e3 * value for name, value in wall.items()},
        **{f"{name}_cpu_ms": 1e3 * value for name, value in cpu.items()},
        **{f"{name}_peak_mib": peak_mib(runs[name]) for name in CONVOLUTIONS},
        "ratio": cpu["textbook"] / cpu["ours"],
        "exponential_ratio": cpu["textbook"] / cpu["exponential"],
        "step_ratio": cpu["ours"] / cpu["step"],
        "error": relative_error(blockwise(prepared, u, block), exact),
        "textbook_error": relative_error(fft_conv(u, h), exact),
        "exponential_error": relative_error(blockwise(chunked, u, block), exact_sums),
        "exponential_textbook_error": relative_error(fft_conv(u, sums), exact_sums),
    }


def blockwise(prepared: list[PreparedConv], u: Tensor, block: int) -> Tensor:
    """Our convolution, a block of channels at a time as in the Hyena operator."""
    return torch.cat([conv(part) for conv, part in zip(prepared, u.split(block, dim=1), strict=True)], dim=1)


def single_step(taps: LagFilter, u: Tensor) -> Callable[[], Any]:
    """One more step after all but the last of the signal; the state is kept, so it can be taken again."""
    _, state = taps.stream(u[..., :-1].contiguous())
    last = u[..., -1:].contiguous()
    return lambda: taps.stream(last, state)


def medians_in_turn(runs: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median wall and CPU seconds of each, all run once per round so that a busy machine slows them alike."""
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
    return tuple({name: statistics.median(values[1:]) for name, values in taken.items()} for taken in (wall, cpu))


def peak_mib(run: Callable[[], Any]) -> float:
    """MiB that a run takes at its highest, freed memory having been given back before."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    before = memory_bytes("VmRSS")
    run()
    return (memory_bytes("VmHWM") - before) / 2**20


def relative_error(y: Tensor, exact: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((y.double() - exact).abs().max() / exact.abs().max())


def as_table(rows: list[dict[str, Any]], channels: int) -> str:
    """The result as Markdown."""
    lines = [f"{machine()}, torch {torch.__version__}, one thread; {channels} channels, batch 1", ""]
    heads = ["length", *(f"{name}, {what}" for name in CONVOLUTIONS for what in ("wall ms", "CPU ms", "peak MiB"))]
    heads += ["ratio", "ratio, exponentials", "errors: textbook", "ours", "exponentials, textbook", "ours"]
    heads += ["step, ms", "exponential step, ms"]
    lines += [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows:
        columns = [f"{name}_{kind}" for name in CONVOLUTIONS for kind in ("ms", "cpu_ms", "peak_mib")]
        cells = [f"{row['length']:,}", *(f"{row[name]:.1f}" for name in (*columns, "ratio", "exponential_ratio"))]
        errors = ("textbook_error", "error", "exponential_textbook_error", "exponential_error")
        cells += [f"{row[name]:.1e}" for name in errors]
        cells += [f"{row[name]:.2f}" for name in ("step_ms", "exponential_step_ms")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
