"""A saved net read by transformers: the same files, the same outputs, the same refusals."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from hyena_glt.adapters import PatcherAdapter
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, MissingExtraError, ModelFileError, PatchingError
from hyena_glt.model import HyenaGLT
from hyena_glt.patching import Patcher
from hyena_glt.tokens import ByteTokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
FILES = ("config.json", "manifest.json", "model.safetensors", "patcher.json")


@pytest.fixture(scope="module")
def transformers():
    """The package, with this project's classes registered."""
    package = pytest.importorskip("transformers", reason="needs the extra [hf] (transformers)")
    from hyena_glt.model.huggingface import register

    register()
    register()
    return package


@pytest.fixture
def net(small_net) -> HyenaGLT:
    return small_net(Patcher(patching_mode="static", patch_size=4), num_labels=5)


@pytest.fixture
def folder(net, tmp_path) -> Path:
    net.save_pretrained(tmp_path / "net")
    return tmp_path / "net"


@pytest.fixture
def tokens(random_dna) -> torch.Tensor:
    """Two rows, the second one shorter."""
    rows = [ByteTokenizer().encode(random_dna(length, seed=length)) for length in (30, 21)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "hyena_glt.model.huggingface", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'hyena-glt\[hf\]'") as caught:
        importlib.import_module("hyena_glt.model.huggingface")
    assert "\n" not in str(caught.value)


def test_auto_config_reads_the_fields_of_the_net(transformers, net, folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    assert config.net_config == net.config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size, config.num_labels) == (24, 3, 260, 5)
    assert config.to_dict() == json.loads((folder / "config.json").read_text())


def test_a_configuration_goes_to_a_file_and_back(transformers, folder, tmp_path):
    config = transformers.AutoConfig.from_pretrained(folder)
    config.dropout = 0.25
    config.num_hidden_layers = 4
    config.save_pretrained(tmp_path)
    again = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (again.net_config.dropout, again.net_config.num_layers) == (0.25, 4)
    assert again.net_config == config.net_config == copy.deepcopy(config).net_config


def test_a_configuration_refuses_what_the_net_refuses(transformers, folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    with pytest.raises(ConfigError, match="hidden_size"):
        config.hidden_size = -1
    with pytest.raises(ConfigError, match="dropout"):
        transformers.AutoConfig.for_model("hyena_glt", dropout=2)
    with pytest.raises(AttributeError, match="num_heads"):
        _ = config.num_heads
    assert config.hidden_size == 24


@pytest.mark.parametrize("causal", [True, False])
def test_auto_model_gives_the_states_of_the_net(transformers, small_net, tokens, tmp_path, causal):
    net = small_net(Patcher(patching_mode="static", patch_size=4), causal=causal)
    net.save_pretrained(tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path)
    assert not model.training
    with torch.no_grad():
        expected = net(tokens)
        found = model(tokens.clamp_min(0), attention_mask=(tokens >= 0).long())
        first = model(tokens, return_dict=False)[0]
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
    assert torch.equal(found.byte_hidden_state, expected.byte_hidden_state)
    assert torch.equal(found.patch_lengths, expected.patch_lengths)
    assert torch.equal(first, expected.last_hidden_state)
    assert set(found) == {"last_hidden_state", "byte_hidden_state", "patch_lengths"}


def test_auto_model_for_causal_lm_gives_the_logits_and_the_loss_of_the_net(transformers, net, folder, tokens):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    mask = (tokens >= 0).long()
    with torch.no_grad():
        expected = net(tokens, compute_loss=True)
        found = model(tokens.clamp_min(0), mask, labels=tokens.masked_fill(tokens < 0, -100))
        padded = model(tokens.clamp_min(0), mask, labels=tokens.clamp_min(0))
        given = model(tokens, patch_lengths=expected.patch_lengths)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(given.logits, expected.logits)
    assert found.loss == padded.loss == expected.loss
    assert given.loss is None
    assert found[0] is found.loss


@pytest.mark.parametrize(
    "changes", [{}, {"boundaries": "learned"}, {"genomic_vocab_size": 4}, {"causal": False}], ids=str
)
def test_both_sides_write_the_same_files(transformers, small_net, tmp_path, changes):
    patcher = None if "boundaries" in changes else Patcher(patching_mode="static", patch_size=4)
    net = small_net(patcher, **changes)
    net.save_pretrained(tmp_path / "a")
    transformers.AutoModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b", safe_serialization=True)
    for name in FILES if patcher else FILES[:3]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    loaded = HyenaGLT.from_pretrained(tmp_path / "b")
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in net.state_dict().items())
    assert transformers.AutoModel.from_pretrained(tmp_path / "b").net.config == net.config


def test_the_weights_have_the_names_of_the_file_and_are_shared(transformers, net):
    from hyena_glt.model.huggingface import HFHyenaGLTForCausalLM

    model = HFHyenaGLTForCausalLM.from_net(net)
    assert model.net is net
    assert list(model.state_dict()) == list(net.state_dict())
    assert [id(weight) for weight in model.parameters()] == [id(weight) for weight in net.parameters()]
    model.train()
    assert net.training
    assert net.trunk.training
    twin = copy.deepcopy(model)
    assert twin.net.head is twin.head
    assert twin.head is not model.head


def test_the_patcher_comes_with_the_net(transformers, small_net, random_dna, tmp_path):
    sequences = [random_dna(500)]
    patcher = Patcher(entropy_model=MarkovEntropy.fit(sequences), threshold=1.37)
    small_net(patcher).save_pretrained(tmp_path)
    tokens = ByteTokenizer().encode(sequences[0]).unsqueeze(0)
    model = transformers.AutoModel.from_pretrained(tmp_path)
    assert torch.equal(model(tokens).patch_lengths, patcher.patch(sequences)[0])
    other = Patcher(patching_mode="static", patch_size=10)
    replaced = transformers.AutoModel.from_pretrained(tmp_path, external_patcher=other)
    assert set(replaced(tokens).patch_lengths.flatten().tolist()) == {10}


def test_fields_can_be_replaced_while_loading(transformers, folder):
    from hyena_glt.model.huggingface import HFHyenaGLT

    for load in (transformers.AutoModel.from_pretrained, HFHyenaGLT.from_pretrained):
        model = load(folder, mixed_precision="bf16", device_map="cpu")
        assert model.net.config.mixed_precision == model.config.mixed_precision == "bf16"
    with pytest.raises(ModelFileError, match="missing tensors"):
        transformers.AutoModel.from_pretrained(folder, num_layers=5)
    (folder / "empty").mkdir()
    for options in ({}, {"dropout": 0.5}):
        with pytest.raises(ModelFileError, match="empty"):
            HFHyenaGLT.from_pretrained(folder / "empty", **options)
    model, report = HFHyenaGLT.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    assert model.num_parameters() == sum(weight.numel() for weight in model.net.parameters())


def test_a_model_is_made_from_a_configuration(transformers, folder, tokens):
    config = transformers.AutoConfig.from_pretrained(folder)
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config)
    torch.manual_seed(3)
    fresh = HyenaGLT(config.net_config)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in fresh.state_dict().items())
    with pytest.raises(ConfigError, match="expected a patcher, got none"):
        model(tokens)


