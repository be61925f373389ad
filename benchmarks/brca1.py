"""BRCA1: which single-base changes break the gene? Zero-shot, and with a small head, against saturation genome editing.

    python benchmarks/brca1.py FOLDER [--model FOLDER ...] [--window 2048] [--untrained-seeds 20]
        [--only zero-shot head untrained] [--threads 1] [--cells runs/brca1.jsonl] [--table-only] [--json out.json]

FOLDER holds `BRCA1_SGE_GRCh37_region.vcf.gz` (Findlay et al. 2018: 3,893 changes, FUNC 2,821, INT 249, LOF 823) and
its region, `BRCA1_GRCh37_chr17_41100001-41300000.fa.gz`; where they are absent one line says so. Each exon is a cell
that is written to `--cells` when it is done and not repeated, so a run may be done in parts.

Zero-shot: the log-likelihood of the window with ALT minus that with REF, mean of both strands (`VariantScorer`); lower
should mean LOF. The shipped net, those of `--model`, and as control `--untrained-seeds` nets of random weights, whose
mean AUROC must lie between 0.45 and 0.55.

Head: logistic regression on that difference and the difference of the mean byte states behind the variant, on either
strand, LOF against the rest. Each exon with its borders is predicted by a model that has seen none of it (exons lie 461
bases apart or more), so neighbours are never divided; C comes from an inner cross-validation over the other exons.
Controls: `substitution` knows REF, ALT and the two bases beside it, and no net; the head of a net of random weights.

AUROC is given for LOF against FUNC and INT together (as the notebook of Evo 2 has it) and for LOF against FUNC, INT
left out. Intervals (95 %) come from 1,000 bootstrap resamples of positions, whose changes are drawn together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classification import FinishedCells, interval, require_sklearn
from machine import machine
from numpy.typing import NDArray

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.errors import ModelFileError
from hyena_glt.model.shipped import SHIPPED_FOLDER, shipped_net, weights_label
from hyena_glt.sequences.alphabets import reverse_complement
from hyena_glt.sequences.fasta import read_records
from hyena_glt.tokens import ByteTokenizer
from hyena_glt.training.task_metrics import Order, auroc, estimate
from hyena_glt.variants.edits import Edit
from hyena_glt.variants.scoring import PlacedEdit, VariantScorer
from hyena_glt.variants.vcf_reader import VcfReader

Reals = NDArray[np.float64]
Whole = NDArray[np.int64]

VARIANTS = "BRCA1_SGE_GRCh37_region.vcf.gz"
REGION = "BRCA1_GRCh37_chr17_41100001-41300000.fa.gz"
EXON_GAP = 200  # bases between positions that begin another exon
SPAN = 64  # bases at and behind the variant whose states are averaged
EMBEDDING_WINDOW = 512  # bases around it
AT_ONCE = 32  # windows of a forward
PATCH_SIZE = 8.0  # bases, of the nets of random weights
REGULARISATION = 10.0 ** np.arange(-4, 1)  # values of C
DIGITS = 6  # of the numbers in the cells
PARTS = ("zero-shot", "head", "untrained")
PUBLISHED = (
    "AUROC 0.73, zero-shot, LOF against FUNC and INT: Evo 2 1B base, windows of 8,192 bases (notebooks/brca1/"
    "brca1_zero_shot_vep.ipynb of ArcInstitute/evo2, on the same 3,893 changes)",
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Variants:
    """The changes, in the order of the file."""

    contig: str
    sequence: bytes  # of the region, upper case
    starts: Whole  # (variants,) 0-based
    refs: list[bytes]
    alts: list[bytes]
    classes: NDArray[np.str_]  # (variants,) FUNC, INT or LOF
    exons: Whole  # (variants,) number of the stretch of neighbours


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scored:
    """A net, by name, and how to make it."""

    label: str
    make: Callable[[], HyenaGLT]
    window: int
    has_head: bool


def main() -> None:
    """Score what is missing, print the tables, write the JSON."""
    options = parsed_options()
    torch.set_num_threads(options.threads)
    missing = [name for name in (VARIANTS, REGION) if not (options.folder / name).is_file()]
    if missing:
        print(f"skipped: {', '.join(missing)} not in {options.folder}", file=sys.stderr)
        return
    require_sklearn()
    variants = read_variants(options.folder)
    cells = FinishedCells.read(options.cells)
    rows: list[dict[str, Any]] = []
    if "head" in options.only:
        rows.append(result("substitution", "head", head_scores(variants, context_features(variants)), variants))
    for scored in nets(options):
        rows += net_rows(cells, scored, variants, options)
    print(as_table(rows), cells.about_code(), sep="\n\n")
    if options.json:
        asked = {"window": options.window, "untrained_window": options.untrained_window, "size": options.size}
        about = {"machine": machine(), "torch": torch.__version__, "options": asked, "published": PUBLISHED}
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")


def parsed_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the variants")
    parser.add_argument("--model", nargs="+", type=Path, default=[], help="folders of saved nets, causal")
    parser.add_argument("--window", type=int, default=2048, help="bases")
    parser.add_argument("--untrained-window", type=int, default=1024, help="bases, of the nets of random weights")
    parser.add_argument("--untrained-seeds", type=int, default=20, help="how many")
    parser.add_argument("--size", default="tiny", help="preset of the nets of random weights")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--exons", type=int, help="score the first so many alone; checks the script, no more")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cells", type=Path, default=Path("runs/brca1.jsonl"))
    parser.add_argument("--table-only", action="store_true", help="of the nets that are complete")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def read_variants(folder: Path) -> Variants:
    """The changes with their classes; each REF is compared with the region."""
    record = next(iter(read_records(folder / REGION)))
    sequence = record.sequence.upper()
    with VcfReader(folder / VARIANTS) as reader:
        records = list(reader)
    starts = np.array([each.pos - 1 for each in records])
    for start, each in zip(starts, records, strict=True):
        if sequence[start : start + 1] != each.ref or len(each.alts) != 1:
            raise SystemExit(f"{VARIANTS}:{each.line}: expected a change of one base of the region")
    classes = [each.raw.split(b"SGE_CLASS=")[1].split(b";")[0].decode() for each in records]
    order = np.argsort(starts, kind="stable")
    exons = np.empty(len(starts), dtype=np.int64)
    exons[order] = np.cumsum(np.diff(starts[order], prepend=starts[order][0]) > EXON_GAP)
    return Variants(
        contig=record.name,
        sequence=sequence,
        starts=starts,
        refs=[each.ref for each in records],
        alts=[each.alts[0] for each in records],
        classes=np.array(classes),
        exons=exons,
    )


def nets(options: argparse.Namespace) -> list[Scored]:
    """What is scored; the shipped net is left out, with a note, where its weights are not there."""
    found = []
    if "zero-shot" in options.only or "head" in options.only:
        has_head = "head" in options.only
        try:
            shipped_net()
            label = weights_label(SHIPPED_FOLDER)
            found.append(Scored(label=label, make=shipped_net, window=options.window, has_head=has_head))
        except ModelFileError as problem:
            print(f"left out: the shipped net: {problem}", file=sys.stderr)
        for folder in options.model:
            label = weights_label(folder)
            found.append(Scored(label=label, make=saved(folder), window=options.window, has_head=has_head))
    for seed in range(options.untrained_seeds if "untrained" in options.only else 0):
        label = f"untrained {options.size}, seed {seed}"
        has_head = seed == 0 and "head" in options.only
        window = options.untrained_window
        found.append(Scored(label=label, make=untrained(options.size, seed), window=window, has_head=has_head))
    return found


def saved(folder: Path) -> Callable[[], HyenaGLT]:
    """What loads a net."""
    return lambda: HyenaGLT.from_pretrained(folder)


def untrained(size: str, seed: int) -> Callable[[], HyenaGLT]:
    """What makes a net of random weights, causal, with static patches."""

    def make() -> HyenaGLT:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = HyenaGLTConfig.preset(size, causal=True, genomic_vocab_size=4)
            return HyenaGLT(config, Patcher(patching_mode="static", patch_size=PATCH_SIZE, device="cpu")).eval()

    return make


def net_rows(
    cells: FinishedCells, scored: Scored, variants: Variants, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The figures of a net, once all exons are scored."""
    exons = np.unique(variants.exons)[: options.exons].tolist()
    keys = [{"net": scored.label, "window": scored.window, "exon": exon, "head": scored.has_head} for exon in exons]
    todo = [] if options.table_only else [key for key in keys if cells.get(key) is None]
    if todo:
        net = scored.make().eval()
        for key in todo:
            rows = np.flatnonzero(variants.exons == key["exon"])
            began = time.process_time()
            values: dict[str, Any] = {"difference": log_likelihood_differences(net, variants, rows, scored.window)}
            if scored.has_head:
                values["states"] = np.round(state_differences(net, variants, rows), DIGITS).tolist()
            cells.add(key, rows=rows.tolist(), **values, cpu_s=time.process_time() - began)
        print(f"{scored.label}: scored {len(todo)} exons", file=sys.stderr, flush=True)
    there = [cell for key in keys if (cell := cells.get(key)) is not None]
    if len(there) < len(keys):
        return []
    rows = np.concatenate([cell["rows"] for cell in there])
    difference = np.concatenate([cell["difference"] for cell in there])
    cpu_s = sum(cell["cpu_s"] for cell in there)
    found = [result(scored.label, "zero-shot", -difference, variants, rows) | {"cpu_s": cpu_s}]
    if scored.has_head and len(there) > 2:  # one is held out, and of the others one again
        features = np.column_stack([difference, np.concatenate([cell["states"] for cell in there])])
        context = context_features(variants)[rows]
        for name, columns in (("head", features), ("head and substitution", np.column_stack([context, features]))):
            found.append(result(scored.label, name, head_scores(variants, columns, rows), variants, rows))
    return found


