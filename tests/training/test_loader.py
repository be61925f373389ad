"""Order, strands, resume and the content of batches."""

from __future__ import annotations

import json
import logging
import random
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import AlphabetError, ConfigError, ModelFileError
from hyena_glt.model import HyenaGLT
from hyena_glt.patching import Patcher
from hyena_glt.sequences import reverse_complement
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.tokens.byte_tokenizer import PAD_ID, ByteTokenizer
from hyena_glt.training import Corpus, PatchedCorpus, Regions, WindowLoader, WindowTable, eval_batches

quick = settings(deadline=None, max_examples=60)
MODEL = MarkovEntropy.fit([generate_random_genomic_sequence(4_000, seed=4)], order=3)
TEXTS = {
    "a": generate_random_genomic_sequence(500, seed=1),
    "b": "ACGTN" * 7,
    "c": generate_random_genomic_sequence(150, seed=2) + "NNNN" + generate_random_genomic_sequence(90, seed=3),
}
worlds = st.integers(1, 4)
sizes = st.integers(1, 5)
seeds = st.integers(0, 1 << 66)


@cache
def corpus():
    return Corpus.from_sequences(TEXTS)


@cache
def table_of(num_windows):
    """A table of that many windows, the last one shorter."""
    one = Corpus.from_sequences({"x": generate_random_genomic_sequence(num_windows * 8 - 3, seed=num_windows)})
    table = WindowTable(Regions.whole(one), 8)
    assert len(table) == num_windows
    return table


def table():
    return WindowTable(Regions.whole(corpus()), 32)


def loaders_of(windows, world, **options):
    return [WindowLoader(windows.corpus, windows, rank=rank, world=world, **options) for rank in range(world)]


def epoch_of(loader, epoch=0):
    """The batches of one epoch."""
    found = []
    for batch in loader:
        if batch.epoch > epoch:
            return found
        if batch.epoch == epoch:
            found.append(batch)
    raise AssertionError


def facts(batch):
    """Everything in a batch, comparable."""
    values = [batch.tokens, batch.patch_lengths, batch.known_starts, batch.window_ids, batch.places, batch.reversed]
    return [None if value is None else value.tolist() for value in values] + [batch.epoch, batch.index]


def texts_of(batch, windows):
    """The sequences that the rows of a batch should hold."""
    found = []
    for (contig, start, end), is_reversed in zip(batch.places.tolist(), batch.reversed.tolist(), strict=True):
        text = windows.corpus.sequence(contig, start, end).tobytes().decode()
        found.append(reverse_complement(text) if is_reversed else text)
    return found


@quick
@given(st.integers(4, 40), sizes, seeds, st.integers(0, 2))
def test_every_window_comes_once_in_an_epoch_over_all_ranks(num_windows, batch_size, seed, epoch):
    windows = table_of(num_windows)
    strands = []
    for world in range(1, 5):
        every = [epoch_of(loader, epoch) for loader in loaders_of(windows, world, batch_size=batch_size, seed=seed)]
        assert len({len(batches) for batches in every}) == 1  # no rank waits for another
        assert {len(batches) for batches in every} == {
            loaders_of(windows, world, batch_size=batch_size, seed=0)[0].num_batches
        }
        rows = [batch for batches in every for batch in batches]
        assert all(0 < len(batch) <= batch_size + (batch.index == len(every[0]) - 1) for batch in rows)
        ids = torch.cat([batch.window_ids for batch in rows])
        assert sorted(ids.tolist()) == list(range(num_windows))
        strands.append(torch.cat([batch.reversed for batch in rows])[ids.argsort()].tolist())
    assert all(strand == strands[0] for strand in strands)


@quick
@given(st.integers(20, 40), sizes, worlds, seeds)
def test_a_dropped_rest_leaves_full_batches(num_windows, batch_size, world, seed):
    windows = table_of(num_windows)
    every = [
        epoch_of(loader) for loader in loaders_of(windows, world, batch_size=batch_size, seed=seed, drop_last=True)
    ]
    rows = [batch for batches in every for batch in batches]
    assert {len(batch) for batch in rows} == {batch_size}
    ids = torch.cat([batch.window_ids for batch in rows]).tolist()
    assert len(set(ids)) == len(ids) == num_windows // (batch_size * world) * batch_size * world


