"""`hyena-glt tree`: a tree of genomes, or of distances that are there already."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyena_glt.cli import evolution_options as evo
from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note, progress
from hyena_glt.errors import UsageError

if TYPE_CHECKING:
    from hyena_glt.cli.source import GenomeSource
    from hyena_glt.evolution.trees import Phylogeny

REPLICATES = 100


class Method(StrEnum):
    """How distances are joined."""

    nj = "nj"
    upgma = "upgma"


class Root(StrEnum):
    """Where the root goes."""

    none = "none"
    midpoint = "midpoint"


def tree(
    genomes: Annotated[
        list[Path],
        typer.Argument(help="FASTA or FASTQ as for distances, or one matrix: .phy or .tsv.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Newick; - is stdout.")] = Path("-"),
    method: Annotated[Method, typer.Option("--method", help="upgma assumes one rate everywhere.")] = Method.nj,
    root: Annotated[Root, typer.Option("--root", help="Root of an nj tree.")] = Root.none,
    bootstrap: Annotated[
        int | None,
        typer.Option("--bootstrap", min=0, help="Draws of genome blocks for the supports. Default: 100; a matrix: 0."),
    ] = None,
    plot: evo.Plot = None,
    metric: evo.MetricOption = evo.Metric.compression,
    per: evo.PerOption = None,
    k: evo.K = None,
    order: evo.OrderOption = None,
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
    """Write the tree of genomes or of distances, as Newick with supports in percent.

    Supports come from blocks of the genomes drawn with replacement; a matrix has none. Branch lengths that come out
    negative are set to 0, and counted. What is finished of a genome is kept in OUT.parts, as distances does.

    Examples:

    hyena-glt tree genomes.fa --bootstrap 100 -o t.nwk --plot tree.png

    hyena-glt tree d.phy --method upgma -o t.nwk
    """
    from hyena_glt.cli.evolution_run import (
        CompareOptions,
        NetOptions,
        is_finished,
        refuse_picture,
        write_with_sidecar,
    )
    from hyena_glt.cli.outputs import STDOUT, check_plot, same_file
    from hyena_glt.cli.source import open_genome
    from hyena_glt.evolution.matrix_files import is_matrix_file
    from hyena_glt.evolution.trees import write_newick

    from_matrix = len(genomes) == 1 and is_matrix_file(genomes[0])
    if root is Root.midpoint and method is Method.upgma:
        raise UsageError("--root midpoint: a upgma tree has its root already; leave it out, or take --method nj")
    if from_matrix and bootstrap:
        raise UsageError("--bootstrap: a matrix holds no genomes to draw from; give the FASTA, or leave it out")
    replicates = bootstrap if bootstrap is not None else 0 if from_matrix else REPLICATES
    options = CompareOptions(
        metric=metric.value,
        k=k,
        order=order,
        per=None if per is None else per.value,
        degap=degap,
        blocks=100 if replicates else 1,
        threads=threads or opt.default_threads(),
        net=NetOptions(model, untrained, size.value, seed, device, patcher),
    )
    options.check()
    refuse_picture(output, "Newick")
    check_plot(plot)
    same_file([path for path in (*genomes, patcher, plot, output) if path is not None and path != STDOUT])
    about: dict[str, Any] = {"method": method.value, "root": root.value, "bootstrap": replicates, "seed": seed}
    first, *others = genomes
    with open_genome(first, alphabet.value, degap=degap, others=others, beside=(model, patcher)) as source:
        if is_finished(output, plot, source.provenance, force, has_sidecar=True):
            return

        def write(phylogeny: Phylogeny, more: dict[str, Any]) -> None:
            _note_negative(phylogeny)
            origin = None if no_version else source.provenance().extended({**about, **more})
            write_with_sidecar(output, origin, lambda: write_newick(output, phylogeny, overwrite=True))
            if plot is not None:
                from hyena_glt.evolution.figures import write_figure

                write_figure(plot, phylogeny, f"{method.value} tree of {len(phylogeny.names)} genomes", overwrite=True)

        if from_matrix:
            _tree_of_matrix(source.path, method.value, root.value, write)
        else:
            _tree_of_genomes(source, options, (method.value, root.value, replicates, seed), (output, force), write)


def _tree_of_matrix(path: Path, method: str, root: str, write: Any) -> None:
    from hyena_glt.evolution.matrix_files import read_distances
    from hyena_glt.evolution.trees import build_tree

    write(build_tree(read_distances(path), method, root=root), {})


def _tree_of_genomes(
    source: GenomeSource, options: Any, how: tuple[str, str, int, int], target: tuple[Path, bool], write: Any
) -> None:
    from hyena_glt.cli.evolution_run import comparison, load_genomes
    from hyena_glt.evolution.bootstrap import bootstrap_support
    from hyena_glt.evolution.trees import build_tree

    method, root, replicates, seed = how
    listed = load_genomes(source, options.per)
    with comparison(listed, options, source, *target) as (compared, about):
        phylogeny = build_tree(compared.distances(), method, root=root)
        if replicates:
            with progress("bootstrap", replicates, unit="trees") as advance:
                bootstrap_support(phylogeny, compared, replicates, seed, advance)
        write(phylogeny, about)


def _note_negative(phylogeny: Phylogeny) -> None:
    if phylogeny.num_negative:
        note(f"{phylogeny.num_negative} branch lengths came out negative and were set to 0")
