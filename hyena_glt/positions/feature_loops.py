"""The features of global positions, compiled: sines and cosines by quadrants that are read off the position's bits."""

from __future__ import annotations

import numpy as np
from numba import njit

HALF, ONE, FOUR = np.float32(0.5), np.float32(1), np.float32(4)
QUARTER_TURN = np.float32(np.pi / 2)
# sin(x) = x + x^3 (S0 + S1 x^2 + ...), cos(x) = 1 - x^2 / 2 + x^4 (C0 + ...) for |x| <= pi / 4: Cephes' sinf, cosf
S2, S1, S0 = np.float32(-1.9515295891e-4), np.float32(8.3321608736e-3), np.float32(-1.6666654611e-1)
C2, C1, C0 = np.float32(2.443315711809948e-5), np.float32(-1.388731625493765e-3), np.float32(4.166664568298827e-2)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def fill_features(features, positions, lengths, relative, cycle, scales):
    """Waves, log2 of the patch length and relative position of each token.

    Args:
        features: `(tokens, cycle columns + 2 * scales + 2)` float32, written to.
        positions: `(tokens,)` int64.
        lengths: `(tokens,)` int64, of each token's patch.
        relative: `(tokens,)` float32.
        cycle: `(bases of the cycle, columns)` float32, waves whose periods divide the cycle.
        scales: `(scales,)` int64, powers of 4.
    """
    first, count = cycle.shape[1], scales.size
    last_length, log_length = np.int64(-1), np.float32(0)
    for t in range(positions.size):
        position, row, turn = positions[t], features[t], cycle[positions[t] % len(cycle)]
        sines, cosines, ends = row[first:], row[first + count :], row[first + 2 * count :]
        for k in range(turn.size):
            row[k] = turn[k]
        for k in range(count):
            quarters = np.float32(position & (scales[k] - 1)) * (FOUR / np.float32(scales[k]))
            nearest = np.floor(quarters + HALF)
            x = (quarters - nearest) * QUARTER_TURN
            square = x * x
            sine = ((S2 * square + S1) * square + S0) * square * x + x
            cosine = ((C2 * square + C1) * square + C0) * square * square - HALF * square + ONE
            quadrant = np.int32(nearest)
            is_odd = quadrant & 1 == 1
            sine, cosine = cosine if is_odd else sine, sine if is_odd else cosine
            sines[k] = -sine if quadrant & 2 == 2 else sine
            cosines[k] = -cosine if (quadrant + 1) & 2 == 2 else cosine
        if lengths[t] != last_length:
            last_length = lengths[t]
            log_length = np.float32(np.log2(np.float32(last_length + 1)) / np.float32(8))
        ends[0], ends[1] = log_length, relative[t]
