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
    HISTORY,
    LENGTH,
    MATCHES,
    MAX_MISSES,
    POINTER,
    compiled,
    followed,
    forget_context,
    mix,
    push,
    read_counts,
    read_matches,
    seek_matches,
)


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
def price_symbols(codes, state, costs):
    """Price each symbol; nothing but the history, the matches and the prediction of `state` changes.

    Args:
        codes: `(length,)` uint8; a code above 3 is an ambiguity symbol, costs nothing and resets the context.
        state: The arrays of a `MixState` as a plain tuple.
        costs: `(length,)` float32, written: nats.
    """
    dense, packed, ring, slots, hits, weights, inputs, prediction, words = state
    for i in range(codes.size):
        x = np.int64(codes[i])
        if x > 3:
            forget_context(words, ring, inputs, prediction)
            costs[i] = 0.0
            continue
        costs[i] = -prediction[x]
        follow_matches(words, ring, x)
        push(words, ring, x)
        seek_matches(words, ring, slots)
        inputs[:] = 0.0
        evidence = read_counts(dense, packed, inputs, words)
        words[CHOSEN] = read_matches(hits, ring, inputs, words) * EVIDENCE + evidence
        mix(weights, inputs, prediction, words)
