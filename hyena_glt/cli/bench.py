"""`hyena-glt bench`: byte mode against patches, on the user's own sequence and machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note
from hyena_glt.errors import DataError, UsageError

if TYPE_CHECKING:
    from hyena_glt.cli.profile import ReadGenome
    from hyena_glt.cli.source import GenomeSource
    from hyena_glt.diagnostics.mode_comparison import Mode, ModeRow
    from hyena_glt.model import HyenaGLT

DEFAULT_LENGTHS = ["8192", "32768"]
DEFAULT_PATCH_LENGTHS = ["4", "8", "16", "32"]
USUAL_LENGTH = 16.0  # bases per patch, the default of the commands
SCORED_BASES = 65_536  # of the windows that bits per base are measured on
MOST_SCORED = 16  # of these windows
OWN = "own patcher"
HEADINGS = ("mode", "bases/patch", "wall, s", "CPU, s", "kbases/s", "peak, MiB", "times faster", "memory", "bits/base")


def bench(
    genome: opt.Genome,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the figures as JSON, or as a page (.html).")
    ] = None,
    lengths: Annotated[
        list[str], typer.Option("--lengths", help="Bases of a run: 8192,32768 or the option again.")
    ] = DEFAULT_LENGTHS,
    patch_lengths: Annotated[
        list[str], typer.Option("--patch-lengths", help="Mean bases per patch: 4,8,16,32 or the option again.")
    ] = DEFAULT_PATCH_LENGTHS,
    model: opt.NetFolder = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Use random weights: speed is the same, bits per base mean nothing.")
    ] = False,
    size: opt.SizeOfUntrained = opt.NetSize.tiny,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Runs of each, in turn; medians are shown.")] = 3,
    longest: Annotated[
        float, typer.Option("--longest", min=0.1, help="Leave out runs that are expected to take more seconds.")
    ] = 60.0,
    training: Annotated[bool, typer.Option("--training/--no-training", help="Time training steps as well.")] = True,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    seed: opt.Seed = 0,
    threads: opt.Threads = None,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
    force: opt.Force = False,
) -> None:
    """Does patching pay for me? The same net in byte mode and with patches, timed in turn.

    Patches are calibrated on the input, cutting is part of every run. With trained weights, bits per base of each way
    to cut stand beside, measured with the same weights: nothing is trained here.

    Examples:

    hyena-glt bench genome.fa --untrained --size base

    hyena-glt bench genome.fa --model run/model --lengths 8192 --patch-lengths 8,16 -o bench.html
    """
    from hyena_glt.cli.nets import open_net
    from hyena_glt.cli.outputs import already_done, format_of, same_file
    from hyena_glt.cli.profile import print_json, read_genome
    from hyena_glt.cli.source import open_genome

    bases = sorted({int(number) for number in numbers("--lengths", lengths, least=64, whole=True)})
    targets = sorted(set(numbers("--patch-lengths", patch_lengths, least=1.0)))
    threads = threads or opt.default_threads()
    same_file([path for path in (genome, output) if path and str(path) != "-"])
    kind = None if output is None else format_of(output, None, {"json": "json", "html": "html"}, default="json")
    with open_genome(genome, alphabet.value, degap=degap, beside=(model,)) as source:
        if output is not None and already_done([output], source.provenance, force):
            return
        net, weights = open_net(
            model,
            untrained=untrained,
            size=size.value,
            alphabet=alphabet.value,
            seed=seed,
            device=device,
            threads=threads,
        )
        read = read_genome(source)
        windows = whole_windows(source, read, bases)
        modes, cutting = modes_of(net, source, targets, threads)
        rows = timed(net, modes, windows, repeats, training, longest)
        bits = None if untrained else bits_of(net, modes, source, read, min(windows), rows)
        facts = {"weights": weights, "device": str(net.device), "threads": threads, "machine": machine()}
        origin = source.provenance().extended({**facts, **cutting})
    content = {
        **facts,
        "rows": [row.as_dict() for row in rows],
        "bits_per_base": bits,
        "verdict": answer(rows, modes, bits),
    }
    if output is not None:
        write_result(output, kind, origin.as_dict(), content, rows)
        note(f"wrote {output}")
    if as_json:
        print_json({"provenance": origin.as_dict(), **content})
    else:
        print(as_text(content, rows))


def numbers(option: str, words: Sequence[str], *, least: float, whole: bool = False) -> list[float]:
    """Numbers given with an option: apart, or together with commas or spaces between them.

    Raises:
        UsageError: None, something that is no number, or one that is too small.
    """
    found = []
    for word in re.split(r"[,\s]+", ",".join(words).strip(", ")):
        try:
            number = float(word.replace("_", ""))
        except ValueError:
            number = float("nan")
        if not least <= number < 2**40 or (whole and number != int(number)):
            kind = "whole numbers" if whole else "numbers"
            raise UsageError(f"{option}: expected {kind} of at least {least:g}, got {word!r}")
        found.append(number)
    return found


def whole_windows(source: GenomeSource, read: ReadGenome, lengths: Sequence[int]) -> dict[int, bytes]:
    """One window of each length, from the middle of the input.

    Raises:
        DataError: No contig has room for any.
    """
    from hyena_glt.diagnostics.genome_windows import genome_windows

    found = {}
    for length in lengths:
        windows = genome_windows(source.all_blocks(), source.alphabet, read.contig_lengths, length, 1)
        if windows:
            found[length] = windows[0]
        else:
            note(f"{length:,} bases: left out, no contig has so many with at least half of them called")
    if not found:
        longest = max(read.contig_lengths)
        raise DataError(f"the longest record has {longest:,} symbols; give shorter --lengths", path=source.name)
    return found


def modes_of(
    net: HyenaGLT, source: GenomeSource, targets: Sequence[float], threads: int
) -> tuple[list[Mode], dict[str, Any]]:
    """Byte mode, the net's own patcher where it has one, and patches of each wanted mean length; for provenance too."""
    from hyena_glt.cli.plan import PatchOptions, make_plan
    from hyena_glt.diagnostics.mode_comparison import Mode
    from hyena_glt.diagnostics.verdict import BYTE
    from hyena_glt.patching import Patcher
    from hyena_glt.patching.block_decisions import scan_rule

    modes = [Mode(BYTE, None)]
    if net.config.boundaries == "learned":
        note("the net cuts by itself (learned boundaries), so --patch-lengths are left out")
        return [*modes, Mode(OWN, net.patcher())], {"patching": "the net's own"}
    if net.external_patcher is not None:
        modes.append(Mode(OWN, net.patcher()))
    plan = make_plan(source, PatchOptions(threads=threads), survey=True)
    assert plan.survey is not None
    if not plan.survey.sample:
        raise DataError("no letter in the input, so nothing to calibrate on", path=source.name)
    thresholds = {}
    for target in targets:
        found = plan.survey.calibrate(scan_rule(plan.args), target)
        args = plan.args.model_copy(update={"threshold": found.threshold, "calibration": None})
        modes.append(Mode(patches_of(target), Patcher(args), target))
        thresholds[f"{target:g}"] = found.threshold
    return modes, {"thresholds": thresholds, "entropy_model": plan.model.describe()}