def test_what_cannot_be_is_refused(transformers, small_net, folder, tokens, tmp_path):
    from hyena_glt.model.huggingface import HFHyenaGLT

    small_net(causal=False).save_pretrained(tmp_path / "both")
    with pytest.raises(ConfigError, match="expected causal=True"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "both")
    for options, reason in (
        ({"dtype": "bfloat16"}, "mixed_precision='bf16'"),
        ({"hiden_size": 3}, "unknown option 'hiden_size'"),
        ({"device_map": {"head": "cpu", "trunk": "meta"}}, "expected one device"),
    ):
        with pytest.raises(ConfigError, match=reason):
            HFHyenaGLT.from_pretrained(folder, **options)
    model = HFHyenaGLT.from_pretrained(folder)
    with pytest.raises(ConfigError, match="safetensors only"):
        model.save_pretrained(tmp_path / "c", safe_serialization=False)
    with pytest.raises(ConfigError, match=r"push_to_hub\(repo_id\)"):
        model.save_pretrained(tmp_path / "c", push_to_hub=True)
    model.save_pretrained(tmp_path / "c", is_main_process=False)
    assert not (tmp_path / "c").exists()
    with pytest.raises(PatchingError, match="padding"):
        model(tokens, attention_mask=torch.ones_like(tokens).index_fill(1, torch.tensor([0]), 0))
    with pytest.raises(PatchingError, match="attention_mask"):
        model(tokens, attention_mask=torch.ones(2, 3))
    with pytest.raises(PatchingError, match="integers"):
        model(tokens.float())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_refused(transformers, folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data.replace(b"3", b"4", 1) if name == "config.json" else data[:-1] + b"\x01")
    with pytest.raises(ModelFileError, match=f"{name}: its sha256 differs"):
        transformers.AutoModel.from_pretrained(folder)