@quick
@given(st.integers(4, 25), sizes, worlds, seeds, st.integers(0, 30), st.booleans())
def test_resume_at_any_batch_goes_on_as_if_nothing_had_happened(num_windows, batch_size, world, seed, stop, drop_last):
    windows = table_of(max(num_windows, batch_size * world))
    options = {"batch_size": batch_size, "seed": seed, "drop_last": drop_last, "patches": 3, "shift": True}
    for rank in range(world):
        undisturbed = WindowLoader(windows.corpus, windows, rank=rank, world=world, **options)
        expected = [facts(batch) for batch in islice(undisturbed, stop + 12)]
        first = WindowLoader(windows.corpus, windows, rank=rank, world=world, **options)
        for _ in islice(first, stop):
            pass
        state = json.loads(json.dumps(first.state_dict()))
        second = WindowLoader(windows.corpus, windows, rank=rank, world=world, **options)
        second.load_state_dict(state)
        assert second.state_dict() == state
        assert [facts(batch) for batch in islice(second, 12)] == expected[stop:]
        assert [facts(batch) for batch in islice(first, 12)] == expected[stop:]


@quick
@given(st.integers(4, 40), sizes, sizes, worlds, worlds, seeds, st.data())
def test_another_number_of_ranks_goes_on_with_the_windows_that_are_left(
    num_windows, batch_size, new_batch_size, world, new_world, seed, data
):
    windows = table_of(num_windows)
    before = loaders_of(windows, world, batch_size=batch_size, seed=seed)
    stop = data.draw(st.integers(0, before[0].num_batches))
    seen = [batch for loader in before for batch in islice(loader, stop)]
    (state,) = {json.dumps(loader.state_dict()) for loader in before}
    after = loaders_of(windows, new_world, batch_size=new_batch_size, seed=seed)
    for loader in after:
        loader.load_state_dict(json.loads(state))
    seen += [batch for loader in after for batch in epoch_of(loader, 0)]
    ids = [window for batch in seen for window in batch.window_ids.tolist()]
    assert len(set(ids)) == len(ids)
    missing = num_windows - len(ids)
    assert missing == 0 or missing == num_windows - json.loads(state)["taken"] < new_world
    whole = [window for loader in after for batch in epoch_of(loader, 2) for window in batch.window_ids.tolist()]
    assert sorted(whole) == list(range(num_windows))


def test_a_rest_below_the_number_of_ranks_is_said(caplog):
    windows = table_of(9)
    loader = WindowLoader(windows.corpus, windows, batch_size=4, seed=0)
    _ = list(islice(loader, 2))
    (other,) = [WindowLoader(windows.corpus, windows, batch_size=4, seed=0, rank=1, world=2)]
    other.load_state_dict(loader.state_dict())
    with caplog.at_level(logging.WARNING):
        assert next(other).epoch == 1
    assert "epoch 0: 1 windows are left out" in caplog.text


def test_order_and_strand_change_with_epoch_and_seed():
    windows = table_of(40)
    orders = {}
    for seed in (0, 1):
        loader = WindowLoader(windows.corpus, windows, batch_size=40, seed=seed)
        for batch in islice(loader, 3):
            by_window = batch.reversed[batch.window_ids.argsort()]
            orders[seed, batch.epoch] = (str(batch.window_ids.tolist()), str(by_window.tolist()))
    assert len({order for order, _ in orders.values()}) == 6
    assert len({strands for _, strands in orders.values()}) == 6


def test_strands_are_even_and_orders_uniform():
    windows = table_of(40)
    loader = WindowLoader(windows.corpus, windows, batch_size=40, seed=5)
    batches = list(islice(loader, 500))
    reversed_share = torch.stack([batch.reversed for batch in batches]).double().mean()
    assert abs(float(reversed_share) - 0.5) < 5 * 0.5 / (500 * 40) ** 0.5
    first = np.bincount([int(batch.window_ids[0]) for batch in batches], minlength=40)
    assert ((first - 12.5) ** 2 / 12.5).sum() < 39 + 5 * (2 * 39) ** 0.5  # chi square with 39 degrees of freedom


@quick
@given(st.integers(4, 40), seeds, worlds, st.integers(0, 3))
def test_shifted_windows_of_an_epoch_move_together_and_hold_their_places(num_windows, seed, world, epoch):
    windows = table_of(num_windows)
    (end,) = windows.regions.spans[:, 2]
    shifts = set()
    for loader in loaders_of(windows, world, batch_size=2, seed=seed, shift=True, patches=3):
        for batch in epoch_of(loader, epoch):
            assert [ByteTokenizer().decode(row[row != PAD_ID]) for row in batch.tokens] == texts_of(batch, windows)
            assert batch.patch_lengths.sum(1).tolist() == (batch.places[:, 2] - batch.places[:, 1]).tolist()
            unmoved = torch.from_numpy(windows.windows[batch.window_ids.numpy()])
            moves = batch.places - unmoved
            assert not moves[:, 0].any()
            assert torch.equal(moves[:, 1], moves[:, 2])
            shifts |= set(moves[batch.places[:, 2] < end, 1].tolist())
    assert len(shifts) <= 1
    assert shifts <= set(range(windows.stride))


