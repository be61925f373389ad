"""Targets of both objectives, and losses that add up over batches."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.model import HyenaGLT
from hyena_glt.model.masked_bytes import MASK_ID
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.tokens.byte_tokenizer import PAD_ID
from hyena_glt.training.corpus import Corpus, Regions
from hyena_glt.training.loader import WindowLoader, eval_batches, make_batch
from hyena_glt.training.objectives import HELD_OUT, make_task, row_generator, summed_loss, summed_losses
from hyena_glt.training.patched_corpus import StaticPatches
from hyena_glt.training.recipe import ObjectiveSection
from hyena_glt.training.windows import WindowTable

NEXT, MASKED = ObjectiveSection(), ObjectiveSection(kind="masked_byte", mask_rate=0.3)
SMALL = {"hidden_size": 16, "num_layers": 1, "local_hidden_size": 8, "ngram_sizes": (2,), "ngram_table_size": 16}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus():
    return Corpus.from_sequences({"a": generate_random_genomic_sequence(200, 1) + "NNNN" + "ACGTRACG", "b": "ACGTA"})


@pytest.fixture(scope="module")
def table(corpus):
    return WindowTable(Regions.whole(corpus), 50)


def batch_of(corpus, table, ids, is_reversed=None, epoch=0):
    strands = np.zeros(len(ids), np.bool_) if is_reversed is None else np.array(is_reversed)
    return make_batch(corpus, table, np.array(ids), strands, StaticPatches(4), epoch, 0)


def test_next_byte_asks_for_every_letter_but_the_first(corpus, table):
    batch = batch_of(corpus, table, [4, 5])
    task = make_task(batch, NEXT, "dna", seed=0)
    assert torch.equal(task.inputs, batch.tokens)
    letters = [bytes((row[row != PAD_ID] - 4).tolist()) for row in batch.tokens]
    wanted = [[index > 0 and chr(symbol) in "ACGT" for index, symbol in enumerate(row)] for row in letters]
    found = [(row != PAD_ID).tolist()[: len(letter)] for row, letter in zip(task.targets, letters, strict=True)]
    assert found == wanted
    assert b"N" in letters[0]
    assert task.num_targets == sum(map(sum, wanted))
    assert task.num_bases == sum(map(len, letters))
    assert task.window_ids == (4, 5)
    assert task.without_targets().num_targets == 0


def test_masked_byte_hides_letters_and_asks_for_them(corpus, table):
    batch = batch_of(corpus, table, range(4))
    task = make_task(batch, MASKED, "dna", seed=0)
    asked = task.targets != PAD_ID
    assert 0.15 < asked.float().mean() < 0.45
    assert torch.equal(task.targets[asked], batch.tokens[asked])
    assert torch.equal(task.inputs[~asked], batch.tokens[~asked])
    hidden = (task.inputs == MASK_ID) & asked
    assert 0.6 < hidden.sum() / asked.sum() <= 1.0
    assert torch.equal(task.inputs == MASK_ID, hidden)


@settings(max_examples=30, deadline=None)
@given(
    ids=st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True),
    seed=st.integers(0, 2**40),
    epoch=st.integers(HELD_OUT, 99),
)
def test_masks_depend_on_seed_epoch_and_window_alone(corpus, table, ids, seed, epoch):
    together = make_task(batch_of(corpus, table, ids), MASKED, "dna", seed, epoch)
    state = torch.get_rng_state()
    for row, window in enumerate(ids):
        alone = make_task(batch_of(corpus, table, [window]), MASKED, "dna", seed, epoch)
        length = alone.inputs.shape[1]
        assert torch.equal(alone.inputs[0], together.inputs[row, :length])
        assert torch.equal(alone.targets[0], together.targets[row, :length])
        assert bool((together.inputs[row, length:] == PAD_ID).all())
    assert torch.equal(torch.get_rng_state(), state)


def test_masks_change_with_the_epoch(corpus, table):
    tasks = [make_task(batch_of(corpus, table, [0, 1]), MASKED, "dna", 7, epoch) for epoch in (HELD_OUT, 0, 1)]
    assert not any(torch.equal(tasks[i].inputs, tasks[j].inputs) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_generators_differ_by_every_part_of_their_key():
    draws = {float(torch.rand(1, generator=row_generator(*key))) for key in ((1, 0, 0), (0, 1, 0), (0, 0, 1))}
    assert len(draws) == 3


@pytest.mark.parametrize("objective", [NEXT, MASKED], ids=["next_byte", "masked_byte"])
@pytest.mark.parametrize("vocab", [256, 4])
def test_sums_over_batches_equal_the_loss_of_the_net(corpus, table, objective, vocab):
    torch.manual_seed(0)
    causal = objective is NEXT
    net = HyenaGLT(HyenaGLTConfig(**SMALL, causal=causal, genomic_vocab_size=vocab, alphabet="dna", dropout=0.2))
    sizes = [
        summed_losses(
            net,
            net,
            [make_task(b, objective, "dna", 0, HELD_OUT) for b in eval_batches(corpus, table, size, 4)],
            nullcontext,
        )
        for size in (1, 4)
    ]
    torch.testing.assert_close(sizes[0], sizes[1], rtol=1e-5, atol=0)
    assert net.training
    task = make_task(batch_of(corpus, table, [0, 1]), objective, "dna", 0, HELD_OUT)
    net.eval()
    plain, loss = summed_loss(net, net, task)
    expected = net(task.inputs, task.patch_lengths, labels=task.targets).loss * task.num_targets
    torch.testing.assert_close(plain, expected.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.detach(), plain)
    assert 0 < float(plain) / task.num_targets < 2 * math.log(260)


def test_the_ratio_loss_weighs_as_the_targets_do(corpus, table):
    torch.manual_seed(0)
    net = HyenaGLT(HyenaGLTConfig(**SMALL, boundaries="learned", target_patch_length=4.0)).eval()
    batch = next(WindowLoader(corpus, table, batch_size=2, seed=0))
    task = make_task(batch, NEXT, "dna", 0)
    assert task.patch_lengths is None
    plain, loss = summed_loss(net, net, task)
    out = net(task.inputs, labels=task.targets)
    torch.testing.assert_close(loss, out.loss * task.num_targets, rtol=1e-5, atol=0)
    assert float(loss.detach()) > float(plain)
