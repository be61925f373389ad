"""Cached generation gives what recomputation gives, and never a letter that is not allowed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import AlphabetError, ConfigError, DataError, PatchingError
from hyena_glt.model.generation import Sampling, allowed_letters
from hyena_glt.patching import Patcher
from hyena_glt.tokens import ByteTokenizer

PROMPT = "ACGTTNNNACGATTACAGG"
MODES = {
    "entropy": {"patching_mode": "entropy", "threshold": 1.36, "max_patch_length": 9},
    "static": {"patching_mode": "static", "patch_size": 4.5},
    "space": {"patching_mode": "space", "delimiter_chars": ["T"]},
    "byte": {"patching_mode": "byte"},
}


@pytest.fixture(scope="module")
def patcher_of(random_dna):
    model = MarkovEntropy.fit([random_dna(3000, seed=5)], order=3)

    def build(mode: str) -> Patcher:
        return Patcher(**MODES[mode], **({"entropy_model": model} if mode == "entropy" else {}), device="cpu")

    return build


@pytest.fixture(scope="module")
def static_net(small_net, patcher_of):
    return small_net(patcher_of("static"))


def recomputed(net, text: str) -> torch.Tensor:
    """Logits of the byte after a text, by one full forward over it.

    Whether the next byte starts a patch as far as the text tells: patch the text with its last byte doubled, which
    forces no start.
    """
    tokens = ByteTokenizer().encode(text)[None]
    patched = net.patcher().patch_with_starts(tokens)
    ahead = net.patcher().patch(torch.cat([tokens, tokens[:, -1:]], dim=1))[0]
    following = ahead[0][ahead[0] > 0][-1] == 1
    with torch.no_grad():
        return net(tokens, patched.patch_lengths, patched.known_starts, following.view(1)).logits[0, -1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("long_filter", ["implicit", "exponential"])
def test_greedy_generation_equals_greedy_recomputation(small_net, patcher_of, mode, long_filter):
    net = small_net(patcher_of(mode), long_filter=long_filter).double()
    text = PROMPT
    ids = [ord(letter) + 4 for letter in "ACGT"]
    found = net.generate(PROMPT, max_new_tokens=16, temperature=0.0, return_scores=True)
    scores = []
    for _ in range(16):
        logits = recomputed(net, text)[ids]
        scores.append(float(logits.log_softmax(0).max()))
        text += "ACGT"[int(logits.argmax())]
    assert found.sequences == text
    assert (found.scores - torch.tensor(scores)).abs().max() < 1e-6  # scores are float32


@pytest.mark.parametrize("mode", MODES)
def test_cached_logits_equal_recomputed_logits(small_net, patcher_of, mode):
    net = small_net(patcher_of(mode))
    text = net.generate(PROMPT, max_new_tokens=40, seed=3)
    stream = net.stream()
    stream.feed(PROMPT)
    for end in range(len(PROMPT) + 1, len(text) + 1, 3):
        logits = stream.feed(text[stream.state.num_bytes : end]).logits[0, -1]
        expected = recomputed(net, text[:end])
        assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("limits", [(None, None), (None, 5), (2, 6)])
def test_generation_with_learned_boundaries_equals_recomputation(small_net, limits):
    limits = {"min_patch_length": limits[0], "max_patch_length": limits[1]}
    net = small_net(boundaries="learned", target_patch_length=4, **limits).double()
    text, ids = PROMPT, [ord(letter) + 4 for letter in "ACGT"]
    found = net.generate(PROMPT, max_new_tokens=30, temperature=0.0)
    for _ in range(30):
        with torch.no_grad():
            logits = net(ByteTokenizer().encode(text)[None]).logits[0, -1, ids]
        text += "ACGT"[int(logits.argmax())]
    assert found == text


def test_cached_logits_of_learned_boundaries_equal_recomputed_logits(small_net):
    net = small_net(boundaries="learned", target_patch_length=4, max_patch_length=9)
    text = net.generate(PROMPT, max_new_tokens=40, seed=3)
    stream = net.stream()
    for end in range(1, len(text) + 1):
        logits = stream.feed(text[end - 1]).logits[0, -1]
        with torch.no_grad():
            expected = net(ByteTokenizer().encode(text[:end])[None]).logits[0, -1]
        assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("temperature", [0.0, 1.0, 50.0])
def test_only_allowed_letters_are_drawn(static_net, temperature):
    assert set(static_net.generate("ACGT", 60, temperature=temperature, include_prompt=False)) <= set("ACGT")
    named = static_net.generate("ACGT", 60, temperature=temperature, alphabet="XY", include_prompt=False)
    assert set(named) <= set("XY")


def test_the_alphabet_follows_net_and_prompt(small_net, patcher_of):
    encode = ByteTokenizer().encode
    wide, narrow = small_net(), small_net(genomic_vocab_size=4)
    rna, protein = small_net(alphabet="rna"), small_net(genomic_vocab_size=20)

    def letters(net, prompt, alphabet=None):
        return ByteTokenizer().decode(allowed_letters(net, alphabet, encode(prompt)).tokens)

    assert letters(wide, "ACGT") == letters(narrow, "ACGU") == "ACGT"
    assert letters(wide, "ACGU") == letters(rna, "ACGT") == "ACGU"
    assert letters(wide, "MKVLWAALLV") == letters(protein, "MK") == "ACDEFGHIKLMNPQRSTVWY"
    assert len(allowed_letters(wide, None, encode("Hello, world")).ids) == 256
    assert letters(narrow, "AC", "ACGTN") == "ACGTN"
    with pytest.raises(AlphabetError):
        letters(narrow, "AC", "AC!")
    assert set(small_net(patcher_of("static"), genomic_vocab_size=4).generate("acgu", 30)[4:]) <= set("ACGT")


def test_the_type_of_the_prompt_comes_back(static_net):
    text = static_net.generate("ACGTA", 6, temperature=0)
    encode = ByteTokenizer().encode
    assert len(text) == 11
    assert text.startswith("ACGTA")
    assert static_net.generate(b"ACGTA", 6, temperature=0) == text.encode()
    assert torch.equal(static_net.generate(encode("ACGTA"), 6, temperature=0), encode(text))
    assert static_net.generate(["ACGTA", b"ACGTA"], 6, temperature=0) == [text, text.encode()]
    batch = torch.full((2, 5), -1)
    batch[0], batch[1, :3] = encode("ACGTA"), encode("CGT")
    rows = static_net.generate(batch, 6, temperature=0)
    assert rows.shape == (2, 11)
    assert torch.equal(rows[0], encode(text))
    assert rows[1].tolist() == [*encode(static_net.generate("CGT", 6, temperature=0)).tolist(), -1, -1]
    assert static_net.generate("ACGTA", 0) == "ACGTA"


def test_prompts_do_not_change_each_other(static_net):
    together = static_net.generate(["ACGT", "TTTTTTTTTTTTTT", "C"], 20, seed=5)
    assert together[0] == static_net.generate("ACGT", 20, seed=5)
    others = static_net.generate(["ACGT", "AAA", "C"], 20, seed=5)
    assert together[2] == others[2]


def test_the_seed_makes_the_draws(static_net):
    first, second = (static_net.generate("ACGT", 40, seed=1) for _ in range(2))
    assert first == second != static_net.generate("ACGT", 40, seed=2)
    drawn = [static_net.generate("ACGT", 40, generator=torch.Generator().manual_seed(4)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    several = static_net.generate("ACGT", 40, seed=1, num_return_sequences=3)
    assert several[0] == first
    assert len(set(several)) == 3


def test_scores_are_log_probabilities_among_the_allowed(static_net):
    found = static_net.generate("ACGT", 12, seed=1, temperature=3.0, return_scores=True)
    ids = [ord(letter) + 4 for letter in "ACGT"]
    with torch.no_grad():
        stream = static_net.stream()
        logits = stream.feed("ACGT").logits[0, -1]
        for letter, score in zip(found.sequences[4:], found.scores, strict=True):
            expected = logits[ids].log_softmax(0)["ACGT".index(letter)]
            assert abs(float(expected - score)) < 1e-6
            logits = stream.feed(letter).logits[0, -1]
    assert len(found.scores) == 12


def test_rows_end_at_a_stop(static_net):
    free = static_net.generate("ACGT", 60, seed=1, include_prompt=False)
    stopped = static_net.generate("ACGT", 60, seed=1, include_prompt=False, stop=["TAA", free[10:13]])
    end = min(free.find(text) + 3 for text in ("TAA", free[10:13]) if text in free)
    assert stopped == free[:end]
    assert static_net.generate("ACGT", 60, seed=1, include_prompt=False, stop=lambda new: len(new) == 7) == free[:7]


def twin(logits, temperature, top_k, top_p):
    """Probabilities by the definitions, in plain Python."""
    order = sorted(range(len(logits)), key=lambda index: -logits[index])[:top_k]
    weights = {index: math.exp((logits[index] - logits[order[0]]) / temperature) for index in order}
    total = sum(weights.values())
    kept, mass = [], 0.0
    for index in order:
        if top_p is not None and mass >= top_p:
            break
        kept.append(index)
        mass += weights[index] / total
    share = sum(weights[index] for index in kept)
    return [weights[index] / share if index in kept else 0.0 for index in range(len(logits))]


@given(
    logits=st.lists(st.integers(-40, 40).map(lambda value: value / 8), min_size=1, max_size=12),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.none() | st.integers(1, 14),
    top_p=st.none() | st.floats(0.05, 0.95),
)
@settings(max_examples=200, deadline=None)
def test_top_k_and_top_p_equal_the_plain_twin(logits, temperature, top_k, top_p):
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    found = sampling.probabilities(torch.tensor(logits, dtype=torch.float64)).numpy()
    # top_p at exactly a partial sum is decided by rounding; leave such cases to either side
    ranked = np.sort(twin(logits, temperature, top_k, None))[::-1].cumsum()
    if top_p is None or np.abs(ranked - top_p).min() > 1e-9:
        assert np.allclose(found, twin(logits, temperature, top_k, top_p), atol=1e-12)
    assert abs(found.sum() - 1) < 1e-12


def test_temperature_zero_takes_the_likeliest():
    assert Sampling(temperature=0).probabilities(torch.tensor([1.0, 3.0, 3.0])).tolist() == [0, 1, 0]


def test_draws_follow_the_probabilities(small_net):
    net = small_net(Patcher(patching_mode="static", patch_size=4))
    with torch.no_grad():
        expected = net.stream().feed("ACGT").logits[0, -1][[69, 71, 75, 88]].softmax(0).double().numpy()
    drawn = net.generate("ACGT", 1, seed=0, num_return_sequences=400, include_prompt=False)
    counts = np.array([drawn.count(letter) for letter in "ACGT"])
    assert ((counts - 400 * expected) ** 2 / (400 * expected)).sum() < 16.3  # chi-square, 3 degrees, p = 0.001


def test_dropout_is_off_while_drawing(small_net, patcher_of):
    net = small_net(patcher_of("static"), dropout=0.5).train()
    assert net.generate("ACGT", 20, temperature=0) == net.generate("ACGT", 20, temperature=0)
    assert net.training


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"temperature": -1.0}, ConfigError, "temperature"),
        ({"temperature": math.nan}, ConfigError, "temperature"),
        ({"top_k": 0}, ConfigError, "top_k"),
        ({"top_p": 0.0}, ConfigError, "top_p"),
        ({"top_p": 1.5}, ConfigError, "top_p"),
        ({"max_new_tokens": -1}, ConfigError, "max_new_tokens"),
        ({"num_return_sequences": 0}, ConfigError, "num_return_sequences"),
        ({"seed": -1}, ConfigError, "seed"),
        ({"alphabet": ""}, ConfigError, "alphabet"),
        ({"stop": ""}, ConfigError, "stop"),
        ({"prompt": ""}, DataError, "empty prompt"),
        ({"prompt": ["A", b""]}, DataError, "prompt 1"),
        ({"prompt": 3}, PatchingError, "expected"),
    ],
)
def test_what_cannot_be_meant_is_refused(static_net, options, error, words):
    with pytest.raises(error, match=words):
        static_net.generate(**{"prompt": "ACGT", **options})


def test_nets_and_patchers_that_need_the_future_are_refused(small_net):
    with pytest.raises(ConfigError, match="is_causal False"):
        small_net(Patcher(patching_mode="entropy")).generate("ACGT")
    with pytest.raises(ConfigError, match="causal"):
        small_net(Patcher(patching_mode="byte"), causal=False).generate("ACGT")
    with pytest.raises(ConfigError, match="external_patcher"):
        small_net().generate("ACGT")


def test_damaged_weights_are_said(small_net):
    net = small_net(Patcher(patching_mode="byte"))
    with torch.no_grad():
        net.head.project.bias.fill_(math.nan)
    with pytest.raises(DataError, match="not finite"):
        net.generate("ACGT", 3)
