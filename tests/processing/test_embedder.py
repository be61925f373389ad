"""`GenomeEmbedder`: scikit-learn's manners, without scikit-learn, and vectors that `hyena-glt embed` gives too."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher, PatcherArgs
from hyena_glt.errors import AlphabetError, ConfigError, DataError
from hyena_glt.processing import GenomeEmbedder
from hyena_glt.sequences.alphabets import reverse_complement
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

SEQUENCES = [generate_random_genomic_sequence(length, seed=length) for length in (300, 41, 700, 64)]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    config = HyenaGLTConfig.preset("tiny", causal=False, genomic_vocab_size=4)
    return HyenaGLT(config, Patcher(patching_mode="static", patch_size=8)).eval()


def test_a_vector_is_the_mean_of_the_patch_states(net):
    vectors = GenomeEmbedder(net).fit_transform(SEQUENCES)
    assert vectors.shape == (4, 128)
    assert vectors.dtype == np.float32
    for sequence, vector in zip(SEQUENCES, vectors, strict=True):
        with torch.inference_mode():
            states = net.forward_with_patching(sequence).last_hidden_state[0]
        assert np.allclose(vector, states.mean(dim=0).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"pool": "max"}, {"layer": 1}, {"rc": "avg"}, {"window": 64}])
def test_a_vector_depends_on_its_sequence_alone(net, options):
    embedder = GenomeEmbedder(net, batch_size=3, **options).fit(SEQUENCES)
    together = embedder.transform(SEQUENCES)
    alone = [GenomeEmbedder(net, batch_size=1, **options).fit(SEQUENCES).transform([s])[0] for s in SEQUENCES]
    assert np.allclose(together, alone, rtol=1e-5, atol=1e-6)
    assert np.allclose(embedder.transform(SEQUENCES[::-1]), together[::-1], rtol=1e-5, atol=1e-6)


def test_the_average_of_both_strands_is_that_of_the_other(net):
    embedder = GenomeEmbedder(net, rc="avg").fit(SEQUENCES)
    others = [reverse_complement(sequence) for sequence in SEQUENCES]
    assert np.allclose(embedder.transform(SEQUENCES), embedder.transform(others), rtol=1e-5, atol=1e-6)


def test_fit_calibrates_where_there_is_no_patcher(tmp_path):
    torch.manual_seed(0)
    HyenaGLT(HyenaGLTConfig.preset("tiny", causal=False, genomic_vocab_size=4)).save_pretrained(tmp_path / "net")
    embedder = GenomeEmbedder(tmp_path / "net", target_length=8).fit([SEQUENCES[0], SEQUENCES[2]])
    assert embedder.args_.threshold > 0
    assert embedder.entropy_model_ is not None
    before = embedder.transform(SEQUENCES[:1])
    assert np.array_equal(embedder.transform(SEQUENCES[:1]), before)
    assert embedder.transform(SEQUENCES).shape == (4, 128)


def test_the_net_that_ships_is_the_default(net, tmp_path, monkeypatch):
    from hyena_glt.model import shipped

    net.save_pretrained(tmp_path / "net")
    monkeypatch.setattr(shipped, "SHIPPED_FOLDER", tmp_path / "net")
    assert np.array_equal(GenomeEmbedder().fit_transform(SEQUENCES), GenomeEmbedder(net).fit_transform(SEQUENCES))


def test_arrays_and_bytes_are_sequences_too(net):
    embedder = GenomeEmbedder(net).fit(SEQUENCES)
    expected = embedder.transform(SEQUENCES)
    for form in (np.array(SEQUENCES), np.array(SEQUENCES, object)[:, None], [s.encode() for s in SEQUENCES]):
        assert np.array_equal(embedder.transform(form), expected)
    assert embedder.transform([]).shape == (0, 128)


@pytest.mark.parametrize(
    ("sequences", "error", "said"),
    [
        ("ACGT", ConfigError, "list of sequences"),
        (["ACGT", ""], DataError, "sequence 1"),
        (["ACGT", "NNNN"], DataError, "sequence 1"),
        (["ACGT", 7], DataError, "sequence 1"),
        (["ACGT", "AC!T"], AlphabetError, "!"),
        (np.zeros((2, 2)), ConfigError, "shape"),
    ],
)
def test_what_is_no_list_of_sequences_is_refused(net, sequences, error, said):
    with pytest.raises(error, match=said):
        GenomeEmbedder(net).fit(["ACGT"]).transform(sequences)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pool": "patch"}, "pool"),
        ({"rc": "both"}, "rc"),
        ({"layer": 5}, "layer"),
        ({"window": 0}, "window"),
        ({"batch_size": 0}, "batch_size"),
        ({"rc": "avg", "alphabet": "protein"}, "strand"),
        ({"patcher": PatcherArgs(threshold=1.3)}, "entropy model"),
    ],
)
def test_options_are_checked_by_fit(net, options, said):
    with pytest.raises(ConfigError, match=said):
        GenomeEmbedder(net, **options).fit(SEQUENCES)


def test_nothing_works_before_fit(net):
    for call in (lambda e: e.transform(SEQUENCES), lambda e: e.get_feature_names_out()):
        with pytest.raises(ConfigError, match="fit"):
            call(GenomeEmbedder(net))
    with pytest.raises(ConfigError, match="model"):
        GenomeEmbedder(7).fit(SEQUENCES)


def test_parameters_are_read_and_set(net):
    embedder = GenomeEmbedder(net)
    assert embedder.get_params()["pool"] == "mean"
    assert embedder.set_params(pool="max", layer=0) is embedder
    assert (embedder.pool, embedder.layer) == ("max", 0)
    assert GenomeEmbedder(**embedder.get_params()).get_params() == embedder.get_params()
    with pytest.raises(ConfigError, match="pols"):
        embedder.set_params(pols="max")


def test_names_of_the_numbers(net):
    names = GenomeEmbedder(net).fit(SEQUENCES).get_feature_names_out()
    assert names[:2].tolist() == ["hyenaglt0", "hyenaglt1"]
    assert names.shape == (128,)


def test_it_stands_in_a_pipeline(net):
    pytest.importorskip("sklearn")
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline

    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list(letters), 60)) for letters in ("AAT", "GGC") * 8]
    labels = [0, 1] * 8
    copied = clone(GenomeEmbedder(net, pool="max"))
    assert copied.pool == "max"
    assert copied.get_params().keys() == GenomeEmbedder(net).get_params().keys()
    pipeline = Pipeline([("embed", GenomeEmbedder(net)), ("classify", LogisticRegression())])
    pipeline.fit(sequences[:12], labels[:12])
    assert pipeline.predict(sequences[12:]).tolist() == labels[12:]
    assert pipeline[:-1].get_feature_names_out().shape == (128,)
    search = GridSearchCV(pipeline, {"embed__layer": [0, -1]}, cv=2).fit(sequences, labels)
    assert search.best_score_ > 0.9


def test_scikit_learn_is_not_imported(tmp_path):
    code = (
        "import sys; from hyena_glt.processing import GenomeEmbedder; from hyena_glt import *; "
        "net = HyenaGLT(HyenaGLTConfig.preset('tiny'), Patcher(patching_mode='static', patch_size=8)); "
        "print(GenomeEmbedder(net).fit_transform(['ACGTACGT']).shape, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 128) False"
