"""The guide's class with the guide's keys; what it missed is found here."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import torch

import hyena_glt.diagnostics
from hyena_glt import Patcher
from hyena_glt.diagnostics import CheckResult, IntegrationDebugger
from hyena_glt.errors import ConfigError, DataError, PatchingError

NAMES = [
    "length_consistency",
    "boundary_consistency",
    "content_consistency",
    "patcher_consistency",
    "next_token_consistency",
    "shape_consistency",
    "finite_values",
    "position_tracking",
    "position_round_trip",
    "reproducibility",
    "batch_consistency",
    "padding_invariance",
    "causality",
    "input_sensitivity",
]
GUIDE = "ATGGCGTTAGCCAAAGGTCCA"


@pytest.fixture
def static():
    return Patcher(patching_mode="static", patch_size=4)


def guide_checks(sequence, patches, output) -> dict[str, bool]:
    """The guide's `validate_integration_consistency`."""
    return {
        "length_consistency": sum(len(patch) for patch in patches) == len(sequence),
        "position_tracking": bool(output.patch_info["global_positions"].max() < len(sequence)),
        "shape_consistency": len(patches) == output.last_hidden_state.shape[1],
    }


def test_the_guides_example(make_net, static):
    debug_info = IntegrationDebugger(make_net(), static).debug_patching_process(GUIDE * 5)
    assert list(debug_info) == ["sequence", "steps", "consistency", "passed"]
    cut, run = debug_info["steps"]
    assert {"step", "patches", "boundaries", "num_patches", "compression_ratio"} <= set(cut)
    assert {"step", "output_shape", "position_info", "final_compression"} <= set(run)
    assert (cut["step"], run["step"]) == ("patcher_output", "model_processing")
    assert "".join(cut["patches"]) == GUIDE * 5
    assert cut["boundaries"] == list(range(0, 105, 4))
    assert cut["num_patches"] == 27
    assert run["output_shape"] == (1, 27, 24)
    assert run["final_compression"] == cut["compression_ratio"] == 105 / 27
    assert run["stages"]["trunk"]["finite"]
    assert list(debug_info["consistency"]) == NAMES
    assert debug_info["passed"]
    written = json.loads(json.dumps(debug_info, indent=2, default=str))
    assert written["consistency"]["length_consistency"] == "passed: 27 patches cover 105 tokens of 105"


def test_every_check_has_a_name_and_says_what_it_found(make_net, entropy_patcher, sequence):
    found = IntegrationDebugger(make_net(), entropy_patcher).debug_patching_process(sequence)["consistency"]
    assert all(isinstance(check, CheckResult) and check.name == name for name, check in found.items())
    assert all(check.found for check in found.values())


@pytest.mark.parametrize("given", ["", "A", b"ACGTACG", torch.tensor([69, 71, 75])])
def test_any_sequence_goes(make_net, static, given):
    info = IntegrationDebugger(make_net(), static).debug_patching_process(given)
    assert info["passed"], info["consistency"]
    assert info["steps"][0]["compression_ratio"] == info["steps"][1]["final_compression"]


def test_the_compression_ratio_counts_tokens_of_patches_that_overlap(make_net):
    patcher = Patcher(patching_mode="static", patch_size=6, overlap=2)
    info = IntegrationDebugger(make_net(), patcher).debug_patching_process(GUIDE)
    assert info["passed"], info["consistency"]
    assert info["consistency"]["causality"].passed is None
    assert info["steps"][0]["compression_ratio"] == 21 / 5


def test_a_foreign_patcher_is_adapted(make_net):
    info = IntegrationDebugger(make_net(), lambda text: [text[:5], text[5:]]).debug_patching_process(GUIDE)
    assert info["steps"][0]["boundaries"] == [0, 5]
    assert info["consistency"]["next_token_consistency"].passed is None


def test_the_nets_own_patcher_is_the_default(make_net, static):
    assert IntegrationDebugger(make_net(static)).patcher is static
    with pytest.raises(ConfigError, match="external_patcher"):
        IntegrationDebugger(make_net())


