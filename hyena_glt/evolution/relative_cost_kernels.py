"""The price of each base of one genome to someone who knows another: the loop beneath `relative_cost`.

The state is that of a `MixEntropy` after the known genome: its counts, its repeats, its history. Unlike in
`mixing_kernels.mix_symbols` nothing is learned from the genome that is priced, so a change costs the same at its
beginning and at its end, and the price does not depend on what was priced before.
"""

from __future__ import annotations

import numpy as np

from hyena_glt.entropies.mixing_kernels import (
    CHOSEN,
    EVIDENCE,
    FORWARD,
    HISTORY,
    LENGTH,
    MATCH_BASES,
    MATCHES,
    MAX_MISSES,
    POINTER,
    REVERSE,
    SLOT_MASK,
    WORD,
    WORD_MASK,
    compiled,
    followed,
    forget_context,
    hashed,
    hit_row,
    last_bases,
    last_bases_reversed,
    mix,
    push,
    read_counts,
    read_matches,
    seek_matches,
)
from hyena_glt.entropies.prefetch import AHEAD, prefetch

TRUSTED, TRUSTED_RATE = 3, 0.5  # class of the best hit rate from which on the counts weigh nothing, and its lowest rate


@compiled
def follow_matches(words, ring, x):
    """Move each match on one base, and end it after too many misses."""
    for m in range(MATCHES):
        if words[LENGTH + m] < 0:
            continue
        hit = followed(words, ring, m) == x
        history = words[HISTORY + m] = ((words[HISTORY + m] << 1) | (0 if hit else 1)) & 0xFFFF
        words[POINTER + m] += 1 - 2 * m
        if hit:
            words[LENGTH + m] += 1
            continue
        misses = 0
        while history:
            misses += history & 1
            history >>= 1
        words[LENGTH + m] = -1 if misses > MAX_MISSES else words[LENGTH + m] >> 2


@compiled
def follow_trusted(words, ring, match_logs, prediction):
    """Predict by the only match there is, if it is trusted, without counts and mixing; returns whether it was."""
    m = 0 if words[LENGTH] >= 0 else 1
    if words[LENGTH + m] < 0 or (m == 0 and words[LENGTH + 1] >= 0):
        return False
    row, x = hit_row(words, m), followed(words, ring, m)
    if match_logs[row] == 0.0 or x < 0:
        return False
    prediction[:4] = match_logs[row + 1]
    prediction[x] = match_logs[row]
    return True


@compiled
def fetch_ahead(ahead, slots, x):
    """Roll the words on by base `x` and bring the slots that will be asked for into the cache."""
    ahead[FORWARD] = ((ahead[FORWARD] << 2) | x) & WORD_MASK
    ahead[REVERSE] = (ahead[REVERSE] >> 2) | ((3 - x) << 2 * (WORD - 1))
    prefetch(slots, hashed(last_bases(ahead, MATCH_BASES)) & SLOT_MASK)
    prefetch(slots, hashed(last_bases_reversed(ahead, MATCH_BASES)) & SLOT_MASK)


@compiled
def price_symbols(codes, state, match_logs, costs):
    """Price each symbol; nothing but the history, the matches and the prediction of `state` changes.

    Args:
        codes: `(length,)` uint8; a code above 3 is an ambiguity symbol, costs nothing and resets the context.
        state: The arrays of a `MixState` as a plain tuple.
        match_logs: Laid out as `MixState.hits`: logarithms of the probability of the base that a trusted match expects,
            and of each other one; 0 for matches that are not trusted.
        costs: `(length,)` float32, written: nats.
    """
    dense, packed, ring, slots, hits, weights, inputs, prediction, words = state
    ahead = words.copy()  # the rolling words, AHEAD symbols further on: only what to bring into the cache depends on it
    for i in range(-AHEAD, codes.size):
        if i + AHEAD < codes.size:
            fetch_ahead(ahead, slots, np.int64(codes[i + AHEAD]) & 3)
        if i < 0:
            continue
        x = np.int64(codes[i])
        if x > 3:
            forget_context(words, ring, inputs, prediction)
            costs[i] = 0.0
            continue
        costs[i] = -prediction[x]
        follow_matches(words, ring, x)
        push(words, ring, x)
        seek_matches(words, ring, slots)
        if follow_trusted(words, ring, match_logs, prediction):
            continue
        inputs[:] = 0.0
        confidence = read_matches(hits, ring, inputs, words)
        evidence = 0 if confidence >= TRUSTED else read_counts(dense, packed, inputs, words)
        words[CHOSEN] = confidence * EVIDENCE + evidence
        mix(weights, inputs, prediction, words)
