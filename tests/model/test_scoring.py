"""Log-likelihoods of sequences."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.errors import AlphabetError, ConfigError, DataError
from hyena_glt.model.scoring import length_batches, score_sequences
from hyena_glt.patching import Patcher
from hyena_glt.sequences.alphabets import reverse_complement
from hyena_glt.tokens import ByteTokenizer


def patcher() -> Patcher:
    return Patcher(patching_mode="static", patch_size=4)


def by_hand(net, sequence: str) -> float:
    tokens = ByteTokenizer().encode(sequence)
    with torch.no_grad():
        log_probabilities = net.forward_with_patching(sequence).logits[0].log_softmax(-1)
    predicted = [float(log_probabilities[i, int(tokens[i + 1])]) for i in range(len(tokens) - 1)]
    return sum(predicted) / len(predicted)


def test_the_score_is_the_mean_log_probability_of_the_bases_after_the_first(small_net, random_dna):
    net = small_net(patcher())
    sequence = random_dna(23)
    assert net.score_sequences([sequence])[0].item() == pytest.approx(by_hand(net, sequence), abs=1e-5)


def test_scores_depend_on_neither_batch_nor_order(small_net, random_dna):
    net = small_net(patcher())
    sequences = [random_dna(length, seed=length) for length in (40, 3, 17, 2, 90, 17)]
    alone = torch.cat([net.score_sequences([sequence]) for sequence in sequences])
    for batch_tokens in (1, 100, 1 << 16):
        together = score_sequences(net, sequences, batch_tokens=batch_tokens)
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    backwards = net.score_sequences(sequences[::-1]).flip(0)
    torch.testing.assert_close(backwards, alone, atol=1e-6, rtol=0)


def test_the_average_of_strands_is_the_same_for_both_strands(small_net, random_dna):
    net = small_net(patcher())
    sequence = random_dna(31)
    other = reverse_complement(sequence)
    forward, backward = net.score_sequences([sequence, other])
    averaged = net.score_sequences([sequence, other], rc="avg")
    torch.testing.assert_close(averaged, torch.stack([forward + backward] * 2) / 2)


def test_ambiguous_bases_have_finite_scores(small_net):
    assert small_net(patcher()).score_sequences(["NNNNNNNN", b"ACNNNRYT"]).isfinite().all()


def test_a_protein_has_no_other_strand(small_net):
    net = small_net(patcher(), genomic_vocab_size=20)
    assert net.score_sequences(["MKVLA"]).isfinite().all()
    with pytest.raises(AlphabetError, match="complement"):
        net.score_sequences(["MKVLA"], rc="avg")


def test_scores_that_cannot_be_are_refused(small_net):
    net = small_net(patcher())
    with pytest.raises(DataError, match="sequence 1: expected at least 2 bases, got 1"):
        net.score_sequences(["ACG", "A"])
    with pytest.raises(ConfigError, match="rc: expected 'none' or 'avg', got 'both'"):
        net.score_sequences(["ACG"], rc="both")
    with pytest.raises(ConfigError, match="expected a causal net"):
        small_net(patcher(), causal=False).score_sequences(["ACG"])
    net = small_net(Patcher(patching_mode="static", patch_size=4, overlap=2))
    with pytest.raises(ConfigError, match="overlap"), pytest.warns(UserWarning, match="can depend on the future"):
        net.score_sequences(["ACG"])


def test_a_damaged_net_gives_no_score(small_net):
    net = small_net(patcher())
    with torch.no_grad():
        net.head.project.bias.fill_(float("nan"))
    with pytest.raises(DataError, match="sequence 0: score is not finite"):
        net.score_sequences(["ACGT"])


def test_batches_hold_every_index_once_within_the_limit():
    lengths = [5, 1, 9, 30, 2, 2, 8]
    batches = list(length_batches(lengths, 20))
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 20 for batch in batches)


def test_no_sequences_have_no_scores(small_net):
    assert small_net(patcher()).score_sequences([]).shape == (0,)
