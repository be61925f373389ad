"""A net with a task: what its answers mean, predictions for sequences, and the folder it lies in.

    folder of save_pretrained (config.json, model.safetensors, patcher.json, manifest.json) + task.json

`task.json` names the manifest by its hash and is written last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from hyena_glt.checks import build_config
from hyena_glt.config import HyenaGLTConfig, PositiveWhole, Real
from hyena_glt.errors import ConfigError, ModelFileError
from hyena_glt.model.scoring import length_batches
from hyena_glt.model.sources import pad_rows, patch_rows
from hyena_glt.model.task_nets import (
    HyenaGLTForBaseLabels,
    HyenaGLTForSequenceClassification,
    HyenaGLTForSequenceRegression,
    TaskNet,
)
from hyena_glt.model.weights import MANIFEST_FILE, load_net
from hyena_glt.patching.saved_json import named_beside, read_saved_json, reference_to
from hyena_glt.sequences.alphabets import reverse_complement
from hyena_glt.sequences.atomic import atomic_write, sha256_file
from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID
from hyena_glt.training.labelled import LabelledSet, Task
from hyena_glt.training.low_rank import adapted_layers, add_adapters
from hyena_glt.training.recipe import Section
from hyena_glt.training.task_metrics import Estimate, classification_estimates, regression_estimates

TASK_FILE = "task.json"
FORMAT = "hyena-glt/task/1"
KEYS = {"format", "task", "manifest", "provenance"}
LARGEST_FILE = 1 << 24  # bytes of JSON that are read
BATCH_TOKENS = 1 << 15  # of a forward without gradients, padding included
NETS: dict[str, type[TaskNet]] = {
    "classification": HyenaGLTForSequenceClassification,
    "regression": HyenaGLTForSequenceRegression,
    "per-base": HyenaGLTForBaseLabels,
}

Array = NDArray[np.float64]


class AdapterOptions(Section):
    """Which layers carry low-rank adapters, where these are kept apart from the weights."""

    pattern: str = Field(description="of the layers' names in the net")
    rank: PositiveWhole
    alpha: Real


class TaskOptions(Section):
    """What the answers of a net mean."""

    kind: Task
    alphabet: str = Field("dna", description="of the sequences")
    classes: tuple[str, ...] = Field((), description="names, in the order of the logits; none of a regression")
    mean: Real = Field(0.0, description="of the labels of a regression; the net answers in standard deviations from it")
    deviation: Real = Field(1.0, description="standard deviation of the labels of a regression")
    average_strands: bool = Field(False, description="average the answers for both strands")
    adapters: AdapterOptions | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CutRows:
    """Sequences as the net takes them, cut once."""

    tokens: list[Tensor]  # each (length,) int64
    patch_lengths: list[Tensor] | None  # each (num_patches,) int64; None: the net cuts
    known_starts: list[Tensor] | None  # each (length,) bool

    def batch(self, rows: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Tokens `(batch, length)`, patch lengths `(batch, num_patches)` and known starts `(batch, length)`."""
        return (
            pad_rows([self.tokens[row] for row in rows], PAD_ID).to(device),
            None if self.patch_lengths is None else pad_rows([self.patch_lengths[row] for row in rows], 0).to(device),
            None
            if self.known_starts is None
            else pad_rows([self.known_starts[row].long() for row in rows], 1).bool().to(device),
        )


@dataclass(eq=False)
class FinetunedNet:
    """A net and what its answers mean.

    Args:
        net: With the head of the task.
        task: Names of the classes, scale of the values, strands.
    """

    net: TaskNet
    task: TaskOptions

    def predict(self, sequences: Sequence[bytes], *, average_strands: bool | None = None) -> list[Array]:
        """Answers for sequences, in evaluation mode; they depend on their batch only by rounding.

        Args:
            sequences: None empty.
            average_strands: None: as the net was trained for.

        Returns:
            For each sequence float64: probabilities `(classes,)`, the value `()`, or probabilities at each base
            `(length, classes)`.

        Raises:
            AlphabetError: A symbol that the net does not have, or strands of an alphabet without complement.
            ConfigError: No patcher, or one whose patches overlap.
        """
        return self.predict_rows(self.strands(sequences, average_strands))

    def strands(self, sequences: Sequence[bytes], average_strands: bool | None = None) -> list[CutRows]:
        """The sequences as `predict_rows` takes them: one strand, or both where answers are averaged."""
        both = self.task.average_strands if average_strands is None else average_strands
        kinds = [sequences, other_strands(sequences, self.task.alphabet)] if both else [sequences]
        return [cut_rows(self.net, kind) for kind in kinds]

    def predict_rows(self, strands: Sequence[CutRows]) -> list[Array]:
        """As `predict`, for sequences that are cut already, such as those that are asked about again and again."""
        was_training = self.net.training
        self.net.eval()
        try:
            answers = [self.answers(rows) for rows in strands]
        finally:
            self.net.train(was_training)
        if len(answers) == 1:
            return answers[0]
        return [(here + self.turned(there)) / 2 for here, there in zip(*answers, strict=True)]

    @torch.no_grad()
    def answers(self, rows: CutRows) -> list[Array]:
        """Answers for one strand, in the order of the rows."""
        found: list[Array | None] = [None] * len(rows.tokens)
        for batch in length_batches([len(row) for row in rows.tokens], BATCH_TOKENS):
            tokens, lengths, known = rows.batch(batch, self.net.net.device)
            logits = self.net(tokens, lengths, known_starts=known, return_position_info=False).logits.double().cpu()
            for row, answer in zip(batch, logits, strict=True):
                found[row] = self._answer(answer, len(rows.tokens[row]))
        return [answer for answer in found if answer is not None]

    def turned(self, answer: Array) -> Array:
        """An answer for the other strand, in the order of this one."""
        return answer[::-1] if self.task.kind == "per-base" else answer

    def _answer(self, logits: Tensor, length: int) -> Array:
        if self.task.kind == "regression":
            return np.asarray(logits[0].numpy() * self.task.deviation + self.task.mean)
        return (logits[:length] if self.task.kind == "per-base" else logits).softmax(-1).numpy()

    def save(self, folder: str | os.PathLike[str], provenance: dict[str, Any] | None = None) -> None:
        """Write net and task; `task.json` last.

        Raises:
            ModelFileError: A weight is NaN or infinite.
            SystemProblem: The folder cannot be written.
        """
        target = Path(folder)
        (target / TASK_FILE).unlink(missing_ok=True)
        self.net.save_pretrained(target)
        content = {
            "format": FORMAT,
            "task": self.task.model_dump(mode="json"),
            "manifest": reference_to(target / MANIFEST_FILE),
            "provenance": provenance or {},
        }
        with atomic_write(target / TASK_FILE, "w", overwrite=True) as handle:
            handle.write(json.dumps(content, indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], external_patcher: Any | None = None) -> Self:
        """Read what `save` wrote, in evaluation mode.

        Args:
            folder: Where it lies.
            external_patcher: In place of the saved one.

        Raises:
            ModelFileError: A file is missing, damaged, or not the one that was saved.
        """
        source = Path(folder) / TASK_FILE
        content = read_saved_json(
            source, kind="a fine-tuned net", file_format=FORMAT, keys=KEYS, mapping="task", largest=LARGEST_FILE
        )
        try:
            task = build_config(TaskOptions, content["task"])
        except ConfigError as problem:
            raise ModelFileError(str(problem), path=source) from None
        manifest, expected = named_beside(source, content["manifest"], key="manifest")
        if not manifest.is_file() or sha256_file(manifest) != expected:
            raise ModelFileError("its net is missing or is not the one that was saved with it", path=source)
        net = load_net(_builder(task), folder, external_patcher)
        _check_outputs(net, task, source)
        return cls(net, task)