def test_shifts_reach_every_base_of_a_stride():
    windows = table_of(9)
    loader = WindowLoader(windows.corpus, windows, batch_size=9, seed=0, shift=True)
    assert {int(batch.places[:, 1].min()) for batch in islice(loader, 100)} == set(range(windows.stride))


@pytest.mark.parametrize(
    "patches",
    ["byte", 5, 4.5, None, "corpus", "shuffled", "patcher"],
)
def test_batches_hold_the_windows_and_their_patches(patches):
    windows, patcher = table(), Patcher(threshold=1.38, entropy_model=MODEL, max_patch_length=9)
    source = patches
    if patches in ("corpus", "shuffled"):
        source = PatchedCorpus.from_patcher(corpus(), patcher)
        source = source.shuffled(1, corpus()) if patches == "shuffled" else source
    elif patches == "patcher":
        source = patcher
    seen = set()
    for batch in epoch_of(WindowLoader(corpus(), windows, batch_size=4, seed=3, patches=source)):
        texts = texts_of(batch, windows)
        width = max(len(text) for text in texts)
        assert batch.tokens.shape == (len(texts), width)
        for row, text in enumerate(texts):
            expected = torch.full((width,), PAD_ID)
            expected[: len(text)] = ByteTokenizer().encode(text)
            assert torch.equal(batch.tokens[row], expected)
        kinds = [batch.tokens.dtype, batch.window_ids.dtype, batch.reversed.dtype]
        assert kinds == [torch.int64, torch.int64, torch.bool]
        if patches is None:
            assert batch.patch_lengths is None
            assert batch.known_starts is None
            continue
        assert batch.patch_lengths.dtype == torch.int64
        assert batch.patch_lengths.sum(1).tolist() == [len(text) for text in texts]
        if batch.known_starts is not None:
            assert batch.known_starts.shape == batch.tokens.shape
            seen.add("known")
        if patches == "byte":
            assert batch.patch_lengths.max() == 1
    assert ("known" in seen) == (patches in ("corpus", "shuffled", "patcher"))


def test_a_net_takes_the_batches():
    net = HyenaGLT(HyenaGLTConfig.preset("tiny")).eval()
    patches = PatchedCorpus.from_patcher(corpus(), Patcher(threshold=1.38, entropy_model=MODEL, max_patch_length=9))
    batch = next(WindowLoader(corpus(), table(), batch_size=30, seed=3, patches=patches))
    assert bool((batch.tokens == PAD_ID).any())
    assert not bool(batch.known_starts.all())
    out = net(batch.tokens, batch.patch_lengths, batch.known_starts, labels=batch.tokens)
    assert bool(torch.isfinite(out.loss))


def test_evaluation_is_in_order_on_the_forward_strand():
    windows = table()
    patches = PatchedCorpus.from_patcher(
        corpus(), Patcher(patching_mode="static", patch_size=4), reverse_complement=False
    )
    batches = list(eval_batches(corpus(), windows, 5, patches))
    assert torch.cat([batch.window_ids for batch in batches]).tolist() == list(range(len(windows)))
    assert [batch.index for batch in batches] == list(range(len(batches)))
    assert {batch.epoch for batch in batches} == {0}
    for batch in batches:
        assert not bool(batch.reversed.any())
        rows = [ByteTokenizer().decode(row) for row in batch.tokens]
        assert rows == texts_of(batch, windows)
        assert batch.patch_lengths.sum(1).tolist() == [len(text) for text in rows]


def test_no_global_generator_is_touched():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    patches = PatchedCorpus.from_patcher(corpus(), Patcher(patching_mode="byte")).shuffled(1, corpus())
    _ = list(islice(WindowLoader(corpus(), table(), batch_size=4, seed=3, patches=patches), 20))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after


def test_a_batch_moves_to_a_device():
    batch = next(WindowLoader(corpus(), table(), batch_size=4, seed=3, patches=4))
    moved = batch.to("meta")
    assert {moved.tokens.device.type, moved.patch_lengths.device.type, moved.reversed.device.type} == {"meta"}
    assert (moved.epoch, moved.index, moved.known_starts) == (0, 0, None)


