"""Blocks of any size give what one forward over the whole sequence gives."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import AlphabetError, ConfigError, PatchingError
from hyena_glt.model import HyenaGLT
from hyena_glt.model.block_starts import LearnedStarts, StartSequence
from hyena_glt.model.streaming import NetStream
from hyena_glt.ops.stream_state import LEAST_CAPACITY
from hyena_glt.patching import Patcher
from hyena_glt.patching.advice import PatchingWarning
from hyena_glt.tokens import ByteTokenizer

TOLERANCE = 1e-9  # in float64, which leaves no room for anything but rounding
SINGLE = 1e-5  # of the largest value, in float32
BFLOAT = 8 * 2**-8  # of the largest value: bfloat16 keeps 8 bits; half of it is what was seen
TEXT = "ACGTTNNNACGATTACANNGATTN" + "ACGGTCA" * 9 + "N" + "TTGACA NNACGT" * 5
MODES = {
    "entropy": {"patching_mode": "entropy", "threshold": 1.36, "max_patch_length": 9},
    "entropy_min": {"patching_mode": "entropy", "threshold": 1.3, "min_patch_length": 4, "max_patch_length": 11},
    "monotone": {"patching_mode": "entropy", "threshold": 0.01, "monotonicity": True, "max_patch_length": 20},
    "static": {"patching_mode": "static", "patch_size": 4.5},
    "static_capped": {"patching_mode": "static", "patch_size": 9, "max_patch_length": 4},
    "byte": {"patching_mode": "byte"},
    "space": {"patching_mode": "space"},
    "delimiters": {"patching_mode": "space", "delimiter_chars": ["T"]},
}


@pytest.fixture(scope="module")
def model(random_dna):
    return MarkovEntropy.fit([random_dna(3000, seed=5)], order=3)


@pytest.fixture(scope="module")
def patcher_of(model):
    """`patcher_of(mode)`."""

    def build(mode: str) -> Patcher:
        scored = {"entropy_model": model} if MODES[mode]["patching_mode"] == "entropy" else {}
        return Patcher(**MODES[mode], **scored, device="cpu")

    return build


def blocks_of(tokens, sizes):
    """The tokens in blocks; the last size goes on for ever."""
    blocks, first = [], 0
    sizes = list(sizes)
    while first < len(tokens):
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        blocks.append(tokens[first : first + size])
        first += size
    return blocks


def streamed(net, tokens, sizes, offset=0):
    """Everything that the blocks give, joined, with the rest that `finish` gives."""
    stream = net.stream(global_position_offset=offset)
    outputs = [stream.feed(block) for block in blocks_of(tokens, sizes)]
    following = outputs[-1].next_starts_patch
    outputs.append(stream.finish())
    names = ("logits", "byte_hidden_state", "last_hidden_state", "patch_lengths", "known_starts")
    return {name: torch.cat([getattr(part, name) for part in outputs], dim=1) for name in names}, following


def whole(net, tokens, following, offset=0):
    """The same from one forward."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PatchingWarning)  # of rows without a separator
        patched = net.patcher().patch_with_starts(tokens[None])
    with torch.no_grad():
        output = net(
            tokens[None],
            patched.patch_lengths,
            patched.known_starts,
            torch.tensor([following]),
            global_position_offset=offset,
        )
    return output, patched


def check_equal(net, tokens, sizes, offset=0):
    net.double()
    found, following = streamed(net, tokens, sizes, offset)
    expected, patched = whole(net, tokens, following, offset)
    assert torch.equal(found["patch_lengths"], patched.patch_lengths)
    assert torch.equal(found["known_starts"], patched.known_starts)
    for name in ("logits", "byte_hidden_state", "last_hidden_state"):
        assert (found[name] - getattr(expected, name)).abs().max() < TOLERANCE, name


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("mode", MODES)
def test_any_blocks_give_what_one_forward_gives(small_net, patcher_of, mode, size):
    check_equal(small_net(patcher_of(mode)), ByteTokenizer().encode(TEXT), [size], offset=12_345)


