"""How well a causal net predicts sequence that it is given: bits per base, with an interval.

Only called bases count: N and other ambiguity symbols are read, not predicted. Each window starts from nothing, so its
first base has no prediction and the next ones little to go by; wider windows give lower figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.model import HyenaGLT
from hyena_glt.model.heads import token_losses
from hyena_glt.patching import Patcher
from hyena_glt.tokens.byte_tokenizer import PAD_ID
from hyena_glt.training.corpus import Corpus, Regions
from hyena_glt.training.loader import Batch, eval_batches
from hyena_glt.training.patched_corpus import PatchedCorpus
from hyena_glt.training.task_metrics import Estimate, estimate
from hyena_glt.training.windows import WindowTable, learned_targets


@dataclass(frozen=True, kw_only=True, slots=True)
class BitsPerBase:
    """What a net makes of a genome."""

    bits: Estimate  # the interval resamples whole windows
    num_bases: int  # that were predicted
    num_windows: int


def bits_per_base(
    net: HyenaGLT,
    corpus: Corpus,
    *,
    window: int = 8192,
    batch_size: int = 4,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Callable[[int], None] | None = None,
) -> BitsPerBase:
    """Mean of -log2 p over the called bases of a corpus, forward strand.

    Args:
        net: Causal, with a patcher or learned boundaries.
        corpus: Of the net's alphabet.
        window: Bases that are read together; also what the bootstrap draws, since neighbours are alike.
        batch_size: Windows of a forward.
        resamples, seed, confidence: Of the bootstrap; with a single window there is no interval.
        progress: Told the bases of each batch.

    Raises:
        ConfigError: A net that is not causal or has no patcher.
        DataError: No called base to predict.
        AlphabetError: A symbol that the net does not have.
    """
    if not net.config.causal:
        raise ConfigError("bits per base: expected a causal net, got causal=False; it sees what it would predict")
    table = WindowTable(Regions.whole(corpus), window, max_ambiguous_share=1.0)
    patches = _patches(net, corpus)
    was_training = net.training
    net.eval()
    sums: list[NDArray[np.float64]] = []
    try:
        for batch in eval_batches(corpus, table, batch_size, patches):
            sums.append(_sums(net, batch, corpus.alphabet.name))
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
    return BitsPerBase(bits=found["bits"], num_bases=int(targets.sum()), num_windows=len(targets))


@torch.no_grad()
def _sums(net: HyenaGLT, batch: Batch, alphabet: str) -> NDArray[np.float64]:
    """Nats and predicted bases of each window, `(2, batch)`."""
    here = batch.to(net.device)
    output = net(here.tokens, here.patch_lengths, here.known_starts, return_position_info=False)
    targets: Tensor = here.tokens.masked_fill(~learned_targets(here.tokens, alphabet), PAD_ID)[:, 1:]
    losses = token_losses(output.logits[:, :-1], net.vocabulary_ids(targets)).double().sum(1)
    return torch.stack([losses, (targets != PAD_ID).sum(1).double()]).cpu().numpy()


def _patches(net: HyenaGLT, corpus: Corpus) -> Patcher | PatchedCorpus | None:
    """What cuts the windows: patches of equal size anew in each, boundaries that sequence decides once for all."""
    if net.config.boundaries == "learned":
        return None
    patcher = net.patcher()
    if not isinstance(patcher, Patcher):
        raise ConfigError(f"patcher: expected a Patcher, got {type(patcher).__name__}")
    if patcher.args.patching_mode in ("static", "byte"):
        return patcher
    return PatchedCorpus.from_patcher(corpus, patcher, reverse_complement=False)
