"""A net in a folder: the same outputs afterwards, and no damaged file believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import safetensors.torch
import torch

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, ModelFileError, SystemProblem
from hyena_glt.model import HyenaGLT
from hyena_glt.model.weights import load_weights, save_net
from hyena_glt.patching import Patcher
from hyena_glt.sequences.atomic import sha256_file

TOKENS = torch.tensor([[69, 71, 75, 88, 69, 71]])
LENGTHS = torch.tensor([[2, 4]])


@pytest.fixture
def saved(small_net, tmp_path) -> Path:
    small_net().save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def refresh_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: sha256_file(folder / name) for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "changes", [{}, {"causal": False}, {"genomic_vocab_size": 4, "alphabet": "rna"}, {"long_filter": "both"}]
)
def test_outputs_are_bitwise_the_same_after_loading(small_net, tmp_path, changes):
    net = small_net(**changes)
    net.save_pretrained(tmp_path)
    loaded = HyenaGLT.from_pretrained(tmp_path)
    assert loaded.config == net.config
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(TOKENS, LENGTHS).logits, net(TOKENS, LENGTHS).logits)


def test_a_net_saved_before_there_were_reading_frames_has_none(small_net, tmp_path):
    net = small_net(reading_frame=False)
    net.save_pretrained(tmp_path)
    options = json.loads((tmp_path / "config.json").read_text())
    del options["reading_frame"]
    (tmp_path / "config.json").write_text(json.dumps(options))
    refresh_manifest(tmp_path)
    loaded = HyenaGLT.from_pretrained(tmp_path)
    assert loaded.config == net.config
    with torch.no_grad():
        assert torch.equal(loaded(TOKENS, LENGTHS).logits, net(TOKENS, LENGTHS).logits)


def test_weights_saved_in_half_precision_are_those_rounded(small_net, tmp_path):
    net = small_net()
    save_net(net, tmp_path / "net", torch.bfloat16)
    stored = safetensors.torch.load_file(tmp_path / "net" / "model.safetensors")
    again = HyenaGLT.from_pretrained(tmp_path / "net").state_dict()
    assert all(tensor.dtype is torch.bfloat16 for tensor in stored.values())
    assert all(torch.equal(again[name], tensor.bfloat16().float()) for name, tensor in net.state_dict().items())


def test_only_safetensors_and_json_are_written(saved):
    names = {path.name for path in saved.iterdir()}
    assert names == {"config.json", "model.safetensors", "manifest.json"}


def test_saving_again_replaces_the_net(small_net, saved):
    other = small_net(seed=1)
    other.save_pretrained(saved)
    loaded = HyenaGLT.from_pretrained(saved)
    assert torch.equal(loaded.head.project.weight, other.head.project.weight)


def test_the_patcher_is_saved_and_rebuilt(small_net, random_dna, tmp_path):
    model = MarkovEntropy.fit([random_dna(3000)], order=3)
    net = small_net(Patcher(patching_mode="entropy", entropy_model=model, threshold=1.37, max_patch_length=9))
    net.save_pretrained(tmp_path)
    loaded = HyenaGLT.from_pretrained(tmp_path)
    sequence = random_dna(60, seed=1)
    with torch.no_grad():
        before, after = net.forward_with_patching(sequence), loaded.forward_with_patching(sequence)
    assert torch.equal(before.patch_lengths, after.patch_lengths)
    assert torch.equal(before.logits, after.logits)


def test_a_given_patcher_takes_the_place_of_the_saved_one(small_net, tmp_path):
    small_net(Patcher(patching_mode="byte")).save_pretrained(tmp_path)
    other = Patcher(patching_mode="static")
    assert HyenaGLT.from_pretrained(tmp_path, other).external_patcher is other


def test_a_foreign_patcher_is_left_out_with_a_warning(small_net, tmp_path, caplog):
    small_net(object()).save_pretrained(tmp_path)
    assert "saved without it" in caplog.text
    assert HyenaGLT.from_pretrained(tmp_path).external_patcher is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_changed_file_is_found_by_its_hash(saved, name):
    data = bytearray((saved / name).read_bytes())
    data[len(data) // 2] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(ModelFileError, match=f"{name}: its sha256 differs"):
        HyenaGLT.from_pretrained(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "manifest.json"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(ModelFileError, match=name):
        HyenaGLT.from_pretrained(saved)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"no manifest\.json"):
        HyenaGLT.from_pretrained(tmp_path / "absent")


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ({"format": "other", "version": 1, "files": {}}, "expected format"),
        ({"format": "hyena-glt", "version": 99, "files": {}}, "got 'hyena-glt' 99"),
        ({"format": "hyena-glt", "version": 1, "files": {}}, "expected hashes"),
        ({"format": "hyena-glt", "version": 1, "files": []}, "expected hashes"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(saved, manifest, reason):
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFileError, match=reason):
        HyenaGLT.from_pretrained(saved)


def test_a_manifest_names_no_file_elsewhere(saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"]["../secret"] = "0"
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFileError, match="plain file names"):
        HyenaGLT.from_pretrained(saved)


def test_an_unknown_option_in_the_configuration_is_named(saved):
    options = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**options, "hiden_size": 3}))
    refresh_manifest(saved)
    with pytest.raises(ModelFileError, match="did you mean hidden_size"):
        HyenaGLT.from_pretrained(saved)


def change_tensors(folder: Path, change) -> Path:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)
    refresh_manifest(folder)
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("head.project.bias"), r"1 missing tensors, such as head\.project\.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 unexpected tensors, such as extra"),
        (lambda t: t.update({"head.project.bias": torch.zeros(3)}), r"expected shape \(260,\), got \(3,\)"),
        (lambda t: t["head.project.bias"].fill_(float("nan")), r"head\.project\.bias: expected finite"),
        (lambda t: t["bridge.offsets.table.weight"].fill_(float("inf")), "expected finite"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(saved, change, reason):
    change_tensors(saved, change)
    with pytest.raises(ModelFileError, match=reason):
        HyenaGLT.from_pretrained(saved)


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"\xff" * 64, b"not a model"])
def test_a_file_that_is_no_safetensors_is_refused(small_net, tmp_path, data):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="not a safetensors file"):
        load_weights(small_net(), path)


def test_a_damaged_net_is_not_saved(small_net, tmp_path):
    net = small_net()
    with torch.no_grad():
        net.head.project.bias[0] = float("inf")
    with pytest.raises(ModelFileError, match="expected finite weights"):
        net.save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_the_configuration_names_its_type_and_no_other_is_read(saved):
    options = json.loads((saved / "config.json").read_text())
    assert options.pop("model_type") == "hyena_glt"
    (saved / "config.json").write_text(json.dumps(options))
    refresh_manifest(saved)
    assert HyenaGLT.from_pretrained(saved).config.hidden_size == 24  # of a file without it
    (saved / "config.json").write_text(json.dumps({**options, "model_type": "gpt2"}))
    refresh_manifest(saved)
    with pytest.raises(ModelFileError, match="model_type: expected 'hyena_glt', got 'gpt2'"):
        HyenaGLT.from_pretrained(saved)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that keeps what is uploaded in `hub.folder`, and the calls in `hub.calls`."""
    fake = SimpleNamespace(calls=[], folder=tmp_path / "hub", tokens=[])

    def create_repo(api, repo_id, **options):
        fake.tokens.append(api.token)
        fake.calls.append(("create_repo", repo_id, options))

    def create_branch(api, repo_id, **options):
        fake.calls.append(("create_branch", repo_id, options))

    def upload_folder(api, *, repo_id, folder_path, **options):
        fake.calls.append(("upload_folder", repo_id, options))
        shutil.copytree(folder_path, fake.folder)
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/0")

    for function in (create_repo, create_branch, upload_folder):
        monkeypatch.setattr(huggingface_hub.HfApi, function.__name__, function)
    return fake


