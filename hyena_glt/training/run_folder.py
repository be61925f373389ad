"""The folder of a training run: what the run is, and whether what lies there belongs to it.

RUN_FOLDER/
    run.json            what the run is: recipe, hash of the sequence, hash of a given patcher or track; where it began
    patcher/            what cuts windows into patches, fitted on training sequence alone
    patches/            where it cuts the sequence, so that a resumed run need not cut again
    checkpoints/        weights, optimizer, random states, place in the data
    metrics.jsonl       one line a step, evaluation, sample or spike
    model/              the finished net, for HyenaGLT.from_pretrained
    nan_report.json     only where the loss or a gradient was no number: where that began
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from hyena_glt.__about__ import __version__
from hyena_glt.checks import parse_json
from hyena_glt.errors import ConfigError, OutputExistsError
from hyena_glt.sequences.atomic import atomic_write, make_folder, sha256_file, sole_process
from hyena_glt.training.corpus import Corpus
from hyena_glt.training.metrics_log import METRICS_FILE, TENSORBOARD_FOLDER
from hyena_glt.training.nan_report import REPORT_FILE
from hyena_glt.training.recipe import Recipe, differences

if TYPE_CHECKING:
    from hyena_glt.training.engine import Engine

FORMAT = "hyena-glt/run/1"
RUN_FILE = "run.json"
VERSION_KEY = "hyena_glt_version"  # of the beginning; another one may go on
PLACE_KEY = "begun_with"  # device, processes, threads, torch: others may go on too, with other last bits
OWN_NAMES = (RUN_FILE, "patcher", "patches", "checkpoints", METRICS_FILE, TENSORBOARD_FOLDER, REPORT_FILE, "model")

RunState = Literal["new", "begun", "done"]


class RunFolder:
    """The files of one run, and whether they belong to it.

    Args:
        path: The folder; `begin` makes it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        names = ("patcher", "patches", "checkpoints", "model")
        self.patcher, self.patches, self.checkpoints, self.model = (self.path / name for name in names)

    def state(self, identity: Mapping[str, Any], *, resume: bool = False, force: bool = False) -> RunState:
        """Whether a run of this identity begins, goes on, or is done.

        Args:
            identity: What the run is, as `run_identity` gives it.
            resume: Go on where there is something to go on from.
            force: Begin anew whatever is there.

        Raises:
            ConfigError: The run that is there has another recipe or corpus; the differences are named.
            OutputExistsError: Something is there, and neither `resume` nor `force` is set.
        """
        if force:
            return "new"
        path = self.path / RUN_FILE
        if not path.is_file():
            there = [name for name in OWN_NAMES if (self.path / name).exists()]
            if there:
                raise OutputExistsError(
                    f"{self.path / there[0]}: exists already, of no run; give --force to replace it"
                )
            return "new"
        known = self._facts()
        changed = differences({key: known[key] for key in known.keys() - {VERSION_KEY, PLACE_KEY}}, identity)
        if not (self.checkpoints.exists() or (self.path / METRICS_FILE).exists()):
            return "new" if changed else "begun"  # refused or ended before its first update: nothing is lost
        if changed:
            raise ConfigError(
                f"{path}: the run was begun with other options or data: {'; '.join(changed)}; "
                "give another folder, or --force to begin anew"
            )
        if (self.model / "manifest.json").is_file():
            return "done"
        if not resume:
            raise OutputExistsError(f"{self.path}: a run was begun here; give --resume to go on, --force to begin anew")
        return "begun"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the folder, and keep other processes from training in it.

        Raises:
            SystemProblem: One does already, or the folder cannot be written.
        """
        make_folder(self.path)
        with sole_process(self.path):
            yield

    def begin(self, identity: Mapping[str, Any], place: Mapping[str, Any]) -> None:
        """Remove the files of an earlier run and say what this one is.

        Args:
            identity: What the run is, as `run_identity` gives it.
            place: What else decides the last bits, as `run_place` gives it.

        Raises:
            SystemProblem: The folder cannot be written.
        """
        for name in OWN_NAMES:
            old = self.path / name
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
        facts = {VERSION_KEY: __version__, PLACE_KEY: dict(place), **identity}
        with atomic_write(self.path / RUN_FILE, "w", overwrite=True) as handle:
            handle.write(json.dumps(facts, indent=2, allow_nan=False) + "\n")

    def moved(self, place: Mapping[str, Any]) -> list[str]:
        """How a place differs from that where the run began, as `"threads: 1, now 2"`."""
        known = self._facts().get(PLACE_KEY)
        return [] if known is None else differences(known, place)

    def _facts(self) -> dict[str, Any]:
        path = self.path / RUN_FILE
        return parse_json(path.read_bytes(), path=path)


def run_place(engine: Engine) -> dict[str, Any]:
    """What changes the last bits of sums, so that with all of it equal a resumed run has those of one never stopped."""
    threads, version = torch.get_num_threads(), str(torch.__version__)
    return {"device": engine.device.type, "processes": engine.world, "threads": threads, "torch": version}


def run_identity(recipe: Recipe, corpus: Corpus) -> dict[str, Any]:
    """What makes two runs the same run: options, sequence, and the patcher or track where one is given."""
    facts = recipe.facts()
    given, track = (facts["patching"].pop(name) for name in ("patcher", "track"))
    return {
        "format": FORMAT,
        "recipe": facts,
        "corpus_sha256": corpus.sha256,
        "patcher_sha256": None if given is None else sha256_file(_patcher_file(given)),
        "track_sha256": None if track is None else sha256_file(track),
    }


def _patcher_file(name: str) -> Path:
    from hyena_glt.patching.saved import patcher_file

    return patcher_file(name)