def test_a_state_tells_patchers_apart_by_their_model():
    other = MarkovEntropy.fit([generate_random_genomic_sequence(4_000, seed=5)], order=3)
    patchers = [Patcher(threshold=1.38, entropy_model=model) for model in (MODEL, MODEL, other)]
    first, same, another = (WindowLoader(corpus(), table(), batch_size=2, seed=0, patches=each) for each in patchers)
    same.load_state_dict(first.state_dict())
    with pytest.raises(ConfigError, match="patches"):
        another.load_state_dict(first.state_dict())


def test_a_patcher_without_a_hash_can_be_resumed():
    def network(tokens):
        return torch.zeros(*tokens.shape, 260)

    loader = WindowLoader(
        corpus(), table(), batch_size=2, seed=0, patches=Patcher(threshold=1.0, entropy_model=network)
    )
    state = loader.state_dict()
    assert state["settings"]["patches"] == "patcher Patcher"
    loader.load_state_dict(state)


def test_a_state_of_other_data_is_refused():
    windows = table_of(12)
    state = WindowLoader(windows.corpus, windows, batch_size=2, seed=0, patches=4).state_dict()
    other_table = WindowTable(Regions.whole(windows.corpus), 16)
    changes = {
        "seed": {"seed": 1},
        "reverse_complement": {"reverse_complement": False},
        "shift": {"shift": True},
        "drop_last": {"drop_last": True},
        "patches": {"patches": 5},
    }
    for name, change in changes.items():
        loader = WindowLoader(windows.corpus, windows, **{"batch_size": 2, "seed": 0, "patches": 4, **change})
        with pytest.raises(ConfigError, match=name):
            loader.load_state_dict(state)
    loader = WindowLoader(windows.corpus, other_table, batch_size=2, seed=0, patches=4)
    with pytest.raises(ConfigError, match="windows_sha256"):
        loader.load_state_dict(state)
    loader = WindowLoader(corpus(), table(), batch_size=2, seed=0, patches=4)
    with pytest.raises(ConfigError, match="corpus_sha256"):
        loader.load_state_dict(state)


@pytest.mark.parametrize(
    "change", [{"format": "x"}, {"epoch": -1}, {"taken": 1.5}, {"index": None}, {"settings": 3}, {"taken": 10**9}]
)
def test_a_state_that_is_none_is_refused(change):
    loader = WindowLoader(corpus(), table(), batch_size=2, seed=0)
    with pytest.raises(ModelFileError, match="loader state"):
        loader.load_state_dict({**loader.state_dict(), **change})
    with pytest.raises(ModelFileError, match="loader state"):
        loader.load_state_dict([])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"rank": 1}, "rank"),
        ({"world": 0}, "world"),
        ({"world": 100, "rank": 3}, "at least 100 windows"),
        ({"batch_size": 99, "drop_last": True}, "at least 99 windows"),
        ({"patches": "static"}, "patches"),
        ({"patches": 0}, "patches"),
        ({"patches": [1]}, "patches"),
        ({"patches": Patcher(patching_mode="static", patch_size=4, overlap=2)}, "overlap"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        WindowLoader(corpus(), table(), **{"batch_size": 2, "seed": 0, **options})


def test_data_of_another_corpus_are_refused():
    other = Corpus.from_sequences({"a": "ACGTACGT"})
    patches = PatchedCorpus.from_patcher(other, Patcher(patching_mode="byte"))
    with pytest.raises(ConfigError, match="table"):
        WindowLoader(other, table(), batch_size=2, seed=0)
    with pytest.raises(ConfigError, match="table"):
        eval_batches(other, table(), 2)
    with pytest.raises(ConfigError, match="patches"):
        WindowLoader(corpus(), table(), batch_size=2, seed=0, patches=patches)
    forward = PatchedCorpus.from_patcher(corpus(), Patcher(patching_mode="byte"), reverse_complement=False)
    with pytest.raises(ConfigError, match="forward strand"):
        WindowLoader(corpus(), table(), batch_size=2, seed=0, patches=forward)


def test_an_alphabet_without_complement_has_one_strand():
    protein = Corpus.from_sequences({"p": "MKLPMKLP"}, "protein")
    windows = WindowTable(Regions.whole(protein), 4)
    with pytest.raises(AlphabetError, match="no complement"):
        WindowLoader(protein, windows, batch_size=2, seed=0)
    batch = next(WindowLoader(protein, windows, batch_size=2, seed=0, reverse_complement=False))
    assert {ByteTokenizer().decode(row) for row in batch.tokens} == {"MKLP"}
