"""`hyena-glt finetune`: a net learns the labels of sequences."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyena_glt.cli import labelled_input as lab
from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import ended_by, note, progress_by_share, stop_on_signal
from hyena_glt.errors import ConfigError, DataError, OutputExistsError, UsageError

if TYPE_CHECKING:
    from hyena_glt.model import HyenaGLT
    from hyena_glt.tracks.provenance import Provenance
    from hyena_glt.training.finetune import FinetuneOptions
    from hyena_glt.training.finetune_run import FinetuneResult
    from hyena_glt.training.finetuned import FinetunedNet
    from hyena_glt.training.labelled import LabelledSet

METRICS_FILE = "metrics.json"
LOG_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"  # of a fine-tuning that is not finished
MARKS = (METRICS_FILE, "task.json", "manifest.json")  # of a folder that is finished, last written first


class TaskName(StrEnum):
    """What the labels are."""

    classification = "classification"
    regression = "regression"
    per_base = "per-base"


class Mode(StrEnum):
    """What learns."""

    full = "full"
    frozen = "frozen"
    lora = "lora"


class Strands(StrEnum):
    """What is done with the reverse complement."""

    none = "none"
    augment = "augment"
    avg = "avg"
    both = "both"


class Pooling(StrEnum):
    """What a head of sequences averages."""

    bytes = "bytes"
    patches = "patches"


def finetune(
    table: Annotated[Path, typer.Argument(help="TSV or CSV with a header line, or BED with --fasta; may be gzipped.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the net and its figures.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", callback=opt.by_name, help="A saved net to start from; hyena-glt-dna is the one that ships."
        ),
    ] = None,
    untrained: Annotated[
        opt.NetSize | None, typer.Option("--untrained", help="Start from random weights of this size.")
    ] = None,
    task: Annotated[TaskName, typer.Option("--task", help="What the labels are.")] = TaskName.classification,
    mode: Annotated[Mode, typer.Option("--mode", help="All weights, the head only, or adapters.")] = Mode.full,
    valid: Annotated[Path | None, typer.Option("--valid", help="Labelled file to validate on.")] = None,
    valid_share: Annotated[
        float | None,
        typer.Option(
            "--valid-share",
            min=0.0,
            max=0.9,
            help="Share of the table to validate on, in place of a file. Default: 0.1.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Times that the table is learned from.")] = 10,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Sequences of an update.")] = 32,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Highest one; it rises, then falls.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option("--weight-decay", min=0.0, help="Of matrices.")] = 0.01,
    rc: Annotated[
        Strands,
        typer.Option("--rc", help="Learn on either strand (augment), average the answers for both (avg), both."),
    ] = Strands.none,
    class_weights: Annotated[
        str | None, typer.Option("--class-weights", help="balanced, or numbers 1,2.5 in the order of the classes.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Whose best value on validation is kept. Default: loss or mse.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option("--patience", min=1, help="Stop after so many epochs without a better value.")
    ] = None,
    ngrams: Annotated[
        bool | None,
        typer.Option(
            "--ngrams/--no-ngrams",
            help="Embed n-grams of bases too. Default: as the net of --model does; with --untrained not, since their "
            "random vectors remember a small set by heart.",
        ),
    ] = None,
    pooling: Annotated[
        Pooling, typer.Option("--pooling", help="States that the head of a sequence averages.")
    ] = Pooling.bytes,
    patcher: opt.Patcher = None,
    patch_size: Annotated[
        float | None, typer.Option("--patch-size", min=1.0, help="Patches of so many bases, in place of the net's own.")
    ] = None,
    lora_rank: Annotated[int, typer.Option("--lora-rank", min=1, help="Of the adapters.")] = 8,
    lora_alpha: Annotated[float, typer.Option("--lora-alpha", help="The adapters count alpha / rank times.")] = 16.0,
    lora_layers: Annotated[
        str, typer.Option("--lora-layers", help="Linear layers that get adapters, by name: *, trunk.*, ...")
    ] = "trunk.*",
    merge: Annotated[
        bool, typer.Option("--merge/--no-merge", help="Put the adapters into the weights, or save them apart.")
    ] = True,
    sequence_column: lab.SequenceColumn = "sequence",
    label_column: lab.LabelColumn = None,
    separator: lab.Separator = None,
    fasta: lab.Fasta = None,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    resamples: lab.Resamples = 1000,
    strict: lab.Strict = False,
    seed: opt.Seed = 0,
    threads: opt.Threads = None,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
    force: opt.Force = False,
) -> None:
    """Teach a net the labels of sequences: classes, numbers, or a class at every base.

    The best epoch on validation is kept. Its figures there are printed, with 95 % intervals; they are a little too
    good, since the epoch was chosen by them: hyena-glt evaluate gives those of other sequence.

    SIGTERM and Ctrl-C finish the update and save; a run that was cut goes on when the same command is given again, to
    the same weights.

    Examples:

    hyena-glt finetune promoters.tsv -o tuned --model run/model --mode lora --rc both

    hyena-glt finetune promoters.tsv -o tuned --untrained tiny --patch-size 8 --valid other.tsv --patience 3

    hyena-glt finetune regions.bed --fasta genome.fa -o tuned --model run/model --class-weights balanced
    """
    from hyena_glt.cli.outputs import already_done, same_file, write_json
    from hyena_glt.training.finetuned import task_estimates

    if (model is None) == (untrained is None):
        raise UsageError("expected one of --model FOLDER (hyena-glt-dna: the net that ships) and --untrained PRESET")
    if valid is not None and valid_share is not None:
        raise UsageError("expected one of --valid and --valid-share")
    if patcher is not None and patch_size is not None:
        raise UsageError("expected one of --patcher and --patch-size")
    files = (table, valid, fasta)
    lab.check_files(files)
    same_file([*files, model, output])
    options = _options(
        mode=mode.value,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        augment_strands=rc in (Strands.augment, Strands.both),
        average_strands=rc in (Strands.avg, Strands.both),
        class_weights=_weights(class_weights),
        drop_ngrams=ngrams is False,
        pooling=pooling.value,
        metric=metric,
        patience=patience,
        adapters=lora_layers,
        rank=lora_rank,
        alpha=lora_alpha,
        merge=merge,
    )

    def origin() -> Provenance:
        return lab.input_provenance(files, model)

    if already_done([output / METRICS_FILE], origin, force):
        return
    provenance = origin()
    _check_folder(output, provenance, force)
    reader = lab.LabelledInput(
        fasta=fasta,
        sequence_column=sequence_column,
        label_column=label_column,
        separator=separator,
        alphabet=alphabet.value,
    )
    share = 0.1 if valid_share is None else valid_share
    parts = _parts(reader, table, valid, share, task.value, seed, strict)
    base = _base(model, untrained, alphabet.value, patcher, patch_size, ngrams is True, seed, device, threads)
    tuned = _prepared(base, parts, options, alphabet.value)
    folder = _begin(output, force)  # what can be refused has been
    result = _train(tuned, parts, options, folder)
    facts = _facts(result, parts, options)
    if parts.valid is not None:
        answers = result.tuned.predict(parts.valid.rows.sequences)
        found = task_estimates(result.tuned, parts.valid, answers, resamples=resamples, seed=seed)
        facts["valid"] = {name: figure.as_dict() for name, figure in found.items()}
    result.tuned.save(folder, provenance.as_dict())
    write_json(folder / METRICS_FILE, {"provenance": provenance.as_dict(), **facts})
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    _print_facts(facts, as_json)
    note(f"{result.steps:,} updates, best epoch {result.best_epoch} of {result.epochs}; wrote {output}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What is learned and what is validated on."""

    train: LabelledSet
    valid: LabelledSet | None
    counts: Mapping[str, int]  # repeated, contradicting, leaking rows


