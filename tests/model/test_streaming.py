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
from hyena_glt.model.streaming import LookingScanner, NetStream, StartSequence
from hyena_glt.patching import Patcher
from hyena_glt.patching.advice import PatchingWarning
from hyena_glt.patching.scan import Scanner, ScanRule
from hyena_glt.tokens import ByteTokenizer

TOLERANCE = 1e-9  # in float64, which leaves no room for anything but rounding
SINGLE = 1e-5  # of the largest value, in float32
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


@pytest.mark.parametrize("mode", ["entropy", "entropy_min", "monotone", "static", "static_capped"])
def test_the_scanner_closes_the_same_patches(mode, model):
    rule = ScanRule.from_args(Patcher(**MODES[mode]).args)
    random = np.random.default_rng(1)
    scores, forced = random.uniform(1.2, 1.4, 400).astype(np.float32), random.random(400) < 0.05
    plain, looking = Scanner(rule), LookingScanner(rule)
    for first in range(0, 400, 13):
        part = slice(first, first + 13)
        assert np.array_equal(plain.feed(scores[part], forced[part]), looking.feed(scores[part], forced[part]))
        assert looking.known[~forced[part]].all()


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


def test_what_is_kept_does_not_grow_with_exponential_filters(small_net, patcher_of, random_dna):
    net = small_net(patcher_of("static"), long_filter="exponential")
    stream = net.stream()
    sizes = []
    for number in range(40):
        stream.feed(random_dna(64, seed=number))
        sizes.append(_numbers(stream.state))
    open_patch = 5 * net.config.local_hidden_size
    assert max(sizes[20:]) <= max(sizes[:20]) + open_patch


def _numbers(value) -> int:
    """Numbers in all tensors of a nested state."""
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, StartSequence):
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
    with pytest.raises(ConfigError, match="learned"):
        small_net(boundaries="learned").stream()
    stream = NetStream(small_net(), Patcher(patching_mode="entropy"))
    with pytest.raises(ConfigError, match="auto"):
        stream.feed("ACGT")


@given(st.lists(st.integers(0, 259), min_size=1, max_size=14))
@settings(max_examples=50, deadline=None)
def test_the_last_token_is_embedded_as_in_the_row(small_net, ids):
    embedding = small_net().local_encoder.embedding
    with torch.no_grad():
        expected = embedding(torch.tensor([ids]))[0, -1]
        found = embedding.table[embedding.rows_of_last(ids)].sum(0)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()
    context = None
    for part in (ids[:3], ids[3:]):
        if part:
            vectors, context = embedding.stream(torch.tensor([part]), context)
    assert torch.equal(vectors[0, -1].detach(), expected)


def test_the_compiled_step_equals_the_layers(small_net, patcher_of, random_dna):
    """A block of one byte and a block of two go different ways in float32; in float64 both go through the layers."""
    net = small_net(patcher_of("static"))
    text = random_dna(61, seed=9)
    alone, pairs = ByteTokenizer().encode(text), net.stream()
    stream = net.stream()
    found = torch.cat([stream.feed(alone[i : i + 1]).logits for i in range(61)], dim=1)
    expected = torch.cat([pairs.feed(alone[i : i + 2]).logits for i in range(0, 61, 2)], dim=1)
    assert stream._step is not None
    assert (found - expected).abs().max() < SINGLE * expected.abs().max()
