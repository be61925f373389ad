"""Context counts, match models and the softmax mixer, one symbol at a time: the arithmetic beneath `MixEntropy`.

A symbol costs one round: learn from it (`learn`, `check_matches`), remember it (`count_word`, `find_matches`),
predict the next one (`read_counts`, `read_matches`, `mix`). All that is known lies in the arrays of a
`hyena_glt.entropies.mixing.MixState`, so a sequence may arrive in blocks of any size.

Each model m gives one number a symbol, `s_m(x) = log p_m(x)` up to a constant, and the mixed prediction is
`p(x) ~ exp(sum over m of w_m s_m(x))`. The gradient of `-log p(actual)` with respect to `w_m` is
`sum over x of p(x) s_m(x) - s_m(actual)`, in which constants cancel: a count needs no total, only its logarithm.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hyena_glt.entropies.prefetch import AHEAD, prefetch

DENSE_ORDERS = (3, 6, 8)  # contexts of this many bases: four uint16 counts a context
PACKED_ORDER = 11  # the longest context: four 4-bit counts in one uint16, which keeps the table at 8 MiB
MATCH_BASES = 16  # a repeat is looked for by its last so many bases
WORD = 16  # bases in the two rolling words; at least MATCH_BASES and PACKED_ORDER + 1
DENSE = len(DENSE_ORDERS)
MATCHES = 2  # 0 follows a repeat of this strand, 1 one of the other strand
INPUTS = DENSE + 1 + MATCHES

RING_BITS, SLOT_BITS = 24, 22  # bases of history kept; places of its words remembered
RING_MASK, SLOT_MASK, WORD_MASK = (1 << RING_BITS) - 1, (1 << SLOT_BITS) - 1, (1 << 2 * WORD) - 1
DENSE_LIMIT = 500  # a count above it halves its context, so that old counts fade
PACKED_PRIOR = 0.5  # added to a count before the logarithm; dense counts add 1
SEARCH_BELOW, VERIFY = 16, 32  # a match of fewer bases looks for a better one; bases compared at most
LENGTHS, RECENT = 13, 16  # rows of the hit rates: length class times the last four hits and misses
MAX_MISSES, HIT_MEMORY = 8, 400.0  # misses in 16 bases that end a match; predictions a hit rate remembers
EVIDENCE, CONFIDENCES = 6, 8  # a set of weights for each class of longest-context count and of best hit rate
FIRST_RATE, LAST_RATE = 0.02, 0.003  # learning rate of the weights
LOWEST = -16.0  # log odds against the likeliest base never fall below it, so a surprise is at most 17.1 nats

# Places in the state's `words`; each match has its own pointer, length and history.
FORWARD, REVERSE, KNOWN, PLACE, CHOSEN, POINTER = 0, 1, 2, 3, 4, 5
LENGTH, HISTORY = POINTER + MATCHES, POINTER + 2 * MATCHES

DENSE_AT = np.cumsum([0, *(4 << 2 * order for order in DENSE_ORDERS)]).astype(np.int64)  # first cell of each order
DENSE_LOGS = np.log(np.arange(DENSE_LIMIT + 1) + 1.0).astype(np.float32)
PACKED_LOGS = np.log(np.arange(16) + PACKED_PRIOR).astype(np.float32)


compiled = njit(cache=True, nogil=True, error_model="numpy")  # no test for division by zero: a quarter faster


@compiled
def last_bases(words, bases):
    """The newest `bases` bases as a number, two bits each, newest lowest."""
    return words[FORWARD] & ((1 << 2 * bases) - 1)


@compiled
def last_bases_reversed(words, bases):
    """The reverse complement of `last_bases`."""
    return words[REVERSE] >> 2 * (WORD - bases)


@compiled
def hashed(word):
    """Hash of a word of MATCH_BASES bases: its slot in the low SLOT_BITS bits, 8 check bits above."""
    return np.int64((np.uint64(word) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - SLOT_BITS - 8))


@compiled
def learn(weights, inputs, prediction, words, x):
    """One gradient step of the chosen weights towards symbol `x`."""
    at = words[CHOSEN] * INPUTS
    p0, p1, p2, p3 = prediction[4], prediction[5], prediction[6], prediction[7]
    rate = np.float32(max(LAST_RATE, FIRST_RATE / math.sqrt(1.0 + words[PLACE] * 0.001)))
    for m in range(INPUTS):
        mean = inputs[4 * m] * p0 + inputs[4 * m + 1] * p1 + inputs[4 * m + 2] * p2 + inputs[4 * m + 3] * p3
        weights[at + m] += rate * (inputs[4 * m + x] - mean)


@compiled
def hit_row(words, m):
    """Place in `hits` of match `m`: its length class (8 below 32 bases, 5 above) and its last four outcomes."""
    n = words[LENGTH + m]
    if n < 32:
        length_class = n >> 2
    else:
        length_class = 8 if n < 64 else 9 if n < 128 else 10 if n < 256 else 11 if n < 512 else 12
    return 2 * ((m * LENGTHS + length_class) * RECENT + (words[HISTORY + m] & (RECENT - 1)))


@compiled
def followed(words, ring, m):
    """Code of the base that match `m` expects next; negative where its repeat ends."""
    stored = np.int64(ring[words[POINTER + m] & RING_MASK])
    return stored - 1 if m == 0 or stored == 0 else 4 - stored


@compiled
def check_matches(words, hits, ring, x):
    """Tell each match what came, move it on one base, and end it after too many misses."""
    for m in range(MATCHES):
        if words[LENGTH + m] < 0:
            continue
        hit = followed(words, ring, m) == x
        row = hit_row(words, m)
        seen = hits[row + 1] = min(hits[row + 1] + np.float32(1.0), np.float32(HIT_MEMORY))
        hits[row] += (np.float32(1.0 if hit else 0.0) - hits[row]) / (seen + np.float32(1.5))
        history = words[HISTORY + m] = ((words[HISTORY + m] << 1) | (0 if hit else 1)) & 0xFFFF
        words[POINTER + m] += 1 - 2 * m
        if hit:
            words[LENGTH + m] += 1
        else:
            misses = 0
            while history:
                misses += history & 1
                history >>= 1
            words[LENGTH + m] = -1 if misses > MAX_MISSES else words[LENGTH + m] >> 2


@compiled
def push(words, ring, x):
    """Append symbol `x` to the rolling words and the history."""
    words[FORWARD] = ((words[FORWARD] << 2) | x) & WORD_MASK
    words[REVERSE] = (words[REVERSE] >> 2) | ((3 - x) << 2 * (WORD - 1))
    words[KNOWN] = min(words[KNOWN] + 1, WORD)
    ring[words[PLACE] & RING_MASK] = x + 1
    words[PLACE] += 1


@compiled
def count_dense(dense, cell):
    """One more of a symbol; a context past the limit is halved."""
    if dense[cell] >= DENSE_LIMIT:
        for y in range(cell & ~3, (cell & ~3) + 4):
            dense[y] >>= 1
    dense[cell] += np.uint16(1)


@compiled
def count_packed(packed, word):
    """One more of the symbol in the low two bits of `word`, after the context above them."""
    counts, shift = np.int64(packed[word >> 2]), 4 * (word & 3)
    if (counts >> shift) & 15 == 15:
        counts = (counts >> 1) & 0x7777
    packed[word >> 2] = counts + (1 << shift)


@compiled
def count_word(dense, packed, words):
    """Count the newest symbol after its contexts, and the same words read on the other strand."""
    for m in range(DENSE):
        if words[KNOWN] > DENSE_ORDERS[m]:
            count_dense(dense, DENSE_AT[m] + last_bases(words, DENSE_ORDERS[m] + 1))
            count_dense(dense, DENSE_AT[m] + last_bases_reversed(words, DENSE_ORDERS[m] + 1))
    if words[KNOWN] > PACKED_ORDER:
        count_packed(packed, last_bases(words, PACKED_ORDER + 1))
        count_packed(packed, last_bases_reversed(words, PACKED_ORDER + 1))


@compiled
def agreeing(ring, newest, start, m):
    """Bases, VERIFY at most, that agree going back from `newest` and from `start` in the direction of match `m`."""
    n = 0
    while n < VERIFY:
        a, b = np.int64(ring[(newest - n) & RING_MASK]), np.int64(ring[(start - n * (1 - 2 * m)) & RING_MASK])
        if a == 0 or b == 0 or (a != b if m == 0 else a + b != 5):
            break
        n += 1
    return n


@compiled
def seek_matches(words, ring, slots):
    """Give a match that is lost or short the last place of its word, if more bases agree there."""
    if words[KNOWN] < MATCH_BASES:
        return
    newest = words[PLACE] - 1
    own = hashed(last_bases(words, MATCH_BASES))
    for m in range(MATCHES):
        if words[LENGTH + m] >= SEARCH_BELOW:
            continue
        key = own if m == 0 else hashed(last_bases_reversed(words, MATCH_BASES))
        found = np.int64(slots[key & SLOT_MASK])
        if found >> RING_BITS != key >> SLOT_BITS:
            continue
        start = (found & RING_MASK) - m * (MATCH_BASES - 1)  # on the other strand the newest base lies leftmost
        n = agreeing(ring, newest, start, m)
        if n < MATCH_BASES or n <= words[LENGTH + m]:
            continue
        following = start + 1 - 2 * m
        if words[LENGTH + m] < 0 or (following - words[POINTER + m]) & RING_MASK != 0:
            words[HISTORY + m] = 0
            words[POINTER + m] = following
        words[LENGTH + m] = n


@compiled
def find_matches(words, ring, slots):
    """`seek_matches`, and remember this place."""
    if words[KNOWN] < MATCH_BASES:
        return
    seek_matches(words, ring, slots)
    own = hashed(last_bases(words, MATCH_BASES))
    slots[own & SLOT_MASK] = ((words[PLACE] - 1) & RING_MASK) | ((own >> SLOT_BITS) << RING_BITS)


@compiled
def read_counts(dense, packed, inputs, words):
    """Logarithms of the counts after the present contexts; returns the class of the longest one's count."""
    for m in range(DENSE):
        if words[KNOWN] >= DENSE_ORDERS[m]:
            cell = DENSE_AT[m] + (last_bases(words, DENSE_ORDERS[m]) << 2)
            for x in range(4):
                inputs[4 * m + x] = DENSE_LOGS[dense[cell + x]]
    if words[KNOWN] < PACKED_ORDER:
        return 0
    counts, total = np.int64(packed[last_bases(words, PACKED_ORDER)]), np.int64(0)
    for x in range(4):
        n = (counts >> 4 * x) & 15
        total += n
        inputs[4 * DENSE + x] = PACKED_LOGS[n]
    return total if total < 3 else 3 if total < 5 else 4 if total < 10 else 5


