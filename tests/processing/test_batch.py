"""Results of a batch: the guide's keys, in input order, and the same alone as together."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, DataError, PatchingError
from hyena_glt.patching import calibrate
from hyena_glt.processing import GenomicBatchProcessor
from hyena_glt.processing.batch import length_buckets
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

SHAPE = {"hidden_size": 24, "num_layers": 3, "local_hidden_size": 16, "ngram_table_size": 64, "filter_hidden_size": 8}
KEYS = ["outputs", "patch_info", "compression_ratios", "processing_times", "statistics"]
STATISTICS = {
    "mean_compression_ratio",
    "std_compression_ratio",
    "mean_processing_time",
    "total_sequences",
    "total_processing_time",
}  # of the guide
BOUND = 1e-5  # of the largest value: rounding of float32
sequences_lists = st.lists(st.text("ACGTN", max_size=120), max_size=9)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def patcher():
    genome = [generate_random_genomic_sequence(20_000, seed=1)]
    model = MarkovEntropy.fit(genome, order=4)
    return calibrate(genome, entropy_model=model, target_mean_length=6, max_patch_length=32).build()


@pytest.fixture(scope="module", params=[True, False], ids=["causal", "bidirectional"])
def net(request, patcher):
    torch.manual_seed(0)
    return HyenaGLT(HyenaGLTConfig(**SHAPE, causal=request.param), patcher).eval()


def largest_difference(one, other) -> float:
    if not one.numel():
        return 0.0
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-6))


def test_every_key_of_the_guide_is_there(net, patcher):
    results = GenomicBatchProcessor(net, patcher, batch_size=2).process_genomic_batch(["ACGT" * 9, "ACG", "ACGTA"])
    assert list(results) == KEYS
    assert set(results["statistics"]) >= STATISTICS
    assert all(len(results[key]) == 3 for key in KEYS[:-1])
    assert "statistics" not in GenomicBatchProcessor(net, patcher).process_genomic_batch(
        ["AC"], return_statistics=False
    )


@settings(max_examples=12, deadline=None)
@given(sequences=sequences_lists, batch_size=st.integers(1, 9))
def test_a_result_does_not_depend_on_its_batch(net, patcher, sequences, batch_size):
    together = GenomicBatchProcessor(net, patcher, batch_size).process_genomic_batch(sequences)
    alone = GenomicBatchProcessor(net, patcher, 1)
    assert len(together["outputs"]) == len(sequences)
    for index, sequence in enumerate(sequences):
        (expected,) = alone.process_genomic_batch([sequence])["outputs"]
        output = together["outputs"][index]
        assert torch.equal(output.patch_lengths, expected.patch_lengths)
        assert output.logits.shape == expected.logits.shape == (1, len(sequence), 260)
        assert largest_difference(output.logits, expected.logits) <= BOUND
        assert largest_difference(output.last_hidden_state, expected.last_hidden_state) <= BOUND


def test_results_come_in_input_order_though_batches_are_of_similar_length(net, patcher):
    lengths = [50, 3, 41, 0, 17, 60, 5]
    sequences = [generate_random_genomic_sequence(length, seed=length) for length in lengths]
    results = GenomicBatchProcessor(net, patcher, batch_size=3).process_genomic_batch(sequences)
    assert [output.logits.shape[1] for output in results["outputs"]] == lengths
    assert [len(bucket) for bucket in length_buckets(torch.tensor(lengths).numpy(), 3)] == [3, 3, 1]
    assert length_buckets(torch.tensor(lengths).numpy(), 3)[0].tolist() == [3, 1, 6]


def test_statistics_are_those_of_the_results(net, patcher):
    sequences = [generate_random_genomic_sequence(length, seed=length) for length in (90, 30, 61)]
    results = GenomicBatchProcessor(net, patcher, batch_size=2).process_genomic_batch(sequences)
    ratios = [len(text) / patcher.patch([text])[0].shape[1] for text in sequences]
    assert results["compression_ratios"] == pytest.approx(ratios)
    found = results["statistics"]
    assert found["mean_compression_ratio"] == pytest.approx(sum(ratios) / 3)
    assert (found["total_sequences"], found["total_bases"]) == (3, 181)
    assert found["total_processing_time"] == pytest.approx(sum(results["processing_times"]))
    assert all(seconds > 0 for seconds in results["processing_times"])


def test_no_sequences_and_empty_ones_have_no_ratio(net, patcher):
    processor = GenomicBatchProcessor(net, patcher)
    nothing = processor.process_genomic_batch([])
    assert nothing["outputs"] == []
    assert nothing["statistics"]["mean_compression_ratio"] is None
    empty = processor.process_genomic_batch(["", ""])
    assert empty["compression_ratios"] == [0.0, 0.0]
    assert not any(math.isnan(seconds) for seconds in empty["processing_times"])


def test_positions_are_there_unless_switched_off(net, patcher):
    processor = GenomicBatchProcessor(net, patcher)
    (with_positions,) = processor.process_genomic_batch(["ACGTACGT"])["patch_info"]
    assert with_positions["global_positions"].tolist() == [list(range(8))]
    (without,) = processor.process_genomic_batch(["ACGTACGT"], return_position_info=False)["patch_info"]
    assert set(without) == {"patch_lengths", "boundaries"}


def test_a_longer_sequence_is_named_and_nothing_runs(net, patcher):
    processor = GenomicBatchProcessor(net, patcher)
    with pytest.raises(DataError, match=r"sequence 1: expected at most max_length=7 bases, got 8"):
        processor.process_genomic_batch(["ACG", "ACGTACGT"], max_length=7)
    with pytest.raises(DataError, match="max_length=4096"):
        processor.process_genomic_batch(["A" * 4097])
    assert len(processor.process_genomic_batch(["A" * 4097], max_length=None)["outputs"]) == 1


def test_one_sequence_bytes_tokens_and_generators_are_taken(net, patcher):
    processor = GenomicBatchProcessor(net, patcher)
    text = generate_random_genomic_sequence(40)
    tokens = torch.tensor([byte + 4 for byte in text.encode()])
    (expected,) = processor.process_genomic_batch(text)["outputs"]
    for given_as in (text.encode(), tokens, tokens.unsqueeze(0), (piece for piece in [text])):
        (output,) = processor.process_genomic_batch(given_as)["outputs"]
        assert torch.equal(output.logits, expected.logits)


def test_a_net_in_training_mode_is_run_in_evaluation_mode_and_left_as_it_was(patcher):
    torch.manual_seed(0)
    net = HyenaGLT(HyenaGLTConfig(**SHAPE, dropout=0.5), patcher).train()
    processor = GenomicBatchProcessor(net, patcher)
    one, other = (processor.process_genomic_batch(["ACGT" * 20])["outputs"][0].logits for _ in range(2))
    assert torch.equal(one, other)
    assert net.training
    assert net.trunk.training


def test_overlapping_patches_count_their_bases_once(net):
    shared = Patcher(patching_mode="static", patch_size=8, overlap=2)
    if net.config.causal:
        with pytest.warns(UserWarning, match="causal"):
            processor = GenomicBatchProcessor(net, shared)
    else:
        processor = GenomicBatchProcessor(net, shared)
    results = processor.process_genomic_batch(["ACGTACGTACGTAC"])
    assert results["compression_ratios"] == [14 / 2]


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
def test_a_batch_size_below_one_is_refused(net, patcher, batch_size):
    with pytest.raises(ConfigError, match="batch_size"):
        GenomicBatchProcessor(net, patcher, batch_size)


@pytest.mark.parametrize("sequences", [5, [5], [None], [["ACGT"]]])
def test_what_is_no_sequence_is_refused(net, patcher, sequences):
    with pytest.raises(PatchingError):
        GenomicBatchProcessor(net, patcher).process_genomic_batch(sequences)


def test_no_patcher_at_all_is_refused():
    with pytest.raises(ConfigError, match="external_patcher"):
        GenomicBatchProcessor(HyenaGLT(HyenaGLTConfig(**SHAPE)))
