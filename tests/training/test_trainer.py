"""Whole runs: they learn, they go on bit by bit, they refuse what does not belong to them, they stop at NaN."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from hyena_glt import HyenaGLT
from hyena_glt.errors import ConfigError, DataError, OutputExistsError, SystemProblem
from hyena_glt.patching import Patcher, calibrate
from hyena_glt.sequences.simulate import generate_random_genomic_sequence, simulate_genome
from hyena_glt.training.corpus import Corpus, Regions
from hyena_glt.training.engine import Engine
from hyena_glt.training.metrics_log import SPIKE_LEAST
from hyena_glt.training.recipe import PatchingSection, build_recipe
from hyena_glt.training.run_data import evenly_spaced, fit_pieces, make_patcher
from hyena_glt.training.run_folder import run_identity
from hyena_glt.training.trainer import open_run
from hyena_glt.training.windows import WindowTable

NET = {
    "hidden_size": 16,
    "num_layers": 1,
    "trunk_layout": ["short"],
    "local_hidden_size": 8,
    "num_local_encoder_layers": 1,
    "num_local_decoder_layers": 1,
    "ngram_sizes": [3],
    "ngram_table_size": 64,
}
RUN = {
    "model": {**NET, "dropout": 0.1},
    "data": {"window": 128, "held_out_share": 0.1, "block": 2048, "gap": 128},
    "schedule": {"steps": 7},
    "batch": {"size": 2, "accumulate": 2},
    "evaluation": {"every": 2, "batches": 2},
    "samples": {"every": 3, "length": 4},
    "checkpoint": {"every": 3, "keep": 2},
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> Path:
    return simulate_genome(seed=3, length=20_000).write_genome(tmp_path_factory.mktemp("genome"))[0]


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def begin(genome, notes):
    """`begin(folder, seed=3, ...)`: a run of RUN with some sections changed, set up and not yet begun."""

    def start(folder, files=None, *, resume=False, force=False, engine=None, **changes):
        recipe = build_recipe({**RUN, **changes})
        engine = engine or Engine(torch.device("cpu"))
        return open_run(recipe, folder, engine, files or [genome], resume=resume, force=force, note=notes.append)

    return start


def lines(folder, kind=None):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in found:
        line.pop("timings", None)
    return [line for line in found if kind is None or line["kind"] == kind]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a run that may not differ between two runs of one recipe."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "metrics.jsonl"]
    timed = {"facts.json", "manifest.json"}
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not (path.parent.parent.name == "checkpoints" and path.name in timed)
        and "tensorboard" not in path.parts  # times, where the package is installed
    }
    for facts in folder.glob("checkpoints/*/facts.json"):
        untimed = json.loads(facts.read_text())
        del untimed["timings"]
        found[str(facts.relative_to(folder))] = json.dumps(untimed).encode()
    return found


def test_a_run_writes_metrics_checkpoints_and_a_net(begin, tmp_path, notes):
    shown = []
    result = begin(tmp_path / "run").run(show=shown.append)
    folder = tmp_path / "run"
    assert result.model == folder / "model"
    assert (result.step, [now.step for now in shown], shown[-1].done) == (7, [1, 2, 3, 4, 5, 6, 7], 1.0)
    train = lines(folder, "train")
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6, 7]
    assert set(train[0]) == {"kind", "step", "loss", "bits_per_base", "lr", "grad_norm", "epoch"}
    assert all(line["bits_per_base"] == pytest.approx(line["loss"] / 0.6931471805599453) for line in train)
    assert [line["step"] for line in lines(folder, "evaluation")] == [2, 4, 6, 7]
    assert [line["step"] for line in lines(folder, "sample")] == [3, 6, 7]
    assert all(len(line["sequence"]) == 4 for line in lines(folder, "sample"))
    assert result.held_out_bits_per_base == lines(folder, "evaluation")[-1]["bits_per_base"]
    raw = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(line["timings"]["bases_per_second"] > 0 for line in raw if line["kind"] == "train")
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-000000006", "step-000000007"]
    net = HyenaGLT.from_pretrained(result.model)
    assert net.external_patcher.patching_mode == "static"
    assert len(net.generate("ACGT", 5)) == 9
    assert any("held out" in note for note in notes)


def test_a_finished_run_is_done(begin, tmp_path):
    begin(tmp_path / "run").run()
    before = content(tmp_path / "run")
    assert begin(tmp_path / "run") is None
    assert begin(tmp_path / "run", resume=True) is None
    assert content(tmp_path / "run") == before
    assert begin(tmp_path / "run", force=True) is not None
    assert not (tmp_path / "run" / "model").exists()


OVERFIT = {
    "data": {"window": 64, "held_out_share": 0.3, "block": 512, "gap": 64},
    "optimizer": {"lr": 0.05},
    "schedule": {"steps": 200},
    "evaluation": {"every": 5, "keep": "best", "patience": 3},
    "checkpoint": {"every": 5, "keep": 100},
    "samples": {},
}


@pytest.fixture
def short_genome(tmp_path) -> Path:
    """A sequence that is soon learned by heart."""
    path = tmp_path / "short.fa"
    path.write_text(f">a\n{generate_random_genomic_sequence(2_000, seed=5)}\n")
    return path


def test_the_best_weights_are_kept_and_patience_ends_a_run(begin, tmp_path, short_genome, notes):
    folder = tmp_path / "run"
    result = begin(folder, [short_genome], **OVERFIT).run()
    found = {line["step"]: line["bits_per_base"] for line in lines(folder, "evaluation")}
    best = min(found, key=found.get)
    assert (result.model_step, result.held_out_bits_per_base) == (best, found[best])
    assert max(found) == result.step == best + 3 * 5 < 200
    expected = safetensors.torch.load_file(folder / f"checkpoints/step-{best:09d}/model.safetensors")
    weights = HyenaGLT.from_pretrained(result.model).state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    assert any(f"the net after {best} updates is kept" in note for note in notes)


def test_the_best_weights_survive_an_interruption(begin, tmp_path, short_genome):
    begin(tmp_path / "whole", [short_genome], **OVERFIT).run()
    folder = tmp_path / "parts"
    last = lines(tmp_path / "whole", "train")[-1]["step"]
    for stop_at in (7, last - 13, last - 2, last):  # the last one within the evaluation that ends the run
        trainer = begin(folder, [short_genome], resume=True, **OVERFIT)
        result = trainer.run(stop=lambda trainer=trainer, stop_at=stop_at: trainer.step >= stop_at)
        assert (result.model_step, result.model) == (None, None)
    assert begin(folder, [short_genome], resume=True, **OVERFIT).run().model is not None
    assert lines(folder) == lines(tmp_path / "whole")
    assert content(folder / "model") == content(tmp_path / "whole/model")


def test_two_trainings_in_one_folder_are_refused(begin, tmp_path):
    trainer, problems = begin(tmp_path / "run"), []

    def meet(_now):
        for options in ({"resume": True}, {"force": True}):
            with pytest.raises(SystemProblem, match="run: another process works on this output") as caught:
                begin(tmp_path / "run", **options)
            problems.append(caught)

    trainer.run(show=meet)
    assert len(problems) == 2 * trainer.step
    assert (tmp_path / "run" / "model").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those that torch's compiler hides
def test_a_compiled_trunk_learns_the_same(begin, tmp_path):
    plain, compiled = (begin(tmp_path / name, model=NET, compile=name == "compiled") for name in ("plain", "compiled"))
    plain.run()
    compiled.run()
    losses = [[line["loss"] for line in lines(tmp_path / name, "train")] for name in ("compiled", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


CONFIGURATIONS = {
    "static": {},
    "masked": {"objective": "masked_byte", "samples": {}},
    "learned": {"patching": {"mode": "learned", "target_length": 4}, "samples": {}},
    "entropy": {"patching": {"mode": "entropy", "target_length": 6}},
}


@pytest.mark.parametrize("changes", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(begin, tmp_path, changes):
    begin(tmp_path / "whole", **changes).run()
    folder = tmp_path / "parts"
    for stop_at in (0, 2, 3, 5):
        trainer = begin(folder, resume=True, **changes)
        result = trainer.run(stop=lambda trainer=trainer, stop_at=stop_at: trainer.step >= stop_at)
        assert (result.step, result.model) == (stop_at, None)
        assert not (folder / "model").exists()
    assert begin(folder, resume=True, **changes).run().model is not None
    assert lines(folder) == lines(tmp_path / "whole")
    assert content(folder) == content(tmp_path / "whole")
    assert "checkpoints/step-000000007/optimizer.safetensors" in content(folder)


def test_a_run_stopped_in_an_evaluation_makes_it_again(begin, tmp_path):
    begin(tmp_path / "whole").run()
    folder = tmp_path / "parts"
    for stop_at in (6, 7):
        trainer = begin(folder, resume=True)
        asked = []

        def stop(trainer=trainer, stop_at=stop_at, asked=asked):
            asked.append(trainer.step)
            return asked.count(stop_at) > 1  # not before the first held-out batch, but before the second

        assert trainer.run(stop=stop).model is None
        assert not any(line["step"] == stop_at for line in lines(folder, "evaluation"))
    assert begin(folder, resume=True).run().model is not None
    assert lines(folder) == lines(tmp_path / "whole")
    whole = content(tmp_path / "whole")
    assert {name: data for name, data in content(folder).items() if not name.endswith("facts.json")} == {
        name: data for name, data in whole.items() if not name.endswith("facts.json")
    }


def test_what_was_written_after_the_last_checkpoint_is_made_again(begin, tmp_path):
    """As after kill -9: lines and leavings of updates that no checkpoint holds."""
    begin(tmp_path / "whole").run()
    folder = tmp_path / "killed"
    begin(folder).run()
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints" / "step-000000007")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')
    begin(folder, resume=True).run()
    assert content(folder) == content(tmp_path / "whole")
    assert lines(folder) == lines(tmp_path / "whole")


def test_a_run_killed_before_its_first_checkpoint_begins_again(begin, tmp_path):
    begin(tmp_path / "whole").run()
    begin(tmp_path / "killed")  # set up and gone
    (tmp_path / "killed" / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n')
    begin(tmp_path / "killed", resume=True).run()
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


def test_a_damaged_newest_checkpoint_is_passed_over(begin, tmp_path, caplog):
    begin(tmp_path / "whole").run()
    folder = tmp_path / "damaged"
    begin(folder).run()
    shutil.rmtree(folder / "model")
    newest = max((folder / "checkpoints").iterdir())
    (newest / "optimizer.safetensors").write_bytes(b"")
    begin(folder, resume=True).run()
    assert any("damaged" in record.message for record in caplog.records)
    assert lines(folder) == lines(tmp_path / "whole")
    assert content(folder) == content(tmp_path / "whole")


def test_a_run_that_never_learned_gives_way_to_another(begin, tmp_path):
    """As one that was refused: too little sequence, a patch length that cannot be reached, ..."""
    with pytest.raises(ConfigError, match="target"):
        begin(tmp_path / "run", patching={"mode": "entropy", "target_length": 1e9})
    assert (tmp_path / "run" / "run.json").exists()
    again = begin(tmp_path / "run")
    assert again.recipe.patching.mode == "static"
    assert begin(tmp_path / "run").run().model is not None


def test_a_run_that_goes_on_elsewhere_says_so(begin, tmp_path, notes):
    """Threads change the last bits of sums; who resumes with others should not wonder why bits differ."""
    begin(tmp_path / "run").run(stop=lambda: True)
    begin(tmp_path / "run", resume=True)
    assert not any("elsewhere" in note for note in notes)
    path = tmp_path / "run" / "run.json"
    facts = json.loads(path.read_text())
    assert facts["begun_with"] == {"device": "cpu", "processes": 1, "threads": 1, "torch": torch.__version__}
    facts["begun_with"]["threads"] = 3
    path.write_text(json.dumps(facts))
    assert begin(tmp_path / "run", resume=True).run().model is not None
    assert any("elsewhere than the run began (threads: 3, now 1)" in note for note in notes)


def test_another_recipe_or_corpus_is_refused_with_the_difference(begin, tmp_path):
    begin(tmp_path / "run").run(stop=lambda: True)
    with pytest.raises(ConfigError, match=r"recipe\.seed: 0, now 3; .*--force"):
        begin(tmp_path / "run", resume=True, seed=3)
    with pytest.raises(ConfigError, match=r"recipe\.optimizer\.lr: 0\.002, now 0\.1"):
        begin(tmp_path / "run", optimizer={"lr": 0.1})
    other = simulate_genome(seed=4, length=20_000).write_genome(tmp_path)[0]
    with pytest.raises(ConfigError, match="corpus_sha256"):
        begin(tmp_path / "run", [other], resume=True)
    with pytest.raises(OutputExistsError, match="--resume"):
        begin(tmp_path / "run")
    assert begin(tmp_path / "run", resume=True) is not None


def test_the_name_of_the_input_does_not_matter(begin, genome, tmp_path):
    begin(tmp_path / "run")
    shutil.copy(genome, tmp_path / "renamed.fa")
    assert begin(tmp_path / "run", [tmp_path / "renamed.fa"], resume=True) is not None


def test_a_folder_of_something_else_is_left_alone(begin, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(OutputExistsError, match="model: exists already"):
        begin(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.files"):
        open_run(build_recipe(RUN), tmp_path / "new", Engine(torch.device("cpu")))


def test_accumulation_of_two_equals_one_batch_of_both(begin, tmp_path):
    """Losses and weights agree to rounding; AdamW divides by the size of the gradient, which amplifies it."""
    plain = {"model": NET, "samples": {}}
    begin(tmp_path / "one", batch={"size": 4}, **plain).run()
    begin(tmp_path / "two", batch={"size": 2, "accumulate": 2}, **plain).run()
    one, two = (lines(tmp_path / name, "train") for name in ("one", "two"))
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-5)
    assert [line["grad_norm"] for line in two] == pytest.approx([line["grad_norm"] for line in one], rel=1e-4)


def test_a_short_sequence_is_learned_by_heart(begin, tmp_path):
    fasta = tmp_path / "one.fa"
    fasta.write_text(f">one\n{generate_random_genomic_sequence(96, 3)}\n")
    result = begin(tmp_path / "run", [fasta], **by_heart(70)).run()
    assert result.bits_per_base < 0.02


def by_heart(steps, **changes):
    net = {"hidden_size": 48, "num_layers": 2, "local_hidden_size": 32, "ngram_table_size": 256}
    return {
        "model": {**net, "medium_filter_length": 24, "filter_hidden_size": 16},
        "data": {"window": 96, "reverse_complement": False},
        "optimizer": {"lr": 1e-2, "weight_decay": 0.0},
        "schedule": {"steps": steps},
        "batch": {"size": 1},
        "samples": {},
        **changes,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"patching": {"mode": "byte"}},
        {"patching": {"mode": "static", "size": 4.5}},
        {"patching": {"mode": "entropy", "patcher": "given"}},
        {"patching": {"mode": "random", "patcher": "given"}},
        {"patching": {"mode": "learned", "target_length": 6}},
        {"patching": {"mode": "mix", "target_length": 2.75}},
        {"patching": {"mode": "track", "track": "given", "threshold": 0.5}},
        {"objective": "masked_byte", "schedule": {"steps": 2000}},
        {"precision": "bf16", "gradient_checkpointing": True},
        {"gradient_checkpointing": True},
        {"model": {"genomic_vocab_size": 4, "long_filter": "both", "num_layers": 3}},
        {"model": {"reading_frame": False}},
    ],
    ids=[
        "byte",
        "static",
        "entropy",
        "random",
        "learned",
        "mix",
        "track",
        "masked",
        "bf16",
        "recompute",
        "vocabulary-4",
        "no-frame",
    ],
)
def test_every_configuration_learns_a_short_sequence_by_heart(begin, genome, tmp_path, changes):
    sequence = generate_random_genomic_sequence(96, 3)
    (tmp_path / "one.fa").write_text(f">one\n{sequence}\n")
    recipe = by_heart(200)
    for section, options in changes.items():
        recipe[section] = {**recipe.get(section, {}), **options} if isinstance(options, dict) else options
    if recipe.get("patching", {}).get("patcher"):
        pieces = fit_pieces(Regions.whole(Corpus.from_fasta([genome])), 1 << 20)
        calibrate(pieces, target_mean_length=6).build().save(tmp_path / "given")
        recipe["patching"]["patcher"] = str(tmp_path / "given")
    if recipe.get("patching", {}).get("track"):
        recipe["patching"]["track"] = str(write_track(tmp_path / "t.bedgraph", tmp_path / "one.fa", range(7, 96, 7)))
    result = begin(tmp_path / "run", [tmp_path / "one.fa"], **recipe).run()
    assert result.bits_per_base < 0.02


def test_a_net_that_sees_both_sides_learns_to_fill_in(begin, tmp_path):
    """A repeat of 8 bases is plain from any side of a hidden one; without it a letter costs 2 bits."""
    fasta = tmp_path / "repeat.fa"
    fasta.write_text(f">repeat\n{'ACGGTTCA' * 400}\n")
    recipe = by_heart(60, objective="masked_byte", batch={"size": 4})
    recipe["data"] = {**recipe["data"], "held_out_share": 0.1, "block": 400, "gap": 96}
    result = begin(tmp_path / "run", [fasta], **recipe).run()
    assert result.held_out_bits_per_base < 1.0
    assert HyenaGLT.from_pretrained(result.model).config.causal is False


def poison(trainer, name, step):
    """Make a module of the net give NaN in one update."""

    def hook(_module, _inputs, output):
        return output * float("nan") if trainer.step + 1 == step else output

    trainer.net.get_submodule(name).register_forward_hook(hook)


@pytest.mark.parametrize("every", [1, 500])
def test_a_loss_that_is_no_number_stops_before_the_update(begin, tmp_path, every):
    """What the updates before it have learned is saved, whether or not a checkpoint was due."""
    folder, checkpoint = tmp_path / "run", {"every": every, "keep": 9}
    trainer = begin(folder, checkpoint=checkpoint)
    poison(trainer, "trunk.blocks.0", 4)
    with pytest.raises(ConfigError, match=r"step 4: the loss is no finite number on rank 0; .*nan_report\.json"):
        trainer.run()
    report = json.loads((folder / "nan_report.json").read_text())
    assert (report["step"], report["rank"], report["first_module"]) == (4, 0, "trunk.blocks.0")
    assert report["loss_sum"] == "nan"
    assert len(report["windows"]) == 4
    assert [len(place) for place in report["places"]] == [3] * 4
    assert sorted(path.name for path in (folder / "checkpoints").iterdir())[-1] == "step-000000003"
    weights = safetensors.torch.load_file(folder / "checkpoints/step-000000003/model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    assert all(torch.equal(weights[name], tensor) for name, tensor in trainer.net.state_dict().items())
    assert [line["step"] for line in lines(folder, "train")] == [1, 2, 3]
    begin(tmp_path / "whole", checkpoint=checkpoint).run()
    begin(folder, resume=True, checkpoint=checkpoint).run()
    assert lines(folder) == lines(tmp_path / "whole")


def test_weights_that_are_not_finite_are_not_saved(begin, tmp_path):
    trainer = begin(tmp_path / "run")
    with torch.no_grad():
        trainer.net.head.project.weight[0] = float("inf")
    with pytest.raises(ConfigError, match=r"step 1: the .* is no finite number .* the weights were not finite before"):
        trainer.run()
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_gradient_that_is_no_number_stops_as_well(begin, tmp_path):
    trainer = begin(tmp_path / "run")
    before = trainer.net.head.project.weight.detach().clone()
    trainer.net.head.project.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(ConfigError, match="step 1: the gradient is no finite number"):
        trainer.run()
    report = json.loads((tmp_path / "run" / "nan_report.json").read_text())
    assert report["first_module"] is None
    assert report["gradients"] == ["head.project.weight"]
    assert torch.equal(trainer.net.head.project.weight, before)


def test_a_loss_that_stands_out_is_written_with_its_windows(begin, tmp_path, notes):
    steps = SPIKE_LEAST + 3
    trainer = begin(tmp_path / "run", schedule={"steps": steps}, evaluation={"every": None}, samples={})

    def hook(_module, _inputs, output):
        return output * 200.0 if trainer.step + 1 == steps else output

    trainer.net.head.register_forward_hook(hook)
    trainer.run()
    (spike,) = lines(tmp_path / "run", "spike")
    assert spike["step"] == steps
    assert spike["loss"] > spike["limit"]
    assert len(spike["windows"]) == 4
    assert any("stands out" in note for note in notes)


def test_time_ends_a_run(begin, tmp_path):
    result = begin(tmp_path / "run", schedule={"seconds": 0.5}, evaluation={"every": None}, samples={}).run()
    raw = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    elapsed = [line["timings"]["elapsed_s"] for line in raw if line["kind"] == "train"]
    assert len(elapsed) == result.step
    assert elapsed[-1] >= 0.5
    assert all(seconds < 0.5 for seconds in elapsed[:-1])


def test_a_patcher_is_fitted_on_training_sequence_alone(begin, tmp_path):
    trainer = begin(tmp_path / "run", patching={"mode": "entropy", "target_length": 6})
    model = trainer.data.patcher.args.entropy_model
    train_bases = sum(end - start for _, start, end in trainer.data.train.regions.spans.tolist())
    assert trainer.data.patcher.args.calibration.num_tokens == train_bases
    assert 2 * train_bases >= model.describe()["symbols"] > 0
    assert trainer.data.patcher.args.calibration.mean_length == pytest.approx(6, rel=0.02)


def test_random_boundaries_have_the_lengths_of_the_entropy_patches(begin, tmp_path):
    options = {"target_length": 6}
    entropy = begin(tmp_path / "entropy", patching={"mode": "entropy", **options}).data.patches
    trainer = begin(tmp_path / "random", patching={"mode": "random", **options})
    shuffled = trainer.data.patches
    assert sorted(entropy.patch_lengths(0)) == sorted(shuffled.patch_lengths(0))
    assert list(entropy.patch_lengths(0)) != list(shuffled.patch_lengths(0))
    assert trainer.net.external_patcher is None


def by_track(path, **more):
    """Changes of a recipe that make a track start the patches."""
    data = {**RUN["data"], "reverse_complement": False}
    return {"data": data, "patching": {"mode": "track", "track": str(path), "threshold": 0.5, **more}}


def write_track(path, genome, starts):
    """A bedGraph after which a patch starts at each of some places of every contig."""
    names = Corpus.from_fasta([genome]).contigs.names
    path.write_text("".join(f"{name}\t{start - 1}\t{start}\t1\n" for name in names for start in starts))
    return path


def test_a_track_starts_the_patches(begin, genome, tmp_path):
    track = write_track(tmp_path / "every_seventh.bedgraph", genome, range(7, 700, 7))
    trainer = begin(tmp_path / "run", **by_track(track, max_length=32))
    assert trainer.data.patches.patch_lengths(0)[:103].tolist() == [1, 6] + [7] * 98 + [32] * 3
    result = trainer.run()
    assert HyenaGLT.from_pretrained(result.model).external_patcher is None


def test_another_track_is_another_run(begin, genome, tmp_path):
    track = tmp_path / "track.bedgraph"
    begin(tmp_path / "run", **by_track(write_track(track, genome, [7]))).run(stop=lambda: True)
    with pytest.raises(ConfigError, match="track_sha256"):
        begin(tmp_path / "run", resume=True, **by_track(write_track(track, genome, [8])))


def test_a_track_of_other_contigs_is_refused(begin, tmp_path):
    track = tmp_path / "track.bedgraph"
    track.write_text("elsewhere\t6\t7\t1\n")
    with pytest.raises(DataError, match="no contig"):
        begin(tmp_path / "run", **by_track(track))


def test_a_given_patcher_is_used_and_hashed(begin, genome, tmp_path):
    corpus = Corpus.from_fasta([genome])
    calibrate(fit_pieces(Regions.whole(corpus), 1 << 20), target_mean_length=5).build().save(tmp_path / "p")
    patching = {"mode": "entropy", "patcher": str(tmp_path / "p")}
    begin(tmp_path / "run", patching=patching).run(stop=lambda: True)
    identity = run_identity(build_recipe({**RUN, "patching": patching}), corpus)
    assert len(identity["patcher_sha256"]) == 64
    assert "patcher" not in identity["recipe"]["patching"]
    Patcher(patching_mode="static", patch_size=3).save(tmp_path / "p")
    with pytest.raises(ConfigError, match="patcher_sha256"):
        begin(tmp_path / "run", patching=patching, resume=True)
    with pytest.raises(DataError, match="no such file"):
        begin(tmp_path / "other", patching={"mode": "entropy", "patcher": str(tmp_path / "absent")})


def test_boundaries_that_need_the_future_are_refused(begin, tmp_path):
    Patcher(patching_mode="entropy", entropy_model="auto").save(tmp_path / "p")
    with pytest.raises(ConfigError, match=r"patching\.patcher: .*is_causal False"):
        begin(tmp_path / "run", patching={"mode": "entropy", "patcher": str(tmp_path / "p")})


def test_patchers_are_fitted_without_the_gaps_of_a_genome(tmp_path):
    parts = [generate_random_genomic_sequence(4000, seed) for seed in (1, 2)]
    (tmp_path / "gaps.fa").write_text(
        f">a\n{'N' * 50_000}{parts[0]}{'N' * 1000}{parts[1]}{'N' * 999}\n>b\n{parts[0]}\n"
    )
    corpus = Corpus.from_fasta([tmp_path / "gaps.fa"])
    regions = Regions(corpus, np.array([[0, 0, 52_000], [0, 53_000, 59_999], [1, 100, 4000]]))
    assert regions.without_gaps().spans.tolist() == [
        [0, 50_000, 52_000],
        [0, 53_000, 54_000],
        [0, 55_000, 59_999],
        [1, 100, 4000],
    ]
    assert Regions.whole(corpus).without_gaps().num_bases == 12_999
    patcher = make_patcher(PatchingSection(mode="entropy", target_length=6.0), Regions.whole(corpus))
    lengths, _ = patcher.patch(parts[0])
    assert abs(len(parts[0]) / lengths.shape[1] - 6.0) < 1.0


def test_patchers_are_fitted_on_evenly_spaced_pieces(genome):
    regions = Regions.whole(Corpus.from_fasta([genome]))
    assert sum(map(len, fit_pieces(regions, 10**9))) == regions.num_bases
    assert 0 < sum(map(len, fit_pieces(regions, 6_000))) < regions.num_bases
    assert make_patcher(PatchingSection(mode="learned"), regions) is None
    assert make_patcher(PatchingSection(mode="byte"), regions).patching_mode == "byte"


def test_evaluation_takes_windows_from_everywhere(genome):
    table = WindowTable(Regions.whole(Corpus.from_fasta([genome])), 100)
    chosen = evenly_spaced(table, 5)
    assert len(chosen) == 5
    assert chosen.windows[[0, -1]].tolist() == table.windows[[0, -1]].tolist()
    assert len(evenly_spaced(table, None)) == len(evenly_spaced(table, 10**9)) == len(table)


def test_too_little_sequence_is_an_error_of_the_data(begin, tmp_path):
    (tmp_path / "n.fa").write_text(">n\nNNNNNNNNNNNNNNNN\n")
    with pytest.raises(DataError, match="no window is left"):
        begin(tmp_path / "run", [tmp_path / "n.fa"], data={"window": 8})
