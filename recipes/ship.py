"""Put a trained net into the package: bfloat16 weights, patcher, model card, and the figures that the card states.

    hyena-glt pretrain recipes/hyena-glt-dna.yaml GENOMES... -o runs/shipped
    python recipes/ship.py runs/shipped GENOMES...

The genomes are those of the run, in the same order. Held-out figures are of the rounded weights as they ship, on the
blocks that the run held out, by file; beside them order-k context models fitted on the run's training part, and `mix`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from machine import machine

from hyena_glt import HyenaGLT
from hyena_glt.entropies import MarkovEntropy, MixEntropy
from hyena_glt.model.shipped import SHIPPED_FOLDER, SHIPPED_NAME, weights_label
from hyena_glt.model.weights import WEIGHTS_FILE, save_net
from hyena_glt.sequences.atomic import sha256_file
from hyena_glt.training.corpus import Corpus, split_corpus
from hyena_glt.training.language_bits import bits_per_base
from hyena_glt.training.metrics_log import METRICS_FILE
from hyena_glt.training.recipe import load_recipe

RECIPE = Path(__file__).with_name("hyena-glt-dna.yaml")
FIGURES = Path(__file__).parent.parent / "docs" / "figures"
ORDERS = (8, 10, 12)
LARGEST_MIB = 16
SEQUENCES = {  # what the files hold
    "ecoli_K12_MG1655_NC_000913.3.fna.gz": "*Escherichia coli* K-12 MG1655, NC_000913.3",
    "phix174_NC_001422.1.fna": "phage phiX174, NC_001422.1",
    "lambda_NC_001416.1.fa": "phage lambda, NC_001416.1",
    "mgenitalium_NC_000908.2.fa.gz": "*Mycoplasmoides genitalium* G37, NC_000908.2",
    "yeast_chrI.fa.gz": "*Saccharomyces cerevisiae* chromosome I (SGD; NC_001133)",
    "human_mtDNA_rCRS.fasta": "human mitochondrion, NC_012920.1 (rCRS)",
    "phix174_like_rokyta2006.fasta": "16 relatives of phiX174, DQ079880.1 to DQ079895.1",
    "sarscov2_MN908947.fasta": "SARS-CoV-2 Wuhan-Hu-1, MN908947",
    "grch37_chr20_1Mb_z.fa.gz": "human chromosome 20, 1 Mb of GRCh37",
    "hg19_chr20_partial_softmasked.fa.gz": "human chromosome 20, hg19, the 1.1 Mb that are not N",
    "hg38_chr22_32.0-32.3Mb.fa.gz": "human chromosome 22, 32.0 to 32.3 Mb of hg38",
}
WINDOW = 8192


def main() -> None:
    """Write the folder of the package, the loss curve and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("genomes", nargs="+", type=Path)
    options = parser.parse_args()
    save_net(HyenaGLT.from_pretrained(options.run / "model"), SHIPPED_FOLDER, torch.bfloat16)
    size = (SHIPPED_FOLDER / WEIGHTS_FILE).stat().st_size / 2**20
    if size > LARGEST_MIB:
        raise SystemExit(f"{size:.1f} MiB of weights, at most {LARGEST_MIB} may ship")
    lines = [json.loads(line) for line in (options.run / METRICS_FILE).read_text().splitlines()]
    facts = {
        "machine": machine(),
        "run": run_facts(lines),
        "held_out": held_out_figures(options.genomes),
        "genomes": {path.name: sha256_file(path) for path in options.genomes},
    }
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"{SHIPPED_NAME}.json").write_text(json.dumps(facts, indent=2) + "\n")
    draw(lines, FIGURES / f"{SHIPPED_NAME}.png")
    (SHIPPED_FOLDER / "README.md").write_text(model_card(facts, size))
    print(as_table(facts["held_out"]))


