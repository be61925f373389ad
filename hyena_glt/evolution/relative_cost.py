"""Relative compression: how many nats one genome costs someone who knows another.

DNA and RNA: `MixEntropy` reads the known genome y, both strands. Then each letter of x is priced by what y taught:
where the last 16 letters occur in y, on either strand, the letter that followed there is expected, and one that
differs costs a fixed amount; elsewhere the counts of y's contexts price it. x is priced forwards and as its reverse
complement, and the mean is taken. Other alphabets, and `order=`, take a `MarkovEntropy` fitted on y.

The hit rates are fixed (`HIT_RATE` while a match holds, falling to `MISS_FACTOR` of it for each miss among the last
four letters): rates that are learned on the way make the price of a change depend on what came
before it. "Relative compression" is Cerra and Datcu's ("Algorithmic relative complexity", 2011);
models that survive substitutions are in GeCo (Pratas, Pinho and Ferreira, 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyena_glt.entropies import mixing_kernels as mixing
from hyena_glt.entropies.markov import MarkovEntropy
from hyena_glt.entropies.mixing import STRANDED, MixEntropy, MixState
from hyena_glt.errors import ConfigError
from hyena_glt.evolution.genome import Genome, block_sums
from hyena_glt.evolution.relative_cost_kernels import TRUSTED, TRUSTED_RATE, price_symbols

HIT_RATE, MISS_FACTOR = 0.99, 0.9
FRESH_RATE = 0.9  # of a match of fewer than 32 letters, at most
LOWEST_RATE = 0.26  # just above chance
COUNT_WEIGHT, WEAK_MATCH_WEIGHT = 0.3, 0.4  # where no match is trusted: what a `MixEntropy` starts with
MOST_SYMBOLS = 1 << 22  # of one genome: the words of the known one are found again up to here


class RelativeCost:
    """Prices every genome by each of them. Rows may be asked for in any order and from several threads.

    Args:
        genomes: Of one alphabet.
        blocks: Stretches of each genome whose cost is kept apart.
        order: Context length of the table models; None takes the mix for DNA and RNA, else the table's default.

    Attributes:
        own: `(genomes, blocks)` float64, nats that each genome costs by itself.

    Raises:
        DataError: A genome too long for the mix.
        ConfigError: An order that the alphabet does not allow.
    """

    def __init__(self, genomes: Sequence[Genome], *, blocks: int = 1, order: int | None = None) -> None:
        self.genomes, self.blocks, self.order = genomes, blocks, order
        self.is_mixed = order is None and genomes[0].alphabet.name in STRANDED
        for genome in genomes if self.is_mixed else ():
            if genome.codes.size > MOST_SYMBOLS:
                raise genome.refusal(
                    f"{genome.codes.size:,} symbols, and metric compression takes {MOST_SYMBOLS:,} of one genome at "
                    "most; use --metric kmer, or --order 12"
                )
        if order is not None and order < 0:
            raise ConfigError(f"order: expected 0 or more, got {order}")

    def describe(self) -> dict[str, Any]:
        """The model, as it appears in outputs."""
        if not self.is_mixed:
            return {"model": "markov", "order": "default" if self.order is None else self.order}
        return {"model": "mix", "hit_rate": HIT_RATE, "miss_factor": MISS_FACTOR}

    def own_sums(self, index: int) -> NDArray[np.float64]:
        """Nats that a genome costs by itself, `(blocks,)`: coded letter by letter from nothing, or held out."""
        genome = self.genomes[index]
        if self.is_mixed:
            return block_sums(MixEntropy(genome.alphabet).score(genome.codes).surprises, self.blocks)
        model = self._table(genome)
        letters = (genome.codes < genome.alphabet.size).astype(np.float64)
        return block_sums(letters * model.held_out_bits * np.log(2), self.blocks)

    def row(self, index: int) -> NDArray[np.float64]:
        """Nats that each genome costs to someone who knows genome `index`: `(genomes, blocks)`."""
        known = self.genomes[index]
        if self.is_mixed:
            return _mixed_row(known, self.genomes, self.blocks)
        model = self._table(known)
        sums = [block_sums(model.score(genome.codes).surprises, self.blocks) for genome in self.genomes]
        return np.stack(sums)

    def distances(self, rows: NDArray[np.float64], own: NDArray[np.float64], weights: Any) -> NDArray[np.float64]:
        """The excess over what each genome costs to itself, as a share of what both cost by themselves.

        Args:
            rows: `(known, priced, blocks)` nats.
            own: `(genomes, blocks)` nats.
            weights: `(blocks,)`, how often each block counts.

        Returns:
            `(genomes, genomes)`, symmetric, 0 on the diagonal, about 1 where nothing is shared.
        """
        costs = rows @ weights
        excess = np.maximum(costs - np.diag(costs), 0.0)
        alone = own @ weights
        total = alone[:, None] + alone
        return np.divide(excess + excess.T, total, out=np.zeros_like(total), where=total > 0)

    def _table(self, genome: Genome) -> MarkovEntropy:
        from hyena_glt.entropies.markov import MarkovFitter

        fitter = MarkovFitter(genome.alphabet.name, self.order)
        fitter.feed(genome.codes)
        return fitter.finish()


def _mixed_row(known: Genome, genomes: Sequence[Genome], blocks: int) -> NDArray[np.float64]:
    stream = MixEntropy(known.alphabet).stream()
    stream.feed(known.codes)
    stream.end_sequence()
    state = stream.state
    begin = int(state.words[mixing.PLACE])
    sums = np.empty((len(genomes), blocks))
    for i, genome in enumerate(genomes):
        forwards = _priced(genome.codes, state, begin)
        backwards = _priced(_other_strand(genome.codes), state, begin)[::-1]
        sums[i] = (block_sums(forwards, blocks) + block_sums(backwards, blocks)) / 2
    return sums


def _priced(codes: NDArray[np.uint8], state: MixState, begin: int) -> NDArray[np.float32]:
    """Nats of each symbol; of the state only the history after the known genome is used, and cleared again."""
    costs = np.empty(codes.size, dtype=np.float32)
    plain = np.ascontiguousarray(codes).view()
    plain.flags.writeable = False  # one compiled form
    fresh = {name: getattr(state, name).copy() for name in ("inputs", "prediction", "words")}
    price_symbols(
        plain, tuple(state._replace(hits=_hit_rates(), weights=_mixer_weights(), **fresh)), _match_logs(), costs
    )
    state.ring[begin : begin + codes.size + 1] = 0
    return costs


def _other_strand(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    reverse = codes[::-1]
    return np.where(reverse < 4, 3 - reverse, reverse).astype(np.uint8)


@cache
def _hit_rates() -> NDArray[np.float32]:
    """Hit rate of a match by its length class and its last four outcomes, laid out as in `MixState.hits`."""
    rates = np.zeros((mixing.MATCHES, mixing.LENGTHS, mixing.RECENT, 2), np.float32)
    misses = np.array([bin(outcomes).count("1") for outcomes in range(mixing.RECENT)])
    by_outcome = np.where(misses == 0, HIT_RATE, MISS_FACTOR**misses)
    rates[..., 0] = np.maximum(by_outcome, LOWEST_RATE)
    rates[:, :8, :, 0] = np.minimum(rates[:, :8, :, 0], FRESH_RATE)  # the classes below 32 letters
    return rates.reshape(-1)


@cache
def _match_logs() -> NDArray[np.float32]:
    """What a trusted match predicts: `ln p` of the base it expects and of each other one, laid out as the rates."""
    rates = _hit_rates().reshape(-1, 2)[:, 0].astype(np.float64)
    logs = np.log(np.stack([rates, (1.0 - rates) / 3.0], axis=1))
    logs[rates < TRUSTED_RATE] = 0.0
    return logs.astype(np.float32).reshape(-1)


@cache
def _mixer_weights() -> NDArray[np.float32]:
    """The match alone where it is trusted, else counts and match as a `MixEntropy` begins."""
    weights = np.full((mixing.CONFIDENCES, mixing.EVIDENCE, mixing.INPUTS), COUNT_WEIGHT, np.float32)
    weights[..., -mixing.MATCHES :] = WEAK_MATCH_WEIGHT
    weights[TRUSTED:] = 0.0
    weights[TRUSTED:, :, -mixing.MATCHES :] = 1.0
    return weights.reshape(-1)
