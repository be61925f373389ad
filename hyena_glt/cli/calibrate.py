"""`hyena-glt calibrate`: the threshold for a wanted mean patch length, saved as a patcher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note


def calibrate(
    genome: opt.Genome,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The patcher (JSON); its entropy model is put beside it.")
    ] = Path("patcher.json"),
    target_length: opt.TargetLength = None,
    min_patch_length: opt.MinLength = None,
    max_patch_length: opt.MaxLength = None,
    monotonicity: Annotated[
        bool, typer.Option("--monotonicity", help="Calibrate the rise of the entropy, not its level.")
    ] = False,
    entropy_model: opt.EntropyModel = None,
    order: opt.Order = None,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    regions: opt.Regions = None,
    regions_file: opt.RegionsFile = None,
    as_json: opt.Json = False,
    threads: opt.Threads = None,
    force: opt.Force = False,
) -> None:
    """Find the threshold that gives a mean patch length, and save it with the entropy model.

    Examples:

    hyena-glt calibrate genome.fa --target-length 8 -o patcher.json

    hyena-glt patch other.fa --patcher patcher.json -o out.bed
    """
    import json

    from hyena_glt.cli.outputs import already_done, same_file
    from hyena_glt.cli.plan import PatchOptions, make_plan
    from hyena_glt.cli.source import open_genome
    from hyena_glt.patching.saved import save_patcher

    options = PatchOptions(
        target_length=target_length,
        min_patch_length=min_patch_length,
        max_patch_length=max_patch_length,
        monotonicity=monotonicity,
        order=order,
        entropy_model=entropy_model,
        threads=threads or opt.default_threads(),
    )
    options.check()
    same_file([path for path in (genome, entropy_model, output) if path and str(path) != "-"])
    with open_genome(
        genome, alphabet.value, degap=degap, regions=regions, regions_file=regions_file, threads=options.threads
    ) as source:
        if already_done([output], source.provenance, force):
            return
        plan = make_plan(source, options, survey=True)
        origin = source.provenance().extended(plan.describe())
        save_patcher(output, plan.args, origin.as_dict())
    facts = {"threshold": plan.threshold, "target_length": plan.target_length, **plan.describe()}
    if as_json:
        print(json.dumps(facts, indent=2))
    note(f"threshold {plan.threshold:.9g} nats for a mean patch length of {plan.target_length:g}; wrote {output}")
