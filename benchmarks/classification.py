"""Classification: our net from scratch and from the shipped weights, a plain CNN of equal size, 6-mers.

    python benchmarks/classification.py FOLDER [--datasets ...] [--methods ...] [--seeds 0 1 2 3 4] [--folds 5]
        [--seconds 60] [--most-epochs 40] [--threads 1] [--cells runs/classification.jsonl] [--table-only]
        [--json out.json]

FOLDER holds the labelled sets, under the names of `DATASETS`. A cell is one fit: a method on one split of a set. Cells
are written to `--cells` as they finish and are not repeated, so the grid may be done in parts, in any order.

Protocol. All methods of a seed get the same splits. Sets with a test part of their own keep it; the splice sites are
divided 80/20 anew by each seed; the two small sets are cross-validated (stratified, `--folds`), once for each seed. The
same sequence, on either strand, never lies on both sides, except in `ienhancer`, whose 100 leaked test sequences are
kept as published (`ienhancer_clean` drops them from the training part). Where the splits are ours, sequences that share
`--shared-word` bases (20; either strand, directly or through others) stay on one side too: 48 of the 53 negatives of
`uci_promoters` and 2,726 of the 3,000 of `ecoli_promoters` share such a word with another one, and to know a region
again is not to know promoters. `--shared-word 0` divides as the published figures did. Early stopping, on the loss,
sees a part of the training sequences alone. `scratch` (random weights, no n-grams), `ngrams` (the same with random
vectors of n-grams), `shipped`, `bare` (the shipped net without its n-grams), `shape` (the shipped net's shape with
random weights) and `cnn` get the same processor seconds a fit: a short probe says how many whole epochs fit, one at
least. `kmer` is a logistic regression on counts of 6-mers with C from an inner cross-validation. That `scratch` has no
n-grams was decided after test figures with them had been seen, on validation parts (docs/results.md).

Figures are means over the seeds; intervals (95 %) come from 1,000 bootstrap resamples of the test sequences, the same
ones in every seed and method, and do not tell how much a seed changes: that is the column beside.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from baseline_cnn import cnn_probabilities, fit_cnn, planned_epochs
from machine import code_hash, machine
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from hyena_glt import HyenaGLT, Patcher
from hyena_glt.errors import ModelFileError
from hyena_glt.model.shipped import SHIPPED_FOLDER, shipped_net, weights_label
from hyena_glt.sequences.lines import read_lines
from hyena_glt.training.finetune import FinetuneOptions, finetune, task_net, untrained_net
from hyena_glt.training.labelled import LabelledRows, LabelledSet, encode_labels, read_table
from hyena_glt.training.labelled_split import sequence_keys, split_rows
from hyena_glt.training.task_metrics import Order, accuracy, auroc, estimate, matthews

Whole = NDArray[np.int64]
Reals = NDArray[np.float64]

KMER = 6
MEASURES = ("accuracy", "mcc", "auroc")
METHODS = ("scratch", "ngrams", "shipped", "bare", "shape", "cnn", "kmer")
FROM_SHIPPED = ("shipped", "bare", "shape")
COMPARED = (
    ("scratch", "cnn"),
    ("scratch", "kmer"),
    ("scratch", "ngrams"),
    ("shipped", "scratch"),
    ("bare", "scratch"),
    ("shipped", "cnn"),
    ("shipped", "shape"),
)
SPLIT_FOLDS = 5  # one of which is the test part where a set is divided 80/20
PROBE_BATCHES = 6
REGULARISATION = 10.0 ** np.arange(-4, 2)  # values of C
DIGITS = 6  # of the probabilities in the cells

# set, figure, source and protocol; ours are comparable only where the protocol is the same
PUBLISHED = (
    (
        "gb_nontata",
        "accuracy: HyenaDNA 96.6, CNN (PyTorch) 84.6, CNN (TensorFlow) 86.5",
        "Genomic Benchmarks, experiments/README.md: official split, 27,097 training sequences; we have 7,207",
    ),
    (
        "ienhancer",
        "accuracy: iEnhancer-2L 73.00, EnhancerPred 74.00, iEnhancer-EL 74.75, BERT-Enhancer 75.60, "
        "iEnhancer-ECNN 76.90, spEnhancer 77.25",
        "PMC10339552, table 4: independent test, 100 of its 400 sequences are in the training set; as `ienhancer`",
    ),
    (
        "uci_splice",
        "error on N / EI / IE: KBANN 4.62 / 7.56 / 8.47, backpropagation 5.29 / 5.74 / 10.75, PEBLS 6.86 / 8.18 / 7.55",
        "description of the set (UCI): ten-fold cross-validation on 1,000 sequences drawn from the 3,190",
    ),
    (
        "uci_promoters",
        "errors of 106: KBANN 4, backpropagation 8, O'Neill 12, nearest neighbour 13, ID3 19",
        "description of the set (UCI; Towell, Shavlik and Noordewier 1990): leave one out",
    ),
    (
        "ecoli_promoters",
        "Sn 0.90, Sp 0.96, correlation (MCC) 0.84: CNNProm",
        "Umarov and Solovyev 2017, PLoS ONE 12:e0171410: a random test part of its own, not ours",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Dataset:
    """A labelled set and how it is divided."""

    labelled: LabelledSet
    test: Whole | None = None  # rows of a fixed test part; None: by seed
    is_small: bool = False  # cross-validated
    drop_leaks: bool = True  # training rows whose sequence the test part has too
    both_strands: bool = False  # the label does not depend on the strand: every method is told so
    valid_share: float = 0.1  # of the training part, for early stopping


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Split:
    """Rows of one fit."""

    train: Whole  # all that may be learned from: `fit` and `valid`
    fit: Whole
    valid: Whole
    test: Whole


def main() -> None:
    """Fit what is missing, print the tables, write the JSON."""
    options = parsed_options()
    require_sklearn()
    torch.set_num_threads(options.threads)
    cells = FinishedCells.read(options.cells)
    methods = usable_methods(options.methods)
    rows: list[dict[str, Any]] = []
    for name in options.datasets:
        dataset = DATASETS[name](options.folder)
        for seed in () if options.table_only else options.seeds:
            fit_missing(cells, name, dataset, seed, methods, options)
        rows += result_rows(cells, name, dataset, methods, options)
    print(as_table(rows, options), cells.about_code(), sep="\n\n")
    if options.json:
        about = {"machine": machine(), "torch": torch.__version__, "options": settings_of(options)}
        about["options"]["shared_word"] = options.shared_word
        published = [dict(zip(("dataset", "figure", "source"), each, strict=True)) for each in PUBLISHED]
        options.json.write_text(json.dumps({**about, "rows": rows, "published": published}, indent=2) + "\n")


def parsed_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the labelled sets")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--folds", type=int, default=5, help="of the small sets")
    parser.add_argument("--shared-word", type=int, default=20, help="bases; sequences that share so many stay together")
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time of a fit")
    parser.add_argument("--most-epochs", type=int, default=40)
    parser.add_argument("--patience", type=int, default=8, help="epochs without a better loss")
    parser.add_argument("--size", default="tiny", help="preset of the net from scratch; the CNN gets its weights")
    parser.add_argument("--patch-size", type=float, default=8.0, help="bases, of the net from scratch")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cells", type=Path, default=Path("runs/classification.jsonl"))
    parser.add_argument("--table-only", action="store_true", help="of the cells that are there")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def require_sklearn() -> None:
    """End now rather than after the first fits."""
    if find_spec("sklearn") is None:
        raise SystemExit("scikit-learn is not installed: pip install scikit-learn")


class FinishedCells:
    """Results in a file of JSON lines, found again by their keys; a line cut short by a kill is left out.

    The code that made a cell is no part of its key; `about_code` says how many versions made those that were used.
    """

    def __init__(self, path: Path, found: dict[str, dict[str, Any]]) -> None:
        self.path, self.found = path, found
        self._used: set[str] = set()

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a file holds, nothing if there is none."""
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:  # the next line must not be glued to half a one
            with path.open("r+b") as handle:
                handle.truncate(len(whole))
        lines = [json.loads(line) for line in whole.splitlines()]
        return cls(path, {cls.name(line["key"]): line for line in lines})

    @staticmethod
    def name(key: dict[str, Any]) -> str:
        """One text for a key, whatever the order of its entries."""
        return json.dumps(key, sort_keys=True)

    def get(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The cell of a key."""
        cell = self.found.get(self.name(key))
        if cell is not None:
            self._used.add(cell.get("code", "unknown"))
        return cell

    def about_code(self) -> str:
        """For below a table."""
        return f"Code that made the cells, by hash: {', '.join(sorted(self._used))}; now {code_hash()}."

    def add(self, key: dict[str, Any], **values: Any) -> dict[str, Any]:
        """Keep a cell, in the file too."""
        cell = {"key": key, "code": code_hash(), **values}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as handle:
            handle.write(json.dumps(cell) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        self.found[self.name(key)] = cell
        return cell


def usable_methods(asked: list[str]) -> list[str]:
    """What was asked for; without the shipped weights their columns are left out, with a note."""
    if not any(method in FROM_SHIPPED for method in asked):
        return asked
    try:
        shipped_net()
    except ModelFileError as problem:
        print(f"left out: {', '.join(m for m in asked if m in FROM_SHIPPED)}: {problem}", file=sys.stderr)
        return [method for method in asked if method not in FROM_SHIPPED]
    return asked


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Options that change a result."""
    names = ("seconds", "most_epochs", "patience", "size", "patch_size", "learning_rate", "weight_decay")
    return {name: getattr(options, name) for name in names}


def key_of(
    name: str, dataset: Dataset, method: str, seed: int, fold: int, options: argparse.Namespace
) -> dict[str, Any]:
    """What tells a cell from others."""
    key = {"dataset": name, "method": method, "seed": seed, "fold": fold}
    if method != "kmer":  # none of the options concerns it
        key["settings"] = settings_of(options)
    if method in FROM_SHIPPED:
        key["weights"] = weights_label(SHIPPED_FOLDER)
    if dataset.test is None:
        key["division"] = {"folds": options.folds if dataset.is_small else SPLIT_FOLDS, "word": options.shared_word}
    return key


def fit_missing(
    cells: FinishedCells, name: str, dataset: Dataset, seed: int, methods: list[str], options: argparse.Namespace
) -> None:
    """All fits of a set and seed that are not there yet."""
    for fold, split in enumerate(splits(dataset, seed, options)):
        for method in methods:
            key = key_of(name, dataset, method, seed, fold, options)
            if cells.get(key) is not None:
                continue
            found = fit(method, dataset, split, seed, options)
            labels = [int(dataset.labelled.labels[row]) for row in split.test]
            probabilities = np.round(found.pop("probabilities"), DIGITS).tolist()
            cells.add(key, rows=split.test.tolist(), labels=labels, probabilities=probabilities, **found)
            right = np.mean(np.argmax(probabilities, axis=1) == np.array(labels))
            what = f"{name} {method} seed {seed} fold {fold}: accuracy {right:.4f}, {found['cpu_s']:.0f} CPU s"
            print(f"{what}, epochs {found.get('epochs', '-')}", file=sys.stderr, flush=True)


def splits(dataset: Dataset, seed: int, options: argparse.Namespace) -> Iterator[Split]:
    """The divisions of a set that belong to a seed."""
    every = np.arange(len(dataset.labelled))
    keys = sequence_keys(dataset.labelled.rows.sequences)
    if dataset.test is not None:
        tests = [dataset.test]
    else:
        groups = related(dataset.labelled.rows.sequences, options.shared_word) if options.shared_word else keys
        num_folds = options.folds if dataset.is_small else SPLIT_FOLDS
        tests = stratified_folds(dataset.labelled, groups, num_folds, seed)[: None if dataset.is_small else 1]
    for test in tests:
        train = np.setdiff1d(every, test)
        if dataset.drop_leaks:
            held_out = {keys[row] for row in test}
            train = np.array([row for row in train if keys[row] not in held_out], dtype=np.int64)
        fitted, valid = split_rows(dataset.labelled.take(train), dataset.valid_share, seed)
        yield Split(train=train, fit=train[fitted], valid=train[valid], test=test)


def stratified_folds(labelled: LabelledSet, groups: Sequence[Any], folds: int, seed: int) -> list[Whole]:
    """Test rows of each fold: classes in equal shares, rows of one group together."""
    from sklearn.model_selection import StratifiedGroupKFold

    numbers = np.unique(np.array(groups, dtype=object), return_inverse=True)[1]
    labels = np.stack(labelled.labels)
    divider = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [test for _, test in divider.split(labels, labels, numbers)]


def related(sequences: Sequence[bytes], length: int) -> list[int]:
    """A number for each sequence, the same for those that share a word on either strand, directly or through others."""
    rows, words, turned = words_of(sequences, length)
    columns = np.unique(np.minimum(words, turned), return_inverse=True)[1]
    size = len(sequences) + len(words)  # a graph of sequences and words
    links = sparse.coo_matrix((np.ones(len(rows)), (rows, len(sequences) + columns)), shape=(size, size))
    return connected_components(links, directed=False)[1][: len(sequences)].tolist()


def fit(method: str, dataset: Dataset, split: Split, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Probabilities `(test, classes)` of a method, and what it took."""
    if method == "cnn":
        return fit_baseline(dataset, split, seed, options)
    if method == "kmer":
        return fit_kmers(dataset, split, seed)
    return fit_net(method, dataset, split, seed, options)


def fit_net(method: str, dataset: Dataset, split: Split, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune our net, all weights."""
    train, valid = dataset.labelled.take(split.fit), dataset.labelled.take(split.valid)
    shared = {
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "augment_strands": dataset.both_strands,
        "average_strands": dataset.both_strands,
        "seed": seed,
    }
    began = time.process_time()
    seconds = probed_epoch(method, train, valid, shared, seed, options)
    probe_s, began = time.process_time() - began, time.process_time()
    epochs = planned_epochs(seconds, options.seconds, options.most_epochs)
    settings = FinetuneOptions(epochs=epochs, patience=options.patience, **shared)
    result = finetune(task_net(base_net(method, seed, options), train, settings), train, valid, settings)
    cpu_s = time.process_time() - began
    sequences = [dataset.labelled.rows.sequences[row] for row in split.test]
    return {
        "probabilities": np.stack(result.tuned.predict(sequences)),
        "cpu_s": cpu_s,
        "probe_s": probe_s,
        "epochs": result.epochs,
        "planned_epochs": epochs,
        "best_epoch": result.best_epoch,
        "num_weights": result.num_trained,
    }


def base_net(method: str, seed: int, options: argparse.Namespace) -> HyenaGLT:
    """What is fine-tuned, anew at each call."""
    if method in ("scratch", "ngrams"):
        patcher = Patcher(patching_mode="static", patch_size=options.patch_size, device="cpu")
        return untrained_net(options.size, "dna", patcher, seed, ngrams=method == "ngrams")
    shipped = shipped_net()
    if method == "bare":
        shipped.drop_ngrams()
    if method != "shape":
        return shipped
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return HyenaGLT(shipped.config, shipped.external_patcher)


def probed_epoch(
    method: str, train: LabelledSet, valid: LabelledSet, shared: dict[str, Any], seed: int, options: argparse.Namespace
) -> float:
    """Processor seconds of an epoch and its validation, from a few updates of a net that is thrown away."""
    settings = FinetuneOptions(epochs=1, **shared)
    few = train.take(range(min(PROBE_BATCHES * settings.batch_size, len(train))))
    for part in (few.take(range(min(settings.batch_size, len(few)))), few):  # the first one is slow
        tuned = task_net(base_net(method, seed, options), train, settings)
        began = time.process_time()
        finetune(tuned, part, None, settings)
        learned = (time.process_time() - began) * len(train) / len(part)
    asked = valid.rows.sequences[: len(few)]
    began = time.process_time()
    tuned.predict(asked)
    return learned + (time.process_time() - began) * len(valid) / len(asked)


def fit_baseline(dataset: Dataset, split: Split, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train the CNN that has as many weights as our net from scratch."""
    labelled = dataset.labelled
    labels = np.stack(labelled.labels)

    def part(rows: Whole) -> tuple[list[bytes], Whole]:
        return [labelled.rows.sequences[row] for row in rows], labels[rows]

    ours = task_net(base_net("scratch", seed, options), labelled, FinetuneOptions())
    found = fit_cnn(
        part(split.fit),
        part(split.valid),
        num_classes=len(labelled.classes),
        wanted_weights=sum(weight.numel() for weight in ours.net.parameters() if weight.requires_grad),
        budget_s=options.seconds,
        most_epochs=options.most_epochs,
        patience=options.patience,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        augment_strands=dataset.both_strands,
        seed=seed,
    )
    return {
        "probabilities": cnn_probabilities(found.net, part(split.test)[0], both_strands=dataset.both_strands),
        "cpu_s": found.cpu_s,
        "epochs": found.epochs,
        "best_epoch": found.best_epoch,
        "num_weights": found.num_weights,
    }


def fit_kmers(dataset: Dataset, split: Split, seed: int) -> dict[str, Any]:
    """Logistic regression on 6-mer counts; it stops by itself, so it learns from the validation part too."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    began = time.process_time()
    counts = kmer_counts(dataset.labelled.rows.sequences, both_strands=dataset.both_strands)
    labels = np.stack(dataset.labelled.labels)
    inner = StratifiedKFold(5, shuffle=True, random_state=seed)
    plain = LogisticRegression(max_iter=2000)
    search = GridSearchCV(plain, {"C": REGULARISATION}, scoring="neg_log_loss", cv=inner)
    search.fit(counts[split.train], labels[split.train])
    probabilities = search.predict_proba(counts[split.test])
    cpu_s = time.process_time() - began
    return {
        "probabilities": probabilities,
        "cpu_s": cpu_s,
        "C": float(search.best_params_["C"]),
        "num_weights": int(search.best_estimator_.coef_.size),
    }


def kmer_counts(sequences: Sequence[bytes], *, both_strands: bool) -> sparse.csr_matrix:
    """`(sequences, 4^6)` counts, words with an ambiguous base left out; of both strands together if asked for."""
    rows, words, turned = words_of(sequences, KMER)
    if both_strands:
        rows, words = np.tile(rows, 2), np.concatenate([words, turned])
    return sparse.csr_matrix((np.ones(len(rows)), (rows, words)), shape=(len(sequences), 4**KMER))


def words_of(sequences: Sequence[bytes], length: int) -> tuple[Whole, Whole, Whole]:
    """Sequence, number to the base 4, and that of the reverse complement, `(words,)`, of each word of A, C, G and T."""
    lengths = np.array([len(sequence) for sequence in sequences])
    codes = np.full(256, -1, dtype=np.int64)
    codes[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4)
    symbols = codes[np.frombuffer(b"".join(sequences), np.uint8)]
    rows = np.repeat(np.arange(len(sequences)), lengths)
    starts = np.flatnonzero(np.arange(len(symbols)) + length <= lengths.cumsum()[rows])
    letters = symbols[starts[:, None] + np.arange(length)]
    is_known = (letters >= 0).all(1)
    letters, power = letters[is_known], 4 ** np.arange(length)
    return rows[starts][is_known], letters @ power[::-1], (3 - letters) @ power


def result_rows(
    cells: FinishedCells, name: str, dataset: Dataset, methods: list[str], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Figures of the methods on a set, and differences between methods in MCC; of seeds that are complete."""
    folds = range(options.folds if dataset.is_small else 1)
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for method in methods:
        for seed in options.seeds:
            there = [cells.get(key_of(name, dataset, method, seed, fold, options)) for fold in folds]
            complete = [cell for cell in there if cell is not None]
            if len(complete) == len(folds):
                found.setdefault(method, {})[seed] = complete
    if not found:
        return []
    cells_used = [cell for seeds in found.values() for parts in seeds.values() for cell in parts]
    tested = np.unique(np.concatenate([cell["rows"] for cell in cells_used]))
    scores = {method: [SeedScores.of(parts, tested) for parts in seeds.values()] for method, seeds in found.items()}
    pairs = [(a, b) for a, b in COMPARED if a in found and b in found and found[a].keys() == found[b].keys()]

    def compute(weights: Reals) -> dict[str, Reals]:
        values: dict[str, Reals] = {}
        for method, seeds in scores.items():
            measured = [seed.measures(weights) for seed in seeds]
            values |= {f"{method} {m}": np.mean([each[m] for each in measured], axis=0) for m in MEASURES}
        return values | {f"{a} - {b}": values[f"{a} mcc"] - values[f"{b} mcc"] for a, b in pairs}

    estimates = estimate(compute, len(tested), len(tested), resamples=1000, seed=0, confidence=0.95)
    ones = np.ones((1, len(tested)))
    spread = {method: [float(each.measures(ones)["mcc"][0]) for each in seeds] for method, seeds in scores.items()}
    return [
        *(method_row(name, method, seeds, spread[method], estimates) for method, seeds in found.items()),
        *({"dataset": name, "difference": f"{a} - {b}", "mcc": estimates[f"{a} - {b}"].as_dict()} for a, b in pairs),
    ]


@dataclass(frozen=True, slots=True, eq=False)
class SeedScores:
    """Test rows of a seed, its folds together, with what was predicted."""

    rows: Whole  # (test,) places among all rows that any seed tests
    labels: Whole  # (test,)
    predicted: Whole  # (test,)
    orders: dict[int, Order]  # of the probability of each class that is ranked

    @classmethod
    def of(cls, parts: list[dict[str, Any]], tested: Whole) -> Self:
        """From the cells of a seed, and the rows that any seed tests, ascending."""
        probabilities = np.array([row for part in parts for row in part["probabilities"]])
        num_classes = probabilities.shape[1]
        ranked = [1] if num_classes == 2 else range(num_classes)
        return cls(
            rows=np.searchsorted(tested, [row for part in parts for row in part["rows"]]),
            labels=np.array([label for part in parts for label in part["labels"]]),
            predicted=probabilities.argmax(1),
            orders={each: Order.of(probabilities[:, each]) for each in ranked},
        )

    def measures(self, weights: Reals) -> dict[str, Reals]:
        """`MEASURES`, each `(resamples,)`, from how often each row is drawn: `(resamples, rows)`."""
        drawn = weights[:, self.rows]
        size = 1 + int(max(self.labels.max(), self.predicted.max()))
        matrix = np.zeros((len(drawn), size, size))
        for label in range(size):
            for answer in range(size):
                matrix[:, label, answer] = drawn[:, (self.labels == label) & (self.predicted == answer)].sum(1)
        areas = [auroc(order, self.labels == each, drawn) for each, order in self.orders.items()]
        return {"accuracy": accuracy(matrix), "mcc": matthews(matrix), "auroc": np.mean(areas, axis=0)}


def method_row(
    name: str, method: str, seeds: dict[int, list[dict[str, Any]]], mcc_of_seeds: list[float], estimates: dict[str, Any]
) -> dict[str, Any]:
    """One line of the result."""
    parts = [part for cells in seeds.values() for part in cells]
    return {
        "dataset": name,
        "method": method,
        "seeds": list(seeds),
        **{measure: estimates[f"{method} {measure}"].as_dict() for measure in MEASURES},
        "mcc_of_seeds": mcc_of_seeds,
        "num_test": [sum(len(part["rows"]) for part in cells) for cells in seeds.values()],
        "num_weights": parts[0]["num_weights"],
        "cpu_s": statistics.median(part["cpu_s"] for part in parts),
        "epochs": statistics.median(part["epochs"] for part in parts) if "epochs" in parts[0] else None,
    }


def as_table(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The result as Markdown."""
    budget = f"{options.seconds:g} CPU s a fit, {options.threads} thread(s)"
    lines = [
        f"{machine()}, torch {torch.__version__}; {budget}",
        "",
        "| set | method | accuracy | MCC | AUROC | MCC over seeds | weights | epochs | CPU s a fit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if "method" in row:
            cells = [row["dataset"], row["method"], *(interval(row[measure]) for measure in MEASURES)]
            spread = f"{min(row['mcc_of_seeds']):.3f} to {max(row['mcc_of_seeds']):.3f} ({len(row['seeds'])})"
            epochs = "" if row["epochs"] is None else f"{row['epochs']:g}"
            cells += [spread, f"{row['num_weights']:,}", epochs, f"{row['cpu_s']:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| set | difference in MCC | |", "| --- | --- | --- |"]
    lines += [f"| {r['dataset']} | {r['difference']} | {interval(r['mcc'])} |" for r in rows if "difference" in r]
    lines += ["", "| set | published | source and protocol |", "| --- | --- | --- |"]
    lines += [f"| {name} | {figure} | {source} |" for name, figure, source in PUBLISHED if name in options.datasets]
    return "\n".join(lines)


def interval(found: dict[str, float | None]) -> str:
    """`0.812 [0.790, 0.834]`."""
    value, low, high = found["value"], found["low"], found["high"]
    if value is None:
        return ""
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def nontata(folder: Path) -> Dataset:
    """Human promoters without TATA box (Genomic Benchmarks), the published test part divided 80/20 by a hash."""
    return divided(folder, "gb_human_nontata_promoters_{}.tsv.gz")


def ienhancer(folder: Path) -> Dataset:
    """Human enhancers, as published: half of the test enhancers are in the training part."""
    return divided(folder, "ienhancer_{}.tsv.gz", drop_leaks=False, both_strands=True)


def ienhancer_clean(folder: Path) -> Dataset:
    """The same, leaked sequences dropped from the training part; the test part is the published one."""
    return divided(folder, "ienhancer_{}.tsv.gz", both_strands=True)


def uci_splice(folder: Path) -> Dataset:
    """Primate splice sites, donor, acceptor or neither; 60 bases."""
    path = folder / "uci_splice.data.gz"
    lines = [(number, text.split(",")) for number, text in read_lines(path) if text.strip()]
    return Dataset(labelled=of_lines(path, [(n, f[0], f[2]) for n, f in lines]))


def uci_promoters(folder: Path) -> Dataset:
    """106 sequences of E. coli, half of them promoters; 57 bases."""
    path = folder / "uci_promoters.data"
    lines = [(number, text.strip().split(",")) for number, text in read_lines(path) if text.strip()]
    labelled = of_lines(path, [(n, f[-1], "".join(f[1:-1])) for n, f in lines])
    return Dataset(labelled=labelled, is_small=True, valid_share=0.2)


def ecoli_promoters(folder: Path) -> Dataset:
    """Promoters of E. coli against other sequence (Umarov and Solovyev 2017); 81 bases."""
    rows = read_table(folder / "ecoli_promoter.tsv.gz", sequence_column="seq")
    return Dataset(labelled=encode_labels(rows, "classification"), is_small=True)


def divided(folder: Path, pattern: str, **options: Any) -> Dataset:
    """A set with a training and a test file."""
    train, test = (read_table(folder / pattern.format(part), sequence_column="seq") for part in ("train", "test"))
    both = LabelledRows(
        path=train.path,
        sequences=train.sequences + test.sequences,
        labels=train.labels + test.labels,
        lines=train.lines + test.lines,
    )
    rows = np.arange(len(train), len(both))
    return Dataset(labelled=encode_labels(both, "classification"), test=rows, **options)


def of_lines(path: Path, lines: list[tuple[int, str, str]]) -> LabelledSet:
    """A set from line numbers, labels and sequences."""
    numbers, labels, sequences = zip(*lines, strict=True)
    rows = LabelledRows(
        path=str(path),
        sequences=tuple(sequence.strip().upper().encode() for sequence in sequences),
        labels=tuple(label.strip() for label in labels),
        lines=numbers,
    )
    return encode_labels(rows, "classification")


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "gb_nontata": nontata,
    "ienhancer": ienhancer,
    "ienhancer_clean": ienhancer_clean,
    "uci_splice": uci_splice,
    "uci_promoters": uci_promoters,
    "ecoli_promoters": ecoli_promoters,
}

if __name__ == "__main__":
    main()
