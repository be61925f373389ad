"""`hyena-glt patch`: a genome in, its patches out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note
from hyena_glt.errors import UsageError

if TYPE_CHECKING:
    from hyena_glt.analysis import BoundaryEnrichment


def patch(
    genome: opt.Genome = Path("-"),
    output: Annotated[
        Path, typer.Option("--output", "-o", help="BED, TSV or Parquet by suffix (.gz for BGZF); - is stdout.")
    ] = Path("-"),
    output_format: opt.PatchFormat = None,
    mode: opt.Mode = opt.PatchMode.entropy,
    target_length: opt.TargetLength = None,
    threshold: opt.Threshold = None,
    threshold_add: opt.ThresholdAdd = None,
    monotonicity: opt.Monotonicity = False,
    patch_size: opt.PatchSize = None,
    min_patch_length: opt.MinLength = None,
    max_patch_length: opt.MaxLength = None,
    patcher: opt.Patcher = None,
    entropy_model: opt.EntropyModel = None,
    order: opt.Order = None,
    fit_share: opt.FitShare = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="Mode bpe: a tokenizer.json of hyena-glt train-bpe.")
    ] = None,
    bpe_patcher: Annotated[
        Path | None, typer.Option("--bpe-patcher", help="Mode bpe_patcher: a network of hyena-glt train-bpe-patcher.")
    ] = None,
    track: Annotated[
        Path | None,
        typer.Option("--track", help="Mode track: a bigWig or bedGraph whose values take the place of entropies."),
    ] = None,
    missing: Annotated[
        str | None,
        typer.Option("--missing", help="What a gap in the track counts for: zero, mean, carry, error or a number."),
    ] = None,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    regions: opt.Regions = None,
    regions_file: opt.RegionsFile = None,
    stats: opt.Stats = None,
    entropy_out: Annotated[
        Path | None, typer.Option("--entropy-out", help="Write the entropy after each base: bedGraph or bigWig.")
    ] = None,
    write_index: Annotated[bool, typer.Option("--write-index", "-W", help="Index .bed.gz with tabix.")] = False,
    half_life: Annotated[
        float | None,
        typer.Option(
            "--half-life",
            min=1.0,
            help="Let the threshold follow the composition; half of a drift is gone after so many bases.",
        ),
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option("--annotate", help="GFF3: say what boundaries coincide with (gene starts, codon phase, repeats)."),
    ] = None,
    annotate_window: Annotated[
        int, typer.Option("--annotate-window", min=0, help="Bases on either side of starts and stops.")
    ] = 10,
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

    hyena-glt patch genome.fa -o patches.bed --entropy-model mix

    hyena-glt patch genome.fa -o patches.bed --mode track --track conservation.bw

    hyena-glt patch genome.fa -o patches.bed --annotate genes.gff --stats stats.json

    cat genome.fa | hyena-glt patch - --max-patch-length 64 | head
    """
    import time

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
        fit_share=fit_share,
        entropy_model=entropy_model,
        tokenizer=tokenizer,
        bpe_patcher=bpe_patcher,
        track=track,
        missing=missing,
        half_life=half_life,
        patcher=patcher,
        threads=threads or opt.default_threads(),
    )
    options.check()
    outputs = [path for path in (output, stats, entropy_out) if path is not None]
    if annotate is not None and (regions or regions_file is not None):
        raise UsageError("--annotate counts over whole contigs; leave out the regions")
    read = (patcher, entropy_model, tokenizer, bpe_patcher, track, annotate)
    same_file([*(path for path in (genome, *read) if str(path) != "-"), *outputs])
    kind = format_of(output, output_format, PATCH_FORMATS, default="bed")
    values = None
    if entropy_out is not None:
        values = entropy_out, format_of(entropy_out, None, VALUE_FORMATS, default="bedgraph")
    needs_lengths = values is not None and values[1] == "bigwig"
    if write_index and (kind != "bed" or output.suffix not in (".gz", ".bgz")):
        raise UsageError("-W indexes BED that is written as .bed.gz")
    reread = needs_lengths or needs_two_passes(options)
    with open_genome(
        genome,
        alphabet.value,
        degap=degap,
        regions=regions,
        regions_file=regions_file,
        reread=reread,
        threads=options.threads,
        beside=read,
    ) as source:
        if already_done(outputs, source.provenance, force):
            return
        started = time.perf_counter()
        plan = make_plan(source, options, survey=needs_lengths)
        origin = source.provenance().extended(plan.describe())
        enrichment = None if annotate is None else boundary_enrichment(annotate, annotate_window)
        run = PatchRun(
            plan, origin, threads=options.threads, with_header=not no_version, started=started, enrichment=enrichment
        )
        run.write(source, (output, kind), values)
    if write_index:
        write_tabix_index(output)
    if stats is not None:
        run.write_stats(stats)
    note(run.summary())
    if enrichment is not None:
        note_enrichment(enrichment)


def boundary_enrichment(gff: Path, window: int) -> BoundaryEnrichment:
    """An empty count of boundaries on the sites of an annotation."""
    from hyena_glt.analysis import BoundaryEnrichment
    from hyena_glt.sequences.annotations import read_gff

    return BoundaryEnrichment(read_gff(gff), window=window)


def note_enrichment(enrichment: BoundaryEnrichment) -> None:
    """One line for each kind of site."""
    for row in enrichment.table():
        ratio, z = ("." if value is None else f"{value:.{digits}f}" for value, digits in ((row.ratio, 3), (row.z, 1)))
        note(f"boundaries at {row.site}: {row.observed:,}, by chance {row.expected:,.0f}, ratio {ratio}, z {z}")
    if enrichment.num_skipped:
        note(f"{enrichment.num_skipped} contigs without features were left out of these")