def test_a_net_is_uploaded_as_it_is_saved(small_net, hub, tmp_path):
    net = small_net(Patcher(patching_mode="static", patch_size=3))
    assert net.push_to_hub("someone/net", private=True, token="t") == "https://hub.example/someone/net/commit/0"
    assert hub.calls == [
        ("create_repo", "someone/net", {"private": True, "exist_ok": True}),
        ("upload_folder", "someone/net", {"revision": None, "commit_message": "Upload HyenaGLT"}),
    ]
    assert hub.tokens == ["t"]
    net.save_pretrained(tmp_path / "here")
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert {path.name for path in hub.folder.iterdir()} == names
    assert all((hub.folder / name).read_bytes() == (tmp_path / "here" / name).read_bytes() for name in names)
    with torch.no_grad():
        assert torch.equal(HyenaGLT.from_pretrained(hub.folder)(TOKENS).logits, net(TOKENS).logits)


def test_a_branch_is_made_for_an_upload(small_net, hub):
    small_net().push_to_hub("someone/net", revision="v2", commit_message="second")
    assert hub.calls[1:] == [
        ("create_branch", "someone/net", {"branch": "v2", "exist_ok": True}),
        ("upload_folder", "someone/net", {"revision": "v2", "commit_message": "second"}),
    ]


def test_without_a_network_an_upload_says_so_in_one_line(small_net, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SystemProblem, match=r"'someone/net' was not uploaded: .*check the network") as caught:
        small_net().push_to_hub("someone/net")
    assert "\n" not in str(caught.value)


def test_what_the_transport_raises_is_a_system_problem(small_net, hub, monkeypatch):
    def refuse(api, **options):
        raise RuntimeError("401 Client Error\nmore lines")

    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", refuse)
    with pytest.raises(SystemProblem, match="401 Client Error; check"):
        small_net().push_to_hub("someone/net")


def test_a_name_that_the_hub_does_not_allow_is_refused(small_net, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="repo_id: expected 'user/name', got 'no such: name'"):
        small_net().push_to_hub("no such: name")


def test_a_damaged_net_is_not_uploaded(small_net, hub):
    net = small_net()
    with torch.no_grad():
        net.head.project.bias[0] = float("nan")
    with pytest.raises(ModelFileError, match="expected finite weights"):
        net.push_to_hub("someone/net")
    assert hub.calls == []
