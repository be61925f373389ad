"""`hyena-glt profile`: where the time of a forward goes, on the user's own sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note, progress
from hyena_glt.errors import DataError, UsageError

if TYPE_CHECKING:
    from hyena_glt.cli.plan import PatchOptions
    from hyena_glt.cli.source import GenomeSource
    from hyena_glt.diagnostics import StageProfile
    from hyena_glt.model import HyenaGLT

HEADINGS = ("stage", "wall, s", "CPU, s", "share", "ns/base", "peak, MiB", "FLOP/base")


def profile(
    genome: opt.Genome,
    model: opt.NetFolder = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Use random weights; speed is the same.")] = False,
    size: opt.SizeOfUntrained = opt.NetSize.tiny,
    window: Annotated[int, typer.Option("--window", min=64, help="Bases that go through the net together.")] = 8192,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Windows per forward.")] = 1,
    batches: Annotated[int, typer.Option("--batches", min=1, help="Forwards that are timed.")] = 3,
    target_length: opt.TargetLength = None,
    patcher: opt.Patcher = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write one forward as a Chrome trace (JSON) as well.")
    ] = None,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    seed: opt.Seed = 0,
    threads: opt.Threads = None,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
    force: opt.Force = False,
) -> None:
    """Take a forward apart: seconds, peak memory and operations of each stage, from reading to logits.

    Evenly spaced windows of the input are cut and run. The net cuts as it was saved to; without a patcher of its own,
    one is calibrated on the input. The CPU seconds are those to compare on a busy machine.

    Examples:

    hyena-glt profile genome.fa --untrained --size base

    hyena-glt profile genome.fa --model run/model --window 32768 --trace trace.json
    """
    from hyena_glt.cli.nets import open_net
    from hyena_glt.cli.outputs import STDOUT, already_done, same_file
    from hyena_glt.cli.plan import PatchOptions
    from hyena_glt.cli.source import open_genome

    threads = threads or opt.default_threads()
    options = PatchOptions(target_length=target_length, patcher=patcher, threads=threads)
    options.check()
    same_file([path for path in (genome, patcher, trace) if path and str(path) != "-"])
    if trace is not None and trace.suffix != ".json":
        raise UsageError(f"--trace {trace}: expected a name that ends in .json")
    with open_genome(genome, alphabet.value, degap=degap, beside=(patcher, model)) as source:
        already_done([STDOUT, *([] if trace is None else [trace])], source.provenance, force)
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
        cutter, cutting = chosen_patcher(net, source, options)
        tokens = token_batches(source, read, window, batch_size, batches)
        facts = {"weights": weights, "device": str(net.device), "threads": threads, **cutting}
        found = profiled(net, cutter, tokens, read)
        origin = source.provenance().extended(facts)
        if trace is not None:
            from hyena_glt.diagnostics import write_trace

            write_trace(net, cutter, tokens[0], trace, provenance=origin.as_dict(), overwrite=True)
            note(f"wrote {trace}")
    if as_json:
        print_json({"provenance": origin.as_dict(), "window": window, "batch_size": batch_size, **found.as_dict()})
    else:
        print_profile(found, facts, window, batch_size)


@dataclass(frozen=True, slots=True)
class ReadGenome:
    """What one pass over the input showed, and what it took."""

    contig_lengths: list[int]
    wall_s: float
    cpu_s: float

    @property
    def num_bases(self) -> int:
        """Of all contigs."""
        return sum(self.contig_lengths)


def read_genome(source: GenomeSource) -> ReadGenome:
    """Read and check the whole input once, timed.

    Raises:
        DataError: No sequence in it.
    """
    import time

    wall, cpu = time.perf_counter(), time.process_time()
    lengths = [0]
    with progress("reading") as advance:
        for block in source.all_blocks():
            lengths[-1] += len(block.sequence)
            advance(len(block.sequence))
            if block.last:
                lengths.append(0)
    read = ReadGenome(lengths[:-1], time.perf_counter() - wall, time.process_time() - cpu)
    if not read.num_bases:
        raise DataError("no sequence in the input, so nothing to run", path=source.name)
    return read


def chosen_patcher(net: HyenaGLT, source: GenomeSource, options: PatchOptions) -> tuple[Any, dict[str, Any]]:
    """The patcher that the options name, else the net's own, else one calibrated on the input; and what it is."""
    from hyena_glt.cli.plan import make_plan
    from hyena_glt.patching import Patcher

    own = net.external_patcher is not None or net.config.boundaries == "learned" or not net.config.use_external_patcher
    if own and options.patcher is None and options.target_length is None:
        return net.patcher(), {"patching": "the net's own"}
    plan = make_plan(source, options)
    return Patcher(plan.args), plan.describe()


