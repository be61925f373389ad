"""`hyena-glt calibrate`: the threshold for a wanted mean patch length, saved as a patcher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note
from hyena_glt.errors import DataError

if TYPE_CHECKING:
    from hyena_glt.cli.plan import PatchPlan
    from hyena_glt.cli.source import GenomeSource
    from hyena_glt.tracks.provenance import Provenance


def calibrate(
    genomes: Annotated[
        list[Path], typer.Argument(help="FASTA or FASTQ, plain, gzip or BGZF; several are pooled; - is stdin.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The patcher (JSON); its entropy model is put beside it.")
    ] = Path("patcher.json"),
    target_length: opt.TargetLength = None,
    min_patch_length: opt.MinLength = None,
    max_patch_length: opt.MaxLength = None,
    monotonicity: Annotated[
        bool, typer.Option("--monotonicity", help="Calibrate the rise of the entropy, not its level.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw threshold and mean patch length (.png, .svg, .pdf); numbers in FILE.json."),
    ] = None,
    per_contig: Annotated[
        bool,
        typer.Option(
            "--per-contig", help="Also a threshold for each contig, in PATCHER.contigs.json beside the patcher."
        ),
    ] = False,
    entropy_model: opt.EntropyModel = None,
    order: opt.Order = None,
    fit_share: opt.FitShare = None,
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

    hyena-glt calibrate genome.fa --plot curve.png --per-contig

    hyena-glt calibrate one.fa.gz two.fa.gz -o both.json
    """
    import json

    from hyena_glt.cli.outputs import already_done, check_plot, same_file
    from hyena_glt.cli.plan import PatchOptions, make_plan
    from hyena_glt.cli.source import open_genome
    from hyena_glt.patching.calibration import contig_thresholds_file
    from hyena_glt.patching.saved import save_patcher

    options = PatchOptions(
        target_length=target_length,
        min_patch_length=min_patch_length,
        max_patch_length=max_patch_length,
        monotonicity=monotonicity,
        order=order,
        fit_share=fit_share,
        entropy_model=entropy_model,
        threads=threads or opt.default_threads(),
    )
    options.check()
    outputs = [output]
    if per_contig:
        outputs.append(contig_thresholds_file(output))
    check_plot(plot)
    if plot is not None:
        outputs += [plot, _numbers_file(plot)]
    same_file([path for path in (*genomes, entropy_model, *outputs) if path and str(path) != "-"])
    with open_genome(
        genomes[0],
        alphabet.value,
        degap=degap,
        regions=regions,
        regions_file=regions_file,
        threads=options.threads,
        others=genomes[1:],
        beside=(entropy_model,),
    ) as source:
        if already_done(outputs, source.provenance, force):
            return
        plan = make_plan(source, options, survey=True)
        if plan.args.calibration is None:
            raise DataError("no threshold was found: the input has no letter", path=source.name)
        origin = source.provenance().extended(plan.describe())
        save_patcher(output, plan.args, origin.as_dict())
        facts: dict[str, Any] = {"threshold": plan.threshold, "target_length": plan.target_length, **plan.describe()}
        if per_contig:
            facts["contigs_with_own_threshold"] = _calibrate_contigs(source, plan, output, origin)
    if plot is not None:
        _draw(plot, plan, str(genomes[0]), origin)
    if as_json:
        print(json.dumps(facts, indent=2))
    note(f"threshold {plan.threshold:.9g} nats for a mean patch length of {plan.target_length:g}; wrote {output}")


def _numbers_file(plot: Path) -> Path:
    """Where the numbers of a figure and its provenance are."""
    return plot.with_name(f"{plot.name}.json")


def _calibrate_contigs(source: GenomeSource, plan: PatchPlan, output: Path, origin: Provenance) -> int:
    """Write a threshold for each contig that is large enough beside the saved patcher; the number of them."""
    from hyena_glt.cli.runtime import progress
    from hyena_glt.cli.source import counted
    from hyena_glt.patching.block_decisions import scan_rule
    from hyena_glt.patching.calibration import ContigThreshold, save_contig_thresholds

    assert plan.survey is not None
    assert plan.target_length is not None
    with progress("calibrating contigs", plan.survey.symbols) as advance:
        blocks = counted(source.all_blocks(), advance)
        found = plan.survey.calibrate_contigs(blocks, source.alphabet, scan_rule(plan.args), plan.target_length)
    own = {name: ContigThreshold(threshold=nats, calibration=record) for name, (nats, record) in found.items()}
    place = save_contig_thresholds(output, own, origin.as_dict())
    others = len(plan.survey.contig_lengths) - len(own)
    small = f"; {others} too small for their own keep the patcher's" if others else ""
    note(f"thresholds of {len(own)} contigs{small}; wrote {place}")
    return len(own)


def _draw(plot: Path, plan: PatchPlan, name: str, origin: Provenance) -> None:
    """Draw the curve that the threshold was chosen on, and write its numbers beside it."""
    from hyena_glt.cli.outputs import write_json
    from hyena_glt.patching.block_decisions import scan_rule
    from hyena_glt.reports.threshold_curve import CalibratedPoint, write_threshold_curve

    record, threshold = plan.args.calibration, plan.threshold
    assert plan.survey is not None
    assert record is not None
    assert threshold is not None
    curve = plan.survey.threshold_curve(scan_rule(plan.args))
    compares = "rise of the entropy" if plan.args.monotonicity else "entropy"
    title = f"{Path(name).name if name != '-' else 'stdin'}, {_model_text(plan.model)}"
    chosen = CalibratedPoint(threshold, record.mean_length, title, compares, plan.args.max_patch_length)
    write_threshold_curve(plot, curve, chosen, overwrite=True)
    facts = {"threshold": threshold, "mean_length": record.mean_length, "curve": curve.as_dict()}
    write_json(_numbers_file(plot), {**facts, "provenance": origin.as_dict()})


def _model_text(model: Any) -> str:
    order = getattr(model, "order", None)
    return model.name if order is None else f"{model.name} order {order}"
