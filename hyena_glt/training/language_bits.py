"""How well a net predicts sequence that it is given: bits per base, with an interval.

Only called bases count: N and other ambiguity symbols are read, not predicted. A causal net predicts every base from
those before it. Each window starts from nothing, so its first base has no prediction and the next ones little to go
by; wider windows give lower figures. A net that sees both sides predicts letters that are hidden from it, by draws
that depend on the seed and the window alone; the two figures cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.model import HyenaGLT
from hyena_glt.patching import Patcher
from hyena_glt.tokens.byte_tokenizer import PAD_ID
from hyena_glt.training.corpus import Corpus, Regions
from hyena_glt.training.loader import eval_batches
from hyena_glt.training.objectives import HELD_OUT, Task, make_task, target_losses
from hyena_glt.training.patched_corpus import PatchedCorpus
from hyena_glt.training.recipe import LETTER_BLIND, ObjectiveSection
from hyena_glt.training.task_metrics import Estimate, estimate
from hyena_glt.training.windows import WindowTable


@dataclass(frozen=True, kw_only=True, slots=True)
class BitsPerBase:
    """What a net makes of a genome."""

    bits: Estimate  # the interval resamples whole windows
    num_bases: int  # that were predicted
    num_windows: int
    mask_rate: float | None  # share of the letters that was hidden; None: a causal net, which predicts all


def bits_per_base(
    net: HyenaGLT,
    corpus: Corpus,
    *,
    window: int = 8192,
    batch_size: int = 4,
    mask_rate: float | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Callable[[int], None] | None = None,
) -> BitsPerBase:
    """Mean of -log2 p over the called bases of a corpus that are predicted, forward strand.

    Args:
        net: With a patcher or learned boundaries; without `causal`, one whose patches do not depend on the letters.
        corpus: Of the net's alphabet.
        window: Bases that are read together; also what the bootstrap draws, since neighbours are alike.
        batch_size: Windows of a forward.
        mask_rate: Share of the letters that a net which sees both sides has to predict; None: as in training by
            default.
        resamples, confidence: Of the bootstrap; with a single window there is no interval.
        seed: Of the bootstrap and of what is hidden.
        progress: Told the bases of each batch.

    Raises:
        ConfigError: A net without patcher, a mask rate out of range or for a causal net, or patches that tell what is
            hidden.
        DataError: No called base to predict.
        AlphabetError: A symbol that the net does not have.
    """
    objective = _objective(net, mask_rate)
    table = WindowTable(Regions.whole(corpus), window, max_ambiguous_share=1.0)
    patches = _patches(net, corpus)
    was_training = net.training
    net.eval()
    sums: list[NDArray[np.float64]] = []
    try:
        for batch in eval_batches(corpus, table, batch_size, patches):
            sums.append(_sums(net, make_task(batch, objective, corpus.alphabet.name, seed, HELD_OUT)))
            if progress is not None:
                progress(int((batch.tokens != PAD_ID).sum()))
    finally:
        net.train(was_training)
    nats, targets = np.concatenate(sums, axis=1)
    nats, targets = nats[targets > 0], targets[targets > 0]
    if not targets.size:
        raise DataError("no called base to predict: the sequence holds ambiguity symbols only, or single bases")
    if not np.isfinite(nats).all():
        raise DataError("the loss is not finite; the weights are damaged")
    found = estimate(
        lambda weights: {"bits": weights @ nats / (weights @ targets) / math.log(2)},
        len(targets),
        len(targets),
        resamples=resamples if len(targets) > 1 else 0,
        seed=seed,
        confidence=confidence,
    )
    return BitsPerBase(
        bits=found["bits"],
        num_bases=int(targets.sum()),
        num_windows=len(targets),
        mask_rate=None if net.config.causal else objective.mask_rate,
    )


def _objective(net: HyenaGLT, mask_rate: float | None) -> ObjectiveSection:
    if net.config.causal:
        if mask_rate is not None:
            raise ConfigError("mask_rate: a causal net predicts every base; only nets that see both sides have one")
        return ObjectiveSection()
    if mask_rate is not None and not 0 < mask_rate < 1:
        raise ConfigError(f"mask_rate: expected a share in (0, 1), got {mask_rate}")
    mode = "learned" if net.config.boundaries == "learned" else _patcher_of(net).args.patching_mode
    if mode not in LETTER_BLIND:
        raise ConfigError(
            f"patches cut by the letters ({mode}) tell what is hidden from a net that sees both sides; "
            "give it patches of equal size"
        )
    masked = ObjectiveSection(kind="masked_byte")
    return masked if mask_rate is None else masked.model_copy(update={"mask_rate": mask_rate})


@torch.no_grad()
def _sums(net: HyenaGLT, task: Task) -> NDArray[np.float64]:
    """Nats and predicted bases of each window, `(2, batch)`."""
    here = task.to(net.device)
    output = net(here.inputs, here.patch_lengths, here.known_starts, return_position_info=False)
    losses = target_losses(output.logits, net, here).double().sum(1)
    return torch.stack([losses, (here.targets != PAD_ID).sum(1).double()]).cpu().numpy()


def _patches(net: HyenaGLT, corpus: Corpus) -> Patcher | PatchedCorpus | None:
    """What cuts the windows: patches of equal size anew in each, boundaries that sequence decides once for all."""
    if net.config.boundaries == "learned":
        return None
    patcher = _patcher_of(net)
    if patcher.args.patching_mode in ("static", "byte"):
        return patcher
    return PatchedCorpus.from_patcher(corpus, patcher, reverse_complement=False)


def _patcher_of(net: HyenaGLT) -> Patcher:
    patcher = net.patcher()
    if not isinstance(patcher, Patcher):
        raise ConfigError(f"patcher: expected a Patcher, got {type(patcher).__name__}")
    return patcher