@pytest.mark.parametrize("last", [0, 1, 2, 40, 1000])
@pytest.mark.parametrize("mode", [*MODES, "learned"])
def test_finish_takes_the_last_block(small_net, patcher_of, mode, last):
    net = (learned_net(small_net) if mode == "learned" else small_net(patcher_of(mode))).double()
    tokens = ByteTokenizer().encode(TEXT)
    cut = max(len(tokens) - last, 0)
    expected, following = streamed(net, tokens, [16])
    stream = net.stream()
    for _ in range(2):  # the second sequence knows nothing of the first
        outputs = [stream.feed(block) for block in blocks_of(tokens[:cut], [16])]
        outputs.append(stream.finish(tokens[cut:]))
        for name, value in expected.items():
            found = torch.cat([getattr(part, name) for part in outputs], dim=1)
            assert found.shape == value.shape, name
            assert (found.double() - value.double()).abs().max() < TOLERANCE, name
    if last:
        assert outputs[-1].next_starts_patch == following


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("long_filter", ["implicit", "exponential", "both"])
def test_single_precision_stays_within_its_bound(small_net, patcher_of, random_dna, long_filter, size):
    net = small_net(patcher_of("entropy"), long_filter=long_filter)
    tokens = ByteTokenizer().encode(random_dna(150, seed=8))
    found, following = streamed(net, tokens, [size])
    expected, _ = whole(net, tokens, following)
    for name in ("logits", "byte_hidden_state", "last_hidden_state"):
        value = getattr(expected, name)
        assert (found[name] - value).abs().max() < SINGLE * value.abs().max(), name


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("long_filter", ["implicit", "exponential"])
def test_mixed_precision_stays_within_its_bound(small_config, patcher_of, random_dna, long_filter, size):
    """Weights as they are at the start of training: larger ones amplify rounding, in one forward as in a stream."""
    nets = []
    for precision in ("bf16", "fp32"):
        torch.manual_seed(0)
        config = small_config(long_filter=long_filter, mixed_precision=precision)
        nets.append(HyenaGLT(config, patcher_of("entropy")).eval())
    tokens = ByteTokenizer().encode(random_dna(150, seed=8))
    found, following = streamed(nets[0], tokens, [size])
    (exact, _), (mixed, _) = (whole(net, tokens, following) for net in reversed(nets))
    assert torch.equal(found["patch_lengths"], exact.patch_lengths)
    for name in ("logits", "byte_hidden_state", "last_hidden_state"):
        value, bound = getattr(exact, name), BFLOAT * getattr(exact, name).abs().max()
        assert (found[name] - value).abs().max() < bound, name
        assert (found[name] - getattr(mixed, name)).abs().max() < bound, name


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("long_filter", ["implicit", "exponential", "both"])
def test_every_long_filter_streams(small_net, patcher_of, random_dna, long_filter, size):
    net = small_net(patcher_of("static"), long_filter=long_filter, trunk_layout=("long", "medium"), num_layers=2)
    check_equal(net, ByteTokenizer().encode(random_dna(200, seed=2)), [size])


@pytest.mark.parametrize(
    "changes",
    [
        {"ngram_sizes": ()},
        {"genomic_vocab_size": 4},
        {"bridge_num_patches": 1, "num_local_encoder_layers": 1},
        {"bridge_num_patches": 9},
    ],
)
def test_every_configuration_streams(small_net, patcher_of, random_dna, changes):
    text = random_dna(100, seed=3) + "NNNN" + random_dna(41, seed=4)
    check_equal(small_net(patcher_of("entropy"), **changes), ByteTokenizer().encode(text), [5, 1, 1, 30, 2])


@given(
    letters=st.lists(st.sampled_from("ACGTN "), min_size=1, max_size=40),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=12),
    mode=st.sampled_from(sorted(MODES)),
)
@settings(max_examples=25, deadline=None)
def test_text_and_blocks_do_not_matter(small_net, patcher_of, letters, sizes, mode):
    check_equal(small_net(patcher_of(mode)), ByteTokenizer().encode("".join(letters)), sizes)


def test_answers_are_final_once_a_byte_is_fed(small_net, patcher_of):
    net = small_net(patcher_of("entropy")).double()
    stream, other = net.stream(), net.stream()
    first = stream.feed(TEXT[:20]).logits
    other.feed(TEXT[:13])
    assert (other.feed(TEXT[13:20]).logits - first[:, 13:]).abs().max() < TOLERANCE
    assert stream.feed("").logits.shape == (1, 0, 260)


def test_a_start_that_its_byte_forces_is_not_known_before(small_net, random_dna):
    model = MarkovEntropy.fit([random_dna(3000, seed=5)], order=3)
    net = small_net(Patcher(patching_mode="entropy", entropy_model=model, threshold=5.0))  # no start but the forced
    stream = net.stream()
    before = stream.feed("ACGT")
    forced = stream.feed("N")
    after = stream.feed("NNA")
    assert not before.next_starts_patch
    assert forced.patch_lengths.tolist() == [[3]]
    assert forced.known_starts.tolist() == [[False]]
    assert after.patch_lengths.tolist() == [[3]]
    assert after.known_starts.tolist() == [[True, True, False]]