def run_facts(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What the run came to, from its log."""
    updates = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    return {
        "updates": updates[-1]["step"],
        "epochs": updates[-1]["epoch"],
        "hours": updates[-1]["timings"]["elapsed_s"] / 3600,
        "last_evaluation": evaluations[-1]["bits_per_base"],
    }


def held_out_figures(genomes: list[Path]) -> list[dict[str, Any]]:
    """Bits per base of the net that ships and of context models, on what each file holds out."""
    recipe, net = load_recipe(RECIPE), HyenaGLT.from_pretrained(SHIPPED_FOLDER)
    corpus = Corpus.from_fasta(genomes)
    data = recipe.data
    learned, kept = split_corpus(
        corpus, held_out_share=data.held_out_share, block=data.block, gap=data.gap, seed=recipe.seed
    )
    train = [corpus.sequence(*place).tobytes() for place in learned.spans.tolist()]
    models = {f"order {order}": MarkovEntropy.fit(train, order=order) for order in ORDERS}
    by_file: dict[str, list[bytes]] = {}
    for contig, start, end in kept.spans.tolist():
        by_file.setdefault(corpus.contigs[contig].file, []).append(corpus.sequence(contig, start, end).tobytes())
    rows = []
    for name, pieces in by_file.items():
        held_out = Corpus.from_sequences({str(index): piece for index, piece in enumerate(pieces)})
        found = bits_per_base(net, held_out, window=WINDOW)
        others = {label: model.bits_per_base(pieces) for label, model in models.items()}
        interval = [found.bits.low, found.bits.high]
        row = {"file": Path(name).name, "bases": found.num_bases, "net": found.bits.value, "interval": interval}
        rows.append({**row, **others, "mix": MixEntropy().bits_per_base(pieces)})
    return rows


def as_table(rows: list[dict[str, Any]]) -> str:
    """The held-out figures as Markdown."""
    others = [f"order {order}" for order in ORDERS] + ["mix"]
    lines = [
        f"| held out of | bases | this net (95% interval) | {' | '.join(others)} |",
        "| --- " * (3 + len(others)) + "|",
    ]
    for row in rows:
        interval = "" if None in row["interval"] else " ({:.3f} to {:.3f})".format(*row["interval"])
        cells = [f"{row['net']:.4f}{interval}", *(f"{row[name]:.4f}" for name in others)]
        lines.append(f"| {row['file']} | {row['bases']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def model_card(facts: dict[str, Any], size: float) -> str:
    """What a user should know before relying on the weights."""
    run, recipe = facts["run"], yaml.safe_load(RECIPE.read_text())
    genomes = "\n".join(
        f"- {SEQUENCES.get(name, name)} (`{name}`, sha256 {digest[:12]})" for name, digest in facts["genomes"].items()
    )
    data, patching = recipe["data"], " ".join(str(value) for value in recipe["patching"].values())
    return f"""# {SHIPPED_NAME}

A small causal net for DNA that ships with Hyena-GLT, so that `embed`, `variants`, `generate` and `report` have trained
weights from the first minute. It was trained on a CPU on a few small genomes and knows little: use it to try things,
and train your own (docs/training.md) for results that matter.

- Weights: {weights_label(SHIPPED_FOLDER)}; {size:.1f} MiB, bfloat16.
- License: that of the package.
- Predicts the next base from those before it; patches: {patching}; {data["window"]:,} bases of context in training.
- Recipe: `recipes/{RECIPE.name}`, seed {recipe["seed"]}; {run["updates"]:,} updates, {run["hours"]:.2f} hours on
  {facts["machine"]}. The loss curve is `docs/figures/{SHIPPED_NAME}.png`.

## Data

{data["held_out_share"]:.0%} of the sequence, in blocks of {data["block"]:,} bases, was held out; the figures are of it.
Learned on either strand; soft-masked sequence too. None of the data is part of the package:

{genomes}

## Held-out bits per base

Windows of {WINDOW:,} bases; order-k context models were fitted on the same training part; `mix` starts from nothing and
learns as it reads. `python recipes/ship.py RUN GENOMES...` computes the table.

{as_table(facts["held_out"])}

## Limits

Human sequence beyond the 2.4 Mb above, plants, and most of the tree of life were never seen. It is no tool for clinical
decisions. Letters other than A, C, G, T are one ambiguity symbol to it.
"""


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Bits per base over training hours, learned and held out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    updates = [line for line in lines if line["kind"] == "train"]
    hours = {line["step"]: line["timings"]["elapsed_s"] / 3600 for line in updates}
    window = max(len(updates) // 200, 1)
    means = [
        sum(line["bits_per_base"] for line in updates[first : first + window]) / len(updates[first : first + window])
        for first in range(0, len(updates), window)
    ]
    axes.plot([hours[line["step"]] for line in updates[::window]], means, color="C0", linewidth=1, label="training")
    held_out = [line for line in lines if line["kind"] == "evaluation"]
    places = [hours[line["step"]] for line in held_out]
    axes.plot(places, [line["bits_per_base"] for line in held_out], color="C1", marker=".", label="held out")
    low = min([line["bits_per_base"] for line in held_out] + means)
    axes.set(xlabel="hours of training", ylabel="bits per base", ylim=(low - 0.01, 2.03))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
