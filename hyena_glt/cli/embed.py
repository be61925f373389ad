"""`hyena-glt embed`: one vector per record or window."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note
from hyena_glt.errors import UsageError


class Size(StrEnum):
    """Sizes of an untrained net."""

    tiny = "tiny"
    small = "small"
    base = "base"
    large = "large"


class Rows(StrEnum):
    """What one row of the table is."""

    record = "record"
    window = "window"


def embed(
    genome: opt.Genome,
    output: Annotated[Path, typer.Option("--output", "-o", help="Parquet table.")] = Path("embeddings.parquet"),
    model: Annotated[Path | None, typer.Option("--model", help="Folder written by HyenaGLT.save_pretrained.")] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Use random weights: a hash of the sequence, no knowledge of it.")
    ] = False,
    size: Annotated[Size, typer.Option("--size", help="Size of an untrained net.")] = Size.tiny,
    per: Annotated[Rows, typer.Option("--per", help="One row per record, or per window of it.")] = Rows.record,
    window: Annotated[int, typer.Option("--window", min=64, help="Bases that go through the net together.")] = 8192,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Windows per forward; results do not depend on it.")
    ] = 8,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or auto.")] = "auto",
    target_length: opt.TargetLength = None,
    threshold: opt.Threshold = None,
    max_patch_length: opt.MaxLength = None,
    patcher: Annotated[Path | None, typer.Option("--patcher", help="A patcher saved by hyena-glt calibrate.")] = None,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    regions: opt.Regions = None,
    regions_file: opt.RegionsFile = None,
    seed: opt.Seed = 0,
    threads: opt.Threads = None,
    force: opt.Force = False,
) -> None:
    """Embed each record: the mean of the trunk's patch states.

    No trained weights ship with this version, so --untrained or --model has to be given.

    Examples:

    hyena-glt embed genome.fa -o embeddings.parquet --untrained

    hyena-glt embed genomes.fa.gz -o windows.parquet --untrained --per window
    """
    from hyena_glt.cli.embed_run import EmbedRun, load_net
    from hyena_glt.cli.outputs import already_done, format_of, same_file
    from hyena_glt.cli.plan import PatchOptions, make_plan
    from hyena_glt.cli.source import open_genome

    if untrained == (model is not None):
        raise UsageError("no trained weights ship with this version: give --model FOLDER or --untrained, one of them")
    options = PatchOptions(
        target_length=target_length,
        threshold=threshold,
        max_patch_length=max_patch_length,
        patcher=patcher,
        threads=threads or opt.default_threads(),
    )
    options.check()
    format_of(output, None, {"parquet": "parquet"}, default="parquet")
    same_file([path for path in (genome, patcher, output) if path and str(path) != "-"])
    with open_genome(genome, alphabet.value, degap=degap, regions=regions, regions_file=regions_file) as source:
        if already_done([output], source.provenance, force):
            return
        net, weights = load_net(model, size.value, alphabet.value, seed, device, options.threads)
        plan = make_plan(source, options, survey=True)
        run = EmbedRun(net, plan, window=window, batch_size=batch_size, per_record=per is Rows.record)
        rows = run.write(source, output, source.provenance().extended({**plan.describe(), "weights": weights}))
    note(f"{weights}: {rows:,} vectors of {net.config.hidden_size} numbers in {output}")