def token_batches(source: GenomeSource, read: ReadGenome, window: int, batch_size: int, batches: int) -> list[Any]:
    """Evenly spaced windows as batches of tokens, each `(batch, length)`; fewer where the input is short.

    Raises:
        DataError: Nothing but ambiguity symbols.
    """
    from hyena_glt.diagnostics.genome_windows import genome_windows
    from hyena_glt.model.sources import encode_rows

    wanted = batch_size * batches
    found = genome_windows(source.all_blocks(), source.alphabet, read.contig_lengths, window, wanted, whole_only=False)
    if not found:
        raise DataError("no window of which at least half is called, so nothing to run", path=source.name)
    if len(found) < wanted:
        note(f"the input has {len(found):,} windows of {window:,} bases, fewer than the {wanted:,} asked for")
    return [encode_rows(found[first : first + batch_size]) for first in range(0, len(found), batch_size)]


def profiled(net: HyenaGLT, patcher: Any, tokens: Sequence[Any], read: ReadGenome) -> StageProfile:
    """The stages, with the part of the reading that these bases took."""
    from hyena_glt.diagnostics import profile_stages

    found = profile_stages(net, patcher, tokens)
    share = found.num_bases / read.num_bases
    return found.with_read(read.wall_s * share, read.cpu_s * share)


def print_profile(found: StageProfile, facts: dict[str, Any], window: int, batch_size: int) -> None:
    """The table on stdout."""
    rows = []
    for stage in found.stages:
        flops = "" if stage.flops is None else f"{stage.flops / found.num_bases:,.0f}"
        peak = "" if stage.peak_bytes is None else f"{stage.peak_bytes / 2**20:,.0f}"
        figures = f"{stage.wall_s:.4f}", f"{stage.cpu_s:.4f}", f"{found.share(stage.name):.1%}"
        rows.append([stage.name, *figures, f"{found.ns_per_base(stage):,.0f}", peak, flops])
    peaks = [stage.peak_bytes for stage in found.stages if stage.peak_bytes is not None]
    per_base = (found.wall_s if found.clock == "wall" else found.cpu_s) * 1e9 / found.num_bases
    whole = f"{max(peaks) / 2**20:,.0f}" if peaks else ""
    rows.append(
        [
            "all",
            f"{found.wall_s:.4f}",
            f"{found.cpu_s:.4f}",
            "",
            f"{per_base:,.0f}",
            whole,
            f"{found.flops_per_base:,.0f}",
        ]
    )
    mean = found.num_bases / max(found.num_patches, 1)
    print(f"{facts['weights']}; {facts['device']}, {facts['threads']} thread(s)")
    print(
        f"{found.num_batches} batch(es) of at most {batch_size} x {window:,} bases: {found.num_bases:,} bases in "
        f"{found.num_patches:,} patches, {mean:.1f} bases each"
    )
    print()
    print(as_columns(HEADINGS, rows))
    print()
    clock = "CPU" if found.clock == "cpu" else "wall"
    print(
        f"share, ns/base: of {clock} seconds; peak: memory above that before a batch; read: this part of the whole file"
    )
    print("FLOP: products, convolutions, FFTs")


def as_columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of aligned columns, the first to the left and figures to the right."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    lines = []
    for row in (headings, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def print_json(content: dict[str, Any]) -> None:
    """Indented JSON on stdout."""
    from hyena_glt.cli.outputs import STDOUT, write_json

    write_json(STDOUT, content)
