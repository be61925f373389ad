"""bedGraph and bigWig hold every value at its base."""

from __future__ import annotations

import io

import numpy as np
import pyBigWig
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.tracks import BedGraphWriter, BigWigWriter, ValueBatch
from hyena_glt.tracks.values import merged_runs, present_runs

values_and_gaps = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.25]), st.booleans()), max_size=40)


def batch_of(rows: list[tuple[float, bool]], start: int = 7) -> ValueBatch:
    values = np.array([value for value, _ in rows], np.float32)
    return ValueBatch("chr1", start, values, np.array([gap for _, gap in rows], bool))


@settings(deadline=None)
@given(values_and_gaps)
def test_merged_runs_spell_the_same_values(rows):
    batch = batch_of(rows)
    spelled = {}
    for start, end, value in zip(*merged_runs(batch), strict=True):
        assert start < end
        spelled |= dict.fromkeys(range(start, end), float(value))
    assert spelled == {7 + i: value for i, (value, gap) in enumerate(rows) if not gap}


@settings(deadline=None)
@given(values_and_gaps)
def test_present_runs_leave_out_the_gaps_only(rows):
    missing = batch_of(rows).missing
    covered = [i for first, last in present_runs(missing) for i in range(first, last)]
    assert covered == np.flatnonzero(~missing).tolist()


def test_bedgraph_has_a_track_line_and_merges_equal_neighbours():
    handle = io.BytesIO()
    BedGraphWriter(handle, None).write(batch_of([(0.5, False), (0.5, False), (0.0, True), (1.25, False)]))
    lines = handle.getvalue().decode().splitlines()
    assert lines[0].startswith("track type=bedGraph")
    assert lines[1:] == ["chr1\t7\t9\t0.500000", "chr1\t10\t11\t1.250000"]


def test_bigwig_is_read_back_base_by_base(tmp_path):
    path = str(tmp_path / "x.bw")
    rng = np.random.default_rng(0)
    values = rng.random(500, dtype=np.float32)
    missing = rng.random(500) < 0.1
    writer = BigWigWriter(path, {"chr1": 600, "chr2": 3})
    writer.write(ValueBatch("chr1", 0, values[:200], missing[:200]))
    writer.write(ValueBatch("chr1", 200, values[200:], missing[200:]))
    writer.close()
    with pyBigWig.open(path) as again:
        found = np.array(again.values("chr1", 0, 500))
    assert np.array_equal(np.isnan(found), missing)
    assert np.array_equal(found[~missing].astype(np.float32), values[~missing])