def patches_of(target: float) -> str:
    """Name of a mode."""
    return f"patches of {target:g}"


def timed(
    net: HyenaGLT, modes: Sequence[Mode], windows: Mapping[int, bytes], repeats: int, training: bool, longest: float
) -> list[ModeRow]:
    """Every mode at every length; what is left out is said."""
    from hyena_glt.diagnostics.mode_comparison import TASKS, Limits, compare_modes

    tasks = TASKS if training else TASKS[:1]
    with shown_steps() as show:
        rows = compare_modes(
            net, modes, windows, repeats=repeats, tasks=tasks, limits=Limits(longest_s=longest), progress=show
        )
    for row in rows:
        if row.left_out is not None:
            note(f"{row.task}, {row.length:,} bases, {row.mode}: left out, {row.left_out}")
    return rows


@contextmanager
def shown_steps() -> Iterator[Any]:
    """What runs now, on stderr where that is a terminal."""
    import sys

    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console

    with Console(stderr=True).status("timing") as status:
        yield lambda step: status.update(f"timing: {step}")


def bits_of(
    net: HyenaGLT, modes: Sequence[Mode], source: GenomeSource, read: ReadGenome, length: int, rows: Sequence[ModeRow]
) -> dict[str, float] | None:
    """Bits per base of every mode that was timed at the shortest length; None for a net that is not causal."""
    from hyena_glt.diagnostics.genome_windows import genome_windows
    from hyena_glt.diagnostics.mode_comparison import bits_per_base

    if not net.config.causal:
        note("the net sees both sides (causal=False), so it has no bits per base")
        return None
    measured = {row.mode for row in rows if row.length == length and row.cpu_s is not None}
    count = min(max(SCORED_BASES // length, 1), MOST_SCORED)
    windows = genome_windows(source.all_blocks(), source.alphabet, read.contig_lengths, length, count)
    alphabet = source.alphabet.name
    with shown_steps() as show:
        found = {}
        for mode in modes:
            if mode.name in measured:
                show(f"bits per base, {mode.name}")
                found[mode.name] = bits_per_base(net, mode, windows, alphabet)
    return found


def answer(rows: Sequence[ModeRow], modes: Sequence[Mode], bits: Mapping[str, float] | None) -> str:
    """Does it pay?"""
    from hyena_glt.diagnostics.verdict import BYTE, verdict

    calibrated = [mode for mode in modes if mode.wanted_length is not None]
    usual = next((mode.name for mode in modes if mode.name == OWN), None)
    if usual is None:
        usual = min(calibrated, key=lambda mode: abs((mode.wanted_length or 0.0) - USUAL_LENGTH)).name
    known = bits if bits and BYTE in bits and all(row.mode in bits for row in rows if row.cpu_s) else None
    return verdict(rows, known, usual)


def machine() -> str:
    """Processor, cores, Python and torch, on one line."""
    import os
    import platform
    from contextlib import suppress

    import torch

    model = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def cells_of(row: ModeRow, rows: Sequence[ModeRow], bits: Mapping[str, float] | None) -> list[str]:
    """One line of the table."""
    from hyena_glt.diagnostics.verdict import compared, times_faster

    if row.wall_s is None or row.cpu_s is None or row.bases_per_s is None or row.mean_patch_length is None:
        return [row.mode, *["left out"], *[""] * (len(HEADINGS) - 2)]
    byte = next((byte for patched, byte in compared(rows, row.task) if patched is row), None)
    faster = memory = score = ""
    if byte is not None:
        faster = f"{times_faster(row, byte):.1f}"
        if byte.peak_bytes and row.peak_bytes is not None:
            memory = f"{row.peak_bytes / byte.peak_bytes:.2f}"
    if bits is not None and row.task == "forward" and row.mode in bits:
        score = f"{bits[row.mode]:.4f}"
    return [
        row.mode,
        f"{row.mean_patch_length:.1f}",
        f"{row.wall_s:.4f}",
        f"{row.cpu_s:.4f}",
        f"{row.bases_per_s / 1e3:,.1f}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f}",
        faster,
        memory,
        score,
    ]


def tables(rows: Sequence[ModeRow], bits: Mapping[str, float] | None) -> list[tuple[str, list[list[str]]]]:
    """A title and lines of cells, the headings first, of each table: one task at one length."""
    width = len(HEADINGS) if bits else len(HEADINGS) - 1
    found = []
    for task, length in dict.fromkeys((row.task, row.length) for row in rows):
        lines = [cells_of(row, rows, bits) for row in rows if (row.task, row.length) == (task, length)]
        found.append((f"{task}, {length:,} bases", [line[:width] for line in (list(HEADINGS), *lines)]))
    return found


def remarks(content: Mapping[str, Any]) -> list[str]:
    """What the figures mean, a line each."""
    lines = ["Medians; cutting is included; times faster by CPU seconds, memory as a share of byte mode's peak."]
    if content["bits_per_base"]:
        lines.append(
            "Bits per base are of these weights however they are cut, on the shortest length; weights that are trained "
            "with a way to cut do better with it."
        )
    return lines


def as_text(content: Mapping[str, Any], rows: Sequence[ModeRow]) -> str:
    """Tables, remarks, the answer."""
    from hyena_glt.cli.profile import as_columns

    lines = [f"{content['weights']}; {content['device']}, {content['threads']} thread(s); {content['machine']}", ""]
    for title, (headings, *cells) in tables(rows, content["bits_per_base"]):
        lines += [title, as_columns(headings, cells), ""]
    return "\n".join([*lines, *remarks(content), "", content["verdict"]])


def write_result(
    path: Path, kind: str | None, provenance: dict[str, Any], content: dict[str, Any], rows: Sequence[ModeRow]
) -> None:
    """The figures as JSON, or as a page for a person."""
    from hyena_glt.cli.outputs import write_json
    from hyena_glt.sequences.atomic import atomic_write

    if kind == "json":
        write_json(path, {"provenance": provenance, **content})
        return
    with atomic_write(path, "w", overwrite=True) as handle:
        handle.write(as_page(provenance, content, rows))


def as_page(provenance: Mapping[str, Any], content: Mapping[str, Any], rows: Sequence[ModeRow]) -> str:
    """One self-contained HTML page without scripts."""
    import json
    from html import escape

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    parts = []
    for title, (headings, *cells) in tables(rows, content["bits_per_base"]):
        body = "\n".join(line("td", row) for row in cells)
        parts.append(f"<h2>{escape(title)}</h2>\n<table>\n{line('th', headings)}\n{body}\n</table>")
    about = f"{content['weights']}; {content['device']}, {content['threads']} thread(s); {content['machine']}"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="hyena-glt" content="{escape(json.dumps(provenance, sort_keys=True))}">
<title>Does patching pay?</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.25rem 0.75rem; text-align: right; border-bottom: 1px solid #ccc; }}
th:first-child, td:first-child {{ text-align: left; }}
.verdict {{ font-size: 1.2rem; }}
</style></head><body>
<h1>Does patching pay?</h1>
<p class="verdict">{escape(content["verdict"])}</p>
<p>{escape(about)}</p>
{"".join(parts)}
{"".join(f"<p>{escape(text)}</p>" for text in remarks(content))}
<p>{escape(provenance["command"])}</p>
</body></html>
"""