def log_likelihood_differences(net: HyenaGLT, variants: Variants, rows: Whole, window: int) -> list[float]:
    """ALT minus REF in nats, mean of both strands."""
    scorer = VariantScorer(net, {variants.contig: variants.sequence}, window=window, rc="avg")
    edits = [
        PlacedEdit(variants.contig, Edit(int(variants.starts[row]), variants.refs[row], variants.alts[row]))
        for row in rows
    ]
    found = [effect.log_likelihood_difference for effect in scorer.score(edits)]
    if None in found:
        raise SystemExit(f"{variants.contig}: a change without a score")
    return [float(value) for value in found if value is not None]


@torch.no_grad()
def state_differences(net: HyenaGLT, variants: Variants, rows: Whole) -> Reals:
    """`(rows, 2 x local)`: mean byte states from the variant on, ALT minus REF, of either strand."""
    half = EMBEDDING_WINDOW // 2
    windows: dict[bytes, int] = {}
    pairs = []
    for row in rows:
        start = int(variants.starts[row])
        ref = variants.sequence[start - half : start + half]
        alt = ref[:half] + variants.alts[row] + ref[half + 1 :]
        pairs.append([windows.setdefault(each, len(windows)) for each in (ref, alt)])
    texts = list(windows)
    here = mean_states(net, texts, half)
    there = mean_states(net, [reverse_complement(text, "dna") for text in texts], half - 1)
    states = np.concatenate([here, there], axis=1)
    places = np.array(pairs)
    return states[places[:, 1]] - states[places[:, 0]]


