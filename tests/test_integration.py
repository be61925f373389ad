"""A net and its patcher set up and run together, and every way that the documents call them."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.adapters import PatcherAdapter
from hyena_glt.config import AdvancedPatcherConfig, PatchingModeEnum
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, PatchingError, SystemProblem
from hyena_glt.integration import PatcherIntegrator, setup_integrated_model
from hyena_glt.patching import PatchingWarning, calibrate
from hyena_glt.sequences import read_records
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

DNA = [generate_random_genomic_sequence(length, seed=length) for length in (600, 150, 37)]


@pytest.fixture(scope="module")
def tiny():
    """`tiny(patcher=None)`: a one-layer net in evaluation mode."""

    def build(patcher=None, **changes) -> HyenaGLT:
        torch.manual_seed(0)
        return HyenaGLT(HyenaGLTConfig.preset("tiny", num_layers=1, **changes), external_patcher=patcher).eval()

    return build


@pytest.fixture(scope="module")
def fitted():
    return calibrate(DNA, target_mean_length=5, max_patch_length=12).build()


def test_everything_is_set_up_in_one_call():
    model, patcher, integrator = setup_integrated_model(
        patching_mode="entropy", model_size="tiny", device="auto", sequences=DNA, target_mean_length=6
    )
    assert (model.config.hidden_size, model.config.num_layers, model.training) == (128, 2, False)
    assert model.external_patcher is patcher is integrator.patcher
    assert integrator.model is model
    assert model.config.patcher_threshold == patcher.threshold == integrator.get_patch_statistics(DNA)["threshold"]
    assert model.config.mixed_precision == ("fp16" if torch.cuda.is_available() else "fp32")
    assert patcher.is_causal
    statistics = integrator.get_patch_statistics(DNA)
    assert statistics["mean_patch_length"] == pytest.approx(6, rel=0.15)
    assert integrator.process_with_patching(DNA).compression_stats.tolist() == statistics["compression_ratios"]


@pytest.mark.parametrize("mode", [mode for mode in PatchingModeEnum if mode not in ("track", "bpe_patcher", "entropy")])
def test_modes_without_a_model_are_set_up(mode):
    _, patcher, integrator = setup_integrated_model(mode, "tiny", "cpu")
    assert patcher.patching_mode is mode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PatchingWarning)  # bases have neither spaces nor delimiters
        assert integrator.get_patch_statistics(DNA)["total_bases"] == sum(map(len, DNA))


def test_options_reach_patcher_and_net():
    model, patcher, integrator = setup_integrated_model(
        "static",
        "small",
        patcher_options={"patch_size": 8, "batch_size": 2, "no_cache": True},
        model_options={"causal": False, "num_layers": 1},
    )
    assert (patcher.patch_size, patcher.cache, integrator.batch_size) == (8, None, 2)
    assert (model.config.causal, model.config.hidden_size, model.config.num_layers) == (False, 256, 1)
    _, kept, _ = setup_integrated_model("static", "tiny")
    assert kept.cache is not None


def test_the_rule_of_the_options_is_calibrated():
    options = {"monotonicity": True, "max_patch_length": 20}
    _, patcher, _ = setup_integrated_model(model_size="tiny", sequences=DNA, patcher_options=options)
    assert (patcher.monotonicity, patcher.max_patch_length) == (True, 20)
    assert patcher.args.calibration.mean_length == pytest.approx(16, rel=0.1)
    model = MarkovEntropy.fit(DNA, order=3)
    _, patcher, _ = setup_integrated_model(
        model_size="tiny",
        sequences=DNA,
        target_mean_length=5,
        entropy_model=model,
        patcher_options={"threshold_add": -1.0},
    )
    assert (patcher.entropy_model, patcher.threshold_add) == (model, -1.0)


def test_without_data_entropy_mode_says_what_is_missing():
    _, _, integrator = setup_integrated_model(model_size="tiny", model_options={"num_layers": 1})
    with (
        pytest.warns(UserWarning, match="can depend on the future"),
        pytest.warns(PatchingWarning, match="default for text"),
    ):
        assert len(integrator.process_with_patching(DNA[1:]).outputs) == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"patching_mode": "entropic"}, "patching_mode"),
        ({"model_size": "huge"}, "preset: expected one of tiny"),
        ({"device": "tpu9"}, "device: expected auto, cpu"),
        ({"patcher_options": {"treshold": 1.0}}, "did you mean threshold"),
        ({"model_options": {"hidden": 3}}, "unknown key"),
        ({"patching_mode": "static", "sequences": DNA}, "expected None in static mode"),
        ({"sequences": DNA, "patcher_options": {"threshold": 1.2}}, "sequences, threshold"),
        ({"sequences": DNA, "target_mean_length": 1e6}, "target_mean_length"),
        ({"patching_mode": "byte", "patcher_options": {"overlap": 3}}, "overlap: expected 0 in byte mode"),
    ],
)
def test_wrong_options_are_one_error(arguments, reason):
    with pytest.raises(ConfigError, match=reason):
        setup_integrated_model(**{"model_size": "tiny", **arguments})


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_was_asked_for_must_be_there():
    with pytest.raises(SystemProblem, match="device: expected a CUDA device"):
        setup_integrated_model("static", "tiny", "cuda")


def test_one_sequence_or_many_go_in(tiny, fitted):
    integrator = PatcherIntegrator(tiny(fitted), fitted)
    tokens = torch.tensor([[69, 71, 75, -1], [69, 71, 75, 88]])
    for sequences, lengths in (
        ("ACGTA", [5]),
        (b"ACG", [3]),
        (tokens[1], [4]),
        (tokens, [3, 4]),
        (["A", b"AC"], [1, 2]),
    ):
        outputs = integrator.process_with_patching(sequences).outputs
        assert [output.logits.shape[1] for output in outputs] == lengths
    with pytest.raises(PatchingError, match="sequences: expected one or a list"):
        integrator.process_with_patching(7)
    with pytest.raises(PatchingError, match="got int"):
        integrator.get_patch_statistics([7])


def test_statistics_are_plain_numbers_that_add_up(tiny, fitted):
    statistics = PatcherIntegrator(tiny(fitted), fitted).get_patch_statistics(DNA)
    assert json.loads(json.dumps(statistics))["total_sequences"] == 3
    lengths = [fitted.patch([sequence])[0][0].numpy() for sequence in DNA]
    every = np.concatenate(lengths)
    assert statistics["total_bases"] == every.sum() == 787
    assert statistics["total_patches"] == every.size == sum(statistics["patch_length_counts"].values())
    assert statistics["compression_ratios"] == [row.mean() for row in lengths]
    for name, value in (("mean", every.mean()), ("std", every.std()), ("min", every.min()), ("max", every.max())):
        assert statistics[f"{name}_patch_length"] == pytest.approx(float(value))
    assert statistics["std_compression_ratio"] == pytest.approx(np.std(statistics["compression_ratios"]))
    assert (statistics["patching_mode"], statistics["is_causal"]) == ("entropy", True)


def test_statistics_of_nothing_are_none(tiny, fitted):
    integrator = PatcherIntegrator(tiny(fitted), fitted)
    for nothing in ([], [""]):
        statistics = integrator.get_patch_statistics(nothing)
        assert statistics["mean_patch_length"] is None
        assert statistics["total_patches"] == 0


def test_overlapping_patches_are_counted_as_they_are(tiny):
    patcher = Patcher(patching_mode="static", patch_size=4, overlap=2)
    integrator = PatcherIntegrator(tiny(patcher, causal=False), patcher)
    assert integrator.get_patch_statistics("ACGTAC")["patch_length_counts"] == {4: 2}
    assert integrator.process_with_patching("ACGTAC").compression_stats.tolist() == [4.0]


def test_any_patcher_goes_into_the_integrator(tiny):
    net = tiny()
    integrator = PatcherIntegrator(net, lambda sequence: [len(sequence)], AdvancedPatcherConfig(batch_size=2))
    assert isinstance(integrator.patcher, PatcherAdapter)
    with pytest.warns(UserWarning, match="does not say that it is causal"):
        result = integrator.process_with_patching(["ACGT", "AC"])
    assert result.compression_stats.tolist() == [4.0, 2.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        integrator.process_with_patching(["A"])
    assert integrator.get_patch_statistics(["ACGT"])["patching_mode"] is None


def test_without_a_patcher_the_nets_own_is_used(tiny, fitted):
    assert PatcherIntegrator(tiny(fitted)).patcher is fitted
    with pytest.raises(ConfigError, match="external_patcher: expected a patcher"):
        PatcherIntegrator(tiny())
    contradiction = AdvancedPatcherConfig(overlap=3)
    with pytest.raises(ConfigError, match="overlap"):
        PatcherIntegrator(tiny(fitted), fitted, contradiction)


def test_every_call_form_of_the_guide(tiny, fitted):
    """`forward_with_patching` as INTEGRATION_GUIDE.md calls it, form by form."""
    net = tiny(fitted)
    sequence, offset = DNA[1], 5000
    whole = net.forward_with_patching(sequence)
    patches, boundaries = fitted.patch_with_boundaries(sequence)
    forms = [
        net.forward_with_patching(sequence=sequence, patcher_config=fitted.args, return_position_info=True),
        net.forward_with_patching(patches=patches, boundaries=boundaries, debug_mode=True),
        net.forward_with_patching(patches=patches, boundaries=boundaries),
        net.forward_with_patching(patches=patches, boundaries=boundaries + offset, global_position_offset=offset),
        net.forward_with_patching(sequence, use_gradient_checkpointing=True),
    ]
    for place, output in enumerate(forms):
        assert output.patch_lengths.equal(whole.patch_lengths)
        assert output.compression_ratio == len(sequence) / len(patches)
        if place != 3:
            torch.testing.assert_close(output.logits, whole.logits)
    info = forms[0].patch_info
    assert info["global_positions"].max() < len(sequence)
    assert info["relative_positions"].shape == info["global_positions"].shape == (1, len(sequence))
    assert len(info["boundaries"]) == len(patches) == forms[1].last_hidden_state.shape[1]
    assert forms[3].patch_info["boundaries"].tolist() == (boundaries + offset).tolist()
    assert forms[1].debug
    effect = 1.0 - torch.cosine_similarity(
        whole.last_hidden_state.mean(dim=1), forms[2].last_hidden_state.mean(dim=1), dim=-1
    )
    assert abs(effect.item()) < 1e-5
    config = AdvancedPatcherConfig(patching_mode="static", max_patch_length=64)
    assert net.forward_with_patching(sequence, patcher_config=config).patch_lengths.tolist() == [[64, 64, 22]]


def test_every_result_key_of_the_guide(tiny, fitted):
    """The figures of `batch_process_with_patching`, and the loop of its batch processor."""
    net = tiny(fitted)
    results = net.batch_process_with_patching(DNA)
    assert float(f"{results.compression_stats.mean():.2f}") > 1
    assert float(f"{results.performance_stats.speedup:.2f}") > 0
    cut = [fitted.patch_with_boundaries(sequence) for sequence in DNA]
    outputs = net.batch_forward_with_patches(
        patches=[patches for patches, _ in cut], boundaries=[starts for _, starts in cut], max_length=4096
    )
    for output, batch_output, (patches, starts) in zip(outputs, results.outputs, cut, strict=True):
        assert output.patch_info["boundaries"].equal(starts)
        assert output.last_hidden_state.shape[1] == len(patches)
        torch.testing.assert_close(output.logits, batch_output.logits, atol=1e-5, rtol=1e-4)


def test_a_real_genome_goes_through(tiny, data):
    record = next(read_records(data("genomes/lambda_NC_001416.1.fa")))
    parts = [record.sequence[first : first + 2000] for first in range(0, 6000, 2000)]
    _, _, integrator = setup_integrated_model(model_size="tiny", sequences=parts, model_options={"num_layers": 1})
    result = integrator.process_with_patching(parts, batch_size=2)
    assert all(torch.isfinite(output.logits).all() for output in result.outputs)
    assert not math.isnan(result.compression_stats.mean())
    assert integrator.get_patch_statistics(parts)["total_bases"] == sum(map(len, parts))
