"""Fine-tuning: what learns, what is kept, and that the seed decides everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyena_glt.errors import AlphabetError, ConfigError, DataError
from hyena_glt.model import HyenaGLT
from hyena_glt.patching import Patcher
from hyena_glt.sequences import reverse_complement
from hyena_glt.training import finetune_run
from hyena_glt.training.checkpoints import CheckpointFolder
from hyena_glt.training.finetune import FinetuneOptions, finetune, task_net, untrained_net
from hyena_glt.training.finetuned import task_estimates
from hyena_glt.training.labelled import LabelledRows, LabelledSet, encode_labels

SMALL = {"hidden_size": 24, "num_layers": 3, "local_hidden_size": 16, "ngram_table_size": 64, "filter_hidden_size": 8}


pytestmark = pytest.mark.usefixtures("one_thread")


def base_net(**changes) -> HyenaGLT:
    return untrained_net("tiny", "dna", Patcher(patching_mode="static", patch_size=4), 0, **{**SMALL, **changes})


def labelled_of(task: str, num: int = 48, seed: int = 0) -> LabelledSet:
    """Sequences of 24 to 40 bases: class, value and base labels follow from where G stands."""
    rng = np.random.default_rng(seed)
    sequences, labels = [], []
    for row in range(num):
        length = int(rng.integers(24, 41))
        share = 0.05 if row % 2 else 0.6
        weights = [(1 - share) / 3, (1 - share) / 3, share, (1 - share) / 3]
        sequence = bytes(rng.choice(list(b"ACGT"), length, p=weights).tolist())
        sequences.append(sequence)
        text = "".join("g" if base == ord("G") else "o" for base in sequence)
        labels.append({"classification": f"c{row % 2}", "regression": str(share * 10), "per-base": text}[task])
    lines = tuple(range(2, num + 2))
    return encode_labels(LabelledRows(path="t", sequences=tuple(sequences), labels=tuple(labels), lines=lines), task)


def options_of(**changes) -> FinetuneOptions:
    return FinetuneOptions(**{"epochs": 4, "batch_size": 8, "learning_rate": 1e-2, **changes})


def run(task: str, options: FinetuneOptions, valid: LabelledSet | None = None, **changes):
    train = labelled_of(task)
    tuned = task_net(base_net(**changes), train, options)
    before = {name: tensor.clone() for name, tensor in tuned.net.state_dict().items()}
    return finetune(tuned, train, valid, options), before


@pytest.mark.parametrize(
    ("task", "metric", "least"),
    [("classification", "accuracy", 0.9), ("regression", "pearson", 0.8), ("per-base", "accuracy", 0.95)],
)
def test_a_net_learns_what_can_be_seen(task, metric, least):
    valid = labelled_of(task, num=40, seed=1)
    result, _ = run(task, options_of(epochs=6), valid)
    found = task_estimates(result.tuned, valid, result.tuned.predict(valid.rows.sequences), resamples=200)
    assert found[metric].value > least  # a guess gives 0.5, 0 and 0.67
    assert found[metric].low <= found[metric].value <= found[metric].high
    assert not result.tuned.net.training


def test_frozen_trains_the_head_alone_and_lora_its_adapters():
    result, before = run("classification", options_of(mode="frozen", epochs=1))
    after = result.tuned.net.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("head.")}
    assert result.num_trained == sum(before[name].numel() for name in changed)
    result, before = run("classification", options_of(mode="lora", epochs=1, merge=False))
    after = result.tuned.net.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert {name.rsplit(".", 1)[1] for name in changed if not name.startswith("head.")} == {"adapter_a", "adapter_b"}
    assert all(name.startswith(("net.trunk.", "head.")) for name in changed)


def test_merged_adapters_leave_a_plain_net_that_answers_the_same():
    options = {"mode": "lora", "epochs": 1, "rank": 3}
    merged, _ = run("classification", options_of(**options))
    apart, _ = run("classification", options_of(**options, merge=False))
    sequences = labelled_of("classification").rows.sequences[:5]
    plain = task_net(base_net(), labelled_of("classification"), options_of())
    assert set(merged.tuned.net.state_dict()) == set(plain.net.state_dict())
    assert merged.tuned.task.adapters is None
    for x, y in zip(merged.tuned.predict(sequences), apart.tuned.predict(sequences), strict=True):
        assert np.array_equal(x, y)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_seed_decides_the_weights(mode):
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(states))  # of the caller: it must not matter, and must not be touched
        expected = torch.random.get_rng_state()
        options = options_of(mode=mode, epochs=1, seed=seed, augment_strands=True)
        result, _ = run("classification", options)
        assert torch.equal(torch.random.get_rng_state(), expected)
        states.append(result.tuned.net.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_the_best_epoch_is_kept_and_patience_ends_the_run():
    valid = labelled_of("classification", num=20, seed=1)
    flipped = LabelledSet(
        task=valid.task, classes=valid.classes, rows=valid.rows, labels=tuple(1 - label for label in valid.labels)
    )  # the better the net learns, the worse it gets here
    seen: list[tuple[str, int, dict]] = []
    train, options = labelled_of("classification"), options_of(epochs=12, patience=2)
    tuned = task_net(base_net(), train, options)
    result = finetune(
        tuned, train, flipped, options, log=lambda kind, step, values, _: seen.append((kind, step, values))
    )
    losses = [values["loss"] for kind, _, values in seen if kind == "evaluation"]
    assert len(losses) == result.epochs < 12
    assert result.best_epoch == int(np.argmin(losses)) + 1 == result.epochs - 2
    assert result.best_value == min(losses)
    found = task_estimates(result.tuned, flipped, result.tuned.predict(flipped.rows.sequences), resamples=0)
    assert found["loss"].value == pytest.approx(min(losses), rel=1e-6)
    assert [step for kind, step, _ in seen if kind == "train"] == [6 * epoch for epoch in range(1, result.epochs + 1)]


class Cut(Exception):
    """What ends a run before its time."""


@pytest.mark.parametrize(("mode", "validated"), [("full", True), ("lora", True), ("frozen", False)])
@pytest.mark.parametrize("last_epoch", [1, 2, 4])
def test_a_run_that_was_cut_goes_on_to_the_same_weights(tmp_path, monkeypatch, mode, validated, last_epoch):
    monkeypatch.setattr(finetune_run, "SAVE_EVERY", 0.0)
    train, valid = labelled_of("classification"), labelled_of("classification", 20, seed=1) if validated else None
    options = options_of(mode=mode, augment_strands=True)

    def tuned_in(folder, log):
        tuned = task_net(base_net(dropout=0.2), train, options)
        return finetune(tuned, train, valid, options, log=log, checkpoints=CheckpointFolder(folder, keep=1))

    lines, cut_lines = [], []

    def cut(kind, step, values, _):
        if values["epoch"] == last_epoch:  # before it is saved
            raise Cut
        cut_lines.append((kind, step, values))

    whole = tuned_in(tmp_path / "whole", lambda *line: lines.append(line[:3]))
    with pytest.raises(Cut):
        tuned_in(tmp_path / "cut", cut)
    torch.manual_seed(99)
    result = tuned_in(tmp_path / "cut", lambda *line: cut_lines.append(line[:3]))
    assert cut_lines == lines
    states = [found.tuned.net.state_dict() for found in (whole, result)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (result.best_epoch, result.best_value, result.steps) == (whole.best_epoch, whole.best_value, whole.steps)
    done = tuned_in(tmp_path / "cut", lambda *line: pytest.fail("nothing is left to do"))
    assert torch.equal(next(done.tuned.net.parameters()), next(result.tuned.net.parameters()))


@pytest.mark.parametrize("stopped_at", [1, 5, 6, 8, 17])
def test_a_run_that_is_told_to_stop_saves_and_goes_on_to_the_same_weights(tmp_path, stopped_at):
    """Within an epoch of six updates, and at its end."""
    train, valid = labelled_of("classification"), labelled_of("classification", 20, seed=1)
    options = options_of(epochs=3, augment_strands=True)
    steps = []

    def tuned_in(folder, **more):
        tuned = task_net(base_net(dropout=0.2), train, options)
        kept = CheckpointFolder(folder, keep=1)
        lines = []
        try:
            result = finetune(
                tuned, train, valid, options, log=lambda *line: lines.append(line[:3]), checkpoints=kept, **more
            )
        except Cut:
            return None, lines
        return result, lines

    whole, lines = tuned_in(tmp_path / "whole")
    counted = {"progress": lambda done, loss: steps.append(done)}
    nothing, before = tuned_in(tmp_path / "cut", stop=lambda: Cut() if len(steps) >= stopped_at else None, **counted)
    assert nothing is None
    assert CheckpointFolder(tmp_path / "cut").newest().step == stopped_at == len(steps)
    result, after = tuned_in(tmp_path / "cut")
    assert before + after == lines
    states = [found.tuned.net.state_dict() for found in (whole, result)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_checkpoints_of_other_options_data_or_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_run, "SAVE_EVERY", 0.0)
    train, options = labelled_of("classification"), options_of(epochs=1)

    def run_with(train, options, **changes):
        net = task_net(base_net(**changes), train, options)
        return finetune(net, train, None, options, checkpoints=CheckpointFolder(tmp_path / "c"))

    run_with(train, options)
    with pytest.raises(ConfigError, match=r"net_sha256.*options\.learning_rate: 0\.01, now 0\.02"):
        run_with(train, options_of(epochs=1, learning_rate=0.02, seed=0), hidden_size=32)
    with pytest.raises(ConfigError, match="train_sha256"):
        run_with(labelled_of("classification", seed=5), options)


@pytest.mark.parametrize("task", ["classification", "per-base"])
def test_averaged_answers_are_those_of_the_other_strand(task):
    train = labelled_of(task)
    tuned = task_net(base_net(), train, options_of(average_strands=True))
    sequences = list(train.rows.sequences[:6])
    here = tuned.predict(sequences)
    there = tuned.predict([reverse_complement(sequence) for sequence in sequences])
    for x, y in zip(here, there, strict=True):
        np.testing.assert_allclose(x, tuned.turned(y), atol=1e-6)
    assert not np.allclose(tuned.predict(sequences, average_strands=False)[0], here[0], atol=1e-6)


@pytest.mark.parametrize("task", ["classification", "regression", "per-base"])
def test_an_answer_depends_on_its_batch_by_rounding_only(task):
    tuned = task_net(base_net(), labelled_of(task), options_of())
    sequences = [b"ACGT" * 5, b"G", b"TTGCA" * 30]
    together = tuned.predict(sequences)
    for sequence, answer in zip(sequences, together, strict=True):
        np.testing.assert_allclose(tuned.predict([sequence])[0], answer, atol=1e-5)


def test_n_grams_are_left_out_of_random_nets_and_dropped_on_request():
    assert base_net().config.ngram_sizes == ()
    with_ngrams = base_net(ngrams=True)
    assert with_ngrams.config.ngram_sizes == (3, 6, 10)
    config, table = with_ngrams.config, with_ngrams.local_encoder.embedding.table.detach().clone()
    train = labelled_of("classification")
    tuned = task_net(with_ngrams, train, options_of(drop_ngrams=True))
    letters = tuned.net.net.local_encoder.embedding.table
    assert torch.equal(letters, table[: len(letters)])
    assert len(letters) == config.vocab_size
    assert config.ngram_sizes == (3, 6, 10)  # the configuration may be another net's too
    assert tuned.net.config.ngram_sizes == ()
    result = finetune(tuned, train, None, options_of(epochs=1))
    assert result.num_weights == sum(weight.numel() for weight in tuned.net.parameters())


def test_learned_boundaries_and_entropy_patches_are_fine_tuned_too():
    learned = untrained_net("tiny", "dna", None, 0, **SMALL, boundaries="learned", target_patch_length=4.0)
    cutter = Patcher(patching_mode="entropy", entropy_model="auto", threshold=1.2)
    patched = untrained_net("tiny", "dna", cutter, 0, **SMALL)
    train, options = labelled_of("classification", num=8), options_of(epochs=1, augment_strands=True)
    for net in (learned, patched):
        result = finetune(task_net(net, train, options), train, None, options)
        assert (result.best_epoch, result.best_value, result.steps) == (1, None, 1)


def test_balanced_weights_are_those_of_the_counts():
    train = labelled_of("classification").take([0, 1, 2, 4])
    tuned = task_net(base_net(), train, options_of(class_weights="balanced"))
    assert tuned.net.config.class_weights == pytest.approx((4 / (2 * 3), 4 / (2 * 1)))
    tuned = task_net(base_net(), train, options_of(class_weights=(1.0, 2.0)))
    assert tuned.net.config.class_weights == (1.0, 2.0)


def test_bad_options_are_refused():
    train = labelled_of("classification", num=8)
    values = labelled_of("regression", num=8)
    cases = [
        (train, {"class_weights": (1.0,)}, ConfigError, "2 weights"),
        (values, {"class_weights": "balanced"}, ConfigError, "none in a regression"),
        (values.take([1, 3]), {}, DataError, "values that differ"),
        (train, {"mode": "lora", "adapters": "nothing"}, ConfigError, "no linear layer"),
    ]
    for labelled, changes, kind, words in cases:
        with pytest.raises(kind, match=words):
            task_net(base_net(), labelled, options_of(**changes))
    with pytest.raises(ConfigError, match="strands"):
        task_net(base_net(), train, options_of(average_strands=True), "protein")
    for changes, words in (({"metric": "r2"}, "metric: expected one of"), ({"patience": 1}, "patience")):
        options = options_of(**changes)
        with pytest.raises(ConfigError, match=words):
            finetune(task_net(base_net(), train, options), train, None, options)
    overlapping = untrained_net("tiny", "dna", Patcher(patching_mode="static", patch_size=4, overlap=1), 0, **SMALL)
    with pytest.raises(ConfigError, match="overlap"):
        finetune(task_net(overlapping, train, options_of()), train, None, options_of())
    with pytest.raises(AlphabetError):
        task_net(base_net(), train, options_of()).predict([b"AC-T"])
