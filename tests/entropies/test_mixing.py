"""The source that sees repeats: laws on random input, figures on a real genome, files that cannot be trusted."""

from __future__ import annotations

import gzip
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from hyena_glt.entropies import mixing_kernels as kernels
from hyena_glt.entropies.fitting import LN2
from hyena_glt.entropies.mixing import MixEntropy, empty_state
from hyena_glt.entropies.symbols import ambiguity_edges
from hyena_glt.errors import AlphabetError, ConfigError, DataError, ModelFileError
from hyena_glt.sequences.alphabets import DNA, reverse_complement

dna = st.text(alphabet="ACGTacgtN", min_size=1, max_size=120)
quick = settings(deadline=None, max_examples=25)


def random_piece(length: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def with_repeats(seed: int = 1) -> str:
    """10 kb: pieces, copies with a changed base, copies of the other strand, a run of N."""
    a, b = random_piece(2_000, seed), random_piece(1_000, seed + 1)
    changed = a[:700] + "ACGT"["ACGT".index(a[700]) - 1] + a[701:]
    return a + b + reverse_complement(a) + "N" * 50 + changed + b + reverse_complement(b) + "AC" * 300


@pytest.fixture(scope="module")
def ecoli(data) -> bytes:
    with gzip.open(data("genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz")) as file:
        return file.read().split(b"\n", 1)[1].replace(b"\n", b"")


def bits(surprises: np.ndarray) -> float:
    return float(surprises.mean(dtype=np.float64)) / LN2


@quick
@given(text=dna)
def test_entropies_are_finite_and_at_most_the_ceiling(text):
    scores = MixEntropy().stream().feed(text)
    for values in (scores.entropies, scores.surprises):
        assert values.dtype == np.float32
        assert values.shape == (len(text),)
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    assert (scores.entropies <= math.log(4) + 1e-6).all()


def test_the_bounds_hold_where_it_is_sure_and_where_it_is_wrong():
    model = MixEntropy()
    scores = model.score(DNA.encode("A" * 20_000 + "C" + with_repeats()))
    assert (scores.entropies >= 0).all()
    assert (scores.entropies <= math.log(4) + 1e-6).all()
    assert np.isfinite(scores.surprises).all()
    assert scores.surprises[20_000] > 5
    assert scores.surprises.max() <= math.log(4) - kernels.LOWEST


@pytest.mark.parametrize("length", [0, 1, 5, 12, 40, 2_500, 4_500])
def test_the_four_alternatives_sum_to_one_and_give_the_entropy(length):
    text = with_repeats()[:length]
    log_p = -np.array([MixEntropy().surprises(text + base)[-1] for base in "ACGT"], dtype=np.float64)
    assert np.exp(log_p).sum() == pytest.approx(1.0, abs=1e-6)
    if length:
        assert MixEntropy().entropies(text)[-1] == pytest.approx(-(np.exp(log_p) * log_p).sum(), abs=1e-5)


@quick
@given(cuts=st.lists(st.integers(0, 9_700), max_size=6))
def test_a_stream_gives_the_bits_of_the_whole_sequence(cuts):
    text = with_repeats()
    places = [0, *sorted(cuts), len(text)]
    stream = MixEntropy().stream()
    parts = [stream.feed(text[a:b]) for a, b in itertools.pairwise(places)]
    whole = MixEntropy().score(DNA.encode(text))
    for name in ("entropies", "surprises", "forced_starts"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


@quick
@given(place=st.integers(0, 9_600), base=st.sampled_from("ACGTN"))
def test_a_changed_base_moves_nothing_before_it(place, base):
    text = with_repeats()
    changed = text[:place] + base + text[place + 1 :]
    assert np.array_equal(MixEntropy().entropies(text)[:place], MixEntropy().entropies(changed)[:place])
    assert np.array_equal(MixEntropy().surprises(text)[:place], MixEntropy().surprises(changed)[:place])
    assert np.array_equal(MixEntropy().entropies(text[: place + 1]), MixEntropy().entropies(text)[: place + 1])


def test_a_repeat_is_nearly_free():
    piece = random_piece(2_000)
    assert bits(MixEntropy().surprises(piece + piece)[2_000:]) < 0.1


def test_a_repeat_of_the_other_strand_is_nearly_free():
    piece = random_piece(2_000)
    assert bits(MixEntropy().surprises(piece + reverse_complement(piece))[2_000:]) < 0.1


def test_a_repeat_survives_a_changed_base():
    piece = random_piece(2_000)
    changed = piece[:1_000] + "ACGT"["ACGT".index(piece[1_000]) - 1] + piece[1_001:]
    surprises = MixEntropy().surprises(piece + changed)
    assert surprises[3_000] > 3
    assert bits(surprises[3_001:]) < 0.1


@pytest.mark.parametrize("length", [2_000, 50_000])
def test_noise_costs_two_bits(length):
    assert 1.99 < MixEntropy().bits_per_base(random_piece(length, seed=5)) < 2.02


def test_ambiguity_symbols_reset_the_context():
    text = random_piece(300) + "NNRY" + random_piece(300, seed=9) + "N"
    scores = MixEntropy().stream().feed(text)
    codes = DNA.encode(text)
    assert (scores.entropies[codes > 3] == 0).all()
    assert (scores.surprises[codes > 3] == 0).all()
    assert scores.surprises[304] == pytest.approx(math.log(4))
    assert np.array_equal(scores.forced_starts, ambiguity_edges(codes, 4))
    assert np.flatnonzero(MixEntropy().forced_starts(text)).tolist() == [300, 304, 604]


def test_the_number_of_ambiguity_symbols_changes_nothing_behind_them():
    a, b = random_piece(500), random_piece(500, seed=2) + random_piece(500)
    few, many = (MixEntropy().surprises(a + "N" * n + b)[500 + n :] for n in (1, 5_000))
    assert np.array_equal(few, many)


def test_case_tokens_and_rna_give_the_same():
    text = with_repeats()
    expected = MixEntropy().entropies(text)
    tokens = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) + 4
    for same in (text.lower(), text.encode(), tokens):
        assert np.array_equal(MixEntropy().entropies(same), expected)
    assert np.array_equal(MixEntropy("rna").entropies(text.replace("T", "U")), expected)
    assert np.array_equal(MixEntropy().stream().feed(DNA.encode(text)).entropies, expected)


def test_scores_are_put_where_the_caller_says():
    text, out = with_repeats(), np.empty((2, len(with_repeats())), dtype=np.float32)
    MixEntropy().stream().feed(text, out)
    assert np.array_equal(out[0], MixEntropy().entropies(text))


def test_nothing_and_only_ambiguity_symbols():
    assert MixEntropy().entropies("").shape == (0,)
    assert (MixEntropy().entropies("NNNN") == 0).all()
    with pytest.raises(DataError, match="no letter"):
        MixEntropy().bits_per_base(["NNN", ""])
    with pytest.raises(DataError, match="no letter"):
        MixEntropy.fit(["NNN"])


def test_it_is_for_dna_and_rna_only():
    with pytest.raises(ConfigError, match="dna or rna"):
        MixEntropy("protein")
    with pytest.raises(AlphabetError):
        MixEntropy("dan")


def test_a_primed_model_knows_its_sequences_and_stays_as_it_is():
    pieces = [random_piece(1_500, seed) for seed in (1, 2)]
    model = MixEntropy.fit(pieces)
    first = model.surprises(pieces[0])
    assert bits(first) < 0.2
    assert bits(model.surprises(reverse_complement(pieces[1]))) < 0.2
    assert np.array_equal(model.surprises(pieces[0]), first)
    assert model.bits_per_base(pieces) < 0.2
    assert not model.forced_starts(pieces[0]).any()
    assert model.describe()["primed_symbols"] == 3_000
    assert model.describe() == MixEntropy.fit(iter(pieces)).describe()


def test_it_says_what_it_is():
    model = MixEntropy()
    assert model.is_causal
    assert model.name == "mix"
    assert model.describe()["orders"] == [3, 6, 8, 11]
    assert model.describe()["state_sha256"] is None


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A stream saved in the middle of a repeat, and its file."""
    stream = MixEntropy().stream()
    stream.feed(with_repeats()[:4_000])
    path = tmp_path_factory.mktemp("mix") / "stream.safetensors"
    stream.save(path)
    return path


@pytest.mark.parametrize("place", [0, 4_000, 5_020])
def test_a_saved_stream_goes_on_as_if_it_had_not_stopped(tmp_path, place):
    text, stream = with_repeats(), MixEntropy().stream()
    stream.feed(text[:place])
    stream.save(tmp_path / "stream")
    again = MixEntropy.load_stream(tmp_path / "stream")
    expected, scores = MixEntropy().score(DNA.encode(text)), again.feed(text[place:])
    for name in ("entropies", "surprises", "forced_starts"):
        assert np.array_equal(getattr(scores, name), getattr(expected, name)[place:])
    assert again.symbols == len(text) - text.count("N")


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "text").write_text("not a model")
    for path in (tmp_path / "missing", tmp_path / "text", tmp_path):
        with pytest.raises(ModelFileError):
            MixEntropy.load_stream(path)
    save_file({"ring": np.zeros(1, np.uint8)}, tmp_path / "other")
    with pytest.raises(ModelFileError, match="hyena-glt/mix/1"):
        MixEntropy.load_stream(tmp_path / "other")


def test_a_truncated_file_and_a_changed_byte(saved, tmp_path):
    content = saved.read_bytes()
    (tmp_path / "short").write_bytes(content[: len(content) // 2])
    (tmp_path / "changed").write_bytes(content[:-20_000] + bytes([content[-20_000] ^ 1]) + content[-19_999:])
    for name in ("short", "changed"):
        with pytest.raises(ModelFileError, match=r"readable|damaged"):
            MixEntropy.load_stream(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("words", kernels.CHOSEN, 10**6),
        ("words", kernels.KNOWN, -1),
        ("words", kernels.FORWARD, 1 << 40),
        ("words", kernels.LENGTH, -2),
        ("words", kernels.PLACE, -5),
        ("ring", 0, 9),
        ("dense", 0, 65_535),
        ("weights", 0, np.nan),
    ],
)
def test_a_state_that_no_stream_can_have(saved, tmp_path, name, place, value):
    with safe_open(saved, framework="numpy") as handle:
        about, arrays = handle.metadata(), {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    arrays[name] = arrays[name].copy()
    arrays[name][place] = value
    save_file(arrays, tmp_path / "impossible", metadata=about)
    with pytest.raises(ModelFileError, match="damaged"):
        MixEntropy.load_stream(tmp_path / "impossible")
    arrays[name] = arrays[name][:-1].astype(np.float64)
    save_file(arrays, tmp_path / "impossible", metadata=about)
    with pytest.raises(ModelFileError, match=f"{name}: expected"):
        MixEntropy.load_stream(tmp_path / "impossible")


def test_halved_counts_keep_their_order():
    state = empty_state()
    for _ in range(40):
        kernels.count_packed(state.packed, 4 * 7 + 2)
    kernels.count_packed(state.packed, 4 * 7 + 1)
    counts = [(int(state.packed[7]) >> 4 * x) & 15 for x in range(4)]
    assert counts[2] > counts[1] > counts[0] == counts[3] == 0
    for _ in range(3 * kernels.DENSE_LIMIT):
        kernels.count_dense(state.dense, 9)
    assert kernels.DENSE_LIMIT // 2 <= state.dense[9] <= kernels.DENSE_LIMIT


def test_half_a_megabase_of_a_bacterium(ecoli):
    assert MixEntropy().bits_per_base(ecoli[:500_000]) < 1.922  # measured: 1.9195


@pytest.mark.slow
def test_a_whole_bacterium(ecoli):
    assert MixEntropy().bits_per_base(ecoli) < 1.886  # measured: 1.8846; the order-8 table: 1.930
