"""Distances from a net: their definitions, their independence of windows and blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from hyena_glt import Patcher
from hyena_glt.errors import ConfigError
from hyena_glt.evolution.genome import Genome
from hyena_glt.evolution.net_profiles import NetProfile, compare_with_net, profile_genome, wasserstein_distances

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=20)


def of_lengths(values):
    return NetProfile(np.ones((1, 2)), np.array(values), np.zeros(len(values), np.int64))


@given(lengths, lengths, lengths)
def test_wasserstein_against_scipy_whatever_the_counts(first, second, third):
    three = (first, second, third)
    found = wasserstein_distances([of_lengths(values) for values in three], np.ones(1))
    for i, one in enumerate(three):
        for j, two in enumerate(three):
            assert found[i, j] == pytest.approx(wasserstein_distance(one, two), abs=1e-12)


def test_weights_are_repetitions():
    profiles = [
        NetProfile(np.ones((2, 2)), np.array([3, 9]), np.array([0, 1])),
        NetProfile(np.ones((2, 2)), np.array([4, 4]), np.array([0, 1])),
    ]
    found = wasserstein_distances(profiles, np.array([3.0, 1.0]))[0, 1]
    assert found == pytest.approx(wasserstein_distance([3, 3, 3, 9], [4, 4, 4, 4]))


@pytest.mark.parametrize("metric", ["representation", "wasserstein", "combined"])
def test_symmetric_zero_diagonal_blocks_and_order(family, net, metric):
    patcher = Patcher(patching_mode="space", delimiter_chars=["A"])
    found = compare_with_net(family, net, patcher, metric).distances().values
    assert np.array_equal(found, found.T)
    assert (np.diag(found) == 0).all()
    again = compare_with_net(family[::-1], net, patcher, metric, blocks=7).distances().values
    assert np.allclose(again[::-1, ::-1], found, rtol=1e-6, atol=1e-12)


def test_the_mean_is_that_of_the_states(family, net, patcher):
    genome = family[0]
    profile = profile_genome(net, patcher, genome, blocks=3)
    states, info = net.hidden_states(*_tokens(patcher, genome))
    assert np.allclose(profile.state_sums.sum(0), states[0].double().sum(0).detach().numpy(), rtol=1e-5, atol=1e-5)
    assert profile.lengths.sum() == int(info.patch_lengths.sum())


def _tokens(patcher, genome):
    from hyena_glt.tokens import ByteTokenizer

    text = genome.sequences[0].decode()
    return ByteTokenizer().encode(text)[None], patcher.patch([text])[0]


def test_patches_of_n_alone_are_left_out_and_contigs_are_separate(net, patcher):
    genome = Genome.of("x", ["ACGTTGCA" * 2 + "N" * 16, "ACGTTGCA"])
    assert profile_genome(net, patcher, genome).lengths.tolist() == [8, 8, 8]


def test_a_net_without_patcher_gets_a_calibrated_one(family, net):
    found = compare_with_net(family, net, metric="wasserstein")
    ratios = [profile.compression_ratio for profile in found.profiles]
    assert 10 < np.mean(ratios) < 24


class Kept(dict):
    """A store in memory."""

    find, put = dict.get, dict.__setitem__


def test_kept_profiles_give_the_same_distances_and_equal_genomes_run_once(family, net, patcher, monkeypatch):
    genomes = [*family, Genome("again", family[0].sequences, family[0].alphabet)]
    plain = compare_with_net(genomes, net, patcher, blocks=4)
    made, steps = [], []

    def counted(*arguments, **options):
        made.append(arguments[2].name)
        return profile_genome(*arguments, **options)

    monkeypatch.setattr("hyena_glt.evolution.net_profiles.profile_genome", counted)
    store = Kept()
    first = compare_with_net(genomes, net, patcher, blocks=4, store=store, advance=steps.append)
    assert made == ["a", "b", "c", "d", "e"]
    assert sum(steps) == 6
    del store[family[2].sha256]
    again = compare_with_net(genomes, net, patcher, blocks=4, store=store)
    assert made[5:] == ["c"]
    for found in (first, again):
        assert np.array_equal(found.distances().values, plain.distances().values)
    assert compare_with_net(genomes, net, patcher, blocks=2, store=store).blocks == 2


def test_genomes_that_no_threshold_cuts(net):
    uniform = [Genome.of(name, "A" * 200) for name in "ab"]
    with pytest.raises(ConfigError, match=r"^patcher: expected one, .* about 16 letters: 16 is out of reach"):
        compare_with_net(uniform, net)


def test_training_mode_comes_back(family, net, patcher):
    net.train()
    try:
        compare_with_net(family[:2], net, patcher)
        assert net.training
    finally:
        net.eval()


def test_what_is_refused(family, net, patcher):
    with pytest.raises(ConfigError, match="metric"):
        compare_with_net(family, net, patcher, "kmer")
    with pytest.raises(ConfigError, match="blocks"):
        compare_with_net(family, net, patcher, blocks=0)
