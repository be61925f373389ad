"""`hyena-glt patch`: a genome in, its patches out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note
from hyena_glt.errors import UsageError


def patch(
    genome: opt.Genome,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="BED, TSV or Parquet by suffix (.gz for BGZF); - is stdout.")
    ] = Path("-"),
    output_format: Annotated[str | None, typer.Option("-O", help="bed, tsv or parquet.")] = None,
    mode: Annotated[opt.ScanMode, typer.Option("--mode", help="Where patches start.")] = opt.ScanMode.entropy,
    target_length: opt.TargetLength = None,
    threshold: opt.Threshold = None,
    threshold_add: Annotated[
        float | None, typer.Option("--threshold-add", help="Dual rule: the entropy must rise by this as well.")
    ] = None,
    monotonicity: Annotated[
        bool, typer.Option("--monotonicity", help="Start where the entropy rises by more than the threshold.")
    ] = False,
    patch_size: Annotated[
        float | None, typer.Option("--patch-size", min=1.0, help="Patch length of static mode; 4.5 alternates.")
    ] = None,
    min_patch_length: opt.MinLength = None,
    max_patch_length: opt.MaxLength = None,
    patcher: Annotated[Path | None, typer.Option("--patcher", help="A patcher saved by hyena-glt calibrate.")] = None,
    entropy_model: opt.EntropyModel = None,
    order: opt.Order = None,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    regions: opt.Regions = None,
    regions_file: opt.RegionsFile = None,
    stats: Annotated[Path | None, typer.Option("--stats", help="Write statistics as JSON.")] = None,
    entropy_out: Annotated[
        Path | None, typer.Option("--entropy-out", help="Write the entropy after each base: bedGraph or bigWig.")
    ] = None,
    write_index: Annotated[bool, typer.Option("--write-index", "-W", help="Index .bed.gz with tabix.")] = False,
    threads: opt.Threads = None,
    force: opt.Force = False,
    no_version: opt.NoVersion = False,
) -> None:
    """Cut a genome into dynamic patches.

    The threshold is calibrated to a mean patch length of 16 unless told otherwise. Every base of every contig is
    in exactly one patch; runs of N are patches of their own.

    Examples:

    hyena-glt patch genome.fa.gz -o patches.bed.gz --stats stats.json

    hyena-glt patch genome.fa -o patches.bed --mode static --patch-size 8

    cat genome.fa | hyena-glt patch - --max-patch-length 64 | head
    """
    from hyena_glt.cli.outputs import already_done, format_of, same_file
    from hyena_glt.cli.patch_run import PatchRun
    from hyena_glt.cli.plan import PatchOptions, make_plan, needs_two_passes
    from hyena_glt.cli.source import open_genome
    from hyena_glt.cli.writers import PATCH_FORMATS, VALUE_FORMATS, write_tabix_index

    options = PatchOptions(
        mode=mode.value,
        threshold=threshold,
        threshold_add=threshold_add,
        monotonicity=monotonicity,
        target_length=target_length,
        patch_size=patch_size,
        min_patch_length=min_patch_length,
        max_patch_length=max_patch_length,
        order=order,
        entropy_model=entropy_model,
        patcher=patcher,
        threads=threads or opt.default_threads(),
    )
    options.check()
    outputs = [path for path in (output, stats, entropy_out) if path is not None]
    same_file([*(path for path in (genome, patcher, entropy_model) if str(path) != "-"), *outputs])
    kind = format_of(output, output_format, PATCH_FORMATS, default="bed")
    values = None
    if entropy_out is not None:
        values = entropy_out, format_of(entropy_out, None, VALUE_FORMATS, default="bedgraph")
    needs_lengths = values is not None and values[1] == "bigwig"
    if write_index and (kind != "bed" or output.suffix not in (".gz", ".bgz")):
        raise UsageError("-W indexes BED that is written as .bed.gz")
    reread = needs_lengths or needs_two_passes(options)
    with open_genome(
        genome, alphabet.value, degap=degap, regions=regions, regions_file=regions_file, reread=reread
    ) as source:
        origin = source.provenance()
        if already_done(outputs, origin, force):
            return
        plan = make_plan(source, options, survey=needs_lengths)
        origin = origin.extended(plan.describe())
        run = PatchRun(plan, origin, threads=options.threads, with_header=not no_version)
        run.write(source, (output, kind), values)
    if write_index:
        write_tabix_index(output)
    if stats is not None:
        run.write_stats(stats)
    note(run.summary())
