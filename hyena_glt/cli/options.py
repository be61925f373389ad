"""Options that several commands take, spelled and explained once."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class AlphabetName(StrEnum):
    """What a sequence may hold."""

    dna = "dna"
    rna = "rna"
    protein = "protein"
    bytes = "bytes"


class PatchMode(StrEnum):
    """Where patches start."""

    entropy = "entropy"
    static = "static"
    byte = "byte"
    space = "space"
    bpe = "bpe"
    bpe_patcher = "bpe_patcher"
    track = "track"


class StreamMode(StrEnum):
    """Patching modes that need the past alone and nothing that was read before."""

    entropy = "entropy"
    static = "static"
    byte = "byte"
    space = "space"


class NetSize(StrEnum):
    """Sizes of nets."""

    tiny = "tiny"
    small = "small"
    base = "base"
    large = "large"


class Strands(StrEnum):
    """Whether the reverse complement counts as well."""

    avg = "avg"
    none = "none"


def default_threads() -> int:
    """The number of cores, at most 4."""
    return min(os.cpu_count() or 1, 4)


_MODE = typer.Option("--mode", help="Where patches start.")
Mode = Annotated[PatchMode, _MODE]
ModeOfStream = Annotated[StreamMode, _MODE]
Genome = Annotated[Path, typer.Argument(help="FASTA or FASTQ, plain, gzip or BGZF; - is stdin.")]
Alphabet = Annotated[AlphabetName, typer.Option("--alphabet", help="What the sequences may hold.")]
Degap = Annotated[bool, typer.Option("--degap", help="Remove alignment gaps (- and .) in place of refusing them.")]
Regions = Annotated[
    list[str] | None,
    typer.Option(
        "--regions",
        "-r",
        help="Region chr1:1-1000, 1-based inclusive; may be repeated. Model and threshold come from the whole file.",
    ),
]
RegionsFile = Annotated[Path | None, typer.Option("--regions-file", "-R", help="Regions as BED, 0-based half-open.")]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", "-@", min=1, help="Threads; the result does not depend on it. Default: cores, at most 4."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing output.")]
NoVersion = Annotated[bool, typer.Option("--no-version", help="Leave out the header with version and command.")]
EntropyModel = Annotated[
    Path | None,
    typer.Option(
        "--entropy-model",
        help="A saved entropy model, or mix: a model that learns as it reads and sees repeats. "
        "Without it a context model is fitted on the input.",
    ),
]
FitShare = Annotated[
    float | None,
    typer.Option(
        "--fit-share", min=0.001, max=1.0, help="Fit on this share of the input, in evenly spaced pieces. Default: 1."
    ),
]
ThresholdAdd = Annotated[
    float | None, typer.Option("--threshold-add", help="Dual rule: the entropy must rise by this as well.")
]
Monotonicity = Annotated[
    bool, typer.Option("--monotonicity", help="Start where the entropy rises by more than the threshold.")
]
PatchSize = Annotated[
    float | None, typer.Option("--patch-size", min=1.0, help="Patch length of static mode; 4.5 alternates.")
]
Patcher = Annotated[Path | None, typer.Option("--patcher", help="A patcher saved by hyena-glt calibrate.")]
PatchFormat = Annotated[str | None, typer.Option("-O", help="bed, tsv or parquet.")]
Stats = Annotated[Path | None, typer.Option("--stats", help="Write statistics as JSON.")]
Order = Annotated[
    int | None, typer.Option("--order", min=0, max=12, help="Context length of the fitted model, in symbols.")
]
TargetLength = Annotated[
    float | None,
    typer.Option("--target-length", min=1.0, help="Wanted mean patch length; the threshold follows. Default: 16."),
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", help="Start a patch where the entropy exceeds this (nats).")
]
MinLength = Annotated[int | None, typer.Option("--min-patch-length", min=1, help="No start before so many bases.")]
MaxLength = Annotated[int | None, typer.Option("--max-patch-length", min=1, help="Cut longer patches.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]


def by_name(folder: Path | None) -> Path | None:
    """The folder of a net; the name of the net that ships stands for its own, unless a folder here has that name."""
    if folder is None or folder.exists():
        return folder
    from hyena_glt.model.shipped import SHIPPED_FOLDER, SHIPPED_NAME

    return SHIPPED_FOLDER if str(folder) == SHIPPED_NAME else folder


NetFolder = Annotated[
    Path | None,
    typer.Option(
        "--model", callback=by_name, help="Folder written by HyenaGLT.save_pretrained. Default: the net that ships."
    ),
]
Untrained = Annotated[
    bool, typer.Option("--untrained", help="Use random weights: they tell sequences apart, but know no biology.")
]
SizeOfUntrained = Annotated[NetSize, typer.Option("--size", help="Size of an untrained net.")]
HeldOut = Annotated[
    float,
    typer.Option("--held-out", min=0.0, max=0.9, help="Share at the end of each contig that only tests the network."),
]
NetworkWidth = Annotated[int, typer.Option("--width", min=1, max=1024, help="Channels of the network.")]
NetworkLayers = Annotated[int, typer.Option("--layers", min=0, max=48, help="Hyena layers of the network.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
