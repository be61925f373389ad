"""Does patching pay? Held-out bits per base against training seconds, for byte mode and ways to cut patches.

    python benchmarks/patching_pays.py GENOME.fa.gz [...] --measure     # seconds per update, on an idle machine
    python benchmarks/patching_pays.py GENOME.fa.gz [...] [--seconds 600] [--seeds 0 1] [--settings byte static-8 ...]
        [--local-layers 1] [--no-reading-frame] [--tracks FILE.bedgraph ...] [--folder runs/patching_pays]
        [--dropout 0] [--window 4096] [--batch-size 4] [--evaluations 12] [--json out.json] [--plot out.png]

Each setting and seed is one `hyena-glt pretrain` of the same net (preset `tiny`, one thread) on the same windows. A
setting gets as many updates as `--seconds` allow at the rate that `--measure` found, all settings in turn on an idle
machine, so what else runs beside the trainings changes nothing; evaluation and the patching, which is done once for
all epochs, are not counted. `random-*` is the control: the lengths of the entropy patches in random order. Each of
`--tracks` is one more setting, of its name, whose patches start behind a value above 0.5; then all settings learn the
forward strand alone, since a track has no other. Finished runs in `--folder` are not repeated, so the grid may be done
in parts. The figures of order-k context models fitted on the training part, and of `mix` without any fit, stand beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from machine import machine

from hyena_glt.entropies import MarkovEntropy, MixEntropy
from hyena_glt.training.corpus import Corpus, split_corpus
from hyena_glt.training.engine import Engine
from hyena_glt.training.metrics_log import METRICS_FILE
from hyena_glt.training.recipe import Recipe
from hyena_glt.training.trainer import Trainer, open_run

SETTINGS: dict[str, dict[str, Any]] = {
    "byte": {"mode": "byte"},
    "entropy-4": {"mode": "entropy", "target_length": 4.0},
    "entropy-8": {"mode": "entropy", "target_length": 8.0},
    "entropy-16": {"mode": "entropy", "target_length": 16.0},
    "random-8": {"mode": "random", "target_length": 8.0},
    "random-16": {"mode": "random", "target_length": 16.0},
    "static-8": {"mode": "static", "size": 8.0},
    "static-16": {"mode": "static", "size": 16.0},
    "mix-8": {"mode": "mix", "target_length": 8.0},
    "learned-8": {"mode": "learned", "target_length": 8.0},
}
MODEL_ORDERS = (10, 12)


RATES_FILE, MODEL_FOLDER = "rates.json", "model"
FIRST_ROUNDS, ROUNDS = 3, 24
MANY_UPDATES = 10_000  # so that no evaluation falls into what is measured


def main() -> None:
    """Run what is missing, print the table, write JSON and plot."""
    options = parsed_options()
    names = [path.name.partition(".")[0] for path in options.tracks]
    by_track = ({"mode": "track", "track": str(path.resolve()), "threshold": 0.5} for path in options.tracks)
    SETTINGS.update(zip(names, by_track, strict=True))
    options.settings += names
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.measure:
        rates = measured_rates(options)
        (options.folder / RATES_FILE).write_text(json.dumps({"machine": machine(), "rates": rates}, indent=2) + "\n")
        return
    rates = json.loads((options.folder / RATES_FILE).read_text())["rates"]
    rows = []
    for seed in options.seeds:
        for name in options.settings:
            folder = options.folder / f"{name}-seed{seed}"
            train(options, name, seed, round(options.seconds / rates[name]), folder)
            rows.append({"setting": name, "seed": seed, **curve_of(options, folder, rates[name])})
            print(f"{name}, seed {seed}: {rows[-1]['bits_per_base']:.4f} bits per base", file=sys.stderr, flush=True)
    first = options.settings[0]
    recipe = recipe_of(options, first, options.seeds[0], round(options.seconds / rates[first]))
    result = {
        "machine": machine(),
        "genomes": [path.name for path in options.genomes],
        "seconds": options.seconds,
        "seconds_per_update": rates,
        "recipe": recipe,
        "references": references(recipe, options.genomes, options.seeds[0]),
        "rows": rows,
    }
    print(as_table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if options.plot:
        draw(result, options.plot)


def parsed_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genomes", nargs="+", type=Path)
    parser.add_argument("--measure", action="store_true", help="find the seconds per update of each setting, and stop")
    parser.add_argument("--seconds", type=float, default=600.0, help="of training, for each run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--tracks", nargs="+", type=Path, default=[], help="bigWig or bedGraph, each a setting more")
    parser.add_argument("--local-layers", type=int, default=1, help="of the net, on each side of the trunk")
    parser.add_argument("--no-reading-frame", dest="reading_frame", action="store_false", help="nets as they were")
    parser.add_argument("--dropout", type=float, default=0.0, help="of the net, and of its n-grams")
    parser.add_argument("--folder", type=Path, default=Path("runs/patching_pays"))
    parser.add_argument("--window", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--held-out-share", type=float, default=0.1)
    parser.add_argument("--evaluations", type=int, default=12, help="of each run, evenly spaced")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    return parser.parse_args()


def recipe_of(options: argparse.Namespace, name: str, seed: int, updates: int) -> dict[str, Any]:
    """What a run does; all settings share everything but the patches and the number of updates."""
    every = max(updates // options.evaluations, 1)
    local = dict.fromkeys(("num_local_encoder_layers", "num_local_decoder_layers"), options.local_layers)
    dropped = {"dropout": options.dropout, "ngram_dropout": options.dropout} if options.dropout else {}
    strands = {"reverse_complement": False} if options.tracks else {}
    held_out = {"held_out_share": options.held_out_share, "block": 65_536, "gap": 8192}
    return {
        "model": {
            "preset": "tiny",
            "genomic_vocab_size": 4,
            "reading_frame": options.reading_frame,
            **local,
            **dropped,
        },
        "data": {"window": options.window, **held_out, **strands},
        "patching": SETTINGS[name],
        "optimizer": {"lr": options.learning_rate},
        "schedule": {"steps": updates},
        "batch": {"size": options.batch_size},
        "evaluation": {"every": every, "batches": 24},
        "checkpoint": {"every": every, "keep": 1},
        "seed": seed,
    }


def measured_rates(options: argparse.Namespace) -> dict[str, float]:
    """Seconds per update of each setting: its median share of a round in which each makes one, times a round's median.

    All settings are held in this process and take turns after every update, so a slow phase of the machine slows all
    of them alike.
    """
    torch.set_num_threads(1)
    rounds = []
    with TemporaryDirectory(dir=options.folder) as place, Engine.from_environment("cpu") as engine:
        trainers = {}
        for name in options.settings:
            recipe = Recipe.model_validate(recipe_of(options, name, 0, MANY_UPDATES))
            trainers[name] = open_run(recipe, Path(place) / name, engine, options.genomes)
        for turn in range(FIRST_ROUNDS + ROUNDS):
            taken = {name: seconds_of_update(trainer) for name, trainer in trainers.items()}
            print(f"round {turn}: {sum(taken.values()):.2f} s", file=sys.stderr, flush=True)
            rounds.append(taken)
    rounds = rounds[FIRST_ROUNDS:]
    whole = statistics.median(sum(taken.values()) for taken in rounds)
    shares = {name: statistics.median(taken[name] / sum(taken.values()) for taken in rounds) for name in trainers}
    return {name: share * whole for name, share in shares.items()}


def seconds_of_update(trainer: Trainer) -> float:
    """One more update of a run."""
    before = trainer.elapsed_s
    trainer.run(stop=lambda: trainer.elapsed_s > before)
    return trainer.elapsed_s - before


def train(options: argparse.Namespace, name: str, seed: int, updates: int, folder: Path) -> None:
    """One run, unless it is done; one that was interrupted goes on."""
    if (folder / MODEL_FOLDER).is_dir():
        return
    written = folder.with_suffix(".yaml")
    written.write_text(json.dumps(recipe_of(options, name, seed, updates), indent=2))  # JSON is YAML
    words = ["pretrain", written, *options.genomes, "-o", folder, "--resume", "-@", 1]
    subprocess.run([sys.executable, "-m", "hyena_glt", *map(str, words)], check=True)


def metrics(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind that a run has logged."""
    lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def curve_of(options: argparse.Namespace, folder: Path, rate: float) -> dict[str, Any]:
    """Held-out bits per base by training seconds at a rate, and what the run came to."""
    curve = [(line["step"] * rate, line["bits_per_base"]) for line in metrics(folder, "evaluation")]
    return {
        "steps": metrics(folder, "train")[-1]["step"],
        "bases_per_second": options.batch_size * options.window / rate,
        "bits_per_base": curve[-1][1],
        "curve": curve,
    }


