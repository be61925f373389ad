"""`hyena-glt train-entropy`: a small causal network whose entropies say where patches start."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyena_glt.__about__ import __version__
from hyena_glt.cli import options as opt
from hyena_glt.cli.parts import Parts, clear_leavings, open_parts, parts_folder
from hyena_glt.cli.runtime import ended_by, note, progress_by_share, stop_on_signal
from hyena_glt.errors import ConfigError, UsageError

KEEP_EVERY_S = 30.0

if TYPE_CHECKING:
    from torch import Tensor

    from hyena_glt.cli.source import GenomeSource
    from hyena_glt.entropies import ByteNetworkConfig, FitOptions, NeuralEntropy


def train_entropy(
    genomes: Annotated[
        list[Path],
        typer.Argument(metavar="GENOME", help="FASTA or FASTQ, plain, gzip or BGZF; several are pooled; - is stdin."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The model (safetensors); its provenance is put beside it as JSON.")
    ] = Path("entropy_model.safetensors"),
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Batches. Default: 500, or until --seconds are over.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", help="Longest time of training; how far it comes depends on the machine."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Windows in a batch.")] = 8,
    window: Annotated[int, typer.Option("--window", min=2, help="Symbols in a window of the training.")] = 1024,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Highest one; it rises, then falls.")] = 4e-3,
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
    """Train a small causal network to predict the next symbol, for the entropies of --entropy-model.

    Bits per base are of sequence that it has not seen, beside those of the context model that patch fits by itself,
    fitted on the same sequence. DNA and RNA are learned on both strands.

    SIGTERM and Ctrl-C finish the batch and keep the state in OUT.parts; the same command goes on to the same model.

    Examples:

    hyena-glt train-entropy genome.fa -o entropy_model.safetensors

    hyena-glt train-entropy one.fa.gz two.fa.gz --seconds 600 --device cuda

    hyena-glt patch other.fa --entropy-model entropy_model.safetensors -o out.bed
    """
    from hyena_glt.cli.outputs import STDOUT, already_done, same_file, write_json
    from hyena_glt.cli.source import open_genome
    from hyena_glt.entropies import ByteNetworkConfig

    if output == STDOUT:
        raise UsageError("-o -: the model and its provenance are two files; give -o FILE")
    same_file([*(path for path in genomes if path != STDOUT), output])
    options = _options(steps, seconds, batch_size, window, learning_rate, seed, device)
    config = ByteNetworkConfig(width=width, layers=layers)
    with open_genome(genomes[0], alphabet.value, degap=degap, others=genomes[1:]) as source:
        if already_done([output], source.provenance, force):
            clear_leavings(output)
            return
        origin = source.provenance()
        run = {
            "hyena_glt_version": __version__,
            "input_sha256": source.sha256,
            "alphabet": alphabet.value,
            "degap": degap,
            "network": config.model_dump(),
            "options": asdict(options),
            "held_out": held_out,
        }
        with open_parts(parts_folder(output), run, force=force, what="states") as parts, stop_on_signal() as received:
            model, facts = _train(source, config, options, held_out, Keeper(parts, received))
            sidecar = output.with_name(f"{output.name}.json")
            sidecar.unlink(missing_ok=True)  # it is written last: beside another model it would speak of the wrong one
            model.save(output, overwrite=True)
            origin = origin.extended({"entropy_model": model.describe()})
            write_json(sidecar, {"provenance": origin.as_dict(), **facts})
    _print_facts(facts, as_json)
    note(f"{facts['num_symbols']:,} symbols, {facts['steps']:,} steps in {facts['elapsed_s']:.0f} s; wrote {output}")


class Keeper:
    """Keeps the state of a training now and then, and when a signal has come, which then ends the program.

    Args:
        parts: Where the states lie; one stays.
        received: Signals that have come.
    """

    def __init__(self, parts: Parts, received: list[int]) -> None:
        self._parts, self._received = parts, received
        self._saved_at = time.monotonic()

    def found(self) -> dict[str, Tensor] | None:
        """The newest state that is sound, if an interrupted run has left one."""
        import safetensors.torch

        for key in reversed(self._parts.listed()):
            content = self._parts.find(key)
            if content is not None:
                return safetensors.torch.load(content)
        return None

    def __call__(self, step: int, state: Callable[[], dict[str, Tensor]]) -> None:
        """After each batch."""
        if not self._received and time.monotonic() < self._saved_at + KEEP_EVERY_S:
            return
        import safetensors.torch

        key = f"{step:012d}"
        self._parts.put(key, safetensors.torch.save(state()))
        for old in self._parts.listed():
            if old < key:
                self._parts.remove(old)
        self._saved_at = time.monotonic()
        if (problem := ended_by(self._received)) is not None:
            raise problem


def _options(
    steps: int | None,
    seconds: float | None,
    batch_size: int,
    window: int,
    learning_rate: float,
    seed: int,
    device: str,
) -> FitOptions:
    """How the network is trained, refused before the genome is read.

    Raises:
        UsageError: A number out of range, or no such kind of device.
        SystemProblem: CUDA is asked for and not there.
    """
    from hyena_glt.entropies import FitOptions
    from hyena_glt.entropies.network_fit import training_device

    try:
        options = FitOptions(
            steps=steps,
            seconds=seconds,
            batch_size=batch_size,
            window=window,
            learning_rate=learning_rate,
            seed=seed,
            device=device,
        )
        training_device(device)
    except ConfigError as problem:
        raise UsageError(str(problem)) from None
    return options


def _train(
    source: GenomeSource, config: ByteNetworkConfig, options: FitOptions, held_out: float, keeper: Keeper
) -> tuple[NeuralEntropy, dict[str, Any]]:
    """The model, and what is said about its training."""
    from hyena_glt.entropies import NeuralEntropy

    contigs = list(source.contigs())
    total, unit = (options.seconds, "s") if options.most_steps is None else (options.most_steps, "steps")
    with progress_by_share("training", total=total or 0, unit=unit) as show:
        model = NeuralEntropy.fit(
            contigs,
            source.alphabet,
            config=config,
            options=options,
            held_out=held_out,
            progress=show,
            state=keeper.found(),
            after_step=keeper,
        )
    result = model.fit_result
    assert result is not None
    facts: dict[str, Any] = {
        "num_symbols": sum(map(len, contigs)),
        "steps": result.steps,
        "elapsed_s": round(result.elapsed_s, 3),
        "last_loss": sum(result.losses[-10:]) / len(result.losses[-10:]),
        "held_out": None,
    }
    if model.held_out_bits is not None:
        facts["held_out"] = {
            "bits_per_base": model.held_out_bits,
            "num_symbols": sum(len(end) for _, end in _split(contigs, held_out)),
            "markov": _context_model(contigs, held_out, source.alphabet.name),
        }
    return model, facts


def _context_model(contigs: list[bytes], held_out: float, alphabet: str) -> dict[str, Any]:
    """Order and held-out bits of the context model that the same sequence gives."""
    from hyena_glt.entropies import MarkovEntropy

    parts = _split(contigs, held_out)
    model = MarkovEntropy.fit([learned for learned, _ in parts], alphabet=alphabet)
    return {"order": model.order, "bits_per_base": model.bits_per_base([end for _, end in parts])}


def _split(contigs: list[bytes], held_out: float) -> list[tuple[bytes, bytes]]:
    """Each contig's learned part and its end, as `NeuralEntropy.fit` divides them."""
    ends = [len(contig) - round(len(contig) * held_out) for contig in contigs]
    return [(contig[:end], contig[end:]) for contig, end in zip(contigs, ends, strict=True)]


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    import json

    if as_json:
        print(json.dumps(facts, indent=2, allow_nan=False))
        return
    figures = facts["held_out"]
    if figures is None:
        print("held out: nothing")
        return
    table = figures["markov"]
    print(f"held out ({figures['num_symbols']:,} symbols): {figures['bits_per_base']:.4f} bits per base")
    print(f"context model of order {table['order']} on the same: {table['bits_per_base']:.4f} bits per base")
