from __future__ import annotations

import json

import pytest
import torch

from hyena_glt.entropies import ByteNetwork, MarkovEntropy, NeuralEntropy
from hyena_glt.errors import ConfigError, HyenaGLTError, ModelFileError
from hyena_glt.patching import Patcher, PatcherArgs, calibrate
from hyena_glt.patching.saved import load_patcher, save_patcher

DNA = "ACGTTGCAAGCTGGATC" * 60
MODEL = MarkovEntropy.fit([DNA], order=3)
KEPT = [
    {"threshold": 1.25, "entropy_model": MODEL, "max_patch_length": 9},
    {"threshold": 0.5},
    {"threshold": 0.5, "entropy_model": "auto"},
    {"patching_mode": "static", "max_patch_length": 7},
    {"patching_mode": "static", "patch_size": 3, "max_patch_length": 7},
    {"patching_mode": "space", "delimiter_chars": ["G"], "preserve_delimiters": False},
]


@pytest.mark.parametrize("fields", KEPT)
def test_a_loaded_patcher_gives_the_same(tmp_path, fields):
    patcher = Patcher(**fields)
    patcher.save(tmp_path / "deep" / "folder")
    loaded = Patcher.load(tmp_path / "deep" / "folder")
    assert torch.equal(loaded.patch(DNA)[0], patcher.patch(DNA)[0])
    assert loaded.args.model_dump() == patcher.args.model_dump()
    assert loaded.patch_with_boundaries(DNA)[0] == patcher.patch_with_boundaries(DNA)[0]


def test_the_origin_of_the_threshold_is_kept(tmp_path):
    args = calibrate([DNA], target_mean_length=5)
    save_patcher(tmp_path / "mine.json", args, {"command": "calibrate"})
    loaded = load_patcher(tmp_path / "mine.json")
    assert loaded.calibration == args.calibration
    assert loaded.threshold == args.threshold
    assert json.loads((tmp_path / "mine.json").read_text())["provenance"] == {"command": "calibrate"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.entropy_model.safetensors", "mine.json"]


def test_a_model_named_by_path_is_copied_beside_the_patcher(tmp_path):
    MODEL.save(tmp_path / "model.safetensors")
    Patcher(entropy_model=str(tmp_path / "model.safetensors"), threshold=1.0).save(tmp_path / "out")
    Patcher(entropy_model_checkpoint_dir=str(tmp_path), threshold=1.0).save(tmp_path / "out2")
    (tmp_path / "model.safetensors").unlink()
    for folder in ("out", "out2"):
        assert Patcher.load(tmp_path / folder).patch(DNA)[1].tolist() == [MODEL.entropies(DNA).tolist()]


def test_saving_again_replaces_what_was_there(tmp_path):
    Patcher(threshold=1.0, entropy_model=MODEL).save(tmp_path)
    Patcher(threshold=0.75).save(tmp_path)
    assert Patcher.load(tmp_path).threshold == 0.75


def test_sources_that_cannot_be_saved_are_named(tmp_path):
    with pytest.raises(ConfigError, match="got function"):
        Patcher(entropy_model=lambda tokens: tokens).save(tmp_path)
    assert not (tmp_path / "patcher.json").exists()


def damage_model(folder):
    place = folder / "patcher.entropy_model.safetensors"
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(content)


def change(**changes):
    def apply(folder):
        place = folder / "patcher.json"
        content = json.loads(place.read_text())
        content.update(changes)
        place.write_text(json.dumps(content))

    return apply


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(text):
    return lambda folder: (folder / "patcher.json").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damage_model, "sha256: expected"),
        (remove("patcher.entropy_model.safetensors"), "missing; the patcher refers to it"),
        (remove("patcher.json"), "no such file"),
        (write("{"), "not JSON"),
        (write("[]"), "expected a JSON object"),
        (write("{}"), "format: expected"),
        (write(" " * (1 << 20) + "{}"), "at most"),
        (change(format="hyena-glt/patcher/9"), "format: expected 'hyena-glt/patcher/1'"),
        (change(extra=1), "wrong: extra"),
        (change(args=[]), "wrong: args"),
        (change(args={"thresh": 1}), "thresh: unknown key"),
        (change(entropy_model="other"), "reference with path and sha256"),
        (change(entropy_model={"path": "../patcher.json", "sha256": "0"}), "in the same folder"),
        (change(entropy_model={"path": "/etc/hostname", "sha256": "0"}), "in the same folder"),
        (change(entropy_model={"path": "..", "sha256": "0"}), "in the same folder"),
        (change(entropy_model={"path": "patcher.json", "sha256": "0"}), "sha256: expected 0"),
    ],
)
def test_spoiled_files_are_refused(tmp_path, spoil, message):
    Patcher(threshold=1.0, entropy_model=MODEL).save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(HyenaGLTError, match=message) as caught:
        Patcher.load(tmp_path)
    assert isinstance(caught.value, ModelFileError | ConfigError)
    assert str(tmp_path) in str(caught.value)


def test_arguments_may_be_saved_without_a_patcher(tmp_path):
    save_patcher(tmp_path / "p.json", PatcherArgs(patching_mode="byte"))
    assert load_patcher(tmp_path / "p.json").patching_mode == "byte"


@pytest.mark.parametrize("named_by", ["object", "path", "folder"])
def test_a_neural_model_goes_with_the_patcher(tmp_path, named_by):
    path = tmp_path / "in" / "n.safetensors"
    path.parent.mkdir()
    model = NeuralEntropy(ByteNetwork(width=8, outputs=4, layers=1), window=128)
    model.save(path)
    named = {
        "object": {"entropy_model": model},
        "path": {"entropy_model": path},
        "folder": {"entropy_model_checkpoint_dir": str(path.parent)},
    }
    patcher = Patcher(threshold=1.2, max_patch_length=9, **named[named_by])
    lengths, scores = patcher.patch(DNA[:300])
    patcher.save(tmp_path / "out")
    path.unlink()
    loaded = Patcher.load(tmp_path / "out")
    assert isinstance(loaded.entropy_model, NeuralEntropy)
    again = loaded.patch(DNA[:300])
    assert torch.equal(again[0], lengths)
    assert torch.equal(again[1], scores)
