"""Order-k context tables: counting, interpolated back-off and lookup, the arithmetic beneath `MarkovEntropy`.

A context of `j` symbols is the integer `c` made of their codes, `bits` bits each, oldest first. Contexts of
all orders 0..k share one numbering: context `c` of order `j` has index `context_offset(j) + c`, and the cell
"symbol x after this context" has index `(context_offset(j) + c) << bits | x`. One flat array holds all orders.

The kernels carry `state = [context, symbols known]` between calls, so a sequence may arrive in blocks of any
size. A code at or above `letters` (an ambiguity symbol) resets the context.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

SURPRISE_STEP = 1.0 / 4096  # nats; surprises are kept in such steps, which halves the table that misses the cache
Counts = np.ndarray  # (cells,) uint32, the flat layout above


def context_offset(order: int, bits: int) -> int:
    """Number of contexts of all orders below `order`."""
    return ((1 << bits * order) - 1) // ((1 << bits) - 1)


def context_offsets(order: int, bits: int) -> np.ndarray:
    """`context_offset` of the orders 0..order, `(order + 1,)` int64."""
    return np.array([context_offset(j, bits) for j in range(order + 1)], dtype=np.int64)


def empty_counts(order: int, bits: int) -> Counts:
    """Zeros for every cell of the orders 0..order."""
    counts = np.empty(context_offset(order + 1, bits) << bits, dtype=np.uint32)  # empty: huge pages, where there are any
    counts[:] = 0
    return counts


def new_state() -> np.ndarray:
    """The state before the first symbol of a sequence, `(2,)` int64."""
    return np.zeros(2, dtype=np.int64)


def order_block(flat: np.ndarray, order: int, bits: int) -> np.ndarray:
    """The cells of one order as `(contexts, 2 ** bits)`, a view."""
    start = context_offset(order, bits) << bits
    return flat[start : start + (1 << bits * (order + 1))].reshape(-1, 1 << bits)


@njit(cache=True, nogil=True, inline="always")
def run_end(codes, start, letters):
    """The first place at or behind `start` that holds an ambiguity symbol."""
    end = start
    while end < codes.size and codes[end] < letters:
        end += 1
    return end


# The three passes below share one shape: while the context is short (the first symbols of a sequence, or those
# behind an ambiguity symbol) one careful step at a time, then a tight loop to the end of the run of letters.


@njit(cache=True, nogil=True)
def count_symbols(codes, letters, bits, order, offsets, state, counts):
    """Count each symbol after the longest context known, at most `order` symbols; updates `state`."""
    shift, mask = np.uint64(bits), (np.uint64(1) << np.uint64(bits * order)) - np.uint64(1)
    cell_mask = (np.uint64(1) << np.uint64(bits * (order + 1))) - np.uint64(1)
    full_context = counts[offsets[order] << bits :]
    context, known, i = np.uint64(state[0]), state[1], 0
    while i < codes.size:
        if known == order:
            end = run_end(codes, i, letters)
            cell = context
            for j in range(i, end):
                cell = ((cell << shift) | np.uint64(codes[j])) & cell_mask
                full_context[cell] += np.uint32(1)
            context, i = cell & mask, end
            if i == codes.size:
                break
        x = np.uint64(codes[i])
        if codes[i] >= letters:
            context, known = np.uint64(0), 0
        else:
            counts[((np.uint64(offsets[known]) + context) << shift) | x] += np.uint32(1)
            context, known = ((context << shift) | x) & mask, min(known + 1, order)
        i += 1
    state[0], state[1] = np.int64(context), known


@njit(cache=True, nogil=True)
def lookup_entropies(codes, letters, bits, order, offsets, state, entropy_table, entropies):
    """Entropy of the prediction made after each symbol, 0 after an ambiguity symbol; updates `state`."""
    shift, mask = np.uint64(bits), (np.uint64(1) << np.uint64(bits * order)) - np.uint64(1)
    full_context = entropy_table[offsets[order] :]
    context, known, i = np.uint64(state[0]), state[1], 0
    while i < codes.size:
        if known == order:
            end = run_end(codes, i, letters)
            for j in range(i, end):
                context = ((context << shift) | np.uint64(codes[j])) & mask
                entropies[j] = full_context[context]
            i = end
            if i == codes.size:
                break
        if codes[i] >= letters:
            context, known = np.uint64(0), 0
            entropies[i] = 0.0
        else:
            context, known = ((context << shift) | np.uint64(codes[i])) & mask, min(known + 1, order)
            entropies[i] = entropy_table[np.uint64(offsets[known]) + context]
        i += 1
    state[0], state[1] = np.int64(context), known


@njit(cache=True, nogil=True)
def lookup_surprises(codes, letters, bits, order, offsets, state, surprise_table, surprises):
    """Surprise `-ln p(symbol | context)` of each symbol, 0 for an ambiguity symbol; updates `state`."""
    shift, mask = np.uint64(bits), (np.uint64(1) << np.uint64(bits * order)) - np.uint64(1)
    cell_mask = (np.uint64(1) << np.uint64(bits * (order + 1))) - np.uint64(1)
    full_context = surprise_table[offsets[order] << bits :]
    step = np.float32(SURPRISE_STEP)
    context, known, i = np.uint64(state[0]), state[1], 0
    while i < codes.size:
        if known == order:
            end = run_end(codes, i, letters)
            cell = context
            for j in range(i, end):
                cell = ((cell << shift) | np.uint64(codes[j])) & cell_mask
                surprises[j] = full_context[cell] * step
            context, i = cell & mask, end
            if i == codes.size:
                break
        x = np.uint64(codes[i])
        if codes[i] >= letters:
            context, known = np.uint64(0), 0
            surprises[i] = 0.0
        else:
            surprises[i] = surprise_table[((np.uint64(offsets[known]) + context) << shift) | x] * step
            context, known = ((context << shift) | x) & mask, min(known + 1, order)
        i += 1
    state[0], state[1] = np.int64(context), known


def pool_strands(counts: Counts, order: int) -> Counts:
    """Add to each cell the count of its reverse complement (four letters whose complement is `3 - code`).

    The word of a cell is the context and its symbol. Reversing the flat block complements every letter,
    and transposing the block, seen with one axis a letter, reverses the word.
    """
    pooled = np.empty_like(counts)
    for j in range(order + 1):
        block = order_block(counts, j, bits=2).reshape((4,) * (j + 1))
        complement_reversed = block.reshape(-1)[::-1].reshape((4,) * (j + 1)).T
        order_block(pooled, j, bits=2)[:] = (block + complement_reversed).reshape(-1, 4)
    return pooled


def sum_shorter_contexts(counts: Counts, order: int, bits: int) -> None:
    """Give every order all its occurrences, in place.

    `count_symbols` counts a symbol at the longest context known only; the counts of an order are its own
    plus those of the next higher order summed over the oldest symbol.
    """
    for j in range(order - 1, -1, -1):
        longer = order_block(counts, j + 1, bits)
        order_block(counts, j, bits)[:] += longer.reshape(1 << bits, -1, 1 << bits).sum(axis=0, dtype=np.uint32)


@njit(cache=True, nogil=True)
def backed_off(counts, lower, concentration, left_out, probabilities):
    """Interpolate one order with the next lower one.

    `p(x | c) = (n(c, x) - left_out + a p'(x | c')) / (n(c) - left_out + a)`, with `c'` the context without its
    oldest symbol and `a` the concentration. `left_out` 1 gives the leave-one-out probability of an occurrence
    (meaningful where `n(c, x) > 0`), 0 the plain one.

    Args:
        counts: `(contexts, symbols)` uint32.
        lower: `(contexts / symbols, symbols)` float64, the same of the next lower order.
        concentration: `a > 0`, in occurrences.
        left_out: 0 or 1.
        probabilities: `(contexts, symbols)` float64, written.
    """
    contexts, symbols = counts.shape
    shorter = lower.shape[0]
    for c in range(contexts):
        total = concentration - left_out
        for x in range(symbols):
            total += counts[c, x]
        scale = 1.0 / max(total, 1e-300)
        for x in range(symbols):
            occurrences = max(float(counts[c, x]) - left_out, 0.0)
            probabilities[c, x] = (occurrences + concentration * lower[c % shorter, x]) * scale


@njit(cache=True, nogil=True)
def leave_one_out_loss(counts, lower, concentration, stride):
    """Summed surprise (nats) and number of occurrences, each predicted from all others; every `stride`-th context."""
    contexts, symbols = counts.shape
    shorter = lower.shape[0]
    loss, occurrences = 0.0, 0.0
    for c in range(0, contexts, stride):
        total = concentration - 1.0
        for x in range(symbols):
            total += counts[c, x]
        for x in range(symbols):
            n = float(counts[c, x])
            if n > 0:
                loss -= n * math.log((n - 1.0 + concentration * lower[c % shorter, x]) / total)
                occurrences += n
    return loss, occurrences


@njit(cache=True, nogil=True)
def shannon_rows(probabilities, entropies):
    """Entropy in nats of each row of `(contexts, symbols)`; a symbol of probability 0 adds nothing."""
    for c in range(probabilities.shape[0]):
        total = 0.0
        for x in range(probabilities.shape[1]):
            p = probabilities[c, x]
            if p > 0.0:
                total -= p * math.log(p)
        entropies[c] = total


@njit(cache=True, nogil=True)
def surprise_rows(probabilities, surprises):
    """`-ln p` of each cell in whole steps of `SURPRISE_STEP`, uint16; 0 where a cell belongs to no letter."""
    for c in range(probabilities.shape[0]):
        for x in range(probabilities.shape[1]):
            p = probabilities[c, x]
            surprises[c, x] = min(-math.log(p) / SURPRISE_STEP + 0.5, 65535.0) if p > 0.0 else 0.0
