"""`hyena-glt entropy`: the surprise track of a genome."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note


def entropy(
    genome: opt.Genome = Path("-"),
    output: Annotated[
        Path, typer.Option("--output", "-o", help="bedGraph (.bedgraph, .bdg, also .gz) or bigWig (.bw); - is stdout.")
    ] = Path("-"),
    output_format: Annotated[str | None, typer.Option("-O", help="bedgraph or bigwig.")] = None,
    entropy_model: opt.EntropyModel = None,
    save_model: Annotated[
        Path | None, typer.Option("--save-model", help="Keep the fitted context model (safetensors).")
    ] = None,
    order: opt.Order = None,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    regions: opt.Regions = None,
    regions_file: opt.RegionsFile = None,
    threads: opt.Threads = None,
    force: opt.Force = False,
    no_version: opt.NoVersion = False,
) -> None:
    """Write the entropy of the prediction made after each base, in nats.

    The context model is fitted on the input itself unless --entropy-model gives one. The value at base i decides
    whether a patch starts at base i + 1. Ambiguity symbols (N) have no value.

    Examples:

    hyena-glt entropy genome.fa -o entropy.bw

    hyena-glt entropy genome.fa.gz -r chr1:1-100,000 -o - | head
    """
    from hyena_glt.cli.outputs import already_done, format_of, same_file
    from hyena_glt.cli.plan import PatchOptions, fitted_model
    from hyena_glt.cli.source import open_genome
    from hyena_glt.cli.writers import VALUE_FORMATS, write_entropies

    options = PatchOptions(entropy_model=entropy_model, order=order, threads=threads or opt.default_threads())
    options.check()
    outputs = [path for path in (output, save_model) if path is not None]
    same_file([*(path for path in (genome, entropy_model) if str(path) != "-"), *outputs])
    kind = format_of(output, output_format, VALUE_FORMATS, default="bedgraph")
    with open_genome(
        genome,
        alphabet.value,
        degap=degap,
        regions=regions,
        regions_file=regions_file,
        threads=options.threads,
        beside=(entropy_model,),
    ) as source:
        if already_done([output], source.provenance, force):
            return
        survey = fitted_model(source, options)
        model = survey.model
        assert model is not None
        origin = source.provenance().extended({"entropy_model": model.describe()})
        write_entropies(source, survey, (output, kind), origin, options.threads, with_header=not no_version)
    if save_model is not None:
        model.save(save_model)
    facts = model.describe()
    bits = f", {facts['bits_per_base']:.4f} bits per base held out" if facts.get("bits_per_base") is not None else ""
    note(f"{survey.symbols:,} bases, {facts['name']}{bits}")