@compiled
def read_matches(hits, ring, inputs, words):
    """Log odds of the base that each match expects; returns the class of the best hit rate, 0 without a match."""
    best = np.float32(0.0)
    for m in range(MATCHES):
        if words[LENGTH + m] < 0:
            continue
        x = followed(words, ring, m)
        if x < 0:
            words[LENGTH + m] = -1
            continue
        p = min(max(hits[hit_row(words, m)], np.float32(0.01)), np.float32(0.9998))
        best = max(best, p)
        inputs[4 * (DENSE + 1 + m) + x] = math.log(np.float32(3.0) * p / (np.float32(1.0) - p))
    if best < 0.7:
        return 0 if best == 0.0 else 1 if best < 0.35 else 2 if best < 0.5 else 3
    return 4 if best < 0.9 else 5 if best < 0.98 else 6 if best < 0.995 else 7


@compiled
def mix(weights, inputs, prediction, words):
    """Mix the inputs with the chosen weights into `prediction`; returns its Shannon entropy in nats."""
    at, lowest = words[CHOSEN] * INPUTS, np.float32(LOWEST)
    t0 = t1 = t2 = t3 = np.float32(0.0)
    for m in range(INPUTS):
        w = weights[at + m]
        t0 += w * inputs[4 * m]
        t1 += w * inputs[4 * m + 1]
        t2 += w * inputs[4 * m + 2]
        t3 += w * inputs[4 * m + 3]
    top = max(max(t0, t1), max(t2, t3))
    t0, t1, t2, t3 = max(t0 - top, lowest), max(t1 - top, lowest), max(t2 - top, lowest), max(t3 - top, lowest)
    e0, e1, e2, e3 = math.exp(t0), math.exp(t1), math.exp(t2), math.exp(t3)
    total = e0 + e1 + e2 + e3
    log_total = math.log(total)
    prediction[0], prediction[1] = t0 - log_total, t1 - log_total
    prediction[2], prediction[3] = t2 - log_total, t3 - log_total
    prediction[4], prediction[5], prediction[6], prediction[7] = e0 / total, e1 / total, e2 / total, e3 / total
    return log_total - (t0 * e0 + t1 * e1 + t2 * e2 + t3 * e3) / total


