"""The arithmetic beneath `MixEntropy`: counters, match models and the softmax mixer, one symbol at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from hyena_glt.entropies.prefetch import AHEAD, prefetch

DENSE_ORDERS = (1, 3, 6, 8)  # four uint16 counts a context
PACKED_ORDERS = (11, 12)  # four 4-bit counts in one uint16 a context
KEYS = (24, 12)  # bases that a match model looks up; each has a forward and a reverse-complement pointer
ORDERS = len(DENSE_ORDERS) + len(PACKED_ORDERS)
MATCHES = 2 * len(KEYS)
INPUTS = ORDERS + MATCHES
WORD = 24  # bases in the rolling words
RING_BITS = 24
SLOT_BITS = 22
DENSE_LIMIT = 4000
LENGTHS, HISTORY = 16, 16
EVIDENCE = 6
CONFIDENCE = 8
FLOOR = 16.0
H, R, KNOWN, PLACE, SET, POINTERS = 0, 1, 2, 3, 4, 5
LENGTH_AT, HISTORY_AT = POINTERS + MATCHES, POINTERS + 2 * MATCHES
RATE0, RATE1 = 0.02, 0.002
DENSE_PRIOR = (1.0, 1.0, 1.0, 1.0)
PACKED_PRIOR = (0.5, 0.3)


class MixState(NamedTuple):
    dense: np.ndarray
    packed: np.ndarray
    ring: np.ndarray
    slots: np.ndarray
    hits: np.ndarray
    weights: np.ndarray
    inputs: np.ndarray
    prediction: np.ndarray
    words: np.ndarray


def _offsets(orders: tuple[int, ...], cells: int) -> np.ndarray:
    sizes = [cells * 4**order for order in orders]
    return np.cumsum([0, *sizes]).astype(np.int64)


DENSE_AT = _offsets(DENSE_ORDERS, 4)
PACKED_AT = _offsets(PACKED_ORDERS, 1)
LOGS = np.array([[math.log(n + a) for n in range(DENSE_LIMIT + 1)] for a in DENSE_PRIOR], dtype=np.float32)
PACKED_LOGS = np.array([[math.log(n + a) for n in range(16)] for a in PACKED_PRIOR], dtype=np.float32)


def empty_state() -> MixState:
    weights = np.zeros((CONFIDENCE * EVIDENCE, INPUTS), dtype=np.float32)
    weights[:, : ORDERS] = 0.3
    weights[:, ORDERS:] = 0.4
    hits = np.zeros((MATCHES, LENGTHS * HISTORY, 2), dtype=np.float32)
    hits[:, :, 0] = 0.6
    words = np.zeros(POINTERS + 3 * MATCHES, dtype=np.int64)
    words[LENGTH_AT:HISTORY_AT] = -1
    return MixState(
        np.zeros(DENSE_AT[-1], np.uint16),
        np.zeros(PACKED_AT[-1], np.uint16),
        np.zeros(1 << RING_BITS, np.uint8),
        np.zeros(len(KEYS) << SLOT_BITS, np.uint32),
        hits,
        weights,
        np.zeros((INPUTS, 4), np.float32),
        np.full(4, math.log(0.25)),
        words,
    )


@njit(cache=True, nogil=True)
def count(dense, cell, x):
    n = dense[cell + x] + 1
    if n > DENSE_LIMIT:
        for y in range(4):
            dense[cell + y] >>= 1
        n >>= 1
    dense[cell + x] = n


@njit(cache=True, nogil=True)
def count_packed(packed, cell, x):
    v = np.int64(packed[cell])
    if (v >> (4 * x)) & 15 == 15:
        v = (v >> 1) & 0x7777
    packed[cell] = v + (1 << (4 * x))


@njit(cache=True, nogil=True)
def slot_of(key, k):
    v = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(v >> np.uint64(64 - SLOT_BITS)) + (k << SLOT_BITS)


@njit(cache=True, nogil=True)
def verified(ring, words, candidate, step, start, flip):
    """Bases that agree, going back from the newest symbol and from `start` by `-step`."""
    mask = ring.size - 1
    n, p, q = 0, words[PLACE] - 1, start
    while n < 32:
        a, b = ring[p & mask], ring[q & mask]
        if a == 0 or b == 0:
            break
        if (a != b) if not flip else (a + b != 5):
            break
        n += 1
        p -= 1
        q -= step
    return n


@njit(cache=True, nogil=True)
def bucket(length):
    if length < 16:
        return max(length // 4, 0)
    if length < 32:
        return 4 + (length - 16) // 4
    b = 8
    length >>= 6
    while length > 0 and b < LENGTHS - 1:
        length >>= 1
        b += 1
    return b


@njit(cache=True, nogil=True)
def learn(state, x):
    inputs, prediction = state.inputs, state.prediction
    w = state.weights[state.words[SET]]
    p0, p1, p2, p3 = math.exp(prediction[0]), math.exp(prediction[1]), math.exp(prediction[2]), math.exp(prediction[3])
    n = w.size
    rate = max(RATE1, RATE0 / math.sqrt(1.0 + state.words[PLACE] * 0.001))
    for m in range(n):
        e = inputs[m, 0] * p0 + inputs[m, 1] * p1 + inputs[m, 2] * p2 + inputs[m, 3] * p3
        w[m] += np.float32(rate * (inputs[m, x] - e))


@njit(cache=True, nogil=True)
def check_matches(state, x):
    words, hits, ring = state.words, state.hits, state.ring
    mask = ring.size - 1
    for m in range(MATCHES):
        length = words[LENGTH_AT + m]
        if length < 0:
            continue
        forward = m % 2 == 0
        b = ring[words[POINTERS + m] & mask]
        hit = b == x + 1 if forward else b == 4 - x
        row = hits[m, bucket(length) * HISTORY + (words[HISTORY_AT + m] & (HISTORY - 1))]
        row[1] = min(row[1] + 1.0, 400.0)
        row[0] += ((1.0 if hit else 0.0) - row[0]) / (row[1] + 1.5)
        history = words[HISTORY_AT + m] = ((words[HISTORY_AT + m] << 1) | (0 if hit else 1)) & 0xFFFF
        words[POINTERS + m] += 1 if forward else -1
        if hit:
            words[LENGTH_AT + m] = length + 1
        else:
            misses = 0
            while history:
                misses += history & 1
                history >>= 1
            words[LENGTH_AT + m] = -1 if misses > MAX_MISSES or (m >= 2 and misses > 4) else length >> 2


MAX_MISSES = 8


@njit(cache=True, nogil=True)
def count_all(state, x, known):
    h, r = state.words[H], state.words[R]  # both hold x already
    for m in range(ORDERS):
        order = DENSE_ORDERS[m] if m < len(DENSE_ORDERS) else PACKED_ORDERS[m - len(DENSE_ORDERS)]
        if known <= order:
            break
        before = (h >> 2) & ((1 << (2 * order)) - 1)
        back = r >> (2 * (WORD - order - 1))
        if m < len(DENSE_ORDERS):
            count(state.dense, DENSE_AT[m] + 4 * before, x)
            count(state.dense, DENSE_AT[m] + 4 * (back >> 2), back & 3)
        else:
            count_packed(state.packed, PACKED_AT[m - len(DENSE_ORDERS)] + before, x)
            count_packed(state.packed, PACKED_AT[m - len(DENSE_ORDERS)] + (back >> 2), back & 3)


@njit(cache=True, nogil=True)
def find_matches(state, known):
    words, ring, slots = state.words, state.ring, state.slots
    mask = ring.size - 1
    place = words[PLACE]
    for k in range(len(KEYS)):
        if known < KEYS[k]:
            continue
        f = words[H] & ((1 << (2 * KEYS[k])) - 1)
        slot = slot_of(f, k)
        for d in range(2):
            m = 2 * k + d
            if words[LENGTH_AT + m] < MIN_KEEP:
                old = words[LENGTH_AT + m]
                key = f if d == 0 else words[R] >> (2 * (WORD - KEYS[k]))
                candidate = np.int64(slots[slot if d == 0 else slot_of(key, k)])
                start = candidate if d == 0 else candidate - KEYS[k] + 1
                n = verified(ring, words, candidate, 1 if d == 0 else -1, start, d == 1)
                if n >= KEYS[k] and n > old:
                    nxt = start + 1 if d == 0 else start - 1
                    if old < 0 or nxt != words[POINTERS + m]:
                        words[HISTORY_AT + m] = 0
                    words[POINTERS + m] = nxt
                    words[LENGTH_AT + m] = n
        slots[slot] = (place - 1) & mask


MIN_KEEP = 16


@njit(cache=True, nogil=True)
def predict(state, known):
    words, inputs, ring = state.words, state.inputs, state.ring
    mask = ring.size - 1
    h = words[H]
    inputs[:] = 0.0
    evidence = 0
    for m in range(len(DENSE_ORDERS)):
        if known < DENSE_ORDERS[m]:
            break
        cell = DENSE_AT[m] + 4 * (h & ((1 << (2 * DENSE_ORDERS[m])) - 1))
        for x in range(4):
            inputs[m, x] = LOGS[m, state.dense[cell + x]]
    for j in range(len(PACKED_ORDERS)):
        if known < PACKED_ORDERS[j]:
            break
        v = np.int64(state.packed[PACKED_AT[j] + (h & ((1 << (2 * PACKED_ORDERS[j])) - 1))])
        total = 0
        for x in range(4):
            n = (v >> (4 * x)) & 15
            total += n
            inputs[len(DENSE_ORDERS) + j, x] = PACKED_LOGS[j, n]
        if j == 0:
            evidence = 0 if total == 0 else 1 if total == 1 else 2 if total == 2 else 3 if total < 5 else 4 if total < 10 else 5
    best = 0.0
    for m in range(MATCHES):
        if words[LENGTH_AT + m] < 0:
            continue
        b = np.int64(ring[words[POINTERS + m] & mask])
        if b == 0:
            words[LENGTH_AT + m] = -1
            continue
        p = state.hits[m, bucket(words[LENGTH_AT + m]) * HISTORY + (words[HISTORY_AT + m] & (HISTORY - 1)), 0]
        p = min(max(p, 0.01), 0.9998)
        best = max(best, p)
        inputs[ORDERS + m, b - 1 if m % 2 == 0 else 4 - b] = math.log(3.0 * p / (1.0 - p))
    if best == 0.0:
        confidence = 0
    elif best < 0.35:
        confidence = 1
    elif best < 0.5:
        confidence = 2
    elif best < 0.7:
        confidence = 3
    elif best < 0.9:
        confidence = 4
    elif best < 0.98:
        confidence = 5
    elif best < 0.995:
        confidence = 6
    else:
        confidence = 7
    words[SET] = confidence * EVIDENCE + evidence
    w = state.weights[words[SET]]
    t0 = t1 = t2 = t3 = np.float32(0.0)
    for m in range(w.size):
        t0 += w[m] * inputs[m, 0]
        t1 += w[m] * inputs[m, 1]
        t2 += w[m] * inputs[m, 2]
        t3 += w[m] * inputs[m, 3]
    top = max(max(t0, t1), max(t2, t3))
    t0, t1, t2, t3 = max(t0 - top, -FLOOR), max(t1 - top, -FLOOR), max(t2 - top, -FLOOR), max(t3 - top, -FLOOR)
    e0, e1, e2, e3 = math.exp(t0), math.exp(t1), math.exp(t2), math.exp(t3)
    z = e0 + e1 + e2 + e3
    lz = math.log(z)
    q = state.prediction
    q[0], q[1], q[2], q[3] = t0 - lz, t1 - lz, t2 - lz, t3 - lz
    return lz - (t0 * e0 + t1 * e1 + t2 * e2 + t3 * e3) / z


@njit(cache=True, nogil=True)
def mix_symbols(codes, state, entropies, surprises):
    words, ring = state.words, state.ring
    mask = ring.size - 1
    wordmask = (1 << (2 * WORD)) - 1
    for i in range(codes.size):
        x = np.int64(codes[i])
        if x > 3:
            if words[KNOWN] > 0:
                ring[words[PLACE] & mask] = 0
                words[PLACE] += 1
                words[KNOWN] = 0
                for m in range(MATCHES):
                    words[LENGTH_AT + m] = -1
                predict(state, 0)
            entropies[i] = surprises[i] = 0.0
            continue
        surprises[i] = -state.prediction[x]
        learn(state, x)
        check_matches(state, x)
        words[H] = ((words[H] << 2) | x) & wordmask
        words[R] = (words[R] >> 2) | ((3 - x) << (2 * (WORD - 1)))
        known = words[KNOWN] = min(words[KNOWN] + 1, WORD)
        ring[words[PLACE] & mask] = x + 1
        words[PLACE] += 1
        count_all(state, x, known)
        find_matches(state, known)
        entropies[i] = predict(state, known)