def is_finetuned(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a fine-tuned net, as far as names tell."""
    return (Path(folder) / TASK_FILE).is_file()


def cut_rows(net: TaskNet, sequences: Sequence[bytes]) -> CutRows:
    """Tokens of sequences and their patches, as the net's patcher cuts them.

    Raises:
        ConfigError: No patcher, or one whose patches overlap.
    """
    tokens = [torch.from_numpy(np.frombuffer(row, np.uint8).astype(np.int64) + OFFSET) for row in sequences]
    if net.config.boundaries == "learned":
        return CutRows(tokens=tokens, patch_lengths=None, known_starts=None)
    patcher = net.net.patcher()
    if getattr(patcher, "overlap", 0):
        raise ConfigError("overlap: expected a patcher without overlap; each base is read once here")
    empty = torch.zeros(0, dtype=torch.int64)
    lengths, known, knows = [empty] * len(tokens), [empty] * len(tokens), True
    for batch in length_batches([len(row) for row in tokens], BATCH_TOKENS):
        patched = patch_rows(patcher, pad_rows([tokens[row] for row in batch], PAD_ID))
        for place, row in enumerate(batch):
            cut = patched.patch_lengths[place].cpu()
            lengths[row] = cut[cut > 0]
            if patched.known_starts is not None:
                known[row] = patched.known_starts[place, : len(tokens[row])].cpu()
        knows &= patched.known_starts is not None
    return CutRows(tokens=tokens, patch_lengths=lengths, known_starts=known if knows else None)


def other_strands(sequences: Sequence[bytes], alphabet: str) -> list[bytes]:
    """The reverse complement of each sequence.

    Raises:
        AlphabetError: The alphabet has no complement.
    """
    return [reverse_complement(sequence, alphabet) for sequence in sequences]


def task_estimates(
    tuned: FinetunedNet, labelled: LabelledSet, answers: list[NDArray[np.float64]], **options: Any
) -> dict[str, Estimate]:
    """Measures of predictions, with intervals; the labels of bases are resampled by sequence.

    Args:
        tuned: What predicted.
        labelled: The labels.
        answers: What `predict` gave for its sequences.
        **options: `resamples`, `seed`, `confidence`.
    """
    if tuned.task.kind == "regression":
        return regression_estimates(np.stack(labelled.labels), np.stack(answers), **options)
    if tuned.task.kind == "classification":
        return classification_estimates(np.stack(labelled.labels), np.stack(answers), **options)
    groups = np.repeat(np.arange(len(labelled)), [len(label) for label in labelled.labels])
    return classification_estimates(np.concatenate(labelled.labels), np.concatenate(answers), groups=groups, **options)


def _builder(task: TaskOptions) -> Any:
    """What makes a net of this task from a configuration, its adapters in place."""

    def build(config: HyenaGLTConfig, patcher: Any | None) -> TaskNet:
        net = NETS[task.kind](config, patcher)
        if task.adapters is not None:
            add_adapters(net.net, task.adapters.pattern, rank=task.adapters.rank, alpha=task.adapters.alpha)
        return net

    return build


def _check_outputs(net: TaskNet, task: TaskOptions, path: Path) -> None:
    outputs = 1 if task.kind == "regression" else len(task.classes)
    if net.config.num_labels != outputs:
        raise ModelFileError(f"expected {net.config.num_labels} classes, got {outputs}", path=path)
    if bool(task.adapters) != bool(list(adapted_layers(net))):
        raise ModelFileError("adapters: the net and its task do not agree", path=path)
