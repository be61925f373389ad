"""Threshold -> mean patch length, as a figure: what a calibration chose, and how steep the choice is.

ThresholdCurve -> figure with the curve above the histogram of the entropies -> PNG, SVG or PDF
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hyena_glt.sequences.figure_files import load_matplotlib, write_figure_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hyena_glt.patching.threshold_search import ThresholdCurve

SIZE_INCHES = (7.2, 5.6)
MARGIN = 0.02  # of the axis of thresholds
CURVE, UNCAPPED, CHOSEN, BARS, BARS_ABOVE = "#0b5394", "#8fb3d9", "#c1121f", "#c9ced6", "#e39aa0"
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}


@dataclass(frozen=True, slots=True)
class CalibratedPoint:
    """What was chosen on a curve."""

    threshold: float  # nats
    mean_length: float  # bases per patch
    title: str  # what was calibrated, such as the name of the genome
    compares: str = "entropy"  # what the threshold is compared with: "entropy" or "rise of the entropy"
    cap: int | None = None  # bases


def write_threshold_curve(
    path: str | os.PathLike[str], curve: ThresholdCurve, chosen: CalibratedPoint, *, overwrite: bool = False
) -> None:
    """Draw a curve into a file, in the format that its suffix names; the same curve gives the same bytes.

    Raises:
        ConfigError: Another suffix than .png, .svg or .pdf.
        MissingExtraError: matplotlib is not installed.
        OutputExistsError: The file exists.
        SystemProblem: It cannot be written.
    """
    write_figure_file(path, partial(draw_threshold_curve, curve, chosen), STYLE, overwrite=overwrite)


def draw_threshold_curve(curve: ThresholdCurve, chosen: CalibratedPoint) -> Figure:
    """The figure: mean patch length over the threshold, and below it the numbers that it is compared with.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    load_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    _draw_lengths(upper, curve, chosen)
    _draw_histogram(lower, curve, chosen)
    upper.set_title(chosen.title, loc="left", fontsize=11)
    lower.set_xlabel(f"threshold on the {chosen.compares} (nats)")
    left, right = curve.thresholds[[0, -1]]
    margin = MARGIN * max(right - left, 1e-6)
    lower.set_xlim(min(left, chosen.threshold - margin), max(right, chosen.threshold) + margin)
    return figure


def _draw_lengths(axes: Axes, curve: ThresholdCurve, chosen: CalibratedPoint) -> None:
    if curve.uncapped_mean_lengths is not None:
        axes.plot(
            curve.thresholds, curve.uncapped_mean_lengths, color=UNCAPPED, linestyle="--", label="without the cap"
        )
    label = "mean patch length" if chosen.cap is None else f"with the cap of {chosen.cap:,} bases"
    axes.plot(curve.thresholds, curve.mean_lengths, color=CURVE, linewidth=2, label=label)
    axes.axvline(chosen.threshold, color=CHOSEN, linewidth=0.8, alpha=0.7)
    axes.axhline(chosen.mean_length, color=CHOSEN, linewidth=0.8, alpha=0.7)
    axes.plot([chosen.threshold], [chosen.mean_length], "o", color=CHOSEN, label=_chosen_text(chosen))
    _mark_half_to_double(axes, curve, chosen)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.set_ylabel("mean patch length (bases)")
    axes.grid(True, color="0.92")
    axes.legend(loc="upper left", facecolor="white", framealpha=0.8, edgecolor="none")


def _mark_half_to_double(axes: Axes, curve: ThresholdCurve, chosen: CalibratedPoint) -> None:
    """Shade the thresholds between half and double the mean length, where the curve reaches both."""
    lengths = np.maximum.accumulate(curve.mean_lengths)  # with a minimum length, a mean may fall by a hair
    half, double = chosen.mean_length / 2, chosen.mean_length * 2
    if lengths[0] <= half and double <= lengths[-1]:
        low, high = np.interp(np.log([half, double]), np.log(lengths), curve.thresholds)
        label = f"half to double: {low:.5g} to {high:.5g} nats"
        axes.axvspan(low, high, color=CHOSEN, alpha=0.1, linewidth=0, label=label)


def _draw_histogram(axes: Axes, curve: ThresholdCurve, chosen: CalibratedPoint) -> None:
    edges, shares = curve.histogram_edges, curve.histogram_shares
    axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=BARS)
    begins = np.maximum(edges[:-1], chosen.threshold)  # of the parts of the bars above the threshold
    widths = np.maximum(edges[1:] - begins, 0.0)
    axes.bar(begins, shares, widths, align="edge", color=BARS_ABOVE)
    above = float((shares * widths / np.diff(edges)).sum())
    axes.text(
        0.02, 0.93, f"above the threshold: {100 * above:.3g}% of the bases", transform=axes.transAxes, va="top"
    ).set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1})
    axes.set_ylim(0, max(float(shares.max()), 1e-9) * 1.35)
    axes.axvline(chosen.threshold, color=CHOSEN, linewidth=0.8, alpha=0.7)
    axes.set_ylabel("share of the bases")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")


def _chosen_text(chosen: CalibratedPoint) -> str:
    return f"chosen: {chosen.threshold:.5g} nats, {chosen.mean_length:.4g} bases"
