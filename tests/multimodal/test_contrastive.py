"""Training on pairs: the loss falls, a seed gives the same weights, and nothing that is not finite is stepped."""

from __future__ import annotations

import pytest
import torch

from hyena_glt import Patcher
from hyena_glt.errors import ConfigError
from hyena_glt.multimodal import AlignmentRecipe, recall_at, train_alignment
from hyena_glt.multimodal.contrastive import alignment_loss, trained_parameters

RECIPE = AlignmentRecipe(batch_size=8, codons=12, learning_rate=5e-3)
PATCHERS = {"dna": Patcher(patching_mode="static", patch_size=6)}


@pytest.fixture
def pair_processor(small_processor):
    return lambda **options: small_processor(modalities=["dna", "protein"], patchers=PATCHERS, **options)


def test_loss_falls_and_training_pairs_are_found(pair_processor, made_pairs):
    processor, pairs = pair_processor(), made_pairs(8, 12)
    dna, proteins = [pair.dna for pair in pairs], [pair.protein for pair in pairs]
    report = train_alignment(processor, pairs, RECIPE, steps=25)
    assert report.steps == len(report.losses) == 25
    assert report.num_pairs == 8
    assert sum(report.losses[-5:]) < 0.5 * sum(report.losses[:5])
    scores = processor.embed("dna", dna) @ processor.embed("protein", proteins).T
    assert recall_at(scores)[1] > 0.5


def test_the_same_seed_gives_the_same_weights(pair_processor, made_pairs):
    pairs, runs = made_pairs(10, 20), []
    for seed in (1, 1, 2):
        processor = pair_processor()
        losses = train_alignment(processor, pairs, RECIPE, seed=seed, steps=3).losses
        runs.append((losses, torch.cat([value.detach().flatten() for value in trained_parameters(processor)])))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]


def test_gradients_reach_every_trained_parameter(small_processor, made_pairs):
    processor = small_processor()  # three modalities: the third has no part
    alignment_loss(processor, made_pairs(4, 12), RECIPE).backward()
    trained = trained_parameters(processor)
    assert all(value.grad is not None for value in trained)
    assert sum(bool(value.grad.any()) for value in trained) == len(trained)
    others = {id(value) for _, module in processor.modules() for value in module.parameters()} - {
        id(v) for v in trained
    }
    untouched = [v for _, module in processor.modules() for v in module.parameters() if id(v) in others]
    assert all(value.grad is None for value in untouched)


def test_a_processor_time_ends_a_run(pair_processor, made_pairs):
    report = train_alignment(pair_processor(), made_pairs(8, 12), RECIPE, seconds=0.05)
    assert report.steps >= 1
    assert report.cpu_s >= 0.05


def test_nothing_that_is_not_finite_is_stepped(pair_processor, made_pairs):
    processor = pair_processor()
    with torch.no_grad():
        processor.alignment.to_vector.weight[0, 0] = float("nan")
    before = [value.detach().clone() for value in processor.alignment.parameters()]
    with pytest.raises(ConfigError, match="step 1: the loss or its gradient is not finite"):
        train_alignment(processor, made_pairs(8, 12), RECIPE, steps=2)
    for old, new in zip(before, processor.alignment.parameters(), strict=True):
        torch.testing.assert_close(old, new.detach(), equal_nan=True)
    assert not processor.alignment.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of steps and seconds"),
        ({"steps": 1, "seconds": 1.0}, "exactly one of steps and seconds"),
        ({"steps": 0}, "above 0"),
        ({"seconds": -1.0}, "above 0"),
    ],
)
def test_a_run_has_one_end(pair_processor, made_pairs, options, message):
    with pytest.raises(ConfigError, match=message):
        train_alignment(pair_processor(), made_pairs(8, 12), RECIPE, **options)


def test_too_few_pairs_and_missing_modalities_are_refused(pair_processor, small_processor, made_pairs):
    with pytest.raises(ConfigError, match=r"at least 8 \(batch_size\) of 12 codons or more, got 0"):
        train_alignment(pair_processor(), made_pairs(8, 11), RECIPE, steps=1)
    with pytest.raises(ConfigError, match="expected the modalities dna and protein, got rna"):
        train_alignment(small_processor(modalities=["rna"]), made_pairs(8, 12), RECIPE, steps=1)
