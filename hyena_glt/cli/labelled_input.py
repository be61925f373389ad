"""What `finetune` and `evaluate` share: labelled input by its options, its provenance, and how figures are printed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyena_glt.cli.outputs import STDOUT, command_line
from hyena_glt.cli.runtime import note
from hyena_glt.errors import ConfigError, DataError, UsageError
from hyena_glt.tracks.provenance import Provenance

if TYPE_CHECKING:
    from hyena_glt.training.labelled import LabelledRows, LabelledSet

MODEL_FILES = ("manifest.json", "task.json")  # they hold the hashes of the rest

Fasta = Annotated[
    Path | None, typer.Option("--fasta", help="Genome of the regions, where the table is a BED file; plain or BGZF.")
]
SequenceColumn = Annotated[str, typer.Option("--sequence-column", help="Name of the column with the sequences.")]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label-column", help="Name of the column with the labels (label); of a BED, its number (4)."),
]
Separator = Annotated[
    str | None, typer.Option("--separator", help="Between columns: tab, comma, ... Default: by suffix.")
]
Resamples = Annotated[int, typer.Option("--resamples", min=0, help="Of the bootstrap behind the intervals; 0: none.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Make sequences with several labels, or in both parts, an error.")
]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledInput:
    """How labelled files are read."""

    fasta: Path | None
    sequence_column: str
    label_column: str | None
    separator: str | None
    alphabet: str

    def __post_init__(self) -> None:
        if self.fasta is not None and not (self.label_column or "4").isdigit():
            raise UsageError(f"--label-column: expected the number of a BED column, got {self.label_column!r}")

    def read(self, path: Path) -> LabelledRows:
        """The rows of a table, or of a BED with its genome.

        Raises:
            UsageError: Options that do not go with such a file.
        """
        from hyena_glt.training.labelled import read_regions, read_table

        try:
            if self.fasta is not None:
                return read_regions(path, self.fasta, label_column=int(self.label_column or 4), alphabet=self.alphabet)
            return read_table(
                path,
                sequence_column=self.sequence_column,
                label_column=self.label_column or "label",
                separator=self.separator,
                alphabet=self.alphabet,
            )
        except ConfigError as problem:
            raise UsageError(str(problem)) from None


def check_files(paths: Iterable[Path | None]) -> None:
    """Refuse standard input: labelled files are hashed, and read by name.

    Raises:
        UsageError: One of them is `-`.
    """
    if STDOUT in list(paths):
        raise UsageError("labelled input is read from files, not from standard input")


def input_provenance(files: Iterable[Path | None], model: Path | None) -> Provenance:
    """The command as typed with a hash of its inputs, the net among them.

    Args:
        files: What is read.
        model: Folder of the net.
    """
    from hyena_glt.sequences.atomic import sha256_file

    named = [path for path in files if path is not None]
    beside = [] if model is None else [model / name for name in MODEL_FILES if (model / name).is_file()]
    digests = [sha256_file(path) for path in (*named, *beside)]
    details: dict[str, Any] = {
        "input": " ".join(map(str, named)),
        "input_sha256": digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest(),
    }
    return Provenance(command_line(), details if model is None else {**details, "model": str(model)})


def report_repeats(labelled: LabelledSet, alphabet: str, strict: bool) -> dict[str, int]:
    """Say which sequences a file has more than once; counts for the figures.

    Raises:
        DataError: With `strict`, a sequence with several labels.
    """
    from hyena_glt.training.labelled_split import find_repeats

    found = find_repeats(labelled, alphabet)
    if found.first is not None:
        line, before = found.first
        words = (
            f"{found.num_repeated:,} rows repeat a sequence (either strand), {found.num_contradicting:,} of them with "
            f"another label; the first is that of line {before}"
        )
        if strict and found.num_contradicting:
            raise DataError(words, path=labelled.rows.path, line=line)
        note(f"{labelled.rows.path}:{line}: {words}")
    return {"repeated": found.num_repeated, "contradicting": found.num_contradicting}


def print_estimates(figures: Mapping[str, Mapping[str, float | None]]) -> None:
    """One measure a line, with its interval."""
    for name, figure in figures.items():
        value, low, high = figure["value"], figure["low"], figure["high"]
        text = "not defined" if value is None else f"{value:.4f}"
        interval = "" if low is None or high is None else f"  [{low:.4f}, {high:.4f}]"
        print(f"{name:<18}{text}{interval}")