def _options(**fields: Any) -> FinetuneOptions:
    """The options, refused as wrong usage before anything is read."""
    from hyena_glt.checks import build_config
    from hyena_glt.training.finetune import FinetuneOptions

    try:
        return build_config(FinetuneOptions, fields)
    except ConfigError as problem:
        raise UsageError(str(problem)) from None


def _weights(text: str | None) -> str | tuple[float, ...] | None:
    if text is None or text == "balanced":
        return text
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--class-weights: expected balanced or numbers with commas between, got {text!r}") from None


def _check_folder(output: Path, provenance: Provenance, force: bool) -> None:
    """Refuse a folder that holds another net, finished or not ours.

    Raises:
        OutputExistsError: It does, and `force` is not set.
    """
    import json

    if force or not (output / "manifest.json").exists():
        return
    if (output / LOG_FILE).exists() and not (output / "task.json").exists():
        return  # a run of ours that was ended while it saved
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads((output / "task.json").read_text())["provenance"] == provenance.as_dict():
            return
    raise OutputExistsError(f"{output}: holds a net already; give --force to replace it")


def _begin(output: Path, force: bool) -> Path:
    """The folder, without what would say that it is finished; with `force` without an earlier run's checkpoints."""
    from hyena_glt.sequences.atomic import make_folder

    folder = make_folder(output)
    for name in MARKS:
        (folder / name).unlink(missing_ok=True)
    if force:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return folder


