"""`hyena-glt distances`: how far genomes are from each other, without alignment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyena_glt.cli import evolution_options as evo
from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note

FORMATS = {"phy": "phylip", "phylip": "phylip", "tsv": "tsv"}


def distances(
    genomes: evo.Genomes,
    output: Annotated[Path, typer.Option("--output", "-o", help="PHYLIP (.phy) or TSV by suffix; - is stdout.")] = Path(
        "-"
    ),
    output_format: Annotated[str | None, typer.Option("-O", help="phylip or tsv.")] = None,
    metric: evo.MetricOption = evo.Metric.compression,
    per: evo.PerOption = None,
    k: evo.K = None,
    order: evo.OrderOption = None,
    strict_names: Annotated[
        bool, typer.Option("--strict-names", help="PHYLIP with names of ten columns, as its own programs read it.")
    ] = False,
    plot: evo.Plot = None,
    model: opt.NetFolder = None,
    untrained: opt.Untrained = False,
    size: opt.SizeOfUntrained = opt.NetSize.tiny,
    patcher: opt.Patcher = None,
    device: opt.Device = "auto",
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    seed: opt.Seed = 0,
    threads: opt.Threads = None,
    no_version: opt.NoVersion = False,
    force: opt.Force = False,
) -> None:
    """Write the distances between genomes.

    Ambiguity codes stand for no letter: they cost nothing and are in no word. What is finished of a genome (its row, or
    its profile by a net) is kept in OUT.parts until the output is whole: the same command goes on if it is interrupted.

    Examples:

    hyena-glt distances genomes.fa -o d.phy --plot heat.png

    hyena-glt distances a.fa b.fa.gz c.fa --metric kmer -k 21 -o d.tsv
    """
    from hyena_glt.cli.evolution_run import (
        CompareOptions,
        NetOptions,
        comparison,
        is_finished,
        load_genomes,
        refuse_picture,
        write_matrix,
    )
    from hyena_glt.cli.outputs import STDOUT, check_plot, format_of, same_file
    from hyena_glt.cli.source import open_genome
    from hyena_glt.errors import UsageError

    options = CompareOptions(
        metric=metric.value,
        k=k,
        order=order,
        per=None if per is None else per.value,
        degap=degap,
        blocks=1,
        threads=threads or opt.default_threads(),
        net=NetOptions(model, untrained, size.value, seed, device, patcher),
    )
    options.check()
    refuse_picture(output, "PHYLIP or TSV")
    kind = format_of(output, output_format, FORMATS, default="tsv")
    if strict_names and kind != "phylip":
        raise UsageError("--strict-names: only PHYLIP has them; write .phy, or leave it out")
    check_plot(plot)
    same_file([path for path in (*genomes, patcher, plot, output) if path is not None and path != STDOUT])
    first, *others = genomes
    with open_genome(first, alphabet.value, degap=degap, others=others, beside=(model, patcher)) as source:
        if is_finished(output, plot, source.provenance, force, has_sidecar=kind == "phylip"):
            return
        listed = load_genomes(source, options.per)
        with comparison(listed, options, source, output, force) as (compared, about):
            matrix = compared.distances()
            origin = source.provenance().extended(about)
            write_matrix(output, kind, matrix, None if no_version else origin, strict=strict_names)
            if plot is not None:
                from hyena_glt.evolution.figures import write_figure

                write_figure(plot, matrix, f"{metric.value} distances of {len(matrix)} genomes", overwrite=True)
    note(f"{len(matrix)} genomes, metric {metric.value}, distances up to {matrix.values.max():.4g}: {output}")
