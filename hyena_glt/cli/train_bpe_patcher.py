"""`hyena-glt train-bpe-patcher`: a network that predicts where the tokens of a BPE tokenizer start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note, progress_by_share

if TYPE_CHECKING:
    from hyena_glt.cli.source import GenomeSource
    from hyena_glt.entropies import ByteNetworkConfig, FitOptions
    from hyena_glt.patching.bpe_network import BpePatcherFit


def train_bpe_patcher(
    genome: opt.Genome,
    tokenizer: Annotated[Path, typer.Option("--tokenizer", help="The tokenizer whose starts are learned (JSON).")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The network (safetensors); its provenance is put beside it as JSON.")
    ] = Path("bpe_patcher.safetensors"),
    steps: Annotated[int, typer.Option("--steps", min=1, help="Batches of 8 windows of 1,024 symbols.")] = 500,
    width: opt.NetworkWidth = 64,
    layers: opt.NetworkLayers = 2,
    held_out: opt.HeldOut = 0.1,
    seed: opt.Seed = 0,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
    force: opt.Force = False,
) -> None:
    """Train a small causal network to find the token starts of a tokenizer, and say how well it does.

    Precision, recall and F1 are of sequence that it has not seen, beside those of a start after every symbol and of
    starts thrown at random.

    Examples:

    hyena-glt train-bpe-patcher genome.fa --tokenizer tokenizer.json -o bpe_patcher.safetensors

    hyena-glt patch other.fa --mode bpe_patcher --bpe-patcher bpe_patcher.safetensors -o out.bed
    """
    from hyena_glt.cli.outputs import already_done, same_file, write_json
    from hyena_glt.cli.source import open_genome
    from hyena_glt.entropies import ByteNetworkConfig, FitOptions
    from hyena_glt.errors import ModelFileError
    from hyena_glt.sequences.atomic import sha256_file

    same_file([path for path in (genome, tokenizer, output) if str(path) != "-"])
    if not tokenizer.is_file():
        raise ModelFileError("expected a tokenizer.json, found no such file", path=tokenizer)
    config = ByteNetworkConfig(width=width, layers=layers)
    options = FitOptions(steps=steps, seed=seed, device=device)
    with open_genome(genome, alphabet.value, degap=degap, beside=(tokenizer,)) as source:
        if already_done([output], source.provenance, force):
            return
        origin = source.provenance()
        fit = _fit(source, tokenizer, config, options, held_out)
    facts = _facts(fit)
    fit.patcher.save(output, overwrite=True)
    origin = origin.extended({"tokenizer_sha256": sha256_file(tokenizer), "network": fit.patcher.describe()})
    write_json(output.with_name(f"{output.name}.json"), {"provenance": origin.as_dict(), **facts})
    _print_facts(facts, as_json)
    note(f"{fit.num_symbols:,} symbols, {len(fit.losses)} steps; wrote {output}")


def _fit(
    source: GenomeSource, tokenizer: Path, config: ByteNetworkConfig, options: FitOptions, held_out: float
) -> BpePatcherFit:
    from hyena_glt.patching.bpe_network import fit_bpe_patcher

    with progress_by_share("training", total=options.most_steps or 0, unit="steps") as show:
        return fit_bpe_patcher(
            list(source.contigs()),
            tokenizer,
            alphabet=source.alphabet,
            config=config,
            options=options,
            held_out=held_out,
            progress=show,
        )


def _facts(fit: BpePatcherFit) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "num_symbols": fit.num_symbols,
        "steps": len(fit.losses),
        "last_loss": sum(fit.losses[-10:]) / len(fit.losses[-10:]),
        "held_out": None,
    }
    if fit.held_out is not None:
        scores = fit.held_out
        facts["held_out"] = {
            "precision": scores.precision,
            "recall": scores.recall,
            "f1": scores.f1,
            "predicted_rate": scores.predicted_rate,
            "true_rate": scores.true_rate,
            "num_symbols": scores.places,
            "baseline_f1": scores.baselines(),
        }
    return facts


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    import json

    if as_json:
        print(json.dumps(facts, indent=2, allow_nan=False))
        return
    scores = facts["held_out"]
    if scores is None:
        print("held out: nothing")
        return
    base = scores["baseline_f1"]
    print(
        f"held out ({scores['num_symbols']:,} symbols): precision {scores['precision']:.4f}, "
        f"recall {scores['recall']:.4f}, F1 {scores['f1']:.4f}"
    )
    print(f"F1 without looking: always {base['always']:.4f}, random {base['random']:.4f}, none {base['none']:.4f}")
