"""`hyena-glt stream`: bases in as they come, patches out as they are completed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note
from hyena_glt.errors import UsageError


def stream(
    genome: opt.Genome = Path("-"),
    output: Annotated[
        Path, typer.Option("--output", "-o", help="BED or TSV by suffix (.gz for BGZF); - is stdout.")
    ] = Path("-"),
    output_format: Annotated[str | None, typer.Option("-O", help="bed or tsv.")] = None,
    patcher: opt.Patcher = None,
    mode: opt.ModeOfStream = opt.StreamMode.entropy,
    threshold: opt.Threshold = None,
    threshold_add: opt.ThresholdAdd = None,
    monotonicity: opt.Monotonicity = False,
    patch_size: opt.PatchSize = None,
    min_patch_length: opt.MinLength = None,
    max_patch_length: opt.MaxLength = None,
    entropy_model: opt.EntropyModel = None,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    chunk: Annotated[
        int, typer.Option("--chunk", min=1, help="Bytes of text read at a time: patches appear after each.")
    ] = 1 << 16,
    stats: opt.Stats = None,
    force: opt.Force = False,
    no_version: opt.NoVersion = False,
) -> None:
    """Patch a stream in one pass, in memory that does not grow with it, each patch as soon as it is complete.

    The rule must be known beforehand: a patcher of hyena-glt calibrate, a threshold with an entropy model, or a mode
    without scores. The patches are those of hyena-glt patch with the same rule, whatever the size of the chunks.

    Examples:

    hyena-glt calibrate genome.fa -o patcher.json

    zcat reads.fq.gz | hyena-glt stream --patcher patcher.json | head

    hyena-glt stream - --mode static --patch-size 8 --chunk 1000 < genome.fa
    """
    import time

    from hyena_glt.cli.outputs import already_done, format_of, same_file
    from hyena_glt.cli.patch_run import PatchRun
    from hyena_glt.cli.plan import PatchOptions, known_plan
    from hyena_glt.cli.source import open_genome

    options = PatchOptions(
        mode=mode.value,
        threshold=threshold,
        threshold_add=threshold_add,
        monotonicity=monotonicity,
        patch_size=patch_size,
        min_patch_length=min_patch_length,
        max_patch_length=max_patch_length,
        entropy_model=entropy_model,
        patcher=patcher,
    )
    options.check()
    if options.is_scored and patcher is None and (threshold is None or entropy_model is None):
        raise UsageError("a stream is read once: give --patcher, or --threshold and --entropy-model, or another --mode")
    outputs = [path for path in (output, stats) if path is not None]
    read = (patcher, entropy_model)
    same_file([*(path for path in (genome, *read) if str(path) != "-"), *outputs])
    kind = format_of(output, output_format, {"bed": "bed", "tsv": "tsv"}, default="bed")
    with open_genome(genome, alphabet.value, degap=degap, reread=False, block_size=chunk, beside=read) as source:
        if already_done(outputs, source.provenance, force):
            return
        started = time.perf_counter()
        plan = known_plan(source, options)
        run = PatchRun(
            plan,
            source.provenance().extended(plan.describe()),
            threads=1,
            with_header=not no_version,
            started=started,
            flush=True,
        )
        run.write(source, (output, kind), None)
    if stats is not None:
        run.write_stats(stats)
    note(run.summary())
