"""What a pass over a genome keeps, and what is calibrated on it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies.markov import MarkovEntropy
from hyena_glt.errors import ConfigError
from hyena_glt.patching import PatcherArgs, calibrate
from hyena_glt.patching.block_decisions import scan_rule
from hyena_glt.patching.genome import patch_blocks, score_blocks
from hyena_glt.patching.survey import GenomeSurvey, Sampler, survey_genome
from hyena_glt.sequences.alphabets import DNA
from hyena_glt.sequences.records import Block
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

MODEL = MarkovEntropy.fit([generate_random_genomic_sequence(4_000, seed=4)], order=3)


def blocks_of(sequence: bytes, cuts: list[int], start: int = 0) -> list[Block]:
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(sequence)}), len(sequence)]
    pairs = list(itertools.pairwise(places))
    return [Block("c", "", start + a, sequence[a:b], (a, b) == pairs[-1], 1) for a, b in pairs]


def test_a_survey_fits_the_model_of_the_whole_genome():
    text = generate_random_genomic_sequence(30_000, seed=6).encode()
    blocks = blocks_of(text[:20_000], [7_777]) + blocks_of(text[20_000:], [3, 4_000])
    survey = survey_genome(blocks, DNA)
    whole = MarkovEntropy.fit([text[:20_000], text[20_000:]])
    assert survey.model is not None
    assert survey.model.describe() == whole.describe()
    assert survey.symbols == 30_000
    assert [piece.size for piece in survey.sample] == [20_000, 10_000]
    scored = np.concatenate([part.scores.entropies for part in score_blocks(blocks, DNA, whole)])
    assert np.array_equal(np.concatenate(survey.sample_scores()[0]), scored)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 200), st.booleans()), min_size=1, max_size=30), st.integers(10, 300))
def test_a_sample_is_bounded_and_made_of_the_input(sizes, limit):
    sampler = Sampler(4, limit=limit, piece=10)
    rng = np.random.default_rng(0)
    given_codes = []
    for size, last in sizes:
        codes = rng.integers(0, 4, size, dtype=np.uint8)
        given_codes.append(codes)
        sampler.add(codes, last)
    stretches = sampler.stretches()
    total = sum(piece.size for piece in stretches)
    assert 0 < total <= limit
    everything = np.concatenate(given_codes).tobytes()
    assert all(piece.tobytes() in everything for piece in stretches)
    if sum(size for size, _ in sizes) <= limit:
        assert total == sum(size for size, _ in sizes)


def test_calibration_does_not_count_runs_of_n():
    text = generate_random_genomic_sequence(60_000, seed=6).encode()
    gapped = text[:30_000] + b"N" * 500_000 + text[30_000:] + b"N" * 77
    survey = survey_genome(blocks_of(gapped, list(range(50_000, 500_000, 50_000))), DNA)
    for fields in ({}, {"max_patch_length": 40}):
        args = PatcherArgs(threshold=0.0, **fields)
        found = survey.calibrate(scan_rule(args), 10)
        patched = list(
            patch_blocks(blocks_of(gapped, [123]), DNA, survey.model, PatcherArgs(threshold=found.threshold, **fields))
        )
        patches = sum(part.lengths.size - part.ambiguous_patches for part in patched)
        assert 60_000 / patches == pytest.approx(10, rel=0.02)
        assert found.mean_length == pytest.approx(60_000 / patches, rel=0.02)


def named_blocks(sequences):
    return [
        Block(name, "", a, text[a : a + 7000], a + 7000 >= len(text), 1)
        for name, text in sequences.items()
        for a in range(0, len(text), 7000)
    ]


def test_each_contig_gets_the_threshold_of_the_contig_alone():
    texts = {name: generate_random_genomic_sequence(30_000, seed=seed).encode() for seed, name in enumerate("ab")}
    texts["runs"] = b"N" * 500 + texts["a"][:9000] + b"N" * 300 + texts["b"][:9000]
    texts["small"] = texts["a"][:2000]
    texts["empty"] = b"N" * 30_000
    survey = survey_genome(named_blocks(texts), DNA)
    rule = scan_rule(PatcherArgs(threshold=0.0, max_patch_length=40))
    found = survey.calibrate_contigs(iter(named_blocks(texts)), DNA, rule, 8)
    assert list(found) == ["a", "b", "runs"]
    for name in "ab":
        alone = calibrate(texts[name], entropy_model=survey.model, target_mean_length=8, max_patch_length=40)
        assert found[name] == (alone.threshold, alone.calibration)
    threshold, record = found["runs"]
    args = PatcherArgs(threshold=threshold, max_patch_length=40, entropy_model=survey.model)
    patched = list(patch_blocks(named_blocks({"runs": texts["runs"]}), DNA, survey.model, args))
    patches = sum(part.lengths.size - part.ambiguous_patches for part in patched)
    assert 18_000 / patches == pytest.approx(8, rel=0.02)
    assert (record.mean_length, record.num_tokens) == (pytest.approx(8, rel=0.01), 18_800)
    assert set(survey.calibrate_contigs(named_blocks(texts), DNA, rule, 8, fewest_patches=10)) == set(texts) - {"empty"}


def test_the_curve_of_a_survey_is_of_its_letters():
    text = generate_random_genomic_sequence(40_000, seed=3).encode()
    with_runs = text[:20_000] + b"N" * 9000 + text[20_000:]
    rule = scan_rule(PatcherArgs(threshold=0.0, max_patch_length=64))
    plain = survey_genome(named_blocks({"c": text}), DNA)
    other = survey_genome(named_blocks({"c": with_runs}), DNA, model=plain.model)
    one, two = plain.threshold_curve(rule), other.threshold_curve(rule)
    assert np.allclose(one.thresholds, two.thresholds, atol=1e-3)
    means = np.interp(one.thresholds, two.thresholds, two.mean_lengths)
    assert means == pytest.approx(one.mean_lengths, rel=0.03)
    rises = other.threshold_curve(scan_rule(PatcherArgs(threshold=0.0, monotonicity=True)))
    assert rises.histogram_edges[-1] < 0.5  # not the step from N to the first letter
    found = plain.calibrate(rule, 16)
    assert np.interp(found.threshold, one.thresholds, one.mean_lengths) == pytest.approx(16, rel=0.03)
    assert one.uncapped_mean_lengths[-1] > 4 * one.mean_lengths[-1]
    empty = GenomeSurvey(letters=4, model=plain.model)
    with pytest.raises(ConfigError, match="tokens whose start the threshold decides"):
        empty.threshold_curve(rule)
