"""Order-k context tables: counting, interpolated back-off and lookup, the arithmetic beneath `MarkovEntropy`.

A context of `j` symbols is the integer `c` made of their codes, `bits` bits each, oldest first. Contexts of
all orders 0..k share one numbering: context `c` of order `j` has index `context_offset(j) + c`, and the cell
"symbol x after this context" has index `(context_offset(j) + c) << bits | x`. One flat array holds all orders.

The kernels carry `state = [context, symbols known]` between calls, so a sequence may arrive in blocks of any
size. A code at or above `letters` (an ambiguity symbol) resets the context.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hyena_glt.entropies.logarithms import natural_logs
from hyena_glt.entropies.prefetch import AHEAD, prefetch

SURPRISE_STEP = 1.0 / 2048  # nats; surprises are kept in such steps, which keeps the table small
HIGHEST_SURPRISE = (1 << 15) - 1  # steps, 16 nats: one bit of a uint16 is left for a decision
SURPRISES = 2  # first column of the surprises in a row
TINY = 1e-300
AT_ONCE = 64  # codes looked at together
LOGS_AT_ONCE = 1024  # logarithms taken together
Counts = np.ndarray  # (cells,) uint32, the flat layout above


def context_offset(order: int, bits: int) -> int:
    """Number of contexts of all orders below `order`."""
    return ((1 << bits * order) - 1) // ((1 << bits) - 1)


def context_offsets(order: int, bits: int) -> np.ndarray:
    """`context_offset` of the orders 0..order, `(order + 1,)` int64."""
    return np.array([context_offset(j, bits) for j in range(order + 1)], dtype=np.int64)


def empty_counts(order: int, bits: int, dtype: type[np.unsignedinteger[Any]] = np.uint32) -> Counts:
    """Zeros for every cell of the orders 0..order."""
    counts = np.empty(context_offset(order + 1, bits) << bits, dtype=dtype)  # `empty` gets huge pages, `zeros` not
    counts[:] = 0
    return counts


def joined_counts(low: np.ndarray, high: np.ndarray) -> Counts:
    """The two parts that `count_symbols` fills, as one array."""
    counts = high << np.uint32(8)
    counts |= low
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
    while end + AT_ONCE <= codes.size:  # the highest of many bytes is found in a few instructions
        highest = np.uint8(0)
        for code in codes[end : end + AT_ONCE]:
            highest = max(highest, code)
        if highest >= letters:
            break
        end += AT_ONCE
    while end < codes.size and codes[end] < letters:
        end += 1
    return end


@njit(cache=True, nogil=True, inline="always")
def rolled(context, codes, start, end, shift, mask):
    """The context after the symbols `codes[start:end]`."""
    for j in range(start, end):
        context = ((context << shift) | np.uint64(codes[j])) & mask
    return context


# The three passes below share one shape: while the context is short (the first symbols of a sequence, or those
# behind an ambiguity symbol) one careful step at a time, then a tight loop to the end of the run of letters. The loop
# asks for table entries `AHEAD` symbols before it needs them; for the last symbols of a run there is no such distance.


@njit(cache=True, nogil=True)
def count_symbols(codes, letters, bits, order, offsets, state, low, high):
    """Count each symbol after the longest context known, at most `order` symbols; updates `state`.

    A count is `high << 8 | low`, two flat arrays, uint32 and uint8: the part that is touched for every symbol stays
    small.
    """
    shift, mask = np.uint64(bits), (np.uint64(1) << np.uint64(bits * order)) - np.uint64(1)
    cell_mask = (np.uint64(1) << np.uint64(bits * (order + 1))) - np.uint64(1)
    full = np.uint64(offsets[order] << bits)
    full_context = low[offsets[order] << bits :]
    context, known, i = np.uint64(state[0]), state[1], 0
    while i < codes.size:
        if known == order:
            end = run_end(codes, i, letters)
            cell = context
            for stop, distance in ((end - AHEAD, AHEAD), (end, 0)):
                ahead = rolled(cell, codes, i, min(i + distance, end), shift, cell_mask)
                for j in range(i, stop):
                    ahead = ((ahead << shift) | np.uint64(codes[j + distance])) & cell_mask
                    prefetch(full_context, np.int64(ahead))
                    cell = ((cell << shift) | np.uint64(codes[j])) & cell_mask
                    count = np.uint8(full_context[cell] + np.uint8(1))
                    full_context[cell] = count
                    if count == 0:
                        high[full + cell] += np.uint32(1)
                i = max(i, stop)
            context = cell & mask
            if i == codes.size:
                break
        x = np.uint64(codes[i])
        if codes[i] >= letters:
            context, known = np.uint64(0), 0
        else:
            place = ((np.uint64(offsets[known]) + context) << shift) | x
            low[place] = np.uint8(low[place] + np.uint8(1))
            high[place] += np.uint32(low[place] == 0)
            context, known = ((context << shift) | x) & mask, min(known + 1, order)
        i += 1
    state[0], state[1] = np.int64(context), known


@njit(cache=True, nogil=True)
def score_symbols(codes, letters, bits, order, offsets, state, rows, entropies, surprises):
    """Score each symbol; updates `state`.

    Args:
        codes: `(length,)` uint8.
        rows: `(contexts of all orders, SURPRISES + 2 ** bits)` uint16, see `empty_rows`.
        entropies: `(length,)` float32, written: nats of the prediction made after each symbol; 0 after an ambiguity
            symbol.
        surprises: `(length,)` float32, written: `-ln p(symbol | context)` in nats; 0 for an ambiguity symbol.
    """
    shift, mask = np.uint64(bits), (np.uint64(1) << np.uint64(bits * order)) - np.uint64(1)
    width = np.uint64(rows.shape[1])  # flat tables and one multiplication: 2-D indexing does more
    full_rows = rows[offsets[order] :].reshape(-1)
    full_surprises, full_entropies = full_rows[SURPRISES:], full_rows.view(np.float32)
    row_entropies, half = rows.reshape(-1).view(np.float32), width // np.uint64(2)
    step = np.float32(SURPRISE_STEP)
    context, known, i = np.uint64(state[0]), state[1], 0
    while i < codes.size:
        if known == order:
            end = run_end(codes, i, letters)
            for stop, distance in ((end - AHEAD, AHEAD), (end, 0)):
                ahead = rolled(context, codes, i, min(i + distance, end), shift, mask)
                for j in range(i, stop):
                    ahead = ((ahead << shift) | np.uint64(codes[j + distance])) & mask
                    prefetch(full_rows, np.int64(ahead * width))
                    x = np.uint64(codes[j])
                    surprises[j] = full_surprises[context * width + x] * step
                    context = ((context << shift) | x) & mask
                    entropies[j] = full_entropies[context * half]
                i = max(i, stop)
            if i == codes.size:
                break
        if codes[i] >= letters:
            context, known = np.uint64(0), 0
            surprises[i] = entropies[i] = 0.0
        else:
            x = np.uint64(codes[i])
            surprises[i] = rows[np.uint64(offsets[known]) + context, SURPRISES + codes[i]] * step
            context, known = ((context << shift) | x) & mask, min(known + 1, order)
            entropies[i] = row_entropies[(np.uint64(offsets[known]) + context) * half]
        i += 1
    state[0], state[1] = np.int64(context), known


@njit(cache=True, nogil=True)
def look_up_cells(codes, letters, bits, order, offsets, state, cells, decisions, sums):
    """Look up the cell of each symbol after its context and take it apart; updates `state`.

    Args:
        codes: `(length,)` uint8.
        cells: `(contexts of all orders << bits,)` uint16 in the flat layout, `surprise << 1 | decision`.
        decisions: `(length,)` bool, written; False for an ambiguity symbol.
        sums: `(length + 1,)` uint32, written: running sums of the surprises modulo 2 ** 32, from 0 on.
    """
    shift, mask = np.uint64(bits), (np.uint64(1) << np.uint64(bits * order)) - np.uint64(1)
    cell_mask = (np.uint64(1) << np.uint64(bits * (order + 1))) - np.uint64(1)
    full_context = cells[offsets[order] << bits :]
    context, known, i = np.uint64(state[0]), state[1], 0
    total = sums[0] = np.uint32(0)
    while i < codes.size:
        if known == order:
            end = run_end(codes, i, letters)
            cell = context
            for stop, distance in ((end - AHEAD, AHEAD), (end, 0)):
                ahead = rolled(cell, codes, i, min(i + distance, end), shift, cell_mask)
                for j in range(i, stop):
                    ahead = ((ahead << shift) | np.uint64(codes[j + distance])) & cell_mask
                    prefetch(full_context, np.int64(ahead))
                    cell = ((cell << shift) | np.uint64(codes[j])) & cell_mask
                    value = full_context[cell]
                    total = np.uint32(total + (value >> 1))
                    decisions[j], sums[j + 1] = value & 1, total
                i = max(i, stop)
            context = cell & mask
            if i == codes.size:
                break
        x = np.uint64(codes[i])
        if codes[i] >= letters:
            context, known, value = np.uint64(0), 0, np.uint16(0)
        else:
            value = cells[((np.uint64(offsets[known]) + context) << shift) | x]
            context, known = ((context << shift) | x) & mask, min(known + 1, order)
        total = np.uint32(total + (value >> 1))
        decisions[i], sums[i + 1] = value & 1, total
        i += 1
    state[0], state[1] = np.int64(context), known


def empty_rows(order: int, bits: int) -> np.ndarray:
    """Room for the scores of every context of the orders 0..order, `(contexts, SURPRISES + 2 ** bits)` uint16.

    A row holds the entropy (one float32 in its first two places) and then the surprise of each symbol in steps of
    `SURPRISE_STEP`. A symbol's surprise and the entropy after the symbol before it lie in the same row, so a symbol
    costs one trip to a table that is larger than the cache.
    """
    return np.empty((context_offset(order + 1, bits), SURPRISES + (1 << bits)), dtype=np.uint16)


def entropies_of(rows: np.ndarray) -> np.ndarray:
    """The float32 view of `rows` whose column 0 is the entropy, `(contexts, columns / 2)`."""
    return rows.view(np.float32)


def pool_strands(counts: Counts, order: int) -> Counts:
    """Add to each cell the count of its reverse complement (four letters whose complement is `3 - code`).

    The word of a cell is the context and its symbol.
    """
    pooled = np.empty_like(counts)
    for j in range(order + 1):
        first, second = (j + 1) // 2, j + 1 - (j + 1) // 2
        block, out = (order_block(flat, j, bits=2).reshape(-1) for flat in (counts, pooled))
        add_other_strand(block, reverse_complements(first), reverse_complements(second), out)
    return pooled


def reverse_complements(length: int) -> np.ndarray:
    """The reverse complement of each word of that many letters, `(4 ** length,)` int64."""
    words = np.arange(4**length).reshape((4,) * length)
    return words.T.reshape(-1)[::-1].copy()


@njit(cache=True, nogil=True)
def add_other_strand(block, first, second, out):
    """`out[word] = block[word] + block[reverse complement of word]`.

    A word is two halves; its reverse complement is those of the halves in the other order. `first` and `second` hold
    them for every half. Some columns at a time: what they read stays in the cache.
    """
    rows, columns, step = first.size, second.size, 16
    for left in range(0, columns, step):
        for i in range(rows):
            for j in range(left, min(left + step, columns)):
                out[i * columns + j] = block[i * columns + j] + block[second[j] * rows + first[i]]


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
        scale = 1.0 / max(total, TINY)
        for x in range(symbols):
            occurrences = max(float(counts[c, x]) - left_out, 0.0)
            probabilities[c, x] = (occurrences + concentration * lower[c % shorter, x]) * scale


@njit(cache=True, nogil=True)
def leave_one_out_loss(counts, lower, concentration):
    """Summed surprise (nats) and number of occurrences, each predicted from all others. Arguments as `backed_off`."""
    contexts, symbols = counts.shape
    shorter = lower.shape[0]
    numbers = np.empty(LOGS_AT_ONCE + symbols + 1)
    values, logs = np.empty_like(numbers), np.empty_like(numbers)
    loss, occurrences = 0.0, 0.0
    used = 0
    for c in range(contexts):
        total = 0.0
        for x in range(symbols):
            n = float(counts[c, x])
            numbers[used], values[used] = -n, max(n - 1.0 + concentration * lower[c % shorter, x], TINY)
            total += n
            used += 1
        numbers[used], values[used] = total, max(total - 1.0 + concentration, TINY)
        used += 1
        occurrences += total
        if used >= LOGS_AT_ONCE or c + 1 == contexts:
            natural_logs(values[:used], logs[:used])
            for i in range(used):
                loss += numbers[i] * logs[i]
            used = 0
    return loss, occurrences


@njit(cache=True, nogil=True)
def fill_rows(probabilities, rows, row_entropies):
    """Write entropy and surprises of each context's distribution; a symbol of probability 0 gets surprise 0.

    Args:
        probabilities: `(contexts, symbols)` float64.
        rows: `(contexts, SURPRISES + symbols)` uint16, written.
        row_entropies: The float32 view of `rows`.
    """
    contexts, symbols = probabilities.shape
    flat = probabilities.reshape(-1)
    logs = np.empty(LOGS_AT_ONCE * symbols)
    for first in range(0, contexts, LOGS_AT_ONCE):
        stop = min(first + LOGS_AT_ONCE, contexts)
        natural_logs(flat[first * symbols : stop * symbols], logs[: (stop - first) * symbols])
        for c in range(first, stop):
            entropy = 0.0
            for x in range(symbols):
                p = probabilities[c, x]
                surprise = -logs[(c - first) * symbols + x] if p > 0.0 else 0.0
                entropy += p * surprise
                rows[c, SURPRISES + x] = np.uint16(min(surprise / SURPRISE_STEP + 0.5, HIGHEST_SURPRISE))
            row_entropies[c, 0] = entropy