def test_a_repository_of_the_local_cache_is_read_and_no_other(transformers, folder, tmp_path):
    from hyena_glt.model.huggingface import HFHyenaGLT

    repository, commit = tmp_path / "cache" / "models--someone--net", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / commit)
    model = HFHyenaGLT.from_pretrained("someone/net", cache_dir=tmp_path / "cache")
    assert model.config.hidden_size == 24
    with pytest.raises(ConfigError, match="local_files_only=False lets it be downloaded"):
        HFHyenaGLT.from_pretrained("someone/other", cache_dir=tmp_path / "cache")


def test_generation_is_that_of_the_net(transformers, net, folder, tokens):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    mask = (tokens >= 0).long()
    drawn = model.generate(tokens.clamp_min(0), mask, max_new_tokens=6, temperature=0.0)
    assert torch.equal(drawn, net.generate(tokens, max_new_tokens=6, temperature=0.0))
    assert drawn.shape == (2, 36)


def test_gradient_checkpointing_changes_no_gradient(transformers, folder, tokens):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    grads = []
    for switch in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        switch()
        model.zero_grad()
        model.train()(tokens, labels=tokens).loss.backward()
        grads.append([weight.grad.clone() for weight in model.parameters()])
    assert model.is_gradient_checkpointing
    for plain, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_the_trainer_trains_saves_and_resumes(transformers, folder, random_dna, tmp_path):
    pytest.importorskip("accelerate", reason="the Trainer of transformers needs accelerate")
    rows = [ByteTokenizer().encode(random_dna(24, seed=seed)) for seed in range(8)]
    data = [{"input_ids": row, "labels": row} for row in rows]
    options = {"per_device_train_batch_size": 4, "report_to": "none", "use_cpu": True, "learning_rate": 1e-2}

    def trainer(steps: int):
        arguments = transformers.TrainingArguments(tmp_path / "run", max_steps=steps, save_steps=2, **options)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        return transformers.Trainer(model, arguments, train_dataset=data)

    whole = trainer(4)
    whole.train()
    resumed = trainer(4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    saved = HyenaGLT.from_pretrained(tmp_path / "run" / "checkpoint-4").state_dict()
    before = HyenaGLT.from_pretrained(folder).state_dict()
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor)
        torch.testing.assert_close(saved[name], tensor)
    assert any(not torch.equal(saved[name], before[name]) for name in before)


def test_a_fast_tokenizer_of_transformers_cuts(transformers, random_dna, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    text = random_dna(300)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=40, show_progress=False))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    adapter = PatcherAdapter(transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True))
    assert torch.equal(adapter.patch([text])[0], PatcherAdapter(tokenizer).patch([text])[0])
    patches, boundaries = adapter.patch_with_boundaries(text)
    assert "".join(patches) == text
    assert len(patches) == len(boundaries) == len(tokenizer.encode(text).ids)
