"""Many sequences in batches: each as if it were alone, in the order they came in."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, DataError, PatchingError
from hyena_glt.model import HyenaGLTOutput
from hyena_glt.model.batching import time_against_byte_mode
from hyena_glt.model.sources import encode_rows
from hyena_glt.patching import Patcher
from hyena_glt.patching.entropy_cache import EntropyCache

FIELDS = ("last_hidden_state", "byte_hidden_state", "logits")
ROUNDING = 1e-5  # of the largest value, float32: with and without gradients other loops run, and FFTs of other lengths


def static(**fields) -> Patcher:
    return Patcher(patching_mode="static", **{"patch_size": 4, **fields})


def assert_same(one: HyenaGLTOutput, other: HyenaGLTOutput) -> None:
    assert one.patch_lengths.equal(other.patch_lengths)
    assert one.positions.global_positions.equal(other.positions.global_positions)
    for field in FIELDS:
        found, expected = getattr(one, field), getattr(other, field)
        scale = max(float(expected.detach().abs().amax()), 1.0) if expected.numel() else 1.0
        torch.testing.assert_close(found, expected, atol=ROUNDING * scale, rtol=1e-4)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 6), st.booleans())
def test_a_result_does_not_depend_on_the_batch_size(small_net, random_dna, lengths, batch_size, causal):
    net = small_net(Patcher(threshold=1.37, max_patch_length=6, entropy_model=scores_by_content), causal=causal)
    sequences = [random_dna(length, seed) for seed, length in enumerate(lengths)]
    result = net.batch_process_with_patching(sequences, batch_size=batch_size)
    assert len(result.outputs) == len(sequences)
    for sequence, output, ratio in zip(sequences, result.outputs, result.compression_stats.tolist(), strict=True):
        alone = net.forward_with_patching(sequence)
        assert_same(output, alone)
        assert output.logits.shape[:2] == (1, len(sequence))
        assert ratio == alone.compression_ratio == output.compression_ratio


def scores_by_content(tokens: torch.Tensor) -> torch.Tensor:
    """Logits that depend on each token alone: some bases are surprising."""
    logits = torch.zeros(*tokens.shape, 4)
    logits[..., 0] = (tokens % 3 == 0) * 2.0
    return logits


def test_the_figures_add_up(small_net, random_dna):
    net = small_net(static())
    result = net.batch_process_with_patching([random_dna(8), random_dna(6), ""], batch_size=2)
    assert result.compression_stats.tolist() == [4.0, 3.0, 0.0]
    assert f"{result.compression_stats[:2].mean():.2f}x" == "3.50x"
    stats = result.performance_stats
    assert (stats.num_sequences, stats.num_bases, stats.num_patches) == (3, 14, 4)
    assert stats.elapsed_s == stats.patching_s + stats.model_s > 0
    assert stats.bases_per_s == 14 / stats.elapsed_s


def test_the_speedup_is_measured_once_and_only_when_asked_for(small_net, random_dna):
    net = small_net(static(patch_size=16))
    runs = []
    net.trunk.register_forward_pre_hook(lambda _, inputs: runs.append(inputs[0].shape[1]))
    stats = net.batch_process_with_patching([random_dna(n) for n in (32, 64, 96)], batch_size=1).performance_stats
    assert runs == [2, 4, 6]
    byte_mode, patched = stats.batch_times_s
    assert stats.speedup == byte_mode / patched > 0
    assert runs[3:] == [64, 4, 64, 4]  # the batch of middling length, one patch per base and as the patcher cuts
    assert stats.speedup == stats.speedup
    assert len(runs) == 7


def test_a_cache_does_not_speed_up_the_measurement(small_net, random_dna):
    calls = []

    def model(tokens):
        calls.append(tokens.shape)
        return scores_by_content(tokens)

    patcher = Patcher(threshold=1.37, entropy_model=model, cache=EntropyCache())
    net = small_net(patcher)
    stats = net.batch_process_with_patching([random_dna(20)]).performance_stats
    assert (len(calls), stats.speedup > 0, len(calls)) == (1, True, 3)
    assert isinstance(patcher.cache, EntropyCache)


def test_without_sequences_there_is_nothing(small_net):
    result = small_net(static()).batch_process_with_patching([])
    assert (result.outputs, result.compression_stats.shape) == ([], (0,))
    assert math.isnan(result.performance_stats.speedup)
    assert result.performance_stats.bases_per_s == 0.0


def test_no_gradient_is_kept_and_the_options_of_a_call_rule(small_net, random_dna):
    result = small_net(static()).batch_process_with_patching([random_dna(9)], patcher_config={"patching_mode": "byte"})
    assert result.outputs[0].patch_lengths.tolist() == [[1] * 9]
    assert not result.outputs[0].logits.requires_grad


@pytest.mark.parametrize("sequences", ["ACGTA", b"ACGTA", encode_rows("ACGTA")[0], encode_rows(["ACGTA", "AC"])])
def test_one_sequence_is_a_list_of_one(small_net, sequences):
    result = small_net(static()).batch_process_with_patching(sequences)
    assert result.outputs[0].patch_lengths.tolist() == [[4, 1]]
    assert [output.logits.shape[1] for output in result.outputs] == [5, 2][: len(result.outputs)]
    assert result.performance_stats.num_bases == 5 + 2 * (len(result.outputs) == 2)


@pytest.mark.parametrize("sequences", [7, torch.zeros(1, 1, 1), [7], torch.tensor([[-1, 69]])])
def test_what_is_no_sequence_is_refused(small_net, sequences):
    with pytest.raises(PatchingError):
        small_net(static()).batch_process_with_patching(sequences)


def test_a_batch_needs_a_sequence(small_net):
    with pytest.raises(ConfigError, match="batch_size: expected at least 1, got 0"):
        small_net(static()).batch_process_with_patching(["A"], batch_size=0)


@pytest.mark.parametrize("overlap", [0, 2])
@pytest.mark.parametrize("with_boundaries", [True, False])
def test_ready_patches_give_what_each_sequence_gives(small_net, random_dna, overlap, with_boundaries):
    patcher = static(overlap=overlap)
    net = small_net(patcher)
    sequences = [random_dna(length, seed) for seed, length in enumerate((13, 30, 1))]
    cut = [patcher.patch_with_boundaries(sequence) for sequence in sequences]
    boundaries = [starts for _, starts in cut] if with_boundaries else None
    outputs = net.batch_forward_with_patches(patches=[p for p, _ in cut], boundaries=boundaries, max_length=60)
    for (pieces, starts), output in zip(cut, outputs, strict=True):
        starts = starts if with_boundaries else None
        assert_same(output, net.forward_with_patching(patches=pieces, boundaries=starts))


def test_each_sequence_may_have_its_own_place_on_its_contig(small_net):
    net = small_net(static())
    outputs = net.batch_forward_with_patches(
        [["AC", "G"], ["T"]], [torch.tensor([70, 72]), [0]], global_position_offset=[70, 2**33]
    )
    assert [output.patch_info["boundaries"].tolist() for output in outputs] == [[70, 72], [2**33]]


def test_gradients_pass_through_a_batch_of_patches(small_net):
    net = small_net(static())
    outputs = net.batch_forward_with_patches([["AC", "G"], ["TT", "A"]])
    sum(output.logits.square().mean() for output in outputs).backward()
    assert all(weight.grad is not None for weight in net.parameters())


def test_a_sequence_beyond_max_length_is_named(small_net, random_dna):
    net, patcher = small_net(static()), static(overlap=2)
    long, short = (patcher.patch_with_boundaries(random_dna(length)) for length in (21, 20))
    with pytest.raises(DataError, match="sequence 1: expected at most max_length=20 bases, got 21"):
        net.batch_forward_with_patches([short[0], long[0]], [short[1], long[1]], max_length=20)
    assert len(net.batch_forward_with_patches([short[0]], [short[1]], max_length=20)) == 1


def test_no_patches_are_no_outputs(small_net):
    net = small_net(static())
    assert net.batch_forward_with_patches([]) == []
    assert net.batch_forward_with_patches([[], ["A"]])[0].logits.shape == (1, 0, 260)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"patches": ["ACGT"]}, "a list of pieces for each sequence"),
        ({"patches": [["A"]], "boundaries": [[0], [0]]}, "each of 1 sequences, got 2"),
        ({"patches": [["A"]], "global_position_offset": [0, 0]}, r"one int or 1 of them, got shape \(2,\)"),
        ({"patches": [["A", "C"]], "boundaries": [["x", "y"]]}, "boundaries: expected"),
        ({"patches": [["A", "C"]], "boundaries": [[0.0, 1.0]]}, "got torch.float32"),
        ({"patches": [[1, 2]]}, "expected str, bytes or 1-D tokens, got int"),
    ],
)
def test_patches_that_are_none_are_refused(small_net, arguments, reason):
    with pytest.raises(PatchingError, match=reason):
        small_net(static()).batch_forward_with_patches(**arguments)


def test_a_row_of_an_output_owns_its_memory(small_net):
    batch = small_net(static()).forward_with_patching(["ACGTACGT", "ACG"])
    row = batch.row(1)
    assert row.logits.untyped_storage().nbytes() == row.logits.numel() * 4
    assert row.loss is None
    assert (row.known_starts is None) == (batch.known_starts is None)
    assert row.compression_ratio == 3.0
    assert row.patch_info["boundaries"].tolist() == [0]


def test_times_of_no_token_are_no_numbers(small_net):
    assert all(math.isnan(seconds) for seconds in time_against_byte_mode(small_net(), static(), encode_rows([""])))


def test_a_character_that_patches_cut_is_whole_again(small_net):
    patcher = static(patch_size=2)
    net = small_net(patcher)
    pieces, starts = patcher.patch_with_boundaries("aéz")
    assert_same(net.forward_with_patching(patches=pieces, boundaries=starts), net.forward_with_patching("aéz"))
