"""Both readers say of a window what one forward says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.errors import SystemProblem
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.variants.readings import (
    StreamReader,
    Tail,
    WindowReader,
    can_stream,
    cosine_distance,
    default_batch,
    is_out_of_memory,
)

pytestmark = pytest.mark.usefixtures("one_thread")
SEQUENCE = generate_random_genomic_sequence(400, seed=11).encode()


def forward(net, window: bytes):
    """Log-likelihoods, state sum and lengths by the definition."""
    with torch.no_grad():
        output = net.forward_with_patching(window)
        ids = net.vocabulary_ids(torch.tensor([[byte + 4 for byte in window]]))[0]
        terms = output.logits[0].double().log_softmax(-1)[:-1].gather(1, ids[1:, None]).flatten()
    return np.append(0.0, terms), output.last_hidden_state[0].double().sum(0), output.patch_lengths[0]


def agrees(net, reading, window: bytes) -> None:
    terms, states, lengths = forward(net, window)
    np.testing.assert_allclose(reading.log_likelihoods, terms[reading.begin :], atol=1e-4)  # float32, other loops
    np.testing.assert_allclose(reading.state_sum, states, atol=1e-4)
    assert reading.patch_lengths.tolist() == lengths.tolist()


@pytest.mark.parametrize("vocabulary", [4, 256])
def test_batches_of_unequal_windows_equal_single_forwards(scoring_net, entropy_patcher, vocabulary):
    net = scoring_net(entropy_patcher, genomic_vocab_size=vocabulary)
    windows = [SEQUENCE[:100], SEQUENCE[50:51], SEQUENCE[:100] + b"NNNN" + SEQUENCE[100:], b"N" * 30]
    for batch_size in (1, 3, 32):
        for reading, window in zip(WindowReader(net, batch_size).read(windows), windows, strict=True):
            agrees(net, reading, window)


@pytest.mark.parametrize("first", [0, 1, 99, 100, 101, 199])
@pytest.mark.parametrize("runs", [b"", b"NNNNN"])
def test_a_stream_taken_up_in_the_middle_equals_a_whole_forward(scoring_net, entropy_patcher, first, runs):
    net = scoring_net(entropy_patcher)
    reference = SEQUENCE[:200]
    window = (reference[:first] + b"ACCA" + runs + reference[first:])[:200]
    whole, (alternative, unchanged) = StreamReader(net, 100).read(
        reference, [Tail(first, window), Tail(150, reference)]
    )
    agrees(net, whole, reference)
    agrees(net, alternative, window)
    assert unchanged.begin == 100
    np.testing.assert_array_equal(unchanged.log_likelihoods, whole.log_likelihoods[100:])
    np.testing.assert_array_equal(unchanged.state_sum, whole.state_sum)


def test_a_net_that_cuts_by_itself_is_read_too():
    torch.manual_seed(0)
    config = HyenaGLTConfig.preset(
        "tiny", genomic_vocab_size=4, num_layers=1, boundaries="learned", target_patch_length=4
    )
    net = HyenaGLT(config).eval()
    window = SEQUENCE[:120] + b"G" + SEQUENCE[120:199]
    reference, (alternative,) = StreamReader(net, 100).read(SEQUENCE[:200], [Tail(120, window)])
    agrees(net, reference, SEQUENCE[:200])
    agrees(net, alternative, window)
    agrees(net, next(WindowReader(net, 1).read([window])), window)


def test_out_of_memory_halves_the_batch_and_keeps_it(scoring_net):
    net = scoring_net()
    windows = [SEQUENCE[i : i + 40] for i in range(9)]
    expected = [reading.log_likelihoods for reading in WindowReader(net, 2).read(windows)]

    class Tight:
        """A net that has room for two windows."""

        vocabulary_ids = net.vocabulary_ids

        def __call__(self, tokens, **options):
            if len(tokens) > 2:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")
            return net(tokens, **options)

    reader = WindowReader(Tight(), 8)
    found = [reading.log_likelihoods for reading in reader.read(windows)]
    assert reader.batch_size == 2
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_window_that_does_not_fit_is_said_and_other_errors_pass(scoring_net):
    class Broken:
        def __init__(self, problem):
            self.problem, self.calls = problem, 0

        def __call__(self, tokens, **options):
            self.calls += 1
            raise self.problem

    with pytest.raises(SystemProblem, match="shorter --window"):
        list(WindowReader(Broken(MemoryError()), 4).read([b"ACGT"] * 4))
    wrong = Broken(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(WindowReader(wrong, 4).read([b"ACGT"] * 4))
    assert wrong.calls == 1
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_streams_need_a_causal_patcher_and_a_long_window(scoring_net, entropy_patcher):
    assert can_stream(scoring_net(entropy_patcher), 1024)
    assert not can_stream(scoring_net(entropy_patcher), 1023)
    top_k = Patcher(patching_mode="entropy", entropy_model=entropy_patcher.entropy_model, threshold=None, patch_size=6)
    assert not can_stream(scoring_net(top_k), 1024)
    assert default_batch(scoring_net(), 256) > default_batch(scoring_net(), 4096) == 1


def test_a_cosine_distance_is_exact_near_zero():
    one = np.array([1.0, 2.0, 3.0])
    assert cosine_distance(one, 5 * one) == pytest.approx(0.0, abs=1e-30)
    assert cosine_distance(one, np.array([1.0 + 1e-9, 2.0, 3.0])) == pytest.approx(0.5e-18 * 13 / 14 / 14, rel=1e-3)
    assert cosine_distance(one, -one) == pytest.approx(2.0)
    assert cosine_distance(one, np.array([3.0, 0.0, -1.0])) == pytest.approx(1.0)
    assert (cosine_distance(0 * one, 0 * one), cosine_distance(one, 0 * one)) == (0.0, 1.0)
