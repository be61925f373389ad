"""Entropies of float32 logits in one pass over the processor's cache: one exponential for each logit.

With `d_v = score_v - largest` and `Z = sum exp(d_v)`, the entropy is `ln Z - sum(d_v exp(d_v)) / Z`: the logarithm of
each probability, and so a second exponential, is not needed.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LOG2_E = np.float32(1.44269504088896341)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # their sum is ln 2
SMALLEST = np.float32(-88.0)  # exp of it, and of what is below, counts as 0
EXPONENT_BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)  # of a float32
ALL_BUT_SIGN = np.int32(0x7FFFFFFF)
SIGN_BIT = np.int32(31)
HALF, ONE = np.float32(0.5), np.float32(1.0)
# exp(r) = 1 + r + r^2 (C0 + C1 r + ...) for |r| <= ln 2 / 2: the single-precision coefficients of Cephes' expf
C5, C4, C3 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
C2, C1, C0 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)


def row_entropies(scores: np.ndarray) -> np.ndarray:
    """Entropy of `softmax(row)` for each row of float32 `(rows, vocab)` logits, `vocab >= 1`: `(rows,)` float32 nats.

    Within 2e-6 nats of float64; the textbook form in float32 is no nearer. A logit of minus infinity is a probability
    of 0; NaN, plus infinity or a row of nothing but minus infinity gives NaN.
    """
    scores = np.ascontiguousarray(scores)
    totals, weighted = np.empty(len(scores)), np.empty(len(scores))
    _sum_exponentials(scores, scores.view(np.int32), totals, weighted)
    return (np.log(totals) - weighted / totals).astype(np.float32)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _sum_exponentials(scores, score_bits, totals, weighted):
    """Of each row: `Z` into `totals`, `sum d exp(d)` into `weighted`. `score_bits` are the same scores as int32."""
    vocab = scores.shape[1]
    distances = np.empty(vocab, dtype=np.float32)
    powers_bits = np.empty(vocab, dtype=np.int32)
    powers = powers_bits.view(np.float32)
    largest_bits = np.empty(1, dtype=np.int32)
    largest = largest_bits.view(np.float32)
    for row in range(scores.shape[0]):
        largest_bits[0] = _largest(score_bits[row])
        for i in range(vocab):
            d = scores[row, i] - largest[0]
            d = SMALLEST if d < SMALLEST else d
            distances[i] = d
            powers_bits[i] = (np.int32(d * LOG2_E - HALF) + EXPONENT_BIAS) << MANTISSA_BITS
        z, dz = np.float32(0), np.float32(0)
        for i in range(vocab):
            d = distances[i]
            n = np.float32(np.int32(d * LOG2_E - HALF))  # exp(d) = 2^n exp(r)
            r = d - n * LN2_HIGH - n * LN2_LOW
            tail = ((((C5 * r + C4) * r + C3) * r + C2) * r + C1) * r + C0
            e = (tail * r * r + r + ONE) * powers[i]
            z += e
            dz += e * d
        totals[row] = z
        weighted[row] = dz


@njit(cache=True, nogil=True)
def _largest(score_bits):
    """Bits of the largest float32, by integer comparisons, which become vector instructions; NaN counts as largest."""
    largest = np.int32(-(2**31))
    for i in range(score_bits.size):
        bits = score_bits[i]
        largest = max(largest, bits ^ ((bits >> SIGN_BIT) & ALL_BUT_SIGN))
    return largest ^ ((largest >> SIGN_BIT) & ALL_BUT_SIGN)
