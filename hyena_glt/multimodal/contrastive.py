"""Pairs of coding sequence and protein -> nets and attention that find each other (symmetric InfoNCE).

pairs -> crops of equal length -> patch states of both nets -> scores of all pairs of the batch -> loss
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from hyena_glt.config import PositiveWhole, Real
from hyena_glt.errors import ConfigError
from hyena_glt.multimodal.alignment import contrastive_loss
from hyena_glt.multimodal.pair_split import near_duplicate_groups
from hyena_glt.multimodal.pairs import CodingPair
from hyena_glt.multimodal.processor import MultiModalGenomicProcessor
from hyena_glt.training.schedule import rate_at, set_rate

PAIRED = ("dna", "protein")
clock_s = time.process_time


class AlignmentRecipe(BaseModel):
    """How coding sequences and proteins are trained to find each other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: Annotated[PositiveWhole, Field(ge=2)] = Field(default=32, description="pairs of a step")
    codons: PositiveWhole = Field(default=64, description="codons of a crop; shorter genes are not trained on")
    learning_rate: Annotated[Real, Field(gt=0)] = Field(default=1e-3, description="highest rate of AdamW")
    weight_decay: Annotated[Real, Field(ge=0)] = Field(default=0.01, description="of AdamW")
    warm_up: Annotated[Real, Field(gt=0, lt=1)] = Field(default=0.05, description="share of the run; the rate rises")
    floor: Annotated[Real, Field(ge=0, le=1)] = Field(default=0.02, description="share of the highest rate at the end")
    max_norm: Annotated[Real, Field(gt=0)] = Field(default=1.0, description="longest gradient")
    vector_weight: Annotated[Real, Field(ge=0)] = Field(default=1.0, description="of the loss of the vectors")
    agreement_weight: Annotated[Real, Field(ge=0)] = Field(default=1.0, description="of the loss of the agreement")


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training did."""

    steps: int
    cpu_s: float
    losses: tuple[float, ...]  # nats, of each step
    num_pairs: int  # pairs long enough to be trained on
    temperature: float  # at the end


def train_alignment(
    processor: MultiModalGenomicProcessor,
    pairs: Sequence[CodingPair],
    recipe: AlignmentRecipe | None = None,
    *,
    seed: int = 0,
    steps: int | None = None,
    seconds: float | None = None,
) -> TrainingReport:
    """Train the nets of DNA and protein and their alignment, in place; evaluation mode afterwards.

    With `steps` the same seed gives the same weights on the CPU; with `seconds` (of the processor) the number of steps
    depends on the machine. Pairs that resemble each other (`near_duplicate_groups`) are no negatives of each other.

    Args:
        processor: Has the modalities dna and protein.
        pairs: Coding sequences and proteins.
        recipe: The rest; None: its defaults.
        seed: Of the order of the pairs and of the crops.
        steps: Updates; or
        seconds: Processor time.

    Returns:
        Steps, seconds and losses.

    Raises:
        ConfigError: Not exactly one of `steps` and `seconds`, a modality that is missing, too few pairs; or a loss or
            a gradient that is not finite: that update is not made.
    """
    recipe = recipe or AlignmentRecipe()
    _check_end(steps, seconds)
    long_enough = _long_enough(pairs, recipe)
    groups = torch.from_numpy(near_duplicate_groups(long_enough))
    batches = _batches(long_enough, recipe, seed)
    parameters = trained_parameters(processor)
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    processor.train()
    begin, losses, done = clock_s(), [], 0.0
    try:
        while done < 1:
            set_rate(optimizer, recipe.learning_rate * rate_at(done, recipe.warm_up, recipe.floor))
            chosen, crops = next(batches)
            loss = alignment_loss(processor, crops, recipe, groups[chosen])
            optimizer.zero_grad()
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_(parameters, recipe.max_norm))
            losses.append(float(loss.detach()))
            if not (math.isfinite(losses[-1]) and math.isfinite(norm)):
                raise ConfigError(
                    f"step {len(losses)}: the loss or its gradient is not finite; take a smaller learning_rate"
                )
            optimizer.step()
            done = len(losses) / steps if steps else (clock_s() - begin) / (seconds or 1.0)
    finally:
        processor.eval()
    temperature = float(processor.alignment.temperature.detach())
    return TrainingReport(len(losses), clock_s() - begin, tuple(losses), len(long_enough), temperature)


def alignment_loss(
    processor: MultiModalGenomicProcessor,
    pairs: Sequence[CodingPair],
    recipe: AlignmentRecipe,
    groups: Tensor | None = None,
) -> Tensor:
    """Nats: the weighted mean of the losses of the vectors and of the attention's agreement.

    Args:
        processor: Has the modalities dna and protein.
        pairs: One batch; each pair's negatives are the others.
        recipe: The weights.
        groups: `(num,)` int64; pairs of one group are no negatives of each other.
    """
    align = processor.alignment
    size = len(pairs)
    dna = processor.patch_states("dna", [pair.dna for pair in pairs], batch_size=size)
    protein = processor.patch_states("protein", [pair.protein for pair in pairs], batch_size=size)
    vectors = align.vectors("dna", dna) @ align.vectors("protein", protein).mT
    agreement = align.agreement("dna", dna, "protein", protein)
    weighted = recipe.vector_weight * contrastive_loss(vectors, align.temperature, groups)
    weighted = weighted + recipe.agreement_weight * contrastive_loss(agreement, align.temperature, groups)
    return weighted / max(recipe.vector_weight + recipe.agreement_weight, 1e-9)


def trained_parameters(processor: MultiModalGenomicProcessor) -> list[nn.Parameter]:
    """The parameters that patch states and scores depend on.

    A net's way back to bytes (bridge, decoder, head) has no part in them and stays as it is.

    Raises:
        ConfigError: A modality is missing.
    """
    found: list[nn.Parameter] = []
    for name in PAIRED:
        if name not in processor.processors:
            got = ", ".join(processor.processors)
            raise ConfigError(f"processor: expected the modalities dna and protein, got {got}")
        net = processor.processors[name]
        for part in (net.local_encoder, net.pooling, net.trunk):
            found += part.parameters()
    others = [name for name in processor.processors if name not in PAIRED]
    unused = tuple(f"{part}.{name}." for part in ("norm", "project") for name in others)
    named = processor.alignment.named_parameters()
    return found + [value for name, value in named if not name.startswith(unused)]


def _check_end(steps: int | None, seconds: float | None) -> None:
    if (steps is None) == (seconds is None):
        raise ConfigError("train_alignment: expected exactly one of steps and seconds")
    end = seconds if steps is None else steps
    if end is None or not end > 0:
        raise ConfigError(f"train_alignment: expected steps or seconds above 0, got {end}")


def _long_enough(pairs: Sequence[CodingPair], recipe: AlignmentRecipe) -> list[CodingPair]:
    """The pairs that a crop fits into."""
    found = [pair for pair in pairs if len(pair.protein) >= recipe.codons]
    if len(found) < recipe.batch_size:
        wanted = f"{recipe.batch_size} (batch_size) of {recipe.codons} codons or more"
        raise ConfigError(f"pairs: expected at least {wanted}, got {len(found)}")
    return found


def _batches(pairs: list[CodingPair], recipe: AlignmentRecipe, seed: int) -> Iterator[tuple[Tensor, list[CodingPair]]]:
    """Indices of the pairs of each batch and their crops, epoch after epoch; the rest of an epoch is dropped."""
    random = np.random.default_rng(seed)
    room = np.array([len(pair.protein) - recipe.codons + 1 for pair in pairs])
    while True:
        order: NDArray[np.int64] = random.permutation(len(pairs))
        for first in range(0, len(pairs) - recipe.batch_size + 1, recipe.batch_size):
            chosen = order[first : first + recipe.batch_size]
            starts = random.integers(0, room[chosen])
            places = zip(chosen.tolist(), starts.tolist(), strict=True)
            crops = [pairs[index].crop(start, recipe.codons) for index, start in places]
            yield torch.from_numpy(chosen), crops
