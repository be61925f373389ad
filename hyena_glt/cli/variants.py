"""`hyena-glt variants`: what each ALT of a VCF file does to the sequence around it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hyena_glt.cli import options as opt
from hyena_glt.errors import UsageError


class Strands(StrEnum):
    """Strands that a score is taken from."""

    avg = "avg"
    none = "none"


class OnBadRecord(StrEnum):
    """What becomes of a record that breaks the format or does not fit the reference."""

    stop = "stop"
    skip = "skip"


class Size(StrEnum):
    """Sizes of an untrained net."""

    tiny = "tiny"
    small = "small"
    base = "base"
    large = "large"


Regions = Annotated[
    list[str] | None,
    typer.Option("--regions", "-r", help="Only records that overlap chr1:1-1000, 1-based inclusive; may be repeated."),
]


def variants(
    reference: Annotated[Path, typer.Argument(help="Reference FASTA, plain or BGZF (indexed), or gzip (read whole).")],
    calls: Annotated[Path, typer.Argument(help="VCF, plain, gzip or BGZF, or BCF; - is stdin.")] = Path("-"),
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Scored VCF; .gz is written as BGZF; - is stdout.")
    ] = Path("-"),
    output_format: Annotated[
        str | None, typer.Option("-O", help="vcf, where the name of the output does not say so.")
    ] = None,
    model: opt.NetFolder = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Use random weights: figures without biological meaning.")
    ] = False,
    size: Annotated[Size, typer.Option("--size", help="Size of an untrained net.")] = Size.tiny,
    window: Annotated[
        int, typer.Option("--window", min=16, help="Bases of context and variant together; REF and ALT alike.")
    ] = 8192,
    rc: Annotated[
        Strands, typer.Option("--rc", help="Mean over both strands, or the reference's alone.")
    ] = Strands.avg,
    regions: Regions = None,
    regions_file: opt.RegionsFile = None,
    write_index: Annotated[bool, typer.Option("--write-index", "-W", help="Index a .vcf.gz output.")] = False,
    on_bad_record: Annotated[
        OnBadRecord,
        typer.Option("--on-bad-record", help="stop, or skip: leave it out and list it in OUT.skipped.tsv."),
    ] = OnBadRecord.stop,
    strict: Annotated[bool, typer.Option("--strict", help="An ALT that cannot be scored is an error.")] = False,
    tsv: Annotated[bool, typer.Option("--tsv", help="Write a table beside the VCF, one line per ALT.")] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Windows per forward on a GPU; on the CPU it is fixed.")
    ] = 8,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    no_version: opt.NoVersion = False,
    as_json: opt.Json = False,
    force: opt.Force = False,
) -> None:
    """Score variants: how much less, or more, likely ALT makes its surroundings than REF does.

    Every record passes through untouched but for INFO fields with one value per ALT. HGLT_LLR is the log-likelihood
    of the ALT window minus that of the REF window, in nats, over equally many bases, so that indels carry no length
    bias; negative means that ALT is the less likely one. An ALT that cannot be scored has . and a code in HGLT_REASON.
    HGLT_DPATCH, HGLT_DVAR and HGLT_DCOMP are changes of the patches: all but always 0 with the net that ships, which
    cuts every 16 bases.

    An interrupted run goes on where it was when the same command is given again.

    Examples:

    hyena-glt variants genome.fa calls.vcf.gz -o scored.vcf.gz -W

    hyena-glt variants genome.fa calls.vcf -o scored.vcf.gz -r chr17:43,044,295-43,125,364 --tsv

    bcftools view -f PASS calls.bcf | hyena-glt variants genome.fa - | bcftools view -i 'HGLT_LLR<-2'
    """
    from hyena_glt.cli.outputs import format_of
    from hyena_glt.cli.variants_run import VariantOptions, run_variants

    format_of(output, output_format, {"vcf": "vcf", "bcf": "bcf"}, default="vcf")
    if str(output) == "-" and (write_index or tsv or as_json):
        raise UsageError("-W, --tsv and --json need an output file; give -o OUT.vcf.gz")
    if write_index and output.suffix not in (".gz", ".bgz"):
        raise UsageError("-W indexes an output named .vcf.gz")
    options = VariantOptions(
        reference=reference,
        calls=calls,
        output=output,
        model=model,
        untrained=untrained,
        size=size.value,
        window=window,
        rc=rc.value,
        regions=tuple(regions or ()),
        regions_file=regions_file,
        write_index=write_index,
        skips=on_bad_record is OnBadRecord.skip,
        strict=strict,
        tsv=tsv,
        batch_size=batch_size,
        seed=seed,
        device=device,
        threads=threads or opt.default_threads(),
        with_header=not no_version,
        as_json=as_json,
        force=force,
    )
    run_variants(options)
