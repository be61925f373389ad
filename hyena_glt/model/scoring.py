"""Log-likelihoods of whole sequences under a causal net."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.model.heads import token_losses
from hyena_glt.model.sources import encode_rows
from hyena_glt.sequences.alphabets import reverse_complement
from hyena_glt.tokens.byte_tokenizer import PAD_ID

if TYPE_CHECKING:
    from hyena_glt.model.hyena_glt import HyenaGLT

Strand = Literal["none", "avg"]


@torch.no_grad()
def score_sequences(
    net: HyenaGLT, sequences: Sequence[str | bytes], rc: Strand = "none", *, batch_tokens: int = 1 << 16
) -> Tensor:
    """Mean log-likelihood of each sequence in nats per base.

    The first base has no prediction and is left out of the mean; every other symbol counts, ambiguous
    ones too.

    Args:
        net: A causal net with a patcher.
        sequences: At least two bases each.
        rc: `"avg"` averages with the reverse complement.
        batch_tokens: Tokens of a batch, padding included; changes speed and memory, not results.

    Returns:
        `(num_sequences,)` float64, on the CPU.

    Raises:
        ConfigError: The net is not causal, its patches overlap, or `rc` is unknown.
        DataError: A sequence is too short, or its score is not finite; its index is named.
    """
    _check(net, sequences, rc)
    scores = _strand_scores(net, sequences, batch_tokens)
    if rc == "avg":
        scores = (scores + _strand_scores(net, _other_strand(net, sequences), batch_tokens)) / 2
    broken = (~scores.isfinite()).nonzero().flatten()
    if len(broken):
        raise DataError("score is not finite; the weights or the input are damaged", record=f"sequence {broken[0]}")
    return scores


def _check(net: HyenaGLT, sequences: Sequence[str | bytes], rc: str) -> None:
    if rc not in ("none", "avg"):
        raise ConfigError(f"rc: expected 'none' or 'avg', got {rc!r}")
    if not net.config.causal:
        raise ConfigError("score_sequences: expected a causal net, got causal=False; it sees what it would predict")
    if getattr(net.patcher(), "overlap", 0):
        raise ConfigError("overlap: expected a patcher without overlap, since shared bases would count twice")
    short = next((index for index, sequence in enumerate(sequences) if len(sequence) < 2), None)
    if short is not None:
        raise DataError(
            f"expected at least 2 bases, got {len(sequences[short])}; the first has no prediction",
            record=f"sequence {short}",
        )


def _other_strand(net: HyenaGLT, sequences: Sequence[str | bytes]) -> list[bytes]:
    name = "dna" if net.config.alphabet_name == "bytes" else net.config.alphabet_name
    rows = [sequence.encode() if isinstance(sequence, str) else sequence for sequence in sequences]
    return [reverse_complement(row, name) for row in rows]


def _strand_scores(net: HyenaGLT, sequences: Sequence[str | bytes], batch_tokens: int) -> Tensor:
    scores = torch.zeros(len(sequences), dtype=torch.float64)
    for batch in length_batches([len(sequence) for sequence in sequences], batch_tokens):
        scores[batch] = _batch_scores(net, [sequences[index] for index in batch])
    return scores


def _batch_scores(net: HyenaGLT, sequences: Sequence[str | bytes]) -> Tensor:
    tokens = encode_rows(sequences)
    logits = net.forward_with_patching(tokens).logits
    targets = net.vocabulary_ids(tokens.to(logits.device))[:, 1:]
    losses = token_losses(logits[:, :-1], targets).double().sum(1)
    return (-losses / (targets != PAD_ID).sum(1)).cpu()


def length_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length whose padded size stays within `batch_tokens`, shortest first."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if batch and (len(batch) + 1) * lengths[index] > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
