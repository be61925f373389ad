"""The neural entropy source: the protocol of the table models, exact streams, files that cannot be trusted."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hyena_glt.entropies import ByteNetwork, ByteNetworkConfig, FitOptions, MarkovEntropy, MixEntropy, NeuralEntropy
from hyena_glt.entropies.neural import ENTROPY_STEP, FORMAT, both_strands, letter_logits, token_of_codes
from hyena_glt.entropies.saved_sources import load_source
from hyena_glt.errors import AlphabetError, ConfigError, DataError, ModelFileError, PatchingError
from hyena_glt.patching import OnlinePatcher, Patcher
from hyena_glt.sequences.alphabets import BYTES, DNA, PROTEIN, RNA, reverse_complement
from hyena_glt.sequences.fasta import read_records
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

SMALL = ByteNetworkConfig(width=16, conv_taps=4, filter_taps=8, outputs=4)
dna = st.text(alphabet="ACGTacgtUN-", min_size=1, max_size=200)


pytestmark = pytest.mark.usefixtures("one_thread")


def network_of(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return ByteNetwork(SMALL.model_copy(update=changes))


@pytest.fixture(scope="module")
def model() -> NeuralEntropy:
    return NeuralEntropy(network_of(), window=32)


@pytest.fixture(scope="module")
def fitted() -> NeuralEntropy:
    """Trained on a repeat of 12 bases, with noise between the repeats."""
    text = "".join("ACGGTCATTGCA" * 8 + generate_random_genomic_sequence(24, seed=n) for n in range(40))
    options = FitOptions(steps=120, batch_size=8, window=64, learning_rate=0.01)
    return NeuralEntropy.fit([text], config=SMALL, options=options, window=64)


@settings(deadline=None, max_examples=40)
@given(text=dna)
def test_entropies_are_multiples_of_the_step_below_the_ceiling(model, text):
    entropies = model.entropies(text)
    assert entropies.dtype == np.float32
    assert entropies.shape == (len(text),)
    assert (entropies >= 0).all()
    assert (entropies <= math.log(4) + ENTROPY_STEP).all()
    assert (entropies / ENTROPY_STEP % 1 == 0).all()
    assert np.isfinite(model.surprises(text)).all()


@settings(deadline=None, max_examples=40)
@given(text=dna, cuts=st.lists(st.integers(0, 200), max_size=5), batch_size=st.integers(1, 3))
def test_a_stream_gives_the_bits_of_the_whole_sequence(text, cuts, batch_size):
    model = NeuralEntropy(network_of(), window=32, batch_size=batch_size)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    stream = model.stream()
    parts = [stream.feed(text[a:b]) for a, b in itertools.pairwise(places)]
    assert np.array_equal(np.concatenate([p.entropies for p in parts]), model.entropies(text))
    assert np.array_equal(np.concatenate([p.surprises for p in parts]), model.surprises(text))
    assert np.array_equal(np.concatenate([p.forced_starts for p in parts]), model.forced_starts(text))


@pytest.mark.parametrize("size", [1, 7, 64, 4096, None])
def test_a_stream_gives_the_patches_of_the_whole_sequence(model, size):
    text = generate_random_genomic_sequence(700, seed=4)
    text = text[:300] + "NNNNN" + text[300:]
    patcher = Patcher(entropy_model=model, threshold=float(np.median(model.entropies(text))), max_patch_length=40)
    cuts = np.sort(np.random.default_rng(1).integers(0, len(text), 9)) if size is None else range(0, len(text), size)
    places = [0, *cuts, len(text)]
    online = OnlinePatcher(patcher)
    lengths = [online.feed(text[a:b]) for a, b in itertools.pairwise(places)] + [online.finish()]
    assert torch.cat(lengths).tolist() == patcher.patch(text)[0][0].tolist()


@settings(deadline=None, max_examples=30)
@given(text=dna, place=st.integers(0, 199), base=st.sampled_from("ACGTN"))
def test_a_changed_base_moves_nothing_before_it(model, text, place, base):
    place %= len(text)
    changed = text[:place] + base + text[place + 1 :]
    assert np.array_equal(model.entropies(changed)[:place], model.entropies(text)[:place])
    assert np.array_equal(model.surprises(changed)[:place], model.surprises(text)[:place])


def test_scores_do_not_depend_on_the_batch_they_are_in(model):
    texts = [generate_random_genomic_sequence(length, seed=length) for length in (1, 5, 90, 200)]
    _, scores = Patcher(entropy_model=model, threshold=1.3).patch(texts)
    for row, text in zip(scores, texts, strict=True):
        assert row[: len(text)].tolist() == model.entropies(text).tolist()


def test_scores_with_another_batch_size_agree_within_the_step(model):
    text = generate_random_genomic_sequence(500, seed=6)
    other = NeuralEntropy(network_of(), window=32, batch_size=5)
    assert np.abs(other.entropies(text) - model.entropies(text)).max() <= ENTROPY_STEP
    assert np.allclose(other.surprises(text), model.surprises(text), atol=1e-5)


def test_windows_that_overlap_by_the_reach_change_nothing_but_rounding(model):
    text = generate_random_genomic_sequence(300, seed=7)
    whole = NeuralEntropy(network_of(), window=512)
    assert model.plan.overlap == 16
    wide = NeuralEntropy(network_of(), window=64)
    assert wide.plan.overlap == network_of().reach
    assert np.abs(wide.entropies(text) - whole.entropies(text)).max() <= ENTROPY_STEP


def test_case_and_tokens_and_bytes_and_codes_are_scored_alike(model):
    text = "ACgtUNacgu" * 7
    tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int64) + 4
    expected = model.entropies(text.upper())
    for same in (text, text.replace("u", "t").replace("U", "T"), text.encode(), tokens, torch.from_numpy(tokens)):
        assert np.array_equal(model.entropies(same), expected)
    assert np.array_equal(model.stream().feed(DNA.encode(text)).entropies, expected)
    out = np.empty((2, len(text)), np.float32)
    scores = model.stream().feed(text, out)
    assert np.shares_memory(scores.entropies, out)
    assert np.array_equal(out[1], model.surprises(text))


def test_the_entropy_is_that_of_the_four_letters():
    network = network_of(outputs=260)
    model = NeuralEntropy(network, window=32)
    text = "ACGTTGCAAC"
    tokens = torch.tensor([[ord(base) + 4 for base in text]])
    logits = network(tokens)[0][:, [ord(base) + 4 for base in "ACGT"]]
    log_p = logits.double().log_softmax(-1)
    expected = -(log_p.exp() * log_p).sum(-1).detach().numpy()
    assert np.abs(model.entropies(text) - expected).max() <= ENTROPY_STEP / 2 + 1e-6
    surprises = model.surprises(text)
    assert surprises[0] == np.float32(math.log(4))
    following = ["ACGT".index(base) for base in text[1:]]
    assert surprises[1:].tolist() == pytest.approx((-log_p[range(9), following]).tolist(), abs=1e-5)


def test_runs_of_n_cost_nothing_and_force_starts(model):
    text = "ACGTACGT" + "NNNN" + "ACGTAC"
    assert (model.entropies(text)[8:12] == 0).all()
    assert (model.surprises(text)[8:12] == 0).all()
    assert np.flatnonzero(model.forced_starts(text)).tolist() == [8, 12]
    assert model.entropies("N" * 50).tolist() == [0.0] * 50
    assert model.entropies("").shape == (0,)
    tokens = np.array([69, 71, -1, -1])
    assert model.entropies(tokens)[2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("alphabet", [DNA, RNA, PROTEIN, BYTES])
def test_every_letter_has_its_own_token(alphabet):
    tokens = token_of_codes(alphabet)
    letters = tokens[: alphabet.size]
    assert len(set(letters.tolist())) == alphabet.size
    assert bytes((letters - 4).astype(np.uint8)) == alphabet.letters.encode("latin-1")
    assert set(tokens[alphabet.size :].tolist()) <= {ord("N") + 4, ord("X") + 4}


def test_both_strands_are_learned():
    codes = DNA.encode("AACGTN")
    assert [DNA.letters[code] if code < 4 else "N" for code in both_strands([codes], DNA)[1]] == list("NACGTT")
    assert reverse_complement("AACGTN") == "NACGTT"
    assert len(both_strands([PROTEIN.encode("MKV")], PROTEIN)) == 1


def test_a_repeat_is_learned_and_noise_is_not(fitted):
    repeat, noise = "ACGGTCATTGCA" * 20, generate_random_genomic_sequence(500, seed=99)
    assert fitted.bits_per_base([repeat]) < 1.0
    assert fitted.bits_per_base([noise]) > 1.8
    assert fitted.held_out_bits is not None
    assert fitted.held_out_bits < 1.6
    assert fitted.describe()["bits_per_base"] == round(fitted.held_out_bits, 6)


def test_fitting_twice_gives_the_same_model():
    text = generate_random_genomic_sequence(3_000, seed=8) + "N" * 50
    options = FitOptions(steps=4, batch_size=2, window=32)
    runs = [NeuralEntropy.fit([text, "ACGTNACGT"], config=SMALL, options=options, window=64) for _ in range(2)]
    assert runs[0].describe() == runs[1].describe()


def test_proteins_and_bytes_are_fitted_on_their_letters():
    options = FitOptions(steps=3, batch_size=2, window=16)
    for text, alphabet in (("MKVLAAGIVGLCX" * 9, "protein"), (b"some text, " * 9, "bytes")):
        model = NeuralEntropy.fit(text, alphabet, config=SMALL, options=options, window=32, held_out=0)
        assert model.held_out_bits is None
        assert 0 < model.bits_per_base(text) < 2 * math.log2(model.alphabet.size)


@settings(deadline=None, max_examples=5)
@given(text=dna)
def test_a_saved_model_scores_the_same(fitted, tmp_path_factory, text):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    fitted.save(path)
    for again in (NeuralEntropy.load(path), load_source(path)):
        assert np.array_equal(again.entropies(text), fitted.entropies(text))
        assert again.describe() == fitted.describe()


def test_load_source_opens_every_kind(tmp_path):
    text = "ACGGTCATTGCA" * 30
    MarkovEntropy.fit([text], order=2).save(tmp_path / "markov.safetensors")
    assert isinstance(load_source(tmp_path / "markov.safetensors"), MarkovEntropy)
    primed = MixEntropy.fit([text])
    primed.stream().save(tmp_path / "mix.safetensors")
    mix = load_source(tmp_path / "mix.safetensors")
    assert isinstance(mix, MixEntropy)
    assert np.array_equal(mix.entropies(text), primed.entropies(text))
    network_of().save(tmp_path / "bare.safetensors")
    with pytest.raises(ModelFileError, match="a bare network is one"):
        load_source(tmp_path / "bare.safetensors")
    with pytest.raises(ModelFileError, match="no such file"):
        load_source(tmp_path / "none.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelFileError, match="expected an entropy model of format"):
        load_source(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": None}, "damaged description .*window"),
        ({"overlap": 64}, "damaged description .*overlap"),
        ({"alphabet": "klingon"}, "damaged description .*alphabet"),
        ({"held_out_bits": "many"}, "damaged description"),
        ({"alphabet": "protein"}, "outputs: expected 20 or at least 260"),
        ({"format": "hyena-glt/neural/9"}, "format: expected"),
    ],
)
def test_damaged_files_are_refused(tmp_path, changes, message):
    path = tmp_path / "m.safetensors"
    NeuralEntropy(network_of(), window=32).save(path)
    about = {"format": FORMAT, "name": "neural", "alphabet": "dna", "window": 32, "overlap": 8, "held_out_bits": None}
    about["network"] = SMALL.model_dump()
    save_file(load_file(path), path, {"hyena_glt": json.dumps({**about, **changes})})
    with pytest.raises(ModelFileError, match=message):
        NeuralEntropy.load(path)


def test_a_network_with_a_small_vocabulary_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    NeuralEntropy(network_of(vocab_size=100), window=32).save(path)
    with pytest.raises(ModelFileError, match="vocab_size: expected at least 260"):
        NeuralEntropy.load(path)


def test_what_cannot_be_is_said(model, tmp_path):
    with pytest.raises(ConfigError, match="network: expected a callable"):
        NeuralEntropy("network")
    with pytest.raises(AlphabetError):
        NeuralEntropy(network_of(), alphabet="klingon")
    with pytest.raises(ConfigError, match="overlap"):
        NeuralEntropy(network_of(), window=8, overlap=8)
    with pytest.raises(ConfigError, match="held_out"):
        NeuralEntropy.fit("ACGT", held_out=1.0)
    with pytest.raises(DataError, match="no target"):
        NeuralEntropy.fit("NNNN")
    with pytest.raises(DataError, match="no letter"):
        model.bits_per_base(["NNN"])
    with pytest.raises(DataError, match="1-D integer tokens"):
        model.entropies(np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="expected a ByteNetwork to save, got function"):
        NeuralEntropy(lambda tokens: tokens).save(tmp_path / "m.safetensors")
    with pytest.raises(PatchingError, match="logits: expected 4 outputs"):
        NeuralEntropy(network_of(outputs=7), window=8).entropies("ACGT")
    with pytest.raises(PatchingError, match="NaN from the network"):
        NeuralEntropy(lambda tokens: torch.full((*tokens.shape, 4), torch.nan), window=8).entropies("ACGT")


def test_any_callable_is_a_network():
    def flat(tokens):
        return torch.zeros(*tokens.shape, 260)

    model = NeuralEntropy(flat, window=16, name="flat")
    assert model.plan.overlap == 8
    assert model.entropies("ACGTACGT" * 9).tolist() == pytest.approx([math.log(4)] * 72, abs=ENTROPY_STEP)
    assert model.bits_per_base("ACGT") == pytest.approx(2.0)
    assert model.describe()["network"] == "function"
    assert letter_logits(flat(torch.zeros(1, 3))[0], PROTEIN).shape == (3, 20)


def test_a_short_training_beats_two_bits_on_a_genome(data):
    genome = next(read_records(data("genomes/phix174_NC_001422.1.fna"))).sequence
    options = FitOptions(steps=40, batch_size=4, window=128)
    model = NeuralEntropy.fit([genome], config=SMALL, options=options, held_out=0.2, window=256)
    assert model.held_out_bits < 2.0
