"""The default entropy source: laws on random input, figures on real genomes, files that cannot be trusted."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies.markov import (
    MarkovEntropy,
    MarkovFitter,
)
from hyena_glt.errors import ConfigError, DataError, ModelFileError
from hyena_glt.sequences.alphabets import DNA, PROTEIN, reverse_complement
from hyena_glt.sequences.fasta import read_records
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

dna = st.text(alphabet="ACGTacgtN", min_size=1, max_size=200)


@pytest.fixture(scope="module")
def model() -> MarkovEntropy:
    return MarkovEntropy.fit([generate_random_genomic_sequence(5_000, seed=3)], order=3)


@settings(deadline=None)
@given(text=dna)
def test_entropies_are_finite_and_at_most_the_ceiling(model, text):
    entropies = model.entropies(text)
    assert entropies.dtype == np.float32
    assert entropies.shape == (len(text),)
    assert np.isfinite(entropies).all()
    assert (entropies >= 0).all()
    assert (entropies <= math.log(4) + 1e-6).all()


@settings(deadline=None)
@given(text=dna, cuts=st.lists(st.integers(0, 200), max_size=5))
def test_a_stream_gives_the_bits_of_the_whole_sequence(model, text, cuts):
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    stream = model.stream()
    parts = [stream.feed(text[a:b]) for a, b in itertools.pairwise(places)]
    assert np.array_equal(np.concatenate([p.entropies for p in parts]), model.entropies(text))
    assert np.array_equal(np.concatenate([p.surprises for p in parts]), model.surprises(text))
    assert np.array_equal(np.concatenate([p.forced_starts for p in parts]), model.forced_starts(text))


@settings(deadline=None)
@given(text=dna, place=st.integers(0, 199), base=st.sampled_from("ACGTN"))
def test_a_changed_base_moves_nothing_before_it(model, text, place, base):
    place %= len(text)
    changed = text[:place] + base + text[place + 1 :]
    assert np.array_equal(model.entropies(changed)[:place], model.entropies(text)[:place])


@settings(deadline=None)
@given(text=dna)
def test_case_and_tokens_and_bytes_are_scored_alike(model, text):
    tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int64) + 4
    expected = model.entropies(text.upper())
    assert np.array_equal(model.entropies(text), expected)
    assert np.array_equal(model.entropies(text.encode()), expected)
    assert np.array_equal(model.entropies(tokens), expected)


def test_the_entropy_is_that_of_the_predicted_distribution(model):
    text = generate_random_genomic_sequence(50, seed=9)
    for place in (0, 1, 2, 7, 30):
        past = text[: place + 1]
        surprises = [model.surprises(past + base)[-1] for base in "ACGT"]
        probabilities = np.exp(-np.array(surprises, np.float64))
        assert probabilities.sum() == pytest.approx(1.0, abs=3e-4)
        expected = -(probabilities * np.log(probabilities)).sum()
        assert model.entropies(text)[place] == pytest.approx(expected, abs=1e-3)


def test_either_strand_gives_the_same_model():
    text = generate_random_genomic_sequence(3_000, seed=5)
    forward, reverse = (MarkovEntropy.fit([t], order=4) for t in (text, reverse_complement(text)))
    assert forward.counts_sha256 == reverse.counts_sha256
    assert np.array_equal(forward.entropy_table, reverse.entropy_table)


def test_runs_of_n_reset_the_context_and_force_starts(model):
    text = "ACGTACGT" + "NNNN" + "ACGTAC"
    entropies = model.entropies(text)
    assert (entropies[8:12] == 0).all()
    assert np.array_equal(entropies[12:], model.entropies("ACGTAC"))
    assert np.flatnonzero(model.forced_starts(text)).tolist() == [8, 12]
    assert not model.forced_starts("NNNN").any()


def test_all_n_is_scored_without_a_nan(model):
    assert np.array_equal(model.entropies("N" * 50), np.zeros(50, np.float32))


def test_a_repeat_costs_nearly_nothing_and_noise_two_bits():
    repeat = MarkovEntropy.fit(["ACGGTC" * 3_000])
    assert repeat.bits_per_base(["ACGGTC" * 100]) < 0.1
    noise = generate_random_genomic_sequence(400_000, seed=1)
    fitted = MarkovEntropy.fit([noise[:200_000]], order=8)
    assert 1.99 < fitted.bits_per_base([noise[200_000:]]) < 2.02


def test_the_held_out_figure_is_honest(data):
    genome = next(read_records(data("genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz"))).sequence
    half = len(genome) // 2
    fitted = MarkovEntropy.fit([genome[:half]])
    second = fitted.bits_per_base([genome[half:]])
    assert second <= 1.935
    assert fitted.held_out_bits == pytest.approx(second, abs=0.01)


def test_proteins_are_fitted_on_twenty_letters(data):
    records = list(read_records(data("protein_rna/mmseqs_query_500proteins.fasta.gz"), alphabet="protein"))
    fitted = MarkovEntropy.fit([r.sequence for r in records[:400]], alphabet="protein")
    assert fitted.alphabet is PROTEIN
    assert 4.0 < fitted.bits_per_base([r.sequence for r in records[400:]]) < math.log2(20)


def test_bytes_alphabet_takes_any_byte():
    fitted = MarkovEntropy.fit([bytes(range(256)) * 40], alphabet="bytes")
    assert fitted.order == 1
    assert not fitted.forced_starts(b"\xfe\xff\x00").any()
    assert fitted.bits_per_base([bytes(range(256))]) < 1.0


def test_fitting_in_blocks_equals_fitting_at_once():
    text = generate_random_genomic_sequence(70_000, seed=2)
    fitter = MarkovFitter()
    codes = DNA.encode(text)
    for start in range(0, codes.size, 9_999):
        fitter.feed(codes[start : start + 9_999])
    fitter.end_sequence()
    blocks, whole = fitter.finish(), MarkovEntropy.fit([text])
    assert blocks.order == whole.order
    assert np.array_equal(blocks.entropy_table, whole.entropy_table)
    assert np.array_equal(blocks.surprise_table, whole.surprise_table)
    assert blocks.describe() == whole.describe()


def test_a_saved_model_scores_the_same(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    again = MarkovEntropy.load(tmp_path / "m.safetensors")
    text = generate_random_genomic_sequence(500, seed=8)
    assert np.array_equal(again.entropies(text), model.entropies(text))
    assert again.describe() == model.describe()


def test_the_uniform_model_knows_nothing():
    model = MarkovEntropy.uniform("dna")
    assert model.held_out_bits == 2.0
    assert model.entropies("ACGT").tolist() == pytest.approx([math.log(4)] * 4)
    assert model.bits_per_base(["ACGT"]) == pytest.approx(2.0, abs=1e-4)


def test_what_cannot_be_fitted_is_said():
    with pytest.raises(DataError, match="no letter of alphabet dna"):
        MarkovEntropy.fit(["NNNN"])
    with pytest.raises(DataError, match="no letter"):
        MarkovEntropy.fit([])
    with pytest.raises(ConfigError, match=r"order: expected an integer in \[0, 12\]"):
        MarkovEntropy.fit(["ACGT"], order=13)
    with pytest.raises(DataError, match="1-D integer tokens"):
        MarkovEntropy.fit([np.zeros((2, 2))])


def test_damaged_files_are_refused(model, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "m.safetensors"
    with pytest.raises(ModelFileError, match="no such file"):
        MarkovEntropy.load(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        MarkovEntropy.load(path)
    save_file({"x": np.zeros(1)}, path)
    with pytest.raises(ModelFileError, match="expected an entropy model of format"):
        MarkovEntropy.load(path)
    about = {**model.describe(), "format": "hyena-glt/markov/2", "concentrations": []}
    arrays = {"entropies": model.entropy_table[:-1], "surprises": model.surprise_table}
    save_file(arrays, path, {"hyena_glt": json.dumps(about)})
    with pytest.raises(ModelFileError, match="entropies: expected float32"):
        MarkovEntropy.load(path)
    del about["order"]
    save_file(arrays, path, {"hyena_glt": json.dumps(about)})
    with pytest.raises(ModelFileError, match="damaged description"):
        MarkovEntropy.load(path)
