"""Bits per base of a net against the losses of single windows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.model import HyenaGLT
from hyena_glt.model.masked_bytes import mask_bytes
from hyena_glt.patching import Patcher
from hyena_glt.tokens import ByteTokenizer
from hyena_glt.training.corpus import Corpus
from hyena_glt.training.language_bits import bits_per_base
from hyena_glt.training.objectives import row_generator

SMALL = {"hidden_size": 24, "num_layers": 3, "local_hidden_size": 16, "ngram_table_size": 64, "filter_hidden_size": 8}


pytestmark = pytest.mark.usefixtures("one_thread")


def net_of(patcher=None, **changes) -> HyenaGLT:
    torch.manual_seed(0)
    return HyenaGLT(HyenaGLTConfig(**{**SMALL, "genomic_vocab_size": 4, "alphabet": "dna", **changes}), patcher)


def sequence(length: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def test_bits_are_the_mean_over_called_bases_of_all_windows():
    net = net_of(Patcher(patching_mode="static", patch_size=4)).eval()
    text = sequence(50) + "NNNNN" + sequence(45, 1)
    found = bits_per_base(net, Corpus.from_sequences({"a": text}), window=40, batch_size=2, resamples=50)
    nats, num = 0.0, 0
    for first in (0, 40, 80):
        window = text[first : first + 40]
        tokens = ByteTokenizer().encode(window).unsqueeze(0)
        with torch.no_grad():
            log_shares = net(tokens).logits[0].double().log_softmax(-1)
        for place in range(1, len(window)):
            if window[place] != "N":
                nats -= float(log_shares[place - 1, int(net.vocabulary_ids(tokens)[0, place])])
                num += 1
    assert (found.num_bases, found.num_windows) == (num, 3) == (92, 3)
    assert found.bits.value == pytest.approx(nats / num / math.log(2), rel=1e-6)
    assert found.bits.low <= found.bits.value <= found.bits.high


def test_bits_do_not_depend_on_the_batch_and_one_window_has_no_interval():
    for net in (
        net_of(Patcher(patching_mode="entropy", entropy_model="auto", threshold=1.2), causal=True),
        net_of(boundaries="learned", target_patch_length=4.0),
    ):
        corpus = Corpus.from_sequences({"a": sequence(100), "b": sequence(30, 2), "c": "NNN"})
        with pytest.warns() if net.external_patcher is not None else _nothing():
            one, many = (bits_per_base(net, corpus, window=32, batch_size=size, resamples=20) for size in (1, 8))
            whole = bits_per_base(net, Corpus.from_sequences({"a": sequence(100)}), window=4096)
        assert one.bits.value == pytest.approx(many.bits.value, rel=1e-5)
        assert one.num_bases == many.num_bases == 100 - 4 + 30 - 1
        assert (whole.num_windows, whole.bits.low) == (1, None)
        assert net.training


def test_a_net_that_sees_both_sides_predicts_what_is_hidden_from_it():
    """By the definition: the letters that `mask_bytes` hides, window by window, and the net's shares for them."""
    net = net_of(Patcher(patching_mode="static", patch_size=4), causal=False).eval()
    text = sequence(90) + "NNNNN"
    found = bits_per_base(net, Corpus.from_sequences({"a": text}), window=40, mask_rate=0.3, resamples=10, seed=5)
    nats, num = 0.0, 0
    for number, first in enumerate((0, 40, 80)):
        tokens = ByteTokenizer().encode(text[first : first + 40]).unsqueeze(0)
        inputs, labels = mask_bytes(tokens, 0.3, row_generator(5, 0, number))
        with torch.no_grad():
            log_shares = net(inputs).logits[0].double().log_softmax(-1)
        for place in torch.nonzero(labels[0] >= 0).flatten().tolist():
            nats -= float(log_shares[place, int(net.vocabulary_ids(labels)[0, place])])
            num += 1
    assert (found.num_bases, found.num_windows) == (num, 3)
    assert found.bits.value == pytest.approx(nats / num / math.log(2), rel=1e-6)


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_what_has_no_bits_is_refused():
    corpus = Corpus.from_sequences({"a": "NNNN"})
    static = Patcher(patching_mode="static", patch_size=4)
    with pytest.raises(DataError, match="no called base"):
        bits_per_base(net_of(static), corpus)
    with pytest.raises(ConfigError, match="mask_rate"):
        bits_per_base(net_of(static, causal=False), corpus, mask_rate=1.0)
    with pytest.raises(ConfigError, match="a causal net predicts every base"):
        bits_per_base(net_of(static), corpus, mask_rate=0.5)
    with pytest.raises(ConfigError, match="tell what is hidden"):
        bits_per_base(net_of(Patcher(patching_mode="space"), causal=False), corpus)
    with pytest.raises(ConfigError, match="external_patcher"):
        bits_per_base(net_of(), corpus)
