"""Retrieval of proteins by coding sequence and back, on genes that were not trained on.

    python benchmarks/retrieval.py a.gb b.gb ... [--seconds 180 | --steps N] [--patchers fitted static] [--seeds 0]
        [--preset tiny] [--codons 64] [--target-length 6] [--batch 32] [--rate 1e-3] [--test-share 0.2] [--json o.json]

Pairs of coding sequence and protein come from GenBank files (a CDS without a stored protein is translated by us if it
reads whole). They are split so that no gene and no near-duplicate of one is on both sides. A net for DNA and one for
protein are trained on crops of equal length, and asked on held-out genes: for crops of that length from the middle of
each gene, which no length gives away, and for whole genes. `vectors` compares one vector per sequence, `agreement` lets
the patches of both attend to each other. Beside them: guessing, the length alone, nets as they were before the
training, and translating and matching 3-mers of amino acids, which knows the genetic code. One thread; seconds are of
the processor.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import Tensor

from hyena_glt import HyenaGLTConfig, Patcher
from hyena_glt.multimodal import (
    AlignmentRecipe,
    CodingPair,
    MultiModalGenomicProcessor,
    PairSet,
    read_pairs,
    recall_at,
    split_pairs,
    train_alignment,
)
from hyena_glt.multimodal.retrieval import chance, length_scores, translated_word_scores

KS = (1, 5)
HEAD = "| test | method | DNA patches | recall@1 DNA to protein | @5 | recall@1 protein to DNA | @5 |"


def main() -> None:
    """Read, split, train, ask, print the table, write the JSON."""
    options = arguments()
    torch.set_num_threads(1)
    found = read_pairs(options.genbank, translate_missing=True)
    rows: list[dict[str, Any]] = []
    sizes: list[dict[str, int]] = []
    for seed in options.seeds:
        train, held_out = split_pairs(found.pairs, options.test_share, seed)
        tests = test_sets(held_out, options.codons)
        sizes.append({"train": len(train), **{name: len(pairs) for name, pairs in tests.items()}})
        rows += [{"seed": seed, **row} for name, pairs in tests.items() for row in simple_means(name, pairs)]
        for kind in options.patchers:
            rows += [{"seed": seed, **row} for row in trained(kind, train, tests, options, seed)]
    print(as_table(found, rows, sizes, options))
    if options.json:
        asked = {name: [str(p) for p in value] if name == "genbank" else value for name, value in vars(options).items()}
        content = {"machine": machine(), "torch": torch.__version__, "options": {**asked, "json": str(options.json)}}
        facts = {"num_coding": found.num_coding, "num_pairs": len(found.pairs), "num_own": found.num_own}
        content |= {"pairs": {**facts, "mismatches": len(found.mismatches)}, "sizes": sizes, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genbank", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=180.0, help="processor time of one training")
    parser.add_argument("--steps", type=int, help="steps of one training, in place of a time")
    parser.add_argument("--patchers", nargs="+", choices=("fitted", "static"), default=["fitted", "static"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--codons", type=int, default=64, help="length of a crop")
    parser.add_argument("--target-length", type=float, default=6.0, help="bases per DNA patch")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--test-share", type=float, default=0.2)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def test_sets(held_out: Sequence[CodingPair], codons: int) -> dict[str, list[CodingPair]]:
    """Crops of one length from the middle of the genes that are long enough, and these genes whole."""
    genes = [pair for pair in held_out if len(pair.protein) >= codons]
    middles = [pair.crop((len(pair.protein) - codons) // 2, codons) for pair in genes]
    return {f"{codons} codons": middles, "whole genes": genes}


def simple_means(test: str, pairs: Sequence[CodingPair]) -> list[dict[str, Any]]:
    """What needs no net."""
    guess = chance(len(pairs), KS)
    scores = {"length": length_scores(pairs), "translated 3-mers": translated_word_scores(pairs)}
    rows = [{"test": test, "method": "chance", "patches": "", "forward": guess, "backward": guess}]
    return rows + [recall_row(test, method, "", values) for method, values in scores.items()]


def trained(
    kind: str, train: list[CodingPair], tests: dict[str, list[CodingPair]], options: argparse.Namespace, seed: int
) -> list[dict[str, Any]]:
    """Rows of one net before and after its training."""
    config = HyenaGLTConfig.preset(options.preset)
    processor = MultiModalGenomicProcessor(config, modalities=["dna", "protein"], seed=seed)
    if kind == "fitted":
        processor.fit_patchers({"dna": [pair.dna for pair in train]}, options.target_length)
    else:
        processor.set_patcher("dna", Patcher(patching_mode="static", patch_size=options.target_length))
    rows = asked(processor, tests, kind, "untrained ")
    recipe = AlignmentRecipe(codons=options.codons, batch_size=options.batch, learning_rate=options.rate)
    limit = {"steps": options.steps} if options.steps else {"seconds": options.seconds}
    report = train_alignment(processor, train, recipe, seed=seed, **limit)
    last = report.losses[-20:]
    facts = {
        "steps": report.steps,
        "cpu_s": report.cpu_s,
        "last_loss": sum(last) / len(last),
        "pairs": report.num_pairs,
    }
    print(kind, seed, facts, file=sys.stderr, flush=True)
    return rows + [{**row, **facts} for row in asked(processor, tests, kind, "")]


@torch.no_grad()
def asked(
    processor: MultiModalGenomicProcessor, tests: dict[str, list[CodingPair]], kind: str, prefix: str
) -> list[dict[str, Any]]:
    """Recall of a net on each test set, by vectors and by agreement."""
    rows, align = [], processor.alignment
    for test, pairs in tests.items():
        begin = time.process_time()
        dna = processor.patch_states("dna", [pair.dna for pair in pairs])
        protein = processor.patch_states("protein", [pair.protein for pair in pairs])
        vectors = align.vectors("dna", dna) @ align.vectors("protein", protein).T
        rows.append(recall_row(test, f"{prefix}vectors", kind, vectors))
        if not prefix:
            rows.append(recall_row(test, "agreement", kind, align.agreement("dna", dna, "protein", protein)))
        rows[-1]["ask_cpu_s"] = time.process_time() - begin
    return rows


def recall_row(test: str, method: str, patches: str, scores: Tensor) -> dict[str, Any]:
    """Recall in both directions."""
    forward, backward = recall_at(scores, KS), recall_at(scores.T, KS)
    return {"test": test, "method": method, "patches": patches, "forward": forward, "backward": backward}


def as_table(
    found: PairSet, rows: list[dict[str, Any]], sizes: list[dict[str, int]], options: argparse.Namespace
) -> str:
    """The result as Markdown: means over the seeds."""
    length = f"{options.steps} steps" if options.steps else f"{options.seconds:g} s of processor time"
    counts = [
        f"{found.num_coding} CDS, {len(found.pairs)} pairs ({found.num_own} translated by us)",
        f"{len(found.mismatches)} left out because translating gives another protein, {found.untranslated} without one",
    ]
    lines = [f"{machine()}, torch {torch.__version__}, one thread; preset {options.preset}, {length} a training"]
    lines += [", ".join(counts), *(f"pairs of seed {s}: {n}" for s, n in zip(options.seeds, sizes, strict=True)), ""]
    lines += [HEAD, "| --- | --- | --- | --- | --- | --- | --- |"]
    keys = dict.fromkeys((row["test"], row["method"], row["patches"]) for row in rows)
    for test in dict.fromkeys(key[0] for key in keys):
        for key in (key for key in keys if key[0] == test):
            same = [row for row in rows if (row["test"], row["method"], row["patches"]) == key]
            cells = [sum(row[way][k] for row in same) / len(same) for way in ("forward", "backward") for k in KS]
            lines.append(f"| {' | '.join(key)} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