def test_positions_count_from_the_offset(small_net, patcher_of):
    net = small_net(patcher_of("static"))
    tokens = ByteTokenizer().encode("ACGTACGTACGT")
    here, there = (streamed(net, tokens, [5], offset)[0]["logits"] for offset in (0, 1 << 33))
    assert (here - there).abs().max() > 1e-4
    check_equal(net, tokens, [5], offset=1 << 33)


def test_a_fork_goes_its_own_way(small_net, patcher_of):
    net = small_net(patcher_of("entropy"), long_filter="both")
    stream = net.stream()
    stream.feed(TEXT[:33])
    fork = stream.fork()
    fork.feed("GGGGGGGGGGNN")
    check = net.stream()
    check.feed(TEXT[:33])
    for block in (TEXT[33:40], TEXT[40:]):
        assert torch.equal(stream.feed(block).logits, check.feed(block).logits)
    assert fork.patcher is stream.patcher


def test_a_sequence_ends_and_another_begins(small_net, patcher_of):
    net = small_net(patcher_of("entropy"))
    stream = net.stream()
    first = stream.feed(TEXT).logits
    stream.finish()
    assert torch.equal(stream.feed(TEXT).logits, first)
    assert stream.state.num_bytes == len(TEXT)


def test_given_entropies_cut(small_net):
    net = small_net(Patcher(patching_mode="entropy", threshold=1.0, entropy_model="auto"))
    tokens = ByteTokenizer().encode("ACGTACGTAC")
    scores = torch.tensor([0.0, 0, 2, 0, 0, 2, 0, 0, 0, 0])
    stream = net.stream()
    lengths = [stream.feed(tokens[:6], scores[:6]).patch_lengths, stream.feed(tokens[6:], scores[6:]).patch_lengths]
    assert torch.cat(lengths, dim=1).tolist() == [[1, 2, 3]]
    assert stream.finish().patch_lengths.tolist() == [[4]]


@pytest.mark.parametrize("size", [1, 64])
@pytest.mark.parametrize("learned", [False, True])
def test_what_is_kept_does_not_grow_with_exponential_filters(small_net, patcher_of, random_dna, size, learned):
    own = {"boundaries": "learned", "target_patch_length": 4, "max_patch_length": 5} if learned else {}
    net = small_net(
        None if learned else patcher_of("static"),
        long_filter="exponential",
        trunk_layout=("long",),
        num_layers=2,
        **own,
    )
    stream, sizes = net.stream(), []
    stream.feed(random_dna(64))
    for block in blocks_of(random_dna(10 * 64, seed=1), [64]):
        for part in blocks_of(block, [size]):
            stream.feed(part)
        sizes.append(_numbers(stream.state))
    open_patch = 5 * (net.config.local_hidden_size + 1)  # the bytes of one patch, with their probabilities
    assert max(sizes) <= min(sizes) + open_patch


@pytest.mark.parametrize("size", [1, 64])
def test_what_is_kept_of_windows_is_bounded(small_net, patcher_of, random_dna, size):
    net = small_net(patcher_of("byte"), trunk_layout=("short", "medium"), num_layers=2)
    stream, sizes = net.stream(), []
    for block in blocks_of(random_dna(8 * 64, seed=1), [64]):
        for part in blocks_of(block, [size]):
            stream.feed(part)
        sizes.append(_numbers(stream.state))
    # a buffer holds twice what it needs when it is made, at least 64 values, and may be four windows larger
    windows = sum(2 * (4 * taps + LEAST_CAPACITY + size) for taps in (7, 24))
    others = 2 * 3 * 2 + 2 * 4 * 6 + 3 + 2 * 4  # short filters, narrow layers, and what the bridge reads
    assert max(sizes) <= 24 * (windows + others)


def _numbers(value) -> int:
    """Numbers in all tensors of a nested state."""
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, StartSequence | LearnedStarts):
        return 0
    if isinstance(value, dict):
        return sum(map(_numbers, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_numbers, value))
    names = getattr(value, "__slots__", None) or getattr(value, "__dict__", {})
    return sum(_numbers(getattr(value, name)) for name in names) if not np.isscalar(value) and value is not None else 0


def test_a_bad_block_leaves_the_state_as_it_was(small_net, patcher_of):
    net = small_net(patcher_of("static"), genomic_vocab_size=4)
    stream = net.stream()
    stream.feed("ACGTAC")
    for bad, error in (("AC!", AlphabetError), (torch.tensor([-1, 69]), PatchingError), (3, PatchingError)):
        with pytest.raises(error):
            stream.feed(bad)
    check = net.stream()
    check.feed("ACGTAC")
    assert torch.equal(stream.feed("GT").logits, check.feed("GT").logits)


