"""Where in a patch is a net worse? Held-out bits per base by bases since the start of the patch.

    python benchmarks/loss_by_place.py runs/patching_pays/random-8-seed0 GENOME.fa.gz [...] [--places 24]

Takes finished runs of `patching_pays.py`, a folder and the recipe beside it. Flat figures say that what costs is not
how long ago the last patch ended; the share of bases in patches above 1,000 shows runs of N where they do not belong.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml
from torch import Tensor

from hyena_glt import HyenaGLT
from hyena_glt.model.heads import token_losses
from hyena_glt.positions import PositionInfo
from hyena_glt.training.engine import Engine
from hyena_glt.training.loader import Batch, eval_batches
from hyena_glt.training.objectives import BITS_PER_NAT, HELD_OUT, make_task
from hyena_glt.training.recipe import Recipe
from hyena_glt.training.run_data import evenly_spaced
from hyena_glt.training.trainer import open_run

LONG_PATCH = 1000  # bases


def main() -> None:
    """Print one line for each place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="finished; its recipe is RUN.yaml")
    parser.add_argument("genomes", nargs="+", type=Path)
    parser.add_argument("--places", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    net = HyenaGLT.from_pretrained(options.run / "model").eval()
    recipe = Recipe.model_validate(yaml.safe_load(options.run.with_suffix(".yaml").read_text()))
    with TemporaryDirectory() as place, Engine.from_environment("cpu") as engine:
        trainer = open_run(recipe, Path(place) / "run", engine, options.genomes)
        assert trainer is not None
        assert trainer.data.held_out is not None
        batches, size = recipe.evaluation.batches or 24, recipe.batch.size
        table = evenly_spaced(trainer.data.held_out, batches * size)
        parts = [
            losses_of(net, recipe, batch) for batch in eval_batches(table.corpus, table, size, trainer.data.patches)
        ]
    bits, offsets, lengths = (torch.cat(column) for column in zip(*parts, strict=True))
    print(f"{options.run.name}: {bits.mean():.4f} bits per base, {len(bits):,} bases")
    print(f"in patches of {LONG_PATCH:,} bases and more: {(lengths >= LONG_PATCH).float().mean():.1%}")
    print("| bases since the start | bits per base | bases |\n| --- | --- | --- |")
    for offset in range(options.places):
        here = bits[offsets == offset]
        if len(here):
            print(f"| {offset} | {here.mean():.4f} | {len(here):,} |")


@torch.no_grad()
def losses_of(net: HyenaGLT, recipe: Recipe, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Bits of each base to predict, bases since the start of its patch, and the length of that patch."""
    task = make_task(batch, recipe.objective, recipe.data.alphabet, recipe.seed, HELD_OUT)
    output = net(task.inputs, task.patch_lengths, task.known_starts)
    targets = net.vocabulary_ids(task.targets)[:, 1:]
    losses = token_losses(output.logits[:, :-1], targets) * BITS_PER_NAT
    info = PositionInfo.from_patch_lengths(output.patch_lengths)
    return tuple(values[targets >= 0] for values in (losses, info.offsets[:, 1:], info.token_patch_lengths[:, 1:]))


if __name__ == "__main__":
    main()