def test_a_next_token_is_part_of_the_coverage(make_net, static):
    """Section 12: the coverage check forgets `include_next_token`; the guide's calls sound lengths broken."""
    debugger = IntegrationDebugger(make_net(), static)
    text = GUIDE[:8]
    longer = static.patch([text], include_next_token=True)[0][0]
    starts = longer.cumsum(0) - longer
    with torch.no_grad():
        output = debugger.model.forward_with_patching(GUIDE[:9], patcher_config=static.args)
    assert not guide_checks(text, [range(int(n)) for n in longer], output)["length_consistency"]
    found = debugger.validate_integration_consistency(text, longer, starts, output, include_next_token=True)
    assert found["length_consistency"].passed
    assert found["shape_consistency"].passed
    assert found["causality"].passed is None
    assert debugger.validate_integration_consistency(text, longer, starts, output)["length_consistency"].passed is False


def test_the_guides_checks_pass_a_broken_output(make_net, static):
    """NaN, shuffled pieces and a wrong boundary all pass the guide's three checks, and none of ours."""
    net = make_net()
    debugger = IntegrationDebugger(net, static)
    patches, boundaries = static.patch_with_boundaries(GUIDE)
    with torch.no_grad():
        output = net.forward_with_patching(GUIDE, patcher_config=static.args)
    output.logits[0, 3] = float("nan")
    shuffled = [patches[1], patches[0], *patches[2:]]
    assert all(guide_checks(GUIDE, shuffled, output).values())
    found = debugger.validate_integration_consistency(GUIDE, shuffled, boundaries + 1, output)
    failed = {name for name, check in found.items() if check.passed is False}
    assert {"finite_values", "content_consistency", "boundary_consistency", "patcher_consistency"} <= failed


def test_a_batch_is_refused(make_net, static):
    net = make_net(static)
    with torch.no_grad():
        output = net.forward_with_patching(["ACGT", "ACG"])
    with pytest.raises(PatchingError, match="batch of 2"):
        IntegrationDebugger(net).validate_integration_consistency("ACGT", ["ACGT"], [0], output)


def test_a_net_in_training_stays_so_and_is_checked_without_dropout(make_net, static):
    net = make_net(dropout=0.5).train()
    assert IntegrationDebugger(net, static).debug_patching_process(GUIDE)["passed"]
    assert net.training
    assert all(weight.grad is None for weight in net.parameters())


def test_the_profile_has_the_guides_keys(make_net, entropy_patcher):
    sequences = [GUIDE * count for count in range(1, 4)]
    found = IntegrationDebugger(make_net(), entropy_patcher).performance_profile(sequences)
    assert found["sequence_lengths"] == [21, 42, 63]
    for key in ("timings", "cpu_timings", "memory_usage", "compression_ratios"):
        assert len(found[key]) == 3, key
    assert all(seconds > 0 for seconds in found["timings"])
    assert found["avg_time"] == pytest.approx(sum(found["timings"]) / 3)
    assert found["avg_memory"] == pytest.approx(sum(found["memory_usage"]) / 3)
    assert found["avg_compression"] == pytest.approx(sum(found["compression_ratios"]) / 3)
    assert found["bases_per_second"] == pytest.approx(126 / sum(found["timings"]))
    assert found["compression_ratios"][0] > 1


def test_memory_is_that_of_this_process(make_net, static):
    """The guide takes the memory of the whole machine, before and after: what others do, and nothing of the peak."""
    found = IntegrationDebugger(make_net(), static).performance_profile(["ACGT" * 2000])
    logits = 8000 * 260 * 4
    assert found["memory_usage"][0] > logits


def test_one_text_is_one_sequence(make_net, static):
    assert IntegrationDebugger(make_net(), static).performance_profile(GUIDE)["sequence_lengths"] == [21]


def test_nothing_to_profile_is_an_error_not_a_nan(make_net, static):
    with pytest.raises(DataError, match="at least one"):
        IntegrationDebugger(make_net(), static).performance_profile([])


def test_no_check_is_an_assert():
    """Section 12: asserts vanish under `python -O`."""
    folder = Path(hyena_glt.diagnostics.__file__).parent
    for name in ("consistency.py", "invariance.py", "debugger.py"):
        tree = ast.parse((folder / name).read_text())
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)], name