def test_what_needs_the_future_is_refused(small_net, patcher_of):
    with pytest.raises(ConfigError, match="causal"):
        small_net(patcher_of("static"), causal=False).stream()
    with pytest.raises(ConfigError, match="expected a Patcher"):
        NetStream(small_net(object()))
    with pytest.raises(ConfigError, match="top-k"):
        NetStream(small_net(), Patcher(patching_mode="entropy", threshold=None))
    with pytest.raises(ConfigError, match="overlap"):
        small_net(Patcher(patching_mode="static", patch_size=4, overlap=2)).stream()
    stream = NetStream(small_net(), Patcher(patching_mode="entropy"))
    with pytest.raises(ConfigError, match="auto"):
        stream.feed("ACGT")


LIMITS = [(None, None), (None, 5), (3, None), (2, 6), (4, 4)]


def learned_net(small_net, limits=(None, None), **changes):
    """A net whose probabilities lie on both sides of 1/2."""
    shortest, cap = limits
    return small_net(
        boundaries="learned", target_patch_length=4, min_patch_length=shortest, max_patch_length=cap, **changes
    )


def check_learned(net, tokens, sizes, offset=0):
    """Blocks cut as the forward does, and give what it gives."""
    found, following = streamed(net.double(), tokens, sizes, offset)
    with torch.no_grad():
        expected = net(tokens[None], global_position_offset=offset)
    assert following == bool(expected.next_starts_patch)
    for name in ("patch_lengths", "known_starts"):
        assert torch.equal(found[name], getattr(expected, name)), name
    for name in ("logits", "byte_hidden_state", "last_hidden_state"):
        assert (found[name] - getattr(expected, name)).abs().max() < TOLERANCE, name
    return expected.patch_lengths


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("limits", LIMITS)
def test_learned_boundaries_stream(small_net, limits, size):
    lengths = check_learned(learned_net(small_net, limits), ByteTokenizer().encode(TEXT), [size], offset=12_345)
    assert len(set(lengths.flatten().tolist())) > (limits != (4, 4))


@given(
    letters=st.lists(st.sampled_from("ACGTN "), min_size=1, max_size=40),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=12),
    limits=st.sampled_from(LIMITS),
)
@settings(max_examples=25, deadline=None)
def test_text_and_blocks_do_not_matter_where_boundaries_are_learned(small_net, letters, sizes, limits):
    check_learned(learned_net(small_net, limits), ByteTokenizer().encode("".join(letters)), sizes)


@pytest.mark.parametrize("size", [1, 7])
def test_learned_boundaries_stream_in_single_precision(small_net, random_dna, size):
    net = learned_net(small_net, (2, 9), long_filter="exponential")
    tokens = ByteTokenizer().encode(random_dna(150, seed=8))
    found, _ = streamed(net, tokens, [size])
    with torch.no_grad():
        expected = net(tokens[None])
    assert torch.equal(found["patch_lengths"], expected.patch_lengths)
    for name in ("logits", "byte_hidden_state", "last_hidden_state"):
        value = getattr(expected, name)
        assert (found[name] - value).abs().max() < SINGLE * value.abs().max(), name


def test_a_fork_of_learned_boundaries_goes_its_own_way(small_net):
    stream, check = (learned_net(small_net, (2, 6)).stream() for _ in range(2))
    stream.feed(TEXT[:33])
    stream.fork().feed("GGGGGGGGGGNN")
    check.feed(TEXT[:33])
    for letter in TEXT[33:]:
        assert torch.equal(stream.feed(letter).logits, check.feed(letter).logits)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_patcher_can_cut_for_a_net_with_learned_boundaries(small_net, patcher_of, size):
    net, tokens = learned_net(small_net).double(), ByteTokenizer().encode(TEXT)
    patcher = patcher_of("entropy")
    stream = net.stream(patcher)
    outputs = [stream.feed(block) for block in blocks_of(tokens, [size])]
    following = torch.tensor([outputs[-1].next_starts_patch])
    patched = patcher.patch_with_starts(tokens[None])
    with torch.no_grad():
        expected = net(tokens[None], patched.patch_lengths, patched.known_starts, following)
    found = torch.cat([output.logits for output in outputs], dim=1)
    assert (found - expected.logits).abs().max() < TOLERANCE


def test_learned_boundaries_take_neither_entropies_nor_padding(small_net):
    stream = learned_net(small_net).stream()
    stream.feed("ACGTAC")
    for chunk, scores in (("AC", torch.zeros(2)), (torch.tensor([69, -1]), None), (torch.tensor([-1]), None)):
        with pytest.raises(PatchingError):
            stream.feed(chunk, scores)
    check = learned_net(small_net).stream()
    check.feed("ACGTAC")
    assert stream.feed("").patch_lengths.shape == (1, 0)
    assert torch.equal(stream.feed("GT").logits, check.feed("GT").logits)
