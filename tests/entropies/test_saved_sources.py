"""Saved entropy models, opened by what their file says they are."""

from __future__ import annotations

import subprocess
import sys

import pytest
from safetensors.numpy import save_file

from hyena_glt.entropies import ByteNetwork, MarkovEntropy, MixEntropy, NeuralEntropy
from hyena_glt.entropies.saved_sources import load_source, saved_format
from hyena_glt.errors import ModelFileError

DNA = "ACGTTGCATTAGC" * 9


@pytest.mark.parametrize(
    "model",
    [MarkovEntropy.fit([DNA], order=2), MixEntropy(), NeuralEntropy(ByteNetwork(width=8, layers=1, outputs=4))],
    ids=["markov", "mix", "neural"],
)
def test_each_kind_is_opened_as_what_it_was(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    loaded = load_source(tmp_path / "m.safetensors")
    assert type(loaded) is type(model)
    assert loaded.entropies(DNA).tolist() == model.entropies(DNA).tolist()


def test_a_bare_network_is_refused_with_the_way_out(tmp_path):
    ByteNetwork(width=8, layers=1).save(tmp_path / "n.safetensors")
    with pytest.raises(ModelFileError, match=r"a bare network is one: NeuralEntropy\("):
        load_source(tmp_path / "n.safetensors")


@pytest.mark.parametrize("metadata", [None, {"hyena_glt": "{}"}, {"hyena_glt": '{"format": "hyena-glt/patcher/1"}'}])
def test_what_is_no_entropy_model_is_refused(tmp_path, metadata):
    save_file({}, tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(ModelFileError, match="expected an entropy model of format"):
        load_source(tmp_path / "x.safetensors")


def test_what_is_no_file_is_refused(tmp_path):
    for name, content, message in (("none", None, "no such file"), ("text", b"ACGT", "not a readable safetensors")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            load_source(tmp_path / name)
    (tmp_path / "bad").write_bytes(b"")
    with pytest.raises(ModelFileError, match="not a readable safetensors"):
        saved_format(tmp_path / "bad")


def test_a_table_is_opened_without_torch(tmp_path):
    MarkovEntropy.fit([DNA], order=1).save(tmp_path / "m.safetensors")
    program = (
        "import sys; from hyena_glt.entropies.saved_sources import load_source; "
        f"load_source({str(tmp_path / 'm.safetensors')!r}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "False\n"