@compiled
def forget_context(words, ring, inputs, prediction):
    """Start contexts anew at an ambiguity symbol: no match, every base alike. What was learned stays."""
    if words[KNOWN] == 0:
        return
    ring[words[PLACE] & RING_MASK] = 0
    words[PLACE] += 1
    words[KNOWN] = words[CHOSEN] = 0
    words[LENGTH:HISTORY] = -1
    inputs[:] = 0.0
    prediction[:4], prediction[4:] = math.log(0.25), 0.25


@compiled
def mix_symbols(codes, state, entropies, surprises):
    """Score each symbol and learn from it; updates the arrays of `state`.

    Args:
        codes: `(length,)` uint8; a code above 3 is an ambiguity symbol and resets the context.
        state: The arrays of a `MixState` as a plain tuple.
        entropies: `(length,)` float32, written: nats of the prediction made after each symbol; 0 after an ambiguity
            symbol.
        surprises: `(length,)` float32, written: `-ln p(symbol)` in nats before it was seen; 0 for an ambiguity symbol.
    """
    dense, packed, ring, slots, hits, weights, inputs, prediction, words = state
    ahead = words.copy()  # the rolling words, AHEAD symbols further on: only what to bring into the cache depends on it
    for i in range(-AHEAD, codes.size):
        if i + AHEAD < codes.size:
            x = np.int64(codes[i + AHEAD]) & 3
            ahead[FORWARD] = ((ahead[FORWARD] << 2) | x) & WORD_MASK
            ahead[REVERSE] = (ahead[REVERSE] >> 2) | ((3 - x) << 2 * (WORD - 1))
            prefetch(packed, last_bases(ahead, PACKED_ORDER))
            prefetch(packed, last_bases_reversed(ahead, PACKED_ORDER))
            prefetch(slots, hashed(last_bases(ahead, MATCH_BASES)) & SLOT_MASK)
            prefetch(slots, hashed(last_bases_reversed(ahead, MATCH_BASES)) & SLOT_MASK)
        if i < 0:
            continue
        x = np.int64(codes[i])
        if x > 3:
            forget_context(words, ring, inputs, prediction)
            entropies[i] = surprises[i] = 0.0
            continue
        surprises[i] = -prediction[x]
        learn(weights, inputs, prediction, words, x)
        check_matches(words, hits, ring, x)
        push(words, ring, x)
        count_word(dense, packed, words)
        find_matches(words, ring, slots)
        inputs[:] = 0.0
        evidence = read_counts(dense, packed, inputs, words)
        words[CHOSEN] = read_matches(hits, ring, inputs, words) * EVIDENCE + evidence
        entropies[i] = mix(weights, inputs, prediction, words)
