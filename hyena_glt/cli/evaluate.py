"""`hyena-glt evaluate`: how well a fine-tuned net answers labelled sequences, or a language model predicts a genome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyena_glt.cli import labelled_input as lab
from hyena_glt.cli import options as opt
from hyena_glt.cli.finetune import chosen_device, chosen_patcher
from hyena_glt.cli.runtime import note, progress
from hyena_glt.errors import ModelFileError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hyena_glt.tracks.provenance import Provenance
    from hyena_glt.training.finetuned import FinetunedNet
    from hyena_glt.training.labelled import LabelledSet


class AnswerStrands(StrEnum):
    """Whose answers count."""

    none = "none"
    avg = "avg"


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(
            callback=opt.by_name, help="What finetune or pretrain has written, or hyena-glt-dna: the one that ships."
        ),
    ],
    data: Annotated[
        Path, typer.Argument(help="Labelled TSV, CSV or BED; of a language model, FASTA.", metavar="TABLE|GENOME")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the figures as JSON.")] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Write label and prediction of each row (TSV, .gz).")
    ] = None,
    rc: Annotated[
        AnswerStrands | None,
        typer.Option("--rc", help="Average the answers for both strands. Default: as the net was fine-tuned."),
    ] = None,
    patcher: opt.Patcher = None,
    patch_size: Annotated[
        float | None, typer.Option("--patch-size", min=1.0, help="Patches of so many bases, in place of the net's own.")
    ] = None,
    window: Annotated[int, typer.Option("--window", min=2, help="Bases that a language model reads together.")] = 8192,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Windows of a language model's forward.")] = 4,
    mask_rate: Annotated[
        float | None,
        typer.Option("--mask-rate", help="Share of the bases hidden from a language model that sees both sides: 0.15."),
    ] = None,
    sequence_column: lab.SequenceColumn = "sequence",
    label_column: lab.LabelColumn = None,
    separator: lab.Separator = None,
    fasta: lab.Fasta = None,
    alphabet: Annotated[
        opt.AlphabetName, typer.Option("--alphabet", help="Of a genome, for a language model of bytes.")
    ] = opt.AlphabetName.dna,
    resamples: lab.Resamples = 1000,
    strict: lab.Strict = False,
    seed: opt.Seed = 0,
    threads: opt.Threads = None,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
    force: opt.Force = False,
) -> None:
    """Measure a net on sequence that it has not seen, with 95 % intervals.

    A fine-tuned net is compared with labels. A language model gives bits per base over the called bases, one that sees
    both sides over those that are hidden from it; windows are what its interval resamples.

    Examples:

    hyena-glt evaluate tuned test.tsv -o metrics.json --predictions test.predictions.tsv

    hyena-glt evaluate run/model other.fa --window 8192
    """
    from hyena_glt.cli.outputs import already_done, same_file, write_json
    from hyena_glt.training.finetuned import is_finetuned

    lab.check_files((data, fasta))
    same_file([data, fasta, output, predictions])
    if patcher is not None and patch_size is not None:
        raise UsageError("expected one of --patcher and --patch-size")
    if mask_rate is not None and not 0 < mask_rate < 1:
        raise UsageError(f"--mask-rate: expected a share between 0 and 1, got {mask_rate:g}")
    if not folder.is_dir():
        raise ModelFileError("expected the folder of a saved net, found none", path=folder)
    is_task = is_finetuned(folder)
    if not is_task and (predictions or fasta or label_column or separator or rc):
        raise UsageError(f"{folder}: is a language model: options of labelled sequences mean nothing to it")
    if is_task and mask_rate is not None:
        raise UsageError(f"{folder}: is a fine-tuned net: --mask-rate is for language models")

    def origin() -> Provenance:
        return lab.input_provenance((data, fasta), folder)

    outputs = [path for path in (output, predictions) if path is not None]
    if already_done(outputs, origin, force):
        return
    provenance = origin()
    _prepare(threads)
    place, cutter = chosen_device(device), chosen_patcher(patcher, patch_size)
    if is_task:
        reader = (sequence_column, label_column, separator, fasta)
        average = None if rc is None else rc is AnswerStrands.avg
        facts = _evaluate_task(
            folder, data, reader, cutter, place, average, strict, resamples, seed, predictions, origin
        )
    else:
        how = {"window": window, "batch_size": batch_size, "mask_rate": mask_rate, "resamples": resamples, "seed": seed}
        facts = _evaluate_language(folder, data, cutter, place, alphabet.value, how)
    if output is not None:
        write_json(output, {"provenance": provenance.as_dict(), **facts})
    _print_facts(facts, as_json)
    if outputs:
        note(f"wrote {', '.join(map(str, outputs))}")


def _prepare(threads: int | None) -> None:
    import torch

    torch.set_num_threads(threads or opt.default_threads())


def _evaluate_task(
    folder: Path,
    data: Path,
    columns: tuple[str, str | None, str | None, Path | None],
    cutter: Any,
    place: Any,
    average: bool | None,
    strict: bool,
    resamples: int,
    seed: int,
    predictions: Path | None,
    origin: Any,
) -> dict[str, Any]:
    """Figures of a fine-tuned net, and its predictions where they are asked for."""
    from hyena_glt.training.finetuned import FinetunedNet, task_estimates
    from hyena_glt.training.labelled import encode_labels

    tuned = FinetunedNet.load(folder, cutter)
    tuned.net.to(place)
    sequence_column, label_column, separator, fasta = columns
    reader = lab.LabelledInput(
        fasta=fasta,
        sequence_column=sequence_column,
        label_column=label_column,
        separator=separator,
        alphabet=tuned.task.alphabet,
    )
    labelled = encode_labels(reader.read(data), tuned.task.kind, tuned.task.classes or None)
    counts = lab.report_repeats(labelled, tuned.task.alphabet, strict)
    answers = tuned.predict(labelled.rows.sequences, average_strands=average)
    found = task_estimates(tuned, labelled, answers, resamples=resamples, seed=seed)
    if predictions is not None:
        _write_predictions(predictions, tuned, labelled, answers, origin())
    return {
        "task": tuned.task.kind,
        "classes": list(tuned.task.classes),
        "average_strands": tuned.task.average_strands if average is None else average,
        "num_sequences": len(labelled),
        **counts,
        "metrics": {name: figure.as_dict() for name, figure in found.items()},
    }


def _evaluate_language(
    folder: Path, data: Path, cutter: Any, place: Any, alphabet: str, how: Mapping[str, Any]
) -> dict[str, Any]:
    """Bits per base of a language model; how: what `bits_per_base` takes."""
    from hyena_glt.model import HyenaGLT
    from hyena_glt.training.corpus import Corpus
    from hyena_glt.training.language_bits import bits_per_base

    net = HyenaGLT.from_pretrained(folder, cutter).to(place)
    if net.config.causal and how["mask_rate"] is not None:
        raise UsageError(f"{folder}: is causal and predicts every base: --mask-rate is for nets that see both sides")
    letters = alphabet if net.config.alphabet_name == "bytes" else net.config.alphabet_name
    corpus = Corpus.from_fasta([data], letters)
    with progress("evaluating", corpus.num_bases) as advance:
        found = bits_per_base(net, corpus, **how, progress=advance)
    hidden = found.mask_rate
    objective = {"objective": "next_byte"} if hidden is None else {"objective": "masked_byte", "mask_rate": hidden}
    return {
        "task": "language model",
        "alphabet": letters,
        **objective,
        "num_bases": found.num_bases,
        "num_windows": found.num_windows,
        "window": how["window"],
        "metrics": {"bits_per_base": found.bits.as_dict()},
    }


def _write_predictions(
    path: Path,
    tuned: FinetunedNet,
    labelled: LabelledSet,
    answers: Sequence[NDArray[Any]],
    origin: Provenance,
) -> None:
    """One row per sequence: its line in the input, its label, the prediction, probabilities of the classes."""
    from hyena_glt.sequences.atomic import open_output

    task, rows = tuned.task, labelled.rows
    columns = ["line", "label", "prediction"]
    if task.kind == "classification":
        columns += [f"p_{name}" for name in task.classes]
    with open_output(path, overwrite=True, binary=False) as handle:
        handle.write(origin.as_comments().decode())
        handle.write("\t".join(columns) + "\n")
        for line, label, answer in zip(rows.lines, rows.labels, answers, strict=True):
            handle.write("\t".join([str(line), label, *_cells(task.kind, task.classes, answer)]) + "\n")


def _cells(kind: str, classes: Sequence[str], answer: NDArray[Any]) -> list[str]:
    if kind == "regression":
        return [f"{float(answer):.7g}"]
    if kind == "classification":
        return [classes[int(answer.argmax())], *(f"{share:.6f}" for share in answer)]
    names = [classes[index] for index in answer.argmax(1)]
    return [("" if all(len(name) == 1 for name in classes) else ",").join(names)]


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    import json

    if as_json:
        print(json.dumps(facts, indent=2, allow_nan=False))
        return
    if facts["task"] == "language model":
        hidden = "hidden " if facts["objective"] == "masked_byte" else ""
        print(
            f"{facts['num_bases']:,} {hidden}bases in {facts['num_windows']:,} windows of at most {facts['window']:,}"
        )
    else:
        print(f"{facts['num_sequences']:,} sequences")
    lab.print_estimates(facts["metrics"])
