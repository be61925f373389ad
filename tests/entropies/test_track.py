"""Scores of a track take the place of entropies: the same from bigWig and bedGraph, in chunks and whole."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pyBigWig
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies.markov import MarkovEntropy
from hyena_glt.entropies.track import TrackEntropy
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.patching import OnlinePatcher, Patcher
from hyena_glt.sequences.alphabets import DNA
from hyena_glt.sequences.fasta import read_records

at_leisure = settings(deadline=None, max_examples=60)  # the first call of a library may take long

LENGTH = 40  # of the contig in the small tracks
RULES = ["zero", "mean", "carry", 0.5]


def write_pair(folder, values):
    """The values (NaN where missing) as bigWig and as bedGraph, the same intervals in both."""
    present = np.flatnonzero(~np.isnan(values))
    bigwig, bedgraph = folder / "t.bw", folder / "t.bg"
    file = pyBigWig.open(str(bigwig), "w")
    file.addHeader([("c", len(values))])
    file.addEntries(
        ["c"] * present.size, present.tolist(), ends=(present + 1).tolist(), values=values[present].tolist()
    )
    file.close()
    bedgraph.write_text("".join(f"c\t{i}\t{i + 1}\t{values[i].item()!r}\n" for i in present.tolist()))
    return bigwig, bedgraph


tracks = st.lists(
    st.one_of(st.just(math.nan), st.floats(-1e6, 1e6, width=32)), min_size=LENGTH, max_size=LENGTH
).filter(lambda values: not all(map(math.isnan, values)))


@at_leisure
@given(tracks, st.sampled_from(RULES), st.integers(0, LENGTH), st.lists(st.integers(0, LENGTH), max_size=4))
def test_both_formats_and_any_chunks_give_the_same(tmp_path_factory, values, rule, start, cuts):
    values = np.array(values, np.float32)
    paths = write_pair(tmp_path_factory.mktemp("pair"), values)
    text = "ACGTN" * (LENGTH // 5)
    wholes = [TrackEntropy(path, missing=rule).contig("c").entropies(text) for path in paths]
    assert wholes[0].dtype == np.float32
    assert np.array_equal(*wholes)
    source = TrackEntropy(paths[0], missing=rule).contig("c", start)
    stream, codes = source.stream(), DNA.encode(text[start:])
    edges = sorted({0, codes.size, *(cut for cut in cuts if cut < codes.size)})
    pieces = [stream.feed(codes[a:b]) for a, b in pairwise(edges)]
    chunked = np.concatenate([np.zeros(0, np.float32), *(piece.entropies for piece in pieces)])
    assert np.array_equal(chunked, wholes[0][start:])
    forced = np.concatenate([np.zeros(0, bool), *(piece.forced_starts for piece in pieces)])
    assert np.array_equal(forced, source.forced_starts(text[start:]))


@at_leisure
@given(tracks)
def test_missing_values_follow_their_rule(tmp_path_factory, values):
    values = np.array(values, np.float32)
    path, _ = write_pair(tmp_path_factory.mktemp("rule"), values)
    missing = np.isnan(values)

    def scores(rule):
        return TrackEntropy(path, missing=rule).contig("c").entropies("A" * LENGTH)

    oracle = np.array(pyBigWig.open(str(path)).values("c", 0, LENGTH), np.float32)
    assert np.array_equal(scores("zero"), np.nan_to_num(oracle))
    assert np.array_equal(scores(-2), np.where(missing, -2, oracle))
    mean = np.float32(values[~missing].mean(dtype=np.float64))
    assert np.allclose(scores("mean"), np.where(missing, mean, oracle), rtol=1e-6)
    last, expected = np.float32(0), []
    for value in values:
        last = last if np.isnan(value) else value
        expected.append(last)
    assert np.array_equal(scores("carry"), expected)
    if missing.any():
        with pytest.raises(DataError, match=rf"no value at base {missing.argmax()} \(0-based\)"):
            scores("error")
    else:
        assert np.array_equal(scores("error"), values)


@pytest.fixture
def pair(tmp_path):
    values = np.full(LENGTH, np.nan, np.float32)
    values[3:9], values[20:25] = 1.25, -3.5
    return write_pair(tmp_path, values)


def test_surprises_are_the_scores_and_out_is_filled(pair):
    source = TrackEntropy(pair[0]).contig("c", 2)
    out = np.empty((2, 4), np.float32)
    scored = source.stream().feed(DNA.encode("ACGT"), out)
    assert scored.entropies.base is out
    assert out.tolist() == [[0, 1.25, 1.25, 1.25]] * 2
    assert source.surprises("ACGT").tolist() == out[0].tolist()


def test_a_block_that_is_refused_changes_nothing(pair):
    stream = TrackEntropy(pair[0], missing="carry").contig("c", 20).stream()
    assert stream.feed("A" * 5).entropies.tolist() == [-3.5] * 5
    with pytest.raises(DataError, match="in the track the contig has 40; is this the right assembly"):
        stream.feed("A" * 16)
    assert stream.feed("A" * 15).entropies.tolist() == [-3.5] * 15


def test_behind_the_last_interval_of_a_bedgraph_all_is_missing(pair):
    assert TrackEntropy(pair[1], missing=7.0).contig("c").entropies("A" * 60)[25:].tolist() == [7.0] * 35


def test_contigs_are_checked(pair):
    track = TrackEntropy(pair[0])
    with pytest.raises(DataError, match=r"no contig 'chrc' in the track; it has c"):
        track.contig("chrc")
    with pytest.raises(ConfigError, match="start: expected 0 or more"):
        track.contig("c", -1)
    patcher = Patcher(entropy_model=track, threshold=1.0)
    for refused in (lambda: track.entropies("ACGT"), track.stream, lambda: patcher.patch("ACGT")):
        with pytest.raises(ConfigError, match=r"call \.contig\(name, start\) first"):
            refused()


@pytest.mark.parametrize("rule", ["nothing", math.nan, math.inf, True, 1e39])
def test_unknown_rules_are_refused(pair, rule):
    with pytest.raises(ConfigError, match="missing: expected zero, mean, carry, error or a finite number"):
        TrackEntropy(pair[0], missing=rule)


def test_a_contig_without_values_has_no_mean(tmp_path):
    file = pyBigWig.open(str(tmp_path / "e.bw"), "w")
    file.addHeader([("c1", 100), ("c2", 100)])
    file.addEntries(["c1"], [5], ends=[7], values=[1.0])
    file.close()
    with pytest.raises(DataError, match=r"\(c2\): no value on this contig"):
        TrackEntropy(tmp_path / "e.bw", missing="mean").contig("c2").entropies("ACGT")


def test_the_description_names_file_and_rule(pair):
    about = TrackEntropy(pair[1], missing="carry").contig("c", 5).describe()
    assert len(about.pop("file_sha256")) == 64
    assert about == {
        "name": "track",
        "alphabet": "dna",
        "file": "t.bg",
        "missing": "carry",
        "contig": "c",
        "start": 5,
    }


def test_a_patcher_follows_the_track_whole_and_online(pair):
    source = TrackEntropy(pair[0]).contig("c")
    patcher = Patcher(patching_mode="track", entropy_model=source, threshold=1.0)
    assert patcher.is_causal
    lengths, scores = patcher.patch("ACGTA" * 8)
    assert scores is not None
    assert scores[0].tolist() == source.entropies("A" * LENGTH).tolist()
    assert lengths[0].tolist() == [1, 3, 1, 1, 1, 1, 1, 31]
    online = OnlinePatcher(patcher)
    parts = [online.feed("ACGTA" * 2), online.feed("ACGTA" * 6), online.finish()]
    assert torch.cat(parts).tolist() == lengths[0].tolist()


def test_a_saved_entropy_track_gives_the_patches_of_its_model(tmp_path, data):
    record = next(read_records(data("genomes/human_mtDNA_rCRS.fasta")))
    model = MarkovEntropy.fit([record.sequence])
    scored = model.score(DNA.encode(record.sequence))
    missing = DNA.encode(record.sequence) >= DNA.size
    values = np.where(missing, np.float32(np.nan), scored.entropies)
    path, _ = write_pair(tmp_path, values)
    source = TrackEntropy(path).contig("c")
    assert np.array_equal(source.entropies(record.sequence), scored.entropies)
    options = {"threshold": 1.37, "max_patch_length": 64}
    expected = Patcher(entropy_model=model, **options).patch(record.sequence)[0]
    assert torch.equal(
        Patcher(patching_mode="track", entropy_model=source, **options).patch(record.sequence)[0], expected
    )
