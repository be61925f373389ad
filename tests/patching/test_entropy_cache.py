"""A cache changes how often a source is asked, never what a patcher gives."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hyena_glt.config import AdvancedPatcherConfig
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.entropies.mixing import MixEntropy
from hyena_glt.entropies.track import TrackEntropy
from hyena_glt.errors import ConfigError
from hyena_glt.patching import Patcher, PatcherArgs
from hyena_glt.patching.entropy_cache import ENTRY_BYTES, EntropyCache, SourceIdentity, row_key

RANDOM = np.random.default_rng(5)
GENOME = "".join(RANDOM.choice(list("ACGT"), 600))
MODEL = MarkovEntropy.fit([GENOME], order=3)
OPTIONS = {"threshold": 1.36, "max_patch_length": 24}

texts = st.text("ACGTN", max_size=30)


class Counting:
    """An entropy source that says which rows it was asked for."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def entropies(self, tokens: np.ndarray) -> np.ndarray:
        self.asked.append((tokens - 4).astype(np.uint8).tobytes())
        return MODEL.entropies(tokens)

    def forced_starts(self, tokens: np.ndarray) -> np.ndarray:
        return MODEL.forced_starts(tokens)


class Network(nn.Module):
    """Logits that depend on the token and on a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.rows = 0

    def forward(self, tokens):
        self.rows += len(tokens)
        return self.scale * torch.nn.functional.one_hot(tokens % 7, 7).float()


@given(st.lists(st.lists(texts, min_size=1, max_size=4), min_size=1, max_size=4), st.sampled_from(["model", "auto"]))
def test_patches_and_scores_are_those_without_a_cache(batches, kind):
    source = MODEL if kind == "model" else None
    plain = Patcher(entropy_model=source, **OPTIONS)
    cached = Patcher(entropy_model=source, cache=EntropyCache(6 * ENTRY_BYTES), **OPTIONS)
    for batch in batches:
        for expected, found in zip(plain.patch(batch), cached.patch(batch), strict=True):
            assert torch.equal(expected, found)


@given(st.lists(st.lists(texts, min_size=1, max_size=5), min_size=1, max_size=4))
def test_each_row_is_scored_once(batches):
    source = Counting()
    patcher = Patcher(entropy_model=source, cache=EntropyCache(), **OPTIONS)
    for batch in batches:
        patcher.patch(batch)
    every = [text.encode() for batch in batches for text in batch]
    assert sorted(source.asked) == sorted(set(every))
    assert patcher.cache.misses == len(set(every)) == len(patcher.cache)
    assert patcher.cache.hits == len(every) - len(set(every))


def test_memory_is_bounded_and_the_least_recently_used_go_first():
    source, rows = Counting(), [GENOME[i * 100 : i * 100 + 100] for i in range(5)]
    size = 400 + ENTRY_BYTES
    cache = EntropyCache(3 * size)
    patcher = Patcher(entropy_model=source, cache=cache, **OPTIONS)
    for number in (0, 1, 2, 0, 3):
        patcher.patch(rows[number])
    assert (len(cache), cache.bytes) == (3, 3 * size)
    patcher.patch([rows[0], rows[2], rows[3]])
    assert cache.misses == 4
    patcher.patch(rows[1])
    assert cache.misses == 5
    patcher.patch(GENOME)  # larger than the whole cache
    assert cache.bytes <= 3 * size
    cache.clear()
    assert (len(cache), cache.bytes, cache.hits, cache.misses) == (0, 0, 0, 0)


def test_another_source_is_another_entry(tmp_path):
    cache = EntropyCache(folder=tmp_path)
    other = MarkovEntropy.fit([GENOME[:300]], order=3)
    sources = [MODEL, other, MixEntropy(), MixEntropy.fit([GENOME]), Counting(), Counting(), None]
    for source in sources:
        Patcher(entropy_model=source, cache=cache, **OPTIONS).patch(GENOME)
    assert (cache.hits, cache.misses) == (0, len(sources))
    Patcher(entropy_model=MarkovEntropy.fit([GENOME], order=3), cache=cache, **OPTIONS).patch(GENOME)
    assert cache.hits == 1  # another object, the same content


def test_the_place_on_a_track_counts(tmp_path):
    (tmp_path / "t.bg").write_text("c\t0\t3\t1\nc\t3\t9\t2\nd\t0\t9\t2\n")
    track, cache = TrackEntropy(tmp_path / "t.bg"), EntropyCache()
    for name, start in (("c", 0), ("c", 3), ("d", 0), ("c", 0)):
        source = track.contig(name, start)
        _, scores = Patcher(patching_mode="track", entropy_model=source, cache=cache, threshold=1.5).patch("ACGT")
        assert scores[0].tolist() == source.entropies("ACGT").tolist()
    assert (cache.hits, cache.misses) == (1, 3)


def test_a_folder_serves_the_next_run_but_not_for_bare_callables(tmp_path):
    first = EntropyCache(folder=tmp_path)
    expected = Patcher(entropy_model=MODEL, cache=first, **OPTIONS).patch(["ACGTNNNA", GENOME])
    network = Network()
    Patcher(entropy_model=network, cache=first, threshold=1.0).patch(GENOME)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    second = EntropyCache(folder=tmp_path)
    found = Patcher(entropy_model=MODEL, cache=second, **OPTIONS).patch(["ACGTNNNA", GENOME])
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert (second.hits, second.misses, len(second)) == (2, 0, 2)
    Patcher(entropy_model=network, cache=second, threshold=1.0).patch(GENOME)
    assert second.misses == 1


def test_only_what_misses_goes_through_a_network_and_new_weights_count():
    network, cache = Network(), EntropyCache()
    patcher = Patcher(entropy_model=network, cache=cache, threshold=1.0, patching_batch_size=2)
    patcher.patch(["ACGT", "CC", "ACGT"])
    assert network.rows == 2
    lengths, scores = patcher.patch(["GGG", "CC"])
    assert network.rows == 3
    plain = Patcher(entropy_model=network, threshold=1.0).patch(["GGG", "CC"])
    assert torch.equal(scores, plain[1])
    assert torch.equal(lengths, plain[0])
    with torch.no_grad():
        network.scale.mul_(3.0)
    assert not torch.equal(patcher.patch(["GGG", "CC"])[1], scores)
    assert torch.equal(
        patcher.patch(["GGG", "CC"])[1], Patcher(entropy_model=network, threshold=1.0).patch(["GGG", "CC"])[1]
    )


def test_given_scores_are_not_kept():
    patcher = Patcher(entropy_model=MODEL, cache=EntropyCache(), **OPTIONS)
    patcher.patch("ACGT", entropies=torch.ones(1, 4))
    patcher.patch("ACGT", preds=torch.ones(1, 4, 3))
    assert (len(patcher.cache), patcher.cache.misses) == (0, 0)


def test_a_patcher_has_no_cache_unless_it_is_given_one():
    patcher = Patcher(**OPTIONS)
    assert patcher.cache is None
    patcher.cache = EntropyCache()
    patcher.patch([GENOME, GENOME])
    assert (patcher.cache.hits, patcher.cache.misses) == (1, 1)


def test_the_configuration_says_whether_there_is_one(tmp_path):
    assert EntropyCache.from_config(AdvancedPatcherConfig(no_cache=True)) is None
    config = AdvancedPatcherConfig(threshold=1.36)
    patcher = Patcher(PatcherArgs.from_config(config), cache=EntropyCache.from_config(config, folder=tmp_path))
    patcher.patch(GENOME)
    assert patcher.cache.folder.bytes > 2400
    with pytest.raises(ConfigError, match="max_bytes: expected 0 or more"):
        EntropyCache(-1)


def test_copies_for_other_processes_share_the_folder_only(tmp_path):
    patcher = Patcher(entropy_model=MODEL, cache=EntropyCache(5000, tmp_path, max_folder_bytes=9000), **OPTIONS)
    patcher.patch(GENOME)
    for again in (pickle.loads(pickle.dumps(patcher.cache)), copy.deepcopy(patcher.cache)):
        assert (again.max_bytes, len(again)) == (5000, 0)
        assert (again.folder.path, again.folder.max_bytes) == (tmp_path, 9000)


@given(st.lists(st.integers(0, 400), max_size=6), st.lists(st.integers(0, 400), max_size=6))
def test_keys_tell_rows_apart(row, other):
    identity = SourceIdentity(b"source", True)
    same = row_key(identity, np.array(row, np.int64)) == row_key(identity, np.array(other, np.int64))
    assert same == (row == other)
    assert row_key(identity, np.array(row, np.int64)) != row_key(SourceIdentity(b"else", True), np.array(row, np.int64))


def test_realtime_patching_wants_a_model_that_needs_no_whole_row():
    with pytest.raises(ConfigError, match="realtime_patching: expected a model that scores tokens as they come"):
        Patcher(realtime_patching=True, **OPTIONS).patch("ACGT")
    expected = Patcher(entropy_model=MODEL, **OPTIONS).patch(GENOME)[0]
    assert torch.equal(Patcher(realtime_patching=True, entropy_model=MODEL, **OPTIONS).patch(GENOME)[0], expected)
    given = Patcher(realtime_patching=True, **OPTIONS).patch("ACGT", entropies=torch.zeros(1, 4))[0]
    assert given.tolist() == [[1, 3]]
