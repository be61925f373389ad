"""`hyena-glt embed`: one vector per record, region, window or patch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note
from hyena_glt.errors import OutputExistsError, UsageError

if TYPE_CHECKING:
    from hyena_glt.cli.embed_run import EmbedOptions
    from hyena_glt.tracks.provenance import Provenance


class Rows(StrEnum):
    """What one row of the table is."""

    record = "record"
    region = "region"
    window = "window"
    patch = "patch"


class Pooling(StrEnum):
    """How the states of many patches become one vector."""

    mean = "mean"
    max = "max"
    patch = "patch"


class EngineName(StrEnum):
    """What runs the work of many genomes."""

    local = "local"
    torchrun = "torchrun"
    ray = "ray"


def embed(
    genomes: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[GENOME]...",
            help="FASTA or FASTQ, plain, gzip or BGZF; - is stdin. Or many, or a folder.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Table: .parquet, .npz, .zarr or .tsv; - is stdout. Of many genomes: a folder. "
            "Default: embeddings.parquet, or embeddings.",
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("-O", help="parquet, npz, zarr or tsv, whatever the suffix. stdout: tsv.")
    ] = None,
    model: opt.NetFolder = None,
    untrained: opt.Untrained = False,
    size: opt.SizeOfUntrained = opt.NetSize.tiny,
    per: Annotated[
        Rows | None,
        typer.Option("--per", help="A row per record, region (of -r, -R), window or patch. Default: record."),
    ] = None,
    pool: Annotated[
        Pooling | None,
        typer.Option("--pool", help="Mean or max over patches; patch keeps each (--per patch). Default: mean."),
    ] = None,
    layer: Annotated[
        int, typer.Option("--layer", help="States after so many layers of the trunk; 0 before it, -1 the last.")
    ] = -1,
    rc: Annotated[
        opt.Strands, typer.Option("--rc", help="avg: mean of each window's vector and of its reverse complement's.")
    ] = opt.Strands.none,
    window: Annotated[int, typer.Option("--window", min=64, help="Bases that go through the net together.")] = 8192,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Windows per forward; results do not depend on it.")
    ] = 8,
    engine: Annotated[
        EngineName,
        typer.Option("--engine", help="Of many genomes: this process, those that torchrun started, or a ray cluster."),
    ] = EngineName.local,
    device: opt.Device = "auto",
    target_length: opt.TargetLength = None,
    threshold: opt.Threshold = None,
    max_patch_length: opt.MaxLength = None,
    patcher: opt.Patcher = None,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    regions: opt.Regions = None,
    regions_file: opt.RegionsFile = None,
    seed: opt.Seed = 0,
    threads: opt.Threads = None,
    no_version: opt.NoVersion = False,
    force: opt.Force = False,
) -> None:
    """Embed sequences: pooled states of the trunk's patches.

    The patches are those of the model's own patcher, unless patching options say otherwise; without either they are
    calibrated on the input. Finished work is kept in OUT.parts until the table is whole: the same command goes on
    after an interruption.

    Many genomes, a folder of them, or --engine torchrun or ray: a folder of Parquet shards, records or windows pooled
    by the mean, patched by --patcher or the model's own patcher.

    Examples:

    hyena-glt embed genome.fa -o embeddings.parquet

    hyena-glt embed genome.fa.gz -R genes.bed --per region --rc avg -o genes.npz

    hyena-glt embed genome.fa --model net --per patch --layer 4 -o patches.zarr

    hyena-glt embed genomes/ --engine ray -o vectors
    """
    from hyena_glt.cli.embed_run import EmbedRun, plan_for
    from hyena_glt.cli.embed_tables import FORMATS, check_output
    from hyena_glt.cli.nets import open_net
    from hyena_glt.cli.outputs import STDOUT, format_of, same_file
    from hyena_glt.cli.plan import PatchOptions
    from hyena_glt.cli.source import open_genome

    genomes = genomes or [STDOUT]
    if len(genomes) > 1 or genomes[0].is_dir() or engine is not EngineName.local:
        _refuse_for_many(
            {
                "--per region or patch": per in (Rows.region, Rows.patch),
                "--pool max or patch": pool in (Pooling.max, Pooling.patch),
                "--layer": layer != -1,
                "--rc": rc is opt.Strands.avg,
                "-O": kind is not None,
                "-r and -R": bool(regions) or regions_file is not None,
                "--target-length, --threshold, --max-patch-length": (target_length, threshold, max_patch_length)
                != (None, None, None),
            }
        )
        from hyena_glt.cli.embed_many import embed_many

        embed_many(
            genomes,
            output or Path("embeddings"),
            engine.value,
            model=model,
            untrained=untrained,
            size=size.value,
            seed=seed,
            patcher=patcher,
            alphabet=alphabet.value,
            degap=degap,
            per_record=per is not Rows.window,
            window=window,
            batch_size=batch_size,
            device=device,
            threads=threads or opt.default_threads(),
            with_header=not no_version,
            force=force,
        )
        return
    genome, output = genomes[0], output or Path("embeddings.parquet")
    if per is Rows.region and not regions and regions_file is None:
        raise UsageError("--per region: give the regions by -r or -R")
    rows = _row_options(per, pool, layer, rc, window, batch_size, alphabet)
    options = PatchOptions(
        target_length=target_length,
        threshold=threshold,
        max_patch_length=max_patch_length,
        patcher=patcher,
        threads=threads or opt.default_threads(),
    )
    options.check()
    form = format_of(output, kind, FORMATS, default="tsv")
    same_file([path for path in (genome, patcher, regions_file, output) if path and path != STDOUT])
    check_output(output, form)
    with open_genome(
        genome,
        alphabet.value,
        degap=degap,
        regions=regions,
        regions_file=regions_file,
        may_overlap=True,
        beside=(patcher, model),
    ) as source:
        if _already_done(output, source.provenance(), force):
            return
        net, weights = open_net(
            model,
            untrained=untrained,
            size=size.value,
            causal=False,
            alphabet=alphabet.value,
            seed=seed,
            device=device,
            threads=options.threads,
        )
        run = EmbedRun(net, weights, source, plan_for(net, source, options), rows)
        count = run.write(output, form, with_header=not no_version, force=force)
    note(f"{weights}: {count:,} vectors of {net.config.hidden_size} numbers in {output}")


def _refuse_for_many(given: dict[str, bool]) -> None:
    """Refuse the options that a collection of genomes does not have.

    Raises:
        UsageError: Names those that were given.
    """
    if names := [name for name, is_given in given.items() if is_given]:
        raise UsageError(f"many genomes: leave out {', '.join(names)}; embed one genome at a time for that")


def _row_options(
    per: Rows | None,
    pool: Pooling | None,
    layer: int,
    rc: opt.Strands,
    window: int,
    batch_size: int,
    alphabet: opt.AlphabetName,
) -> EmbedOptions:
    """What the rows are.

    Raises:
        UsageError: Options that contradict each other.
    """
    from hyena_glt.cli.embed_run import EmbedOptions

    per = per or (Rows.patch if pool is Pooling.patch else Rows.record)
    pool = pool or (Pooling.patch if per is Rows.patch else Pooling.mean)
    if (per is Rows.patch) != (pool is Pooling.patch):
        raise UsageError(f"--per {per} and --pool {pool} exclude each other; a row per patch is not pooled")
    if rc is opt.Strands.avg and per is Rows.patch:
        raise UsageError("--rc avg: the patches of the two strands do not correspond; give --per window, say")
    if rc is opt.Strands.avg and alphabet not in (opt.AlphabetName.dna, opt.AlphabetName.rna):
        raise UsageError(f"--rc avg: {alphabet} has one strand")
    return EmbedOptions(
        per=per.value,
        pool=pool.value,
        layer=layer,
        both_strands=rc is opt.Strands.avg,
        window=window,
        batch_size=batch_size,
    )


def _already_done(output: Path, origin: Provenance, force: bool) -> bool:
    """Whether the table is there and was made by this command from this input; every format says so inside.

    Raises:
        OutputExistsError: Something else is there, and `force` is not set.
    """
    from hyena_glt.cli.embed_tables import read_origin
    from hyena_glt.cli.parts import clear_leavings
    from hyena_glt.sequences.atomic import is_stream

    if force or is_stream(output) or not output.exists():
        return False
    if not origin.is_same(read_origin(output)):
        raise OutputExistsError(f"{output}: exists already; give --force to replace it")
    clear_leavings(output)
    note(f"already done: {output}")
    return True
