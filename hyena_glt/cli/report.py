"""`hyena-glt report`: one HTML page about a genome's patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note

if TYPE_CHECKING:
    from hyena_glt.cli.plan import PatchPlan
    from hyena_glt.cli.source import GenomeSource
    from hyena_glt.reports import Embeddings


def report(
    genome: opt.Genome,
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file.")] = Path("report.html"),
    gff: Annotated[Path | None, typer.Option("--gff", help="Genes to draw under the track, GFF3.")] = None,
    embeddings: Annotated[
        Path | None, typer.Option("--embeddings", help="Table written by hyena-glt embed, drawn in two dimensions.")
    ] = None,
    embed: Annotated[
        bool, typer.Option("--embed/--no-embed", help="Without a table: embed windows of DNA and draw them.")
    ] = True,
    model: opt.NetFolder = None,
    title: Annotated[str | None, typer.Option("--title", help="Heading; default: the file's name.")] = None,
    target_length: opt.TargetLength = None,
    threshold: opt.Threshold = None,
    min_patch_length: opt.MinLength = None,
    max_patch_length: opt.MaxLength = None,
    patcher: Annotated[Path | None, typer.Option("--patcher", help="A patcher saved by hyena-glt calibrate.")] = None,
    entropy_model: opt.EntropyModel = None,
    order: opt.Order = None,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    regions: opt.Regions = None,
    regions_file: opt.RegionsFile = None,
    threads: opt.Threads = None,
    force: opt.Force = False,
) -> None:
    """Write one self-contained HTML page: entropy track, patch boundaries, genes, lengths, compression, embeddings.

    The page needs no network and opens in any browser. Unless a table is given, windows of DNA are embedded with the
    net that ships, or that of --model.

    Examples:

    hyena-glt report genome.fa --gff genes.gff -o report.html

    hyena-glt report genome.fa.gz -r chr1:1-200,000 --max-patch-length 64 -o region.html
    """
    from hyena_glt.cli.outputs import already_done, same_file
    from hyena_glt.cli.plan import PatchOptions, make_plan
    from hyena_glt.cli.report_data import report_data
    from hyena_glt.cli.report_view import read_embeddings
    from hyena_glt.cli.source import open_genome
    from hyena_glt.reports import write_report

    options = PatchOptions(
        threshold=threshold,
        target_length=target_length,
        min_patch_length=min_patch_length,
        max_patch_length=max_patch_length,
        order=order,
        entropy_model=entropy_model,
        patcher=patcher,
        threads=threads or opt.default_threads(),
    )
    options.check()
    read = (gff, embeddings, patcher, entropy_model)
    same_file([path for path in (genome, *read, output) if path and str(path) != "-"])
    with open_genome(
        genome,
        alphabet.value,
        degap=degap,
        regions=regions,
        regions_file=regions_file,
        beside=(*read, model),
    ) as source:
        if already_done([output], source.provenance, force):
            return
        plan = make_plan(source, options, survey=True)
        view = None if embeddings is None else read_embeddings(embeddings)
        if view is None and embed and alphabet is opt.AlphabetName.dna:
            view = _embedded(source, plan, model, options.threads)
        origin = source.provenance().extended({**plan.describe(), **({} if view is None else {"weights": view.note})})
        data = report_data(source, plan, origin, title or genome.name, gff, view)
        write_report(output, data, overwrite=True)
    note(f"wrote {output}")


def _embedded(source: GenomeSource, plan: PatchPlan, model: Path | None, threads: int) -> Embeddings | None:
    from hyena_glt.cli.nets import open_net
    from hyena_glt.cli.report_view import embedded_windows

    assert plan.survey is not None
    return embedded_windows(source, plan.survey.symbols, *open_net(model, threads=threads))
