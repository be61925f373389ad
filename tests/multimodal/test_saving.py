"""A processor goes into a folder and comes back the same; damage is found."""

from __future__ import annotations

import json

import pytest
import torch

from hyena_glt.errors import ModelFileError
from hyena_glt.multimodal import MultiModalGenomicProcessor

DATA = {"dna": ["ATGGCGTTAGCC"], "rna": [("GGGAAACCC", "(((...)))")], "protein": ["MALA"]}


@pytest.fixture
def saved(small_processor, tmp_path):
    processor = small_processor()
    processor.save_pretrained(tmp_path / "saved")
    return processor, tmp_path / "saved"


def test_results_are_the_same_after_loading(saved):
    processor, folder = saved
    loaded = MultiModalGenomicProcessor.from_pretrained(folder)
    before, after = processor.process_multimodal_data(DATA), loaded.process_multimodal_data(DATA)
    for name in DATA:
        assert torch.equal(before["aligned"].pooled[name], after["aligned"].pooled[name])
        assert torch.equal(before[name][0].patch_lengths, after[name][0].patch_lengths)
    assert loaded.base_config == processor.base_config
    assert loaded.modalities == processor.modalities


def test_fitted_patchers_are_saved_too(small_processor, made_pairs, tmp_path):
    processor = small_processor(modalities=["dna", "protein"])
    dna = [pair.dna for pair in made_pairs(6, 150)]
    processor.fit_patchers({"dna": dna}, 8)
    processor.save_pretrained(tmp_path / "fitted")
    loaded = MultiModalGenomicProcessor.from_pretrained(tmp_path / "fitted")
    assert torch.equal(loaded.patch_states("dna", dna).patch_lengths, processor.patch_states("dna", dna).patch_lengths)


def test_only_safetensors_and_json_are_written(saved):
    assert {path.suffix for path in saved[1].rglob("*") if path.is_file()} == {".json", ".safetensors"}


@pytest.mark.parametrize(
    "name", ["alignment.safetensors", "processor.json", "dna/manifest.json", "dna/model.safetensors"]
)
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_or_missing_file_is_found(saved, name, damage):
    path = saved[1] / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-2] + b"x\n")
    with pytest.raises(ModelFileError, match=name.rpartition("/")[2].partition(".")[0]):
        MultiModalGenomicProcessor.from_pretrained(saved[1])


def test_an_interrupted_save_and_another_folder_are_recognised(saved, tmp_path):
    (saved[1] / "manifest.json").unlink()
    with pytest.raises(ModelFileError, match="interrupted"):
        MultiModalGenomicProcessor.from_pretrained(saved[1])
    with pytest.raises(ModelFileError, match="not a saved processor"):
        MultiModalGenomicProcessor.from_pretrained(tmp_path / "nothing")
    with pytest.raises(ModelFileError, match="expected format 'hyena-glt-multimodal'"):
        MultiModalGenomicProcessor.from_pretrained(saved[1] / "dna")


def test_unknown_options_are_refused_by_name(saved):
    from hyena_glt.sequences.atomic import sha256_file

    options, manifest = saved[1] / "processor.json", saved[1] / "manifest.json"
    options.write_text(json.dumps({**json.loads(options.read_text()), "num_hedas": 3}))
    content = json.loads(manifest.read_text())
    content["files"]["processor.json"] = sha256_file(options)
    manifest.write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match="num_hedas: unknown key; did you mean num_heads"):
        MultiModalGenomicProcessor.from_pretrained(saved[1])


def test_weights_that_are_not_finite_are_not_saved(small_processor, tmp_path):
    processor = small_processor()
    with torch.no_grad():
        processor.alignment.to_vector.weight[0, 0] = float("inf")
    with pytest.raises(ModelFileError, match=r"to_vector\.weight"):
        processor.save_pretrained(tmp_path / "bad")
    assert not (tmp_path / "bad" / "manifest.json").exists()
