"""Warnings about options that run but rarely do what was meant, each given once per patcher."""

from __future__ import annotations

import os
import sys
import warnings

import numpy as np
from numpy.typing import NDArray

from hyena_glt.config import DEFAULT_THRESHOLD, PatchingModeEnum
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.rows import TokenRows
from hyena_glt.patching.sources import DNA_SHARE, dna_share

LARGE_RISE = 0.5  # nats; entropies of neighbouring bases rarely differ by more
LOOK_AT_ROWS, LOOK_AT_TOKENS = 16, 4096


class PatchingWarning(UserWarning):
    """Options of a patcher that contradict each other softly, or that do not suit the data."""


class Adviser:
    """Gives each piece of advice once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def give(self, topic: str, message: str) -> None:
        """Warn, unless this topic has been warned about; the warning names the line that called the package."""
        if topic not in self._given:
            self._given.add(topic)
            warnings.warn(message, PatchingWarning, stacklevel=_frames_inside())

    def about_options(self, args: PatcherArgs) -> None:
        """Advice that needs no data."""
        if args.uses_scores and args.monotonicity and args.threshold_add is not None:
            self.give("two rules", "monotonicity and threshold_add are both set: monotonicity runs; set one of them")

    def about_scores(self, args: PatcherArgs, threshold: float | None, rows: TokenRows) -> None:
        """Advice about a threshold for scores that the patcher's own source gave."""
        if threshold is None:
            return
        if args.monotonicity and threshold >= LARGE_RISE:
            self.give(
                "large rise",
                f"threshold {threshold:.4g} with monotonicity is compared with a difference of entropies, "
                "which is rarely that large; use calibrate(..., rule='monotonicity')",
            )
        elif threshold == DEFAULT_THRESHOLD and "dna" not in self._given and looks_like_dna(rows):
            self.give(
                "dna",
                f"threshold {threshold:.4g} is a default for text; on DNA nearly every base is above it or "
                "none: use calibrate(..., target_mean_length=16)",
            )

    def about_split(self, args: PatcherArgs, rows: TokenRows, is_split: NDArray[np.bool_]) -> None:
        """Advice about modes that find nothing to split at.

        Args:
            args: Options.
            rows: The tokens.
            is_split: `(batch,)` bool, whether the rule alone makes any token but the first two start a patch; the
                first `LOOK_AT_ROWS` rows are enough.
        """
        splits = args.patching_mode in (PatchingModeEnum.space, PatchingModeEnum.bpe)
        if not splits or args.delimiter_chars is not None or args.model_name is not None:
            return
        unsplit = ~is_split[:LOOK_AT_ROWS] & (rows.lengths[:LOOK_AT_ROWS] > 2)
        if "unsplit" not in self._given and unsplit.any() and looks_like_dna(rows):
            self.give(
                "unsplit",
                f"{args.patching_mode} mode found nothing to split bases at: a row became one patch of 1 and "
                "one of the rest; use entropy or static mode",
            )


def _frames_inside() -> int:
    """The `stacklevel`, counted from `Adviser.give`, of the first frame outside this folder."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and os.path.dirname(frame.f_code.co_filename) == os.path.dirname(__file__):
        frame, level = frame.f_back, level + 1
    return level


def looks_like_dna(rows: TokenRows) -> bool:
    """True where nearly all of the first bytes of the first rows are nucleotides."""
    return dna_share(rows.tokens[:LOOK_AT_ROWS, :LOOK_AT_TOKENS].cpu().numpy()) >= DNA_SHARE
