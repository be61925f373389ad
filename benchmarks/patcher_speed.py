"""Tokens per second of the patcher on one core, beside the plain form of the documents, and against its goals.

    python benchmarks/patcher_speed.py [--repeats 7] [--json out.json]

Everything is measured in one run: each round times every piece of work once (calls shorter than 20 ms as often as fill
20 ms), ours and the textbook form of `textbook_patcher.py` in turn. Speeds are medians of the rounds, ratios and the
cost of a cap medians of what each round gives; the best round stands beside them, since other work on a shared machine
slows the median. Seconds are CPU seconds of the one thread that works: waiting for a core does not count, but what
other processes do to the caches, to the memory and to a shared core does. Before that the two forms are compared: where
the results differ, the run ends. Scores are given, random and seeded; about every tenth token starts a patch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import textbook_patcher as textbook
import torch
from machine import machine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hyena_glt.entropies import entropy
from hyena_glt.patching import Patcher
from hyena_glt.patching.batch_lengths import close_starts, lay_out, no_columns
from hyena_glt.patching.given import given_scores
from hyena_glt.patching.rows import read_rows
from hyena_glt.patching.start_masks import StartRequest, find_starts
from hyena_glt.positions.position_info import patch_ids_from_lengths
from hyena_glt.tokens.byte_tokenizer import BPE_ID, OFFSET

Row = dict[str, Any]
SHAPES = [(1, 1 << 20), (8, 8192), (64, 8192)]
CAP = 16  # tokens
FLOOR_BYTES = 5.8  # per token: a score read, a start written, a length of 8 bytes for every tenth token
STREAM_BYTES = 128 << 20  # of each array: more than a cache holds
SHORTEST_RUN = 0.02  # seconds
SCORE_RULES: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "threshold": ({"threshold": 0.9}, lambda e: textbook.mask_by_threshold(e, 0.9)),
    "monotone": ({"threshold": 0.55, "monotonicity": True}, lambda e: textbook.mask_by_monotonicity(e, 0.55)),
    "dual": ({"threshold": 0.8, "threshold_add": 0.4}, lambda e: textbook.mask_by_both(e, 0.8, 0.4)),
}


@dataclass(frozen=True)
class Work:
    """One thing to measure, ours and the textbook's, and what it should reach."""

    name: str
    tokens: int
    ours: Callable[[], Tensor]
    textbook: Callable[[], Tensor]
    least_speed: float | None = None  # Mtok/s
    least_ratio: float | None = None  # of the speeds
    most_seconds: float | None = None
    most_cost: float | None = None  # of the cap: seconds over those of the work named `beside`, less 1
    beside: str | None = None


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = [*score_work(), *token_work(), top_k_work(), patch_id_work(), entropy_work()]
    for item in work:
        if not same(item.ours(), item.textbook()):
            raise SystemExit(f"{item.name}: ours and the textbook form differ")
    rows = judged(work, in_rounds(both_forms(work), options.repeats))
    result = {
        "machine": machine(),
        "torch": torch.__version__,
        "repeats": options.repeats,
        "load": os.getloadavg()[0],
        "rows": rows,
        "floor": floor(rows, options.repeats),
        "steps": [steps(shape, options.repeats) for shape in SHAPES],
        "largest_entropy_temporary": largest_temporary(),
        "patch_ids_growth": patch_ids_growth(options.repeats),
    }
    print(as_tables(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def same(ours: Tensor, other: Tensor) -> bool:
    """Equal; entropies within 3e-6 nats, the rounding of the textbook form and ours."""
    return torch.allclose(ours, other, rtol=0, atol=3e-6) if ours.is_floating_point() else torch.equal(ours, other)


def score_work() -> list[Work]:
    """Boundaries from given entropies, with and without a cap."""
    work = []
    for rule, (fields, mask_of) in SCORE_RULES.items():
        for shape in SHAPES:
            name = f"{rule}, {shape[0]}x{shape[1]}"
            work.append(score_item(name, shape, fields, mask_of, None, least_speed=500))
            capped = f"{name}, cap {CAP}"
            work.append(score_item(capped, shape, fields, mask_of, CAP, most_cost=0.2, beside=name))
    return work


def score_item(
    name: str,
    shape: tuple[int, int],
    fields: dict[str, Any],
    mask_of: Callable[[Tensor], Tensor],
    cap: int | None,
    **goal: Any,
) -> Work:
    """One entropy rule on one shape."""
    tokens, scores = bases(shape), random_scores(shape)
    patcher = Patcher(max_patch_length=cap, **fields)
    return Work(
        name,
        tokens.numel(),
        lambda: patcher.patch(tokens, entropies=scores)[0],
        lambda: textbook.lengths_from_entropies(scores, mask_of, cap),
        **goal,
    )


def token_work() -> list[Work]:
    """Modes that read the tokens alone."""
    shape = SHAPES[-1]
    text, delimited = words(shape), delimited_bases(shape)
    static = Patcher(patching_mode="static", patch_size=24, max_patch_length=CAP)
    byte = Patcher(patching_mode="byte", max_patch_length=CAP)
    space, bpe = Patcher(patching_mode="space"), Patcher(patching_mode="bpe")
    size, place = text.numel(), f"{shape[0]}x{shape[1]}"
    return [
        Work(
            f"space, {place}",
            size,
            lambda: space.patch(text)[0],
            lambda: textbook.lengths_by_space(text),
            least_speed=450,
        ),
        Work(
            f"bpe delimiters, {place}",
            size,
            lambda: bpe.patch(delimited)[0],
            lambda: textbook.lengths_by_delimiter(delimited, BPE_ID),
            least_speed=300,
        ),
        Work(
            f"static 24, {place}, cap {CAP}",
            size,
            lambda: static.patch(text)[0],
            lambda: textbook.lengths_by_stride(text, 24, CAP),
            least_speed=400,
        ),
        Work(
            f"byte, {place}, cap {CAP}",
            size,
            lambda: byte.patch(text)[0],
            lambda: textbook.lengths_by_stride(text, 1, CAP),
            least_speed=400,
        ),
    ]


def top_k_work() -> Work:
    """A budget of patches spent on the highest entropies."""
    shape = SHAPES[-1]
    tokens, scores = bases(shape), random_scores(shape, distinct=True)
    patcher = Patcher(threshold=None, patch_size=8)
    return Work(
        f"top-k, {shape[0]}x{shape[1]}",
        tokens.numel(),
        lambda: patcher.patch(tokens, entropies=scores)[0],
        lambda: textbook.lengths_from_entropies(scores, lambda e: textbook.mask_by_top_k(e, 8)),
        least_speed=60,
    )


def patch_id_work() -> Work:
    """The patch of each of 32,768 tokens, four to a patch."""
    lengths = torch.full((1, 8192), 4)
    return Work(
        "patch ids, 32768 tokens",
        32_768,
        lambda: patch_ids_from_lengths(lengths, 32_768),
        lambda: textbook.patch_ids(lengths, 32_768),
        most_seconds=1e-3,
    )


def entropy_work() -> Work:
    """Entropy of logits, within rounding of the textbook form."""
    logits = random_logits()
    return Work(
        "entropy of 65536 x 260 logits",
        logits.shape[1],
        lambda: entropy(logits),
        lambda: textbook.entropy(logits),
        least_ratio=4,
    )


def random_logits() -> Tensor:
    """`(1, 65536, 260)` float32."""
    return torch.randn(1, 65_536, 260, generator=torch.Generator().manual_seed(0)) * 3


def bases(shape: tuple[int, int]) -> Tensor:
    """Tokens of random DNA."""
    drawn = np.random.default_rng(0).integers(0, 4, shape)
    return torch.from_numpy(np.frombuffer(b"ACGT", np.uint8)[drawn].astype(np.int64) + OFFSET)


def words(shape: tuple[int, int]) -> Tensor:
    """Tokens of letters with a space after every sixth on average."""
    random = np.random.default_rng(1)
    letters = random.integers(ord("a"), ord("z") + 1, shape)
    return torch.from_numpy(np.where(random.random(shape) < 1 / 7, ord(" "), letters) + OFFSET)


def delimited_bases(shape: tuple[int, int]) -> Tensor:
    """Bases with a delimiter for every tenth token; none first, where the textbook form counts a start twice."""
    tokens = bases(shape)
    tokens[torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.1] = BPE_ID
    tokens[:, 0] = ord("A") + OFFSET
    return tokens


def random_scores(shape: tuple[int, int], distinct: bool = False) -> Tensor:
    """Scores in [0, 1), float32; `distinct` within each row, since the textbook form leaves ties open."""
    if distinct:
        order = np.random.default_rng(3).permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1)
        return torch.from_numpy((order / shape[1]).astype(np.float32))
    return torch.rand(shape, generator=torch.Generator().manual_seed(4))


def both_forms(work: list[Work]) -> dict[str, Callable[[], Tensor]]:
    """Ours and the textbook form of each piece of work, in turn."""
    runs: dict[str, Callable[[], Tensor]] = {}
    for item in work:
        runs |= {item.name: item.ours, textbook_name(item): item.textbook}
    return runs


def textbook_name(item: Work) -> str:
    """What the textbook form of a piece of work is called."""
    return f"textbook: {item.name}"


def in_rounds(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of one call of each, in every round."""
    calls = {name: max(1, math.ceil(SHORTEST_RUN / max(timed(run, 1), 1e-6))) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(timed(run, calls[name]))
    return seconds


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def timed(run: Callable[[], object], calls: int) -> float:
    """CPU seconds of one call on this thread, the mean of several."""
    start = time.thread_time()
    for _ in range(calls):
        run()
    return (time.thread_time() - start) / calls


def judged(work: list[Work], rounds: dict[str, list[float]]) -> list[Row]:
    """The figures of each piece of work, and whether it reaches its goal."""
    seconds = medians(rounds)
    rows = []
    for item in work:
        ours, plain = seconds[item.name], seconds[textbook_name(item)]
        cost = median_ratio(rounds[item.name], rounds[item.beside]) - 1 if item.beside else None
        figures = {"seconds": ours, "best_seconds": min(rounds[item.name]), "textbook_seconds": plain, "cap_cost": cost}
        ratio = median_ratio(rounds[textbook_name(item)], rounds[item.name])
        rows.append(
            {"work": item.name, "tokens": item.tokens, **figures, "ratio": ratio, **verdict(item, ours, ratio, cost)}
        )
    return rows


def median_ratio(above: list[float], below: list[float]) -> float:
    """Median over the rounds of one time divided by the other of the same round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def verdict(item: Work, seconds: float, ratio: float, cost: float | None) -> Row:
    """The goal in words, and whether it is met."""
    if item.least_speed is not None:
        return {"goal": f">= {item.least_speed:g} Mtok/s", "met": item.tokens / seconds / 1e6 >= item.least_speed}
    if item.least_ratio is not None:
        return {"goal": f">= {item.least_ratio:g} times the textbook", "met": ratio >= item.least_ratio}
    if item.most_seconds is not None:
        return {"goal": f"< {item.most_seconds * 1e3:g} ms", "met": seconds < item.most_seconds}
    assert cost is not None
    assert item.most_cost is not None
    return {"goal": f"cap costs < {item.most_cost:.0%}: {cost:.0%}", "met": cost < item.most_cost}


def floor(rows: list[Row], repeats: int) -> Row:
    """Bytes per second of the memory on one core, and the threshold pass as a part of what they allow."""
    size = STREAM_BYTES // 4
    a, b, c = (np.full(size, value, np.float32) for value in (1, 2, 3))

    def triad() -> None:
        np.multiply(c, np.float32(3), out=a)
        np.add(a, b, out=a)

    seconds = medians(in_rounds({"copy": lambda: np.copyto(a, b), "triad": triad}, repeats))
    copy, triad_speed = (moved * STREAM_BYTES / seconds[name] for moved, name in ((2, "copy"), (5, "triad")))
    fastest = max(copy, triad_speed)
    speeds = {row["work"]: row["tokens"] / row["seconds"] for row in rows if row["work"].startswith("threshold")}
    shares = {name: speed * FLOOR_BYTES / fastest for name, speed in speeds.items() if "cap" not in name}
    return {"copy_bytes_per_second": copy, "triad_bytes_per_second": triad_speed, "shares": shares, "goal": 0.15}


def steps(shape: tuple[int, int], repeats: int) -> Row:
    """Microseconds of each step of one call with a threshold, and of the whole call."""
    tokens, scores = bases(shape), random_scores(shape)
    patcher = Patcher(**SCORE_RULES["threshold"][0])
    rows = read_rows(tokens)
    request = StartRequest(patcher.args, rows, 0, patcher.args.threshold, given_scores(scores, rows))
    starts, nothing = find_starts(request), no_columns(shape[0])
    closed = close_starts(request, starts, None, nothing)
    runs: dict[str, Callable[[], object]] = {
        "read and check tokens": lambda: read_rows(tokens),
        "check scores": lambda: given_scores(scores, rows),
        "mark starts": lambda: find_starts(request),
        "close patches": lambda: close_starts(request, starts, None, nothing),
        "lay out": lambda: lay_out(closed, rows),
        "whole call": lambda: patcher.patch(tokens, entropies=scores),
    }
    seconds = medians(in_rounds(runs, repeats))
    return {"shape": list(shape), "microseconds": {name: value * 1e6 for name, value in seconds.items()}}


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that operations make; views of `given` do not count."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.elements = 0
        self._given = given.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at what it gives."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() != self._given:
            self.elements = max(self.elements, result.numel())
        return result


def largest_temporary() -> int:
    """Elements of the largest tensor made on the way from 65,536 x 260 logits to entropies."""
    logits = random_logits()
    with LargestTensor(logits) as largest:
        entropy(logits)
    return largest.elements


def patch_ids_growth(repeats: int) -> float:
    """Seconds for 8 times as many tokens, as a multiple: near 8 where the work is linear, 64 where it is not."""
    short, long = torch.full((1, 8192), 4), torch.full((1, 8192 * 8), 4)
    runs = {
        "short": lambda: patch_ids_from_lengths(short, 32_768),
        "long": lambda: patch_ids_from_lengths(long, 32_768 * 8),
    }
    rounds = in_rounds(runs, repeats)
    return median_ratio(rounds["long"], rounds["short"])


def as_tables(result: Row) -> str:
    """The result as Markdown."""
    lines = [
        f"{result['machine']}, torch {result['torch']}, one thread, CPU seconds; median of {result['repeats']} rounds; "
        f"load of the machine {result['load']:.1f}",
        "",
        "| work | ours, Mtok/s | best round | textbook, Mtok/s | ratio | goal | met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        ours, best, plain = (row["tokens"] / row[f"{key}seconds"] / 1e6 for key in ("", "best_", "textbook_"))
        figures = f"{ours:.1f} | {best:.1f} | {plain:.2f} | {row['ratio']:.1f}"
        lines.append(f"| {row['work']} | {figures} | {row['goal']} | {'yes' if row['met'] else 'NO'} |")
    floor_row = result["floor"]
    shares = ", ".join(f"{name.removeprefix('threshold, ')} {share:.1%}" for name, share in floor_row["shares"].items())
    lines += [
        "",
        f"Memory on one core: copy {floor_row['copy_bytes_per_second'] / 1e9:.1f} GB/s, triad "
        f"{floor_row['triad_bytes_per_second'] / 1e9:.1f} GB/s. At {FLOOR_BYTES} bytes per token the threshold pass "
        f"reaches, of the floor: {shares} (goal: {floor_row['goal']:.0%}).",
        f"Largest temporary of the entropy: {result['largest_entropy_temporary']:,} elements, of "
        f"{65_536 * 260:,} logits. Patch ids of 8 times as many tokens take {result['patch_ids_growth']:.0f} times "
        "as long.",
        "",
        "One call with a threshold, microseconds:",
        "",
        "| shape | " + " | ".join(result["steps"][0]["microseconds"]) + " |",
        "| --- " * (1 + len(result["steps"][0]["microseconds"])) + "|",
    ]
    for row in result["steps"]:
        figures = " | ".join(f"{value:.0f}" for value in row["microseconds"].values())
        lines.append(f"| {row['shape'][0]}x{row['shape'][1]} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
