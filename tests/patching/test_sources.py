from __future__ import annotations

import numpy as np
import pytest
import torch

from hyena_glt.entropies import ByteNetwork, MarkovEntropy, MixEntropy, NeuralEntropy
from hyena_glt.errors import ConfigError, ModelFileError, PatchingError, SystemProblem
from hyena_glt.patching import Patcher, PatcherArgs
from hyena_glt.patching.rows import read_rows
from hyena_glt.patching.sources import AutoEntropy, dna_share, likely_alphabet, resolve_source, score_rows

DNA = "ACGTTGCAAGCT" * 40


def tokens_of(text):
    return read_rows(text).row(0)


@pytest.mark.parametrize(
    ("text", "alphabet"),
    [
        (DNA, "dna"),
        (DNA.lower(), "dna"),
        ("ACGUUGCA", "dna"),
        ("ACGT" * 9 + "RYKM", "dna"),
        ("MKVLAAGIVGLC", "protein"),
        ("Hello, world. 12", "bytes"),
        ("été", "bytes"),
    ],
)
def test_the_alphabet_is_the_narrowest_that_fits(text, alphabet):
    assert likely_alphabet(tokens_of(text)).name == alphabet


def test_special_tokens_are_no_bytes():
    assert dna_share(np.array([1, 69, 71, 2])) == 1.0
    assert dna_share(np.array([1, 2])) == 0.0


def test_auto_scores_each_row_by_a_model_of_its_own():
    other = "TTTTTTTTGCA" * 30
    _, scores = Patcher(threshold=1.0).patch([DNA, other])
    for row, text in enumerate((DNA, other)):
        model = MarkovEntropy.fit([text])
        assert scores[row, : len(text)].tolist() == model.entropies(text).tolist()


@pytest.mark.filterwarnings("ignore::hyena_glt.patching.PatchingWarning")
@pytest.mark.parametrize("text", ["N" * 20, "", "\n\n", "A"])
def test_auto_takes_rows_with_nothing_to_fit_on(text):
    lengths, scores = Patcher().patch(text)
    assert int(lengths.sum()) == len(text)
    assert not torch.isnan(scores).any()


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_saved_model_is_read(tmp_path, kind):
    model = MarkovEntropy.fit([DNA], order=2)
    path = tmp_path / "model.safetensors"
    model.save(path)
    by_path = Patcher(entropy_model=kind(path), threshold=1.0)
    by_folder = Patcher(entropy_model_checkpoint_dir=str(tmp_path), threshold=1.0)
    live = Patcher(entropy_model=model, threshold=1.0)
    for patcher in (by_path, by_folder):
        assert torch.equal(patcher.patch(DNA)[1], live.patch(DNA)[1])


def test_missing_and_damaged_models_are_named_when_the_patcher_is_built(tmp_path):
    with pytest.raises(ModelFileError, match=r"nothing\.safetensors"):
        Patcher(entropy_model=str(tmp_path / "nothing.safetensors"))
    with pytest.raises(ModelFileError, match=r"one \.safetensors, found 0"):
        Patcher(entropy_model_checkpoint_dir=str(tmp_path))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 50)
    with pytest.raises(ModelFileError, match="damaged"):
        Patcher(entropy_model=str(damaged))


class Fixed:
    """A source without forced starts."""

    def __init__(self, values):
        self.values = values

    def entropies(self, tokens):
        return self.values


@pytest.mark.parametrize("values", [np.zeros(3), np.array([0, np.nan, 0, 0]), np.zeros((1, 4))])
def test_scores_of_another_length_or_nan_are_refused(values):
    with pytest.raises(PatchingError, match="numbers from Fixed"):
        Patcher(threshold=1.0, entropy_model=Fixed(values)).patch("ACGT")


def test_any_object_with_entropies_is_a_source():
    values = torch.tensor([0.0, 2.0, 0.0, 0.0])
    scored = score_rows(Fixed(values), read_rows("ACGT"), PatcherArgs())
    assert scored.scores.tolist() == [values.tolist()]
    assert scored.forced is None


def test_none_and_auto_are_the_same_source():
    assert isinstance(resolve_source(PatcherArgs()), AutoEntropy)
    assert isinstance(resolve_source(PatcherArgs(entropy_model="auto")), AutoEntropy)
    with pytest.raises(ConfigError, match="got int"):
        resolve_source(PatcherArgs(entropy_model=3))


def test_a_network_is_run_where_its_weights_are():
    network = torch.nn.Embedding(260, 260)
    patcher = Patcher(threshold=5.0, entropy_model=network, patching_batch_size=2)
    lengths, scores = patcher.patch(["ACGT", "AC", "A"])
    assert lengths.sum(dim=1).tolist() == [4, 2, 1]
    assert scores.device == network.weight.device
    assert not scores.requires_grad


def test_every_kind_of_saved_model_is_a_source(tmp_path):
    neural = NeuralEntropy(ByteNetwork(width=8, outputs=4, layers=1), window=128)
    neural.save(tmp_path / "neural.safetensors")
    mix = MixEntropy.fit([DNA])
    mix.stream().save(tmp_path / "mix.safetensors")
    for name, model in (("neural", neural), ("mix", mix)):
        patcher = Patcher(entropy_model=str(tmp_path / f"{name}.safetensors"), threshold=1.0)
        assert patcher.patch(DNA)[1].tolist() == [model.entropies(DNA).tolist()]
        assert patcher.is_causal


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_neural_model_goes_to_the_patching_device(tmp_path):
    path = tmp_path / "neural.safetensors"
    NeuralEntropy(ByteNetwork(width=8, outputs=4, layers=1), window=128).save(path)
    assert Patcher(entropy_model=path, patching_device="cpu", threshold=1.0)._source().device.type == "cpu"
    with pytest.raises(SystemProblem, match="CUDA"):
        Patcher(entropy_model=path, patching_device="cuda", threshold=1.0)
