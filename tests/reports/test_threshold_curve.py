"""The figure of a calibration."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from hyena_glt.errors import ConfigError, MissingExtraError, OutputExistsError
from hyena_glt.patching.scan import ScanRule, ScoreRows
from hyena_glt.patching.threshold_search import find_threshold, threshold_curve
from hyena_glt.reports.threshold_curve import CalibratedPoint, draw_threshold_curve, write_threshold_curve

SCORES = 1.386 - np.random.default_rng(1).gamma(2, 0.01, 20_000).astype(np.float32)
BEGINS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def curve_and_point(cap=None, mode="threshold", target=16, scores=SCORES):
    rows, rule = ScoreRows([scores]), ScanRule(mode, 0.0, max_patch_length=cap)
    found = find_threshold(rows, rule, target)
    point = CalibratedPoint(found.threshold, found.mean_length, "genome <1>, markov", "entropy", cap)
    return threshold_curve(rows, rule), point


def labels(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_the_point_lies_on_the_curve():
    pytest.importorskip("matplotlib")
    curve, point = curve_and_point()
    upper, lower = draw_threshold_curve(curve, point).axes
    line = next(line for line in upper.get_lines() if line.get_label() == "mean patch length")
    x, y = line.get_data()
    assert np.array_equal(y, curve.mean_lengths)
    assert np.interp(point.threshold, x, y) == pytest.approx(point.mean_length, rel=0.02)
    marked = next(line for line in upper.get_lines() if line.get_label().startswith("chosen"))
    assert [value[0] for value in marked.get_data()] == [point.threshold, point.mean_length]
    assert upper.get_yscale() == "log"
    assert (upper.get_ylabel(), lower.get_xlabel()) == (
        "mean patch length (bases)",
        "threshold on the entropy (nats)",
    )
    left, right = lower.get_xlim()
    assert left < point.threshold < right


def test_the_histogram_tells_the_share_above_the_threshold():
    pytest.importorskip("matplotlib")
    curve, point = curve_and_point()
    lower = draw_threshold_curve(curve, point).axes[1]
    share = float((point.threshold < SCORES).mean())
    said = float(lower.texts[0].get_text().split(": ")[1].split("%")[0]) / 100
    assert said == pytest.approx(share, rel=0.05)


def test_both_curves_are_there_where_there_is_a_cap():
    pytest.importorskip("matplotlib")
    assert labels(draw_threshold_curve(*curve_and_point()))[0] == "mean patch length"
    with_cap = labels(draw_threshold_curve(*curve_and_point(cap=64)))
    assert with_cap[:2] == ["without the cap", "with the cap of 64 bases"]
    assert with_cap[3].startswith("half to double: ")
    near_the_cap = labels(draw_threshold_curve(*curve_and_point(cap=20)))
    assert not any(label.startswith("half to double") for label in near_the_cap)


@pytest.mark.parametrize("suffix", sorted(BEGINS))
def test_the_suffix_says_the_format_and_the_file_is_the_same_every_time(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    curve, point = curve_and_point(cap=64)
    contents = []
    for name in ("a", "b"):
        write_threshold_curve(tmp_path / f"{name}.{suffix}", curve, point)
        contents.append((tmp_path / f"{name}.{suffix}").read_bytes())
    assert contents[0].startswith(BEGINS[suffix])
    assert contents[0] == contents[1]
    with pytest.raises(OutputExistsError):
        write_threshold_curve(tmp_path / f"a.{suffix}", curve, point)
    write_threshold_curve(tmp_path / f"a.{suffix}", curve, point, overwrite=True)


@pytest.mark.parametrize("scores", [np.ones(50, np.float32), SCORES[:5], SCORES[:40]])
@pytest.mark.parametrize("mode", ["threshold", "monotone"])
def test_little_data_makes_a_figure_all_the_same(tmp_path, scores, mode):
    pytest.importorskip("matplotlib")
    curve, point = curve_and_point(mode=mode, target=2, scores=scores)
    write_threshold_curve(tmp_path / "a.png", curve, point)
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ends with \.png, \.svg or \.pdf"):
        write_threshold_curve(tmp_path / "a.jpg", *curve_and_point())
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hyena-glt\[plot\]'"):
        write_threshold_curve(tmp_path / "a.png", *curve_and_point())
