"""The network of bpe_patcher mode: labels, what is learned, windows, and patchers that are saved with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from hyena_glt.entropies import ByteNetwork, ByteNetworkConfig, FitOptions, MarkovEntropy
from hyena_glt.entropies.network_fit import IGNORED
from hyena_glt.entropies.windows import WindowPlan
from hyena_glt.errors import ConfigError, DataError, HyenaGLTError, ModelFileError
from hyena_glt.patching import Patcher, find_bpe_patcher_patch_start_ids
from hyena_glt.patching import bpe_network as bpe
from hyena_glt.patching.bpe_network import (
    BpePatcherNetwork,
    boundary_scores,
    fit_bpe_patcher,
    load_bpe_network,
    matching_margin,
    start_labels,
)
from hyena_glt.patching.tokenizer_starts import load_tokenizer
from hyena_glt.sequences.alphabets import DNA, PROTEIN
from hyena_glt.sequences.fasta import read_records
from hyena_glt.tokens.byte_tokenizer import BPE_ID, PAD_ID

SMALL = ByteNetworkConfig(width=16, conv_taps=4, filter_taps=8, layers=1, outputs=2)
OPTIONS = FitOptions(steps=120, batch_size=8, window=64, learning_rate=0.01)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    """Tokens A C G T AC GT ACGT; the merges are decided by two letters or four."""
    vocab = {token: index for index, token in enumerate(["A", "C", "G", "T", "AC", "GT", "ACGT"])}
    merges = [("A", "C"), ("G", "T"), ("AC", "GT")]
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    Tokenizer(models.BPE(vocab=vocab, merges=merges)).save(str(path))
    return path


def words(count, seed):
    """Words of the tokenizer that no merge joins: what comes next is decided by the letters so far."""
    return "".join(np.random.default_rng(seed).choice(["ACGT", "TTT", "CCC"], count))


@pytest.fixture(scope="module")
def fitted(tokenizer_file):
    return fit_bpe_patcher([words(1_500, 1), words(300, 2)], tokenizer_file, config=SMALL, options=OPTIONS)


def network_of(**options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return BpePatcherNetwork(ByteNetwork(SMALL), **options)


same_size = st.integers(1, 50).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n)))


@given(pair=same_size)
def test_scores_are_those_of_the_definition(pair):
    predicted, true = pair
    scores = boundary_scores(predicted, true)
    hits = sum(bool(a and b) for a, b in zip(predicted, true, strict=True))
    assert scores.precision == (hits / predicted.sum() if predicted.any() else 0.0)
    assert scores.recall == (hits / true.sum() if true.any() else 0.0)
    both = scores.precision + scores.recall
    assert scores.f1 == pytest.approx(2 * scores.precision * scores.recall / both if both else 0.0)
    assert scores.baselines()["always"] == pytest.approx(boundary_scores(np.ones_like(true), true).f1)
    assert boundary_scores(np.zeros_like(true), true).f1 == scores.baselines()["none"] == 0.0


def test_the_random_baseline_is_what_a_random_predictor_gets():
    generator = np.random.default_rng(0)
    predicted, true = generator.random(200_000) < 0.3, generator.random(200_000) < 0.2
    scores = boundary_scores(predicted, true)
    assert scores.f1 == pytest.approx(scores.baselines()["random"], abs=0.01)


def test_what_cannot_be_compared_is_refused():
    for predicted, true in (([], []), ([True], [True, False])):
        with pytest.raises(DataError, match="predicted: expected as many entries"):
            boundary_scores(predicted, true)


def test_labels_say_what_the_tokenizer_says(tokenizer_file):
    tokenizer = load_tokenizer(tokenizer_file)
    labels = start_labels(DNA.encode("acgtTACNNTTAC"), DNA, tokenizer, tokenizer_file)
    #                                A  C  G  T  T  A  C        N        N        T  T  A  C
    assert labels.tolist() == [0, 0, 0, 1, 1, 0, IGNORED, IGNORED, IGNORED, 1, 1, 0, IGNORED]
    for text in ("", "N", "NN", "A"):
        assert (start_labels(DNA.encode(text), DNA, tokenizer, tokenizer_file) == IGNORED).all()
    with pytest.raises(ModelFileError, match="no token for 'M'"):
        start_labels(PROTEIN.encode("ACM"), PROTEIN, tokenizer, tokenizer_file)


def test_long_sequences_are_tokenised_in_pieces(tokenizer_file, monkeypatch):
    tokenizer, codes = load_tokenizer(tokenizer_file), DNA.encode(words(50, 3))
    whole = start_labels(codes, DNA, tokenizer, tokenizer_file)
    monkeypatch.setattr(bpe, "PIECE", 20)
    pieces = start_labels(codes, DNA, tokenizer, tokenizer_file)
    assert np.flatnonzero(pieces == IGNORED).tolist() == [*range(19, codes.size, 20), codes.size - 1]
    assert (pieces == whole).mean() > 0.8


def test_what_the_past_decides_is_learned(fitted, tokenizer_file):
    scores = fitted.held_out
    assert scores.f1 > 0.85
    assert scores.f1 > max(scores.baselines().values())
    assert fitted.losses[-1] < fitted.losses[0]
    assert fitted.patcher.tokenizer_sha256 == bpe.sha256_file(tokenizer_file)


def test_as_many_starts_are_predicted_as_there_are(fitted):
    assert fitted.held_out.predicted_rate == pytest.approx(fitted.held_out.true_rate, rel=0.15)
    rows = [np.frombuffer(words(70, 12).encode()[:196], np.uint8).astype(np.int16) + 4]
    labels = [np.where(np.arange(196) % 4, 0, 1)]
    patcher = network_of()
    patcher.margin = matching_margin(patcher, rows, labels)
    assert patcher.delimiters(rows[0]).sum() == pytest.approx(49, abs=5)
    assert matching_margin(patcher, rows, [np.zeros(196, np.int16)]) == 0.0


def test_the_patcher_gives_the_tokenizer_s_patches(fitted, tokenizer_file):
    text = words(60, 9)
    learned = Patcher(patching_mode="bpe_patcher", entropy_model=fitted.patcher)
    exact = Patcher(patching_mode="bpe", model_name=str(tokenizer_file))
    cuts = [patcher.patch_with_boundaries(text)[1].tolist() for patcher in (learned, exact)]
    assert len(set(cuts[0]) & set(cuts[1])) / len(cuts[1]) > 0.8


@pytest.mark.parametrize("plan", [None, WindowPlan(16, 13), WindowPlan(16, 13, 3)])
def test_a_row_gives_the_same_alone_and_in_any_batch(fitted, plan):
    patcher = BpePatcherNetwork(fitted.patcher.network, margin=fitted.patcher.margin, plan=plan)
    texts = [words(n, n) for n in (40, 1, 9)] + ["A", ""]
    together, _ = Patcher(patching_mode="bpe_patcher", entropy_model=patcher).patch(texts)
    for row, text in zip(together, texts, strict=True):
        alone, _ = Patcher(patching_mode="bpe_patcher", entropy_model=patcher).patch([text])
        assert row[row > 0].tolist() == alone[alone > 0].tolist()
        assert int(row.sum()) == len(text)


def test_windows_that_overlap_by_the_reach_change_nothing(fitted):
    text = words(100, 11)
    narrow = BpePatcherNetwork(fitted.patcher.network, plan=WindowPlan(64, SMALL.reach))
    wide = BpePatcherNetwork(fitted.patcher.network)
    assert np.array_equal(narrow.delimiters(text), wide.delimiters(text))


def test_it_is_a_callable_from_tokens_to_logits(fitted):
    tokens = torch.tensor([[ord(base) + 4 for base in words(20, 5)]])
    tokens = torch.cat([tokens, torch.full((1, 3), PAD_ID)], dim=1)
    logits = fitted.patcher(tokens)
    assert logits.shape == (*tokens.shape, BPE_ID + 1)
    found = logits.argmax(-1) == BPE_ID
    assert found[0, :-3].tolist() == fitted.patcher.delimiters(tokens[0, :-3].numpy()).tolist()
    plain = find_bpe_patcher_patch_start_ids(tokens, lambda window: fitted.patcher(window), 1)
    assert plain.tolist() == find_bpe_patcher_patch_start_ids(tokens, fitted.patcher, 1).tolist()


def test_case_is_folded(fitted):
    text = words(30, 6)
    assert np.array_equal(fitted.patcher.delimiters(text.lower()), fitted.patcher.delimiters(text))


def test_a_saved_network_says_the_same(fitted, tmp_path):
    path = tmp_path / "n.safetensors"
    fitted.patcher.save(path)
    text = words(50, 7)
    for again in (BpePatcherNetwork.load(path), load_bpe_network(path)):
        assert np.array_equal(again.delimiters(text), fitted.patcher.delimiters(text))
        assert again.describe() == fitted.patcher.describe()


@pytest.mark.parametrize("named_by", ["object", "path", "folder"])
def test_a_patcher_is_saved_with_its_network(fitted, tmp_path, named_by):
    path = tmp_path / "in" / "n.safetensors"
    path.parent.mkdir()
    fitted.patcher.save(path)
    named = {
        "object": {"entropy_model": fitted.patcher},
        "path": {"entropy_model": str(path)},
        "folder": {"entropy_model_checkpoint_dir": str(path.parent)},
    }
    patcher = Patcher(patching_mode="bpe_patcher", max_patch_length=6, **named[named_by])
    expected = patcher.patch(words(40, 8))[0]
    patcher.save(tmp_path / "out")
    path.unlink()
    loaded = Patcher.load(tmp_path / "out")
    assert torch.equal(loaded.patch(words(40, 8))[0], expected)
    assert isinstance(loaded.entropy_model, BpePatcherNetwork)


def test_the_file_is_read_once(fitted, tmp_path):
    fitted.patcher.save(tmp_path / "n.safetensors")
    patcher = Patcher(patching_mode="bpe_patcher", entropy_model=str(tmp_path / "n.safetensors"))
    first = patcher.patch(words(9, 1))[0]
    (tmp_path / "n.safetensors").unlink()
    assert torch.equal(patcher.patch(words(9, 1))[0], first)


def test_the_wrong_kind_of_model_is_named(fitted, tmp_path):
    MarkovEntropy.fit(["ACGT" * 9], order=2).save(tmp_path / "markov.safetensors")
    fitted.patcher.save(tmp_path / "bpe.safetensors")
    with pytest.raises(ModelFileError, match="expected the network of a bpe_patcher"):
        Patcher(patching_mode="bpe_patcher", entropy_model=str(tmp_path / "markov.safetensors")).patch("ACGT")
    with pytest.raises(ModelFileError, match="expected an entropy model of format"):
        Patcher(entropy_model=str(tmp_path / "bpe.safetensors"), threshold=1.0)
    with pytest.raises(ModelFileError, match=r"none\.safetensors"):
        Patcher(patching_mode="bpe_patcher", entropy_model=str(tmp_path / "none.safetensors")).patch("ACGT")
    with pytest.raises(ModelFileError, match=r"one \.safetensors, found 2"):
        Patcher(patching_mode="bpe_patcher", entropy_model_checkpoint_dir=str(tmp_path)).patch("ACGT")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": "much"}, "damaged description"),
        ({"plan": {"window": 4, "overlap": 9}}, "damaged description"),
        ({"plan": {"windows": 4}}, "damaged description"),
        ({"alphabet": "klingon"}, "damaged description"),
        ({"format": "other"}, "format: expected"),
    ],
)
def test_damaged_files_are_refused(tmp_path, changes, message):
    path = tmp_path / "n.safetensors"
    network_of().save(path)
    about = {"format": bpe.FORMAT, "alphabet": "dna", "margin": 0.0, "plan": {}, "tokenizer_sha256": ""}
    about["network"] = SMALL.model_dump()
    save_file(load_file(path), path, {"hyena_glt": json.dumps({**about, **changes})})
    with pytest.raises(ModelFileError, match=message):
        BpePatcherNetwork.load(path)


def test_what_cannot_be_trained_is_said(tokenizer_file, tmp_path):
    with pytest.raises(ConfigError, match="held_out"):
        fit_bpe_patcher(["ACGT"], tokenizer_file, held_out=1.0)
    with pytest.raises(DataError, match="no target"):
        fit_bpe_patcher(["NNNN"], tokenizer_file)
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        fit_bpe_patcher(["ACGT"], tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(HyenaGLTError, match="not a tokenizer"):
        fit_bpe_patcher(["ACGT"], tmp_path / "bad.json")
    with pytest.raises(ConfigError, match="expected 2 outputs"):
        BpePatcherNetwork(ByteNetwork(SMALL.model_copy(update={"outputs": 3})))


def test_without_held_out_sequence_there_is_no_score(tokenizer_file):
    options = FitOptions(steps=2, batch_size=2, window=16)
    fit = fit_bpe_patcher(words(20, 1), tokenizer_file, config=SMALL, options=options, held_out=0)
    assert fit.held_out is None
    assert fit.num_symbols == len(words(20, 1))


def test_on_a_genome_it_beats_chance(data, tmp_path):
    from tokenizers import trainers

    genome = next(read_records(data("genomes/lambda_NC_001416.1.fa"))).sequence
    tokenizer = Tokenizer(models.BPE())
    text = genome.decode().upper()
    trainer = trainers.BpeTrainer(vocab_size=64, show_progress=False)
    tokenizer.train_from_iterator([text[i : i + 1000] for i in range(0, len(text), 1000)], trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    fit = fit_bpe_patcher([genome], tmp_path, config=SMALL, options=OPTIONS)
    assert fit.held_out.f1 > fit.held_out.baselines()["random"] + 0.05