def references(recipe: dict[str, Any], genomes: list[Path], seed: int) -> dict[str, float]:
    """Bits per base of context models on the sequence that runs of this seed hold out."""
    corpus = Corpus.from_fasta(genomes)
    data = recipe["data"]
    learned, kept = split_corpus(
        corpus, held_out_share=data["held_out_share"], block=data["block"], gap=data["gap"], seed=seed
    )
    train_parts, held_out = (
        [corpus.sequence(*place).tobytes() for place in part.spans.tolist()] for part in (learned, kept)
    )
    found = {f"markov order {k}": MarkovEntropy.fit(train_parts, order=k).bits_per_base(held_out) for k in MODEL_ORDERS}
    found["mix, from scratch"] = MixEntropy().bits_per_base(held_out)
    return found


def seconds_to(curve: list[tuple[float, float]], bits: float) -> float | None:
    """Training seconds after which a curve is at or below a level; None: never."""
    return next((seconds for seconds, value in curve if value <= bits), None)


def as_table(result: dict[str, Any]) -> str:
    """The result as Markdown: when a setting reaches the byte mode's last figure of its seed, and that its best."""
    lines = [
        f"{result['machine']}; {', '.join(result['genomes'])}; {result['seconds']:g} s of training a run; bits per "
        "base held out, one figure for each seed",
        "",
        "| setting | bits per base, last | least | after, s | byte mode there after, s | updates | s per update | "
        "seconds to the byte mode's last figure |",
        "| --- " * 8 + "|",
    ]
    byte = {row["seed"]: row for row in result["rows"] if row["setting"] == "byte"}
    for name in dict.fromkeys(row["setting"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["setting"] == name]
        best = [min(row["curve"], key=lambda point: point[1]) for row in rows]
        pairs = [(row, found, byte.get(row["seed"])) for row, found in zip(rows, best, strict=True)]
        there = [None if other is None else seconds_to(other["curve"], bits) for _, (_, bits), other in pairs]
        reached = [None if b is None else seconds_to(row["curve"], b["bits_per_base"]) for row, _, b in pairs]
        cells = [
            ", ".join(f"{row['bits_per_base']:.4f}" for row in rows),
            ", ".join(f"{bits:.4f}" for _, bits in best),
            ", ".join(f"{seconds:.0f}" for seconds, _ in best),
            ", ".join(map(rounded, there)),
            f"{rows[0]['steps']:,}",
            f"{result['seconds_per_update'][name]:.3f}",
            ", ".join(map(rounded, reached)),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *(f"- {name}: {bits:.4f} bits per base" for name, bits in result["references"].items())]
    return "\n".join(lines)


def rounded(seconds: float | None) -> str:
    """For the table."""
    return "never" if seconds is None else f"{seconds:.0f}"


def draw(result: dict[str, Any], path: Path) -> None:
    """Held-out bits per base against training seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row["setting"] for row in result["rows"]))
    for row in result["rows"]:
        seconds, bits = zip(*row["curve"], strict=True)
        label = row["setting"] if row["seed"] == result["rows"][0]["seed"] else None
        axes.plot(seconds, bits, label=label, color=f"C{names.index(row['setting'])}", marker=".")
    for name, bits in result["references"].items():
        axes.axhline(bits, color="grey", linewidth=0.8, linestyle=":")
        place = axes.get_yaxis_transform()  # x as a share of the width
        axes.text(0.01, bits, name, fontsize=7, va="bottom", color="grey", transform=place)
    axes.set(xlabel="seconds of training", ylabel="held-out bits per base")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
