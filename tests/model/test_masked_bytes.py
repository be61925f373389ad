"""What is hidden, how often, and that it does not leak."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.model import MASK_ID, mask_bytes, static_patch_lengths
from hyena_glt.sequences.alphabets import get_alphabet
from hyena_glt.tokens import ByteTokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

SYMBOLS = {"dna": "ACGTacgtUN", "rna": "ACGUacguTN", "protein": "ACDEFGHIKLMNPQRSTVWYacdX*"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(rows: list[str]) -> torch.Tensor:
    tokens = [ByteTokenizer().encode(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_only_letters_are_chosen_and_labels_are_what_was_there(data):
    name = data.draw(st.sampled_from(sorted(SYMBOLS)))
    rows = data.draw(st.lists(st.text(SYMBOLS[name], max_size=30), min_size=1, max_size=3))
    rate, seed = data.draw(st.floats(0, 1)), data.draw(st.integers(0, 99))
    tokens = batch_of(rows)
    inputs, labels = mask_bytes(tokens, rate, generator(seed), name)
    chosen = labels >= 0
    assert torch.equal(labels[chosen], tokens[chosen])
    assert torch.equal(inputs[~chosen], tokens[~chosen])
    unknown = [ord(symbol) + 4 for symbol in get_alphabet(name).ambiguous]
    assert not (chosen & (torch.isin(tokens, torch.tensor(unknown)) | (tokens < 4))).any()
    replaced = chosen & (inputs != MASK_ID) & (inputs != tokens)
    letters = get_alphabet(name).letters
    for new, old in zip(inputs[replaced].tolist(), tokens[replaced].tolist(), strict=True):
        assert chr(new - 4) in (letters.lower() if chr(old - 4).islower() else letters)


def test_the_shares_are_as_promised():
    tokens = torch.full((1, 200_000), 69)
    inputs, labels = mask_bytes(tokens, 0.15, generator())
    chosen = labels >= 0
    share, masked = chosen.float().mean().item(), (inputs[chosen] == MASK_ID).float().mean().item()
    changed = ((inputs != 69) & (inputs != MASK_ID))[chosen].float().mean().item()
    sigma = (0.25 / int(chosen.sum())) ** 0.5  # of a share of the chosen letters, at most
    assert share == pytest.approx(0.15, abs=5 * (0.15 * 0.85 / 200_000) ** 0.5)
    assert masked == pytest.approx(0.8, abs=5 * sigma)
    assert changed == pytest.approx(0.1 * 3 / 4, abs=5 * sigma)


def test_the_same_generator_gives_the_same():
    tokens = batch_of(["ACGT" * 20])
    first, again, other = (mask_bytes(tokens, 0.5, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_nothing_and_everything_can_be_chosen():
    tokens = batch_of(["ACGTN", "AC"])
    inputs, labels = mask_bytes(tokens, 0.0)
    assert torch.equal(inputs, tokens)
    assert (labels == -1).all()
    assert (mask_bytes(tokens, 1.0)[1] >= 0).tolist() == [[True] * 4 + [False], [True, True] + [False] * 3]
    assert mask_bytes(torch.zeros(0, 0, dtype=torch.int64))[0].shape == (0, 0)


def test_bytes_are_all_letters():
    tokens = torch.arange(-1, 260).flip(0).unsqueeze(0)
    inputs, labels = mask_bytes(tokens, 1.0, generator(), "bytes")
    assert torch.equal(labels >= 0, tokens >= 4)
    assert inputs.max() < 260


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_chance_is_refused(rate):
    with pytest.raises(ConfigError, match="rate"):
        mask_bytes(torch.tensor([[69]]), rate)


def test_what_is_no_batch_of_tokens_is_refused():
    with pytest.raises(PatchingError, match="tokens"):
        mask_bytes(torch.tensor([69, 71]))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 12))
def test_static_patches_cover_each_row(lengths, size):
    tokens = batch_of(["A" * length for length in lengths])
    patches = static_patch_lengths(tokens, size)
    assert patches.sum(1).tolist() == lengths
    for row, length in zip(patches.tolist(), lengths, strict=True):
        full, rest = divmod(length, size)
        assert [value for value in row if value] == [size] * full + [rest] * bool(rest)
    with pytest.raises(ConfigError, match="patch_size"):
        static_patch_lengths(tokens, 0)


@pytest.mark.parametrize("changes", [{}, {"genomic_vocab_size": 4}, {"boundaries": "learned"}])
def test_a_hidden_letter_leaks_nowhere(small_net, random_dna, changes):
    """The logits at a masked position do not depend on the letter that stood there."""
    net = small_net(causal=False, **changes)
    rows = [random_dna(40), random_dna(40)]
    at = 17
    rows[1] = rows[0][:at] + ("A" if rows[0][at] != "A" else "C") + rows[0][at + 1 :]
    inputs = batch_of(rows)
    inputs[:, at] = MASK_ID
    lengths = None if "boundaries" in changes else static_patch_lengths(inputs, 8)
    logits = net(inputs, lengths).logits
    assert torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("changes", [{}, {"genomic_vocab_size": 4, "boundaries": "learned"}])
def test_a_net_learns_to_fill_in(small_net, changes):
    net = small_net(causal=False, num_layers=1, trunk_layout=("medium",), **changes).train()
    tokens, draws = batch_of(["ACGTTGCA" * 8] * 2), generator()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        inputs, labels = mask_bytes(tokens, 0.15, draws)
        output = net(inputs, None if "boundaries" in changes else static_patch_lengths(inputs, 8), labels=labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < 0.5 * losses[0]