def _parts(
    reader: lab.LabelledInput, table: Path, valid: Path | None, share: float, task: Any, seed: int, strict: bool
) -> Parts:
    """Read the labels and divide them.

    Raises:
        DataError: With `strict`, a sequence that both parts have.
    """
    from hyena_glt.training.labelled import encode_labels
    from hyena_glt.training.labelled_split import find_leaks, split_rows

    whole = encode_labels(reader.read(table), task)
    counts = lab.report_repeats(whole, reader.alphabet, strict)
    if valid is None:
        if not share:
            return Parts(train=whole, valid=None, counts={**counts, "leaking": 0})
        train, held = split_rows(whole, share, seed, reader.alphabet)
        return Parts(train=whole.take(train), valid=whole.take(held), counts={**counts, "leaking": 0})
    other = encode_labels(reader.read(valid), task, whole.classes or None)
    leaks = find_leaks(whole, other, reader.alphabet)
    if leaks.size:
        line = whole.rows.lines[int(leaks[0])]
        words = f"{leaks.size:,} rows have a sequence (either strand) that {valid} has too, so its figures are too good"
        if strict:
            raise DataError(words, path=whole.rows.path, line=line)
        note(f"{whole.rows.path}:{line}: {words}")
    return Parts(train=whole, valid=other, counts={**counts, "leaking": int(leaks.size)})


def _base(
    model: Path | None,
    untrained: opt.NetSize | None,
    alphabet: str,
    patcher: Path | None,
    patch_size: float | None,
    ngrams: bool,
    seed: int,
    device: str,
    threads: int | None,
) -> HyenaGLT:
    """The net that is fine-tuned, on its device, with its patcher."""
    import torch

    from hyena_glt.model import HyenaGLT
    from hyena_glt.training.finetune import untrained_net

    torch.set_num_threads(threads or opt.default_threads())
    place = chosen_device(device)
    cutter = chosen_patcher(patcher, patch_size)
    if model is not None:
        return HyenaGLT.from_pretrained(model, cutter).to(place)
    assert untrained is not None
    if cutter is None:
        raise UsageError("--untrained: give --patch-size or --patcher as well; random weights have no patcher")
    return untrained_net(untrained.value, alphabet, cutter, seed, ngrams=ngrams).to(place)


def chosen_device(name: str) -> Any:
    """The device that `--device` names.

    Raises:
        UsageError: No such kind of device.
        SystemProblem: CUDA is asked for and not there.
    """
    import torch

    from hyena_glt.patching.devices import resolve_device

    try:
        found = resolve_device(name, "--device")
    except ConfigError as problem:
        raise UsageError(str(problem)) from None
    return found or torch.device("cuda" if torch.cuda.is_available() else "cpu")


def chosen_patcher(patcher: Path | None, patch_size: float | None) -> Any:
    """The patcher in place of the net's own; None: the net's own."""
    from hyena_glt.patching import Patcher

    if patcher is not None:
        return Patcher.load(patcher)
    return None if patch_size is None else Patcher(patching_mode="static", patch_size=patch_size)


def _prepared(base: HyenaGLT, parts: Parts, options: FinetuneOptions, alphabet: str) -> FinetunedNet:
    """The net with its head, every option looked at.

    Raises:
        ConfigError: Options that do not fit the labels.
    """
    from hyena_glt.training.finetune import chosen_metric, task_net

    chosen_metric(options, parts.train.task, is_validated=parts.valid is not None)
    return task_net(base, parts.train, options, alphabet)


def _train(tuned: FinetunedNet, parts: Parts, options: FinetuneOptions, folder: Path) -> FinetuneResult:
    from hyena_glt.training.checkpoints import CheckpointFolder
    from hyena_glt.training.finetune import finetune as train
    from hyena_glt.training.metrics_log import MetricsLog

    checkpoints = CheckpointFolder(folder / CHECKPOINTS, keep=1)
    newest = checkpoints.newest()
    log = MetricsLog(folder, -1 if newest is None else newest.step, lambda text: None)

    try:
        with (
            progress_by_share("fine-tuning", total=options.epochs, unit="epochs") as show,
            stop_on_signal() as received,
        ):
            if newest is not None:
                note(f"going on after {newest.step:,} updates")
            return train(
                tuned,
                parts.train,
                parts.valid,
                options,
                log=log.write,
                progress=show,
                checkpoints=checkpoints,
                sync=log.sync,
                stop=lambda: ended_by(received),
            )
    finally:
        log.close()


def _facts(result: FinetuneResult, parts: Parts, options: FinetuneOptions) -> dict[str, Any]:
    return {
        "task": result.tuned.task.kind,
        "classes": list(result.tuned.task.classes),
        "num_train": len(parts.train),
        "num_valid": 0 if parts.valid is None else len(parts.valid),
        **parts.counts,
        "options": options.model_dump(mode="json"),
        "steps": result.steps,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "metric": result.metric,
        "num_trained": result.num_trained,
        "num_weights": result.num_weights,
        "valid": None,
    }


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    import json

    if as_json:
        print(json.dumps(facts, indent=2, allow_nan=False))
    elif facts["valid"] is None:
        print("validation: nothing")
    else:
        print(f"validation: {facts['num_valid']:,} of {facts['num_valid'] + facts['num_train']:,} sequences")
        lab.print_estimates(facts["valid"])
