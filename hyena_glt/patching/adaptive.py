"""Entropies -> decisions under a threshold that follows them, so that the wanted mean patch length holds where the
composition drifts, in one pass.

The threshold moves a small step up at every patch that starts and a smaller one down at every token:

    threshold += step * (patches started - 1 / target_mean_length)

the Robbins-Monro recursion of a quantile with a constant step. It needs no model of the entropies: over any stretch of
n tokens the patches that start number n / target, off by at most (threshold at its end - threshold at its
beginning) / step, and the threshold stays within a step or so of the entropies seen. Starts are counted as
`Scanner` makes them (minimum, cap and forced starts included), so it is the mean length that is held, not the share
of the entropies above the threshold; without limits the two are the same. Causal: the decision about token
`i + 1` rests on the entropies of the tokens `0 ... i`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching.scan import NO_BOOLS, Bools, ScanRule

HALF_LIFE = 20_000.0  # tokens; the rate of patches of mean 16 then wavers by about 2% where nothing drifts
SPREAD = 0.1  # nats; one over the density of a DNA context table's entropies about a mean patch of 8 to 64 bases


class AdaptiveThreshold:
    """Decides one sequence after the other as their entropies arrive; memory is constant.

    Args:
        target_mean_length: Tokens per patch.
        start: Nats at which the threshold begins, such as `calibrate_threshold` of the first stretch gives.
        half_life: Tokens after which half of a small error of the threshold is gone, where the entropies lie as
            dense as those of a context table on DNA (10 per nat); longer is steadier and follows more slowly.
        min_patch_length, max_patch_length: Tokens; those of the `Scanner` that takes the decisions.

    Raises:
        ConfigError: A target that the limits exclude, a half-life below one token, or a start that is no number.

    Example:
        >>> adaptive = AdaptiveThreshold(4, start=1.0, half_life=50)
        >>> decisions = adaptive.feed(np.full(400, 1.2, np.float32))  # a repeat: a fixed threshold has all or nothing
        >>> int(decisions[200:].sum())
        50
    """

    def __init__(
        self,
        target_mean_length: float,
        *,
        start: float,
        half_life: float = HALF_LIFE,
        min_patch_length: int | None = None,
        max_patch_length: int | None = None,
    ) -> None:
        limits = ScanRule("byte", min_patch_length=min_patch_length, max_patch_length=max_patch_length)
        if not limits.shortest <= target_mean_length <= limits.cap or not math.isfinite(target_mean_length):
            raise ConfigError(
                f"target_mean_length: expected tokens between the limits {limits.shortest} and "
                f"{max_patch_length or 'none'}, got {target_mean_length}"
            )
        if not 1 <= half_life < math.inf:
            raise ConfigError(f"half_life: expected at least 1 token, got {half_life}")
        if not math.isfinite(start):
            raise ConfigError(f"start: expected finite nats, got {start}")
        self.target_mean_length = float(target_mean_length)
        self.half_life = float(half_life)
        self._shortest, self._cap = limits.shortest, limits.cap
        self._threshold = float(start)
        self._open = 0  # tokens in the open patch
        self._begins = True

    @property
    def threshold(self) -> float:
        """Nats that the next entropy will be compared with."""
        return self._threshold

    @property
    def step(self) -> float:
        """Nats by which a started patch raises the threshold."""
        return SPREAD * math.log(2.0) / self.half_life

    def feed(self, entropies: NDArray[Any], forced: Bools | None = None, ignored: Bools | None = None) -> Bools:
        """Take the entropies of the next tokens of a sequence.

        Args:
            entropies: `(n,)` float32 nats, entry `i` of the prediction made after token `i`.
            forced: `(n,)` bool, tokens that start a patch whatever is decided.
            ignored: `(n,)` bool, tokens whose entropy says nothing (runs of N): they move no threshold, and the
                decision after them is False.

        Returns:
            `(n,)` bool, entry `i` about token `i + 1`: the scores that `Scanner.feed` takes in mode threshold. Any
            chunking gives the same decisions, bit for bit.

        Raises:
            PatchingError: Not one dimension, NaN, or masks of another shape; the state stays as it was.
        """
        scores = _checked(entropies, forced, ignored)
        decisions = np.zeros(scores.size, np.bool_)
        self._threshold, self._open = follow(
            scores,
            NO_BOOLS if forced is None else forced,
            NO_BOOLS if ignored is None else ignored,
            1.0 / self.target_mean_length,
            self.step,
            (self._shortest, self._cap),
            (self._threshold, self._open, self._begins),
            decisions,
        )
        self._begins = self._begins and not scores.size
        return decisions

    def end_sequence(self) -> None:
        """The next entropies belong to another sequence; the threshold goes on from where it is."""
        self._open = 0
        self._begins = True


@njit(cache=True, nogil=True)
def follow(scores, forced, ignored, rate, step, limits, state, decisions):
    """Decide token by token, and move the threshold after each.

    Args:
        scores: `(n,)` float32; `forced` and `ignored` are `(n,)` bool or empty.
        rate: Patches per token that are wanted.
        step: Nats.
        limits: Shortest patch and cap, tokens.
        state: Threshold, tokens in the open patch, and whether a sequence begins.
        decisions: `(n,)` bool, written.

    Returns:
        Threshold and open tokens after these.
    """
    shortest, cap = limits
    threshold, open_length, begins = state
    for i in range(scores.size):
        opens = begins and i == 0
        wanted = opens  # token 1 starts a patch by convention
        if forced.size and forced[i] and open_length > 0:
            opens, open_length = True, 0
        open_length += 1
        heard = not (ignored.size and ignored[i])
        decisions[i] = heard and np.float64(scores[i]) > threshold
        started = ((wanted or decisions[i]) and open_length >= shortest) or open_length >= cap
        if started:
            open_length = 0
        if heard:
            threshold += step * (np.float64(opens) + np.float64(started) - rate)
    return threshold, open_length


def _checked(entropies: NDArray[Any], forced: Bools | None, ignored: Bools | None) -> NDArray[np.float32]:
    if getattr(entropies, "ndim", None) != 1:
        raise PatchingError(f"entropies: expected (n,), got shape {getattr(entropies, 'shape', None)}")
    for name, mask in (("forced", forced), ("ignored", ignored)):
        if mask is not None and (mask.shape != entropies.shape or mask.dtype != np.bool_):
            raise PatchingError(f"{name}: expected bool {entropies.shape}, got {mask.dtype} {mask.shape}")
    scores = np.ascontiguousarray(entropies, np.float32)
    if np.isnan(scores).any():
        raise PatchingError(f"entropies: expected numbers, got NaN at token {int(np.isnan(scores).argmax())} of these")
    return scores
