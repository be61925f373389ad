"""Options that `distances` and `tree` share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Metric(StrEnum):
    """How genomes are compared."""

    compression = "compression"
    kmer = "kmer"
    representation = "representation"
    wasserstein = "wasserstein"
    combined = "combined"


class Per(StrEnum):
    """What one genome is."""

    record = "record"
    file = "file"


Genomes = Annotated[
    list[Path],
    typer.Argument(help="FASTA or FASTQ, plain, gzip or BGZF; one file may be - (stdin).", show_default=False),
]
MetricOption = Annotated[
    Metric,
    typer.Option(
        "--metric",
        help="compression: cost of one genome given the other; kmer: Mash distance of all words; representation, "
        "wasserstein, combined: patch states and patch lengths of a net.",
    ),
]
PerOption = Annotated[
    Per | None,
    typer.Option("--per", help="A genome is a record, or all of a file. Default: record of one file, else file."),
]
K = Annotated[int | None, typer.Option("-k", min=1, max=63, help="Letters of a word, metric kmer. Default: 11.")]
OrderOption = Annotated[
    int | None,
    typer.Option("--order", min=0, max=12, help="Metric compression: context tables of this order, not the mix."),
]
Plot = Annotated[Path | None, typer.Option("--plot", help="Figure, .png, .svg or .pdf.")]