def mean_states(net: HyenaGLT, windows: Sequence[bytes], place: int) -> Reals:
    """`(windows, local)`: byte states averaged over `SPAN` bases from a place on."""
    found = []
    for first in range(0, len(windows), AT_ONCE):
        tokens = torch.stack([ByteTokenizer().encode(window) for window in windows[first : first + AT_ONCE]])
        states = net(tokens.to(net.device), return_position_info=False).byte_hidden_state
        found.append(states[:, place : place + SPAN].double().mean(1).cpu().numpy())
    return np.concatenate(found)


def context_features(variants: Variants) -> Reals:
    """`(variants, 28)` zeros and ones: the substitution, and the bases before and behind."""
    kinds = [f"{ref}{alt}" for ref in "ACGT" for alt in "ACGT" if ref != alt]
    found = np.zeros((len(variants.starts), len(kinds) + 16))
    for row, start in enumerate(variants.starts):
        found[row, kinds.index((variants.refs[row] + variants.alts[row]).decode())] = 1
        before, behind = (b"ACGT".find(variants.sequence[at : at + 1]) for at in (start - 1, start + 1))
        found[row, len(kinds) + 4 * before + behind] = 1
    return found


def head_scores(variants: Variants, features: Reals, rows: Whole | None = None) -> Reals:
    """`(rows,)` log-odds of LOF, each exon predicted by a model of the others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.arange(len(variants.starts)) if rows is None else rows
    is_lof, exons = variants.classes[rows] == "LOF", variants.exons[rows]
    found = np.empty(len(rows))
    for exon in np.unique(exons):
        train, test = exons != exon, exons == exon
        inner = GroupKFold(min(5, len(np.unique(exons[train]))))
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        search = GridSearchCV(model, {"logisticregression__C": REGULARISATION}, scoring="neg_log_loss", cv=inner)
        search.fit(features[train], is_lof[train], groups=exons[train])
        found[test] = search.decision_function(features[test])
    return found


def result(label: str, kind: str, scores: Reals, variants: Variants, rows: Whole | None = None) -> dict[str, Any]:
    """AUROC of LOF against FUNC and INT, and against FUNC, with intervals; higher scores should be LOF."""
    rows = np.arange(len(variants.starts)) if rows is None else rows
    classes, positions = variants.classes[rows], variants.starts[rows]
    found: dict[str, Any] = {"net": label, "what": kind, "num_variants": len(rows)}
    for name, kept in (("lof_or_not", classes != ""), ("lof_or_func", classes != "INT")):
        groups = np.unique(positions[kept], return_inverse=True)[1]
        order, is_lof = Order.of(scores[kept]), classes[kept] == "LOF"

        def compute(weights: Reals, order: Order = order, is_lof: Any = is_lof, groups: Whole = groups) -> Any:
            return {"auroc": auroc(order, is_lof, weights[:, groups])}

        measured = estimate(compute, int(groups.max()) + 1, len(groups), resamples=1000, seed=0, confidence=0.95)
        found[name] = measured["auroc"].as_dict()
    return found


def as_table(rows: list[dict[str, Any]]) -> str:
    """The result as Markdown; the nets of random weights as one line each way."""
    lines = [
        f"{machine()}, torch {torch.__version__}",
        "",
        "| net | what | variants | AUROC, LOF or not | AUROC, LOF or FUNC | CPU s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    controls = [row for row in rows if row["net"].startswith("untrained") and row["what"] == "zero-shot"]
    for row in rows:
        if row in controls:
            continue
        seconds = f"{row['cpu_s']:.0f}" if "cpu_s" in row else ""
        cells = [row["net"], row["what"], f"{row['num_variants']:,}"]
        cells += [interval(row["lof_or_not"]), interval(row["lof_or_func"]), seconds]
        lines.append("| " + " | ".join(cells) + " |")
    if controls:
        values = [[row[name]["value"] for row in controls] for name in ("lof_or_not", "lof_or_func")]
        spreads = [f"mean {statistics.mean(each):.3f} ({min(each):.3f} to {max(each):.3f})" for each in values]
        seconds = f"{statistics.median(row['cpu_s'] for row in controls):.0f} each"
        what = f"untrained, {len(controls)} seeds"
        lines.append(
            f"| {what} | zero-shot | {controls[0]['num_variants']:,} | {spreads[0]} | {spreads[1]} | {seconds} |"
        )
    return "\n".join([*lines, "", *(f"Published: {text}." for text in PUBLISHED)])


if __name__ == "__main__":
    main()
