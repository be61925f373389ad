"""Counts -> the rows of a context model: which order, how much to trust it, what it predicts.

The estimate is interpolated back-off with one concentration per order (MacKay and Peto, "A hierarchical
Dirichlet language model", 1995). Concentrations minimise the leave-one-out loss, in which every occurrence is
predicted from all the others, so no part of the input has to be set aside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hyena_glt.entropies import context_tables as tables
from hyena_glt.errors import ConfigError
from hyena_glt.sequences.alphabets import Alphabet

HIGHEST_ORDER = {"dna": 10, "rna": 10, "protein": 3, "bytes": 2}
LOWEST_ORDER = {"dna": 2, "rna": 2, "protein": 1, "bytes": 1}
TABLE_BITS = 26  # a table has at most 2 ** 26 cells: 256 MiB of counts
SEARCH_CONTEXTS = 1 << 15  # contexts that the search for a concentration looks at, about
CONCENTRATIONS = (0.05, 20_000.0)
LN2 = math.log(2.0)


@dataclass(frozen=True, slots=True)
class FittedTables:
    """What a fit has found."""

    rows: np.ndarray  # (contexts of all orders, 2 + symbols) uint16, see `context_tables.empty_rows`
    concentrations: tuple[float, ...]  # one for each order 0..order
    held_out_bits: float  # leave-one-out bits per symbol


def default_order(symbols: int, alphabet: Alphabet) -> int:
    """Order for an input of that many symbols: `floor(log(symbols)) - 1` in the alphabet's base, clamped."""
    if alphabet.name == "bytes":
        fitting = int(math.log2(max(symbols, 1))) // 8 - 1
    else:
        fitting = math.floor(math.log(max(symbols, 1)) / math.log(alphabet.size) + 1e-9) - 1
    return min(max(fitting, LOWEST_ORDER[alphabet.name]), HIGHEST_ORDER[alphabet.name])


def check_order(order: int, alphabet: Alphabet) -> int:
    """The order itself, if its table can be held.

    Raises:
        ConfigError: Not an integer, negative, or a table of more than `2 ** TABLE_BITS` cells.
    """
    highest = TABLE_BITS // alphabet.bits - 1
    if isinstance(order, bool) or not isinstance(order, int) or not 0 <= order <= highest:
        raise ConfigError(f"order: expected an integer in [0, {highest}] for alphabet {alphabet.name}, got {order!r}")
    return order


def fit_tables(counts: np.ndarray, order: int, alphabet: Alphabet) -> FittedTables:
    """Choose the concentrations from the lowest order up and fill the rows.

    Args:
        counts: Flat counts of the orders 0..order, each with all its occurrences.
        order: Context length.
        alphabet: What the symbols are.
    """
    bits = alphabet.bits
    rows = tables.empty_rows(order, bits)
    lower = lower_left_out = uniform(alphabet)
    concentrations = []
    for j in range(order + 1):
        block = tables.order_block(counts, j, bits)
        concentrations.append(best_concentration(block, lower_left_out))
        if j == order:
            loss, occurrences = tables.leave_one_out_loss(block, lower_left_out, concentrations[-1])
        else:
            lower_left_out = interpolated(block, lower_left_out, concentrations[-1], left_out=1.0)
        lower = interpolated(block, lower, concentrations[-1], left_out=0.0)
        start = tables.context_offset(j, bits)
        own_rows = rows[start : start + len(lower)]
        tables.fill_rows(lower, own_rows, tables.entropies_of(own_rows))
    held_out_bits = loss / occurrences / LN2 if occurrences else math.log2(alphabet.size)
    return FittedTables(rows, tuple(concentrations), held_out_bits)


def uniform(alphabet: Alphabet) -> np.ndarray:
    """The prediction of order -1: every letter alike, `(1, 2 ** bits)` float64."""
    base = np.zeros((1, 1 << alphabet.bits))
    base[0, : alphabet.size] = 1.0 / alphabet.size
    return base


def interpolated(counts: np.ndarray, lower: np.ndarray, concentration: float, left_out: float) -> np.ndarray:
    probabilities = np.empty(counts.shape, dtype=np.float64)
    tables.backed_off(counts, lower, concentration, left_out, probabilities)
    return probabilities


def best_concentration(counts: np.ndarray, lower: np.ndarray) -> float:
    """The concentration of least leave-one-out loss, by golden-section search on its logarithm.

    Looks at about `SEARCH_CONTEXTS` contexts. The stride is odd, so that the sample favours no symbol.
    """
    contexts = np.arange(0, len(counts), max(1, len(counts) // SEARCH_CONTEXTS) | 1)
    sample, lower_sample = counts[contexts], lower[contexts % len(lower)]

    def loss(log_concentration: float) -> float:
        return tables.leave_one_out_loss(sample, lower_sample, math.exp(log_concentration))[0]

    low, high = (math.log(value) for value in CONCENTRATIONS)
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 0.02:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2.0)
