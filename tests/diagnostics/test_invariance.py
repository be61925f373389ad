"""Nets and patchers with seeded faults: each check that runs the net again is seen to find its own."""

from __future__ import annotations

import pytest
import torch

from hyena_glt import Patcher
from hyena_glt.diagnostics import IntegrationDebugger
from hyena_glt.diagnostics.consistency import Patching
from hyena_glt.diagnostics.invariance import check_next_token, check_patcher, perturbed_rows
from hyena_glt.tokens import ByteTokenizer

RERUNS = ["reproducibility", "batch_consistency", "padding_invariance", "causality", "input_sensitivity"]


def checks(net, patcher, sequence):
    return IntegrationDebugger(net, patcher).debug_patching_process(sequence)["consistency"]


@pytest.mark.parametrize("changes", [{}, {"genomic_vocab_size": 4}, {"boundaries": "learned"}])
def test_a_sound_net_passes(make_net, entropy_patcher, sequence, changes):
    patcher = None if changes.get("boundaries") else entropy_patcher
    found = checks(make_net(**changes), patcher, sequence)
    assert [name for name in RERUNS if found[name].passed is not True] == []


def test_a_net_that_sees_both_sides_is_not_asked_for_causality(make_net, entropy_patcher, sequence):
    found = checks(make_net(causal=False), entropy_patcher, sequence)
    assert found["causality"].passed is None
    assert found["padding_invariance"].passed


def test_a_state_that_knows_the_future_is_found(make_net, entropy_patcher, sequence):
    """Section 12: a relative position that leaks the future. Here the mean of all bytes leaks."""
    net = make_net()
    net.local_decoder.register_forward_hook(lambda module, given, out: out + out.mean(1, keepdim=True))
    found = checks(net, entropy_patcher, sequence)["causality"]
    assert found.passed is False
    assert "before it" in found.found


def test_boundaries_that_know_the_future_are_found(make_net, entropy_patcher, sequence):
    top_k = Patcher(patching_mode="entropy", entropy_model=entropy_patcher.entropy_model, threshold=None, patch_size=6)
    net = make_net()
    found = checks(net, top_k, sequence)["causality"]
    assert found.passed is False
    assert "not causal" in found.found


def test_forced_starts_taken_for_known_are_found(make_net, entropy_patcher, sequence):
    """Ready patches, as the guide hands them over, do not say which starts their own token forced (edges of N)."""
    net = make_net()
    patches, boundaries = entropy_patcher.patch_with_boundaries(sequence)
    with torch.no_grad():
        output = net.forward_with_patching(patches=patches, boundaries=boundaries)
    debugger = IntegrationDebugger(net, entropy_patcher)
    found = debugger.validate_integration_consistency(sequence, patches, boundaries, output)
    assert found["causality"].passed is False
    assert found["length_consistency"].passed


def test_outputs_that_change_with_padding_are_found(make_net, entropy_patcher, sequence):
    """Section 12: outputs that change with padding."""
    net = make_net()
    net.local_encoder.register_forward_hook(lambda module, given, out: out * out.shape[1])
    found = checks(net, entropy_patcher, sequence)
    assert found["padding_invariance"].passed is False
    assert found["reproducibility"].passed


def test_padding_that_is_not_zero_is_found(make_net, sequence, monkeypatch):
    net = make_net()
    for module in ("hyena_glt", "byte_blocks"):
        monkeypatch.setattr(f"hyena_glt.model.{module}.zero_padding", lambda x, mask: x)
    found = checks(net, Patcher(patching_mode="static", patch_size=4), sequence)["padding_invariance"]
    assert found.passed is False
    assert "not 0" in found.found


def test_rows_that_see_each_other_are_found(make_net, entropy_patcher, sequence):
    """Section 12: sequences in batches whose rows see each other."""
    net = make_net()
    net.trunk.register_forward_hook(lambda module, given, out: out + out.sum(0) - out)
    assert checks(net, entropy_patcher, sequence)["batch_consistency"].passed is False


def test_patches_that_depend_on_the_batch_are_found(make_net, sequence):
    class ByLongest(Patcher):
        def patch_with_starts(self, tokens, *more, **options):
            self.patch_size = 4.0 if tokens.shape[1] <= len(sequence) else 5.0
            return super().patch_with_starts(tokens, *more, **options)

    found = checks(make_net(), ByLongest(patching_mode="static", patch_size=4), sequence)["batch_consistency"]
    assert found.passed is False
    assert "other patches" in found.found


def test_results_that_vary_are_found(make_net, entropy_patcher, sequence):
    net = make_net()
    generator = torch.Generator().manual_seed(0)
    net.pooling.register_forward_hook(lambda module, given, out: out + torch.randn(out.shape, generator=generator))
    assert checks(net, entropy_patcher, sequence)["reproducibility"].passed is False


def test_an_output_that_ignores_its_input_is_found(make_net, entropy_patcher, sequence):
    net = make_net()
    net.local_decoder.register_forward_hook(lambda module, given, out: torch.ones_like(out))
    found = checks(net, entropy_patcher, sequence)
    assert found["input_sensitivity"].passed is False
    assert found["causality"].passed


def test_another_patchers_patches_are_not_run_again(make_net, entropy_patcher, sequence):
    net, other = make_net(), Patcher(patching_mode="static", patch_size=5)
    patches, boundaries = other.patch_with_boundaries(sequence)
    with torch.no_grad():
        output = net.forward_with_patching(patches=patches, boundaries=boundaries)
    debugger = IntegrationDebugger(net, entropy_patcher)
    found = debugger.validate_integration_consistency(sequence, patches, boundaries, output)
    assert found["patcher_consistency"].passed is False
    assert [found[name].passed for name in RERUNS] == [None] * 5


def test_a_patcher_that_forgets_the_next_token_is_found(entropy_patcher, sequence):
    """Section 12: `include_next_token` is forgotten."""

    class Forgets(Patcher):
        def patch(self, tokens, include_next_token=False, **options):
            return super().patch(tokens, **options)

    class Merges(Patcher):
        def patch(self, tokens, include_next_token=False, **options):
            lengths, scores = super().patch(tokens, include_next_token, **options)
            return (lengths.sum(1, keepdim=True) if include_next_token else lengths), scores

    fields = {"patching_mode": "static", "patch_size": 4.0}
    starts = Patcher(**fields).patch_with_boundaries(sequence)
    patching = Patching.read(sequence, *starts)
    assert check_next_token(Patcher(**fields), patching).passed
    assert "and the next" in check_next_token(Forgets(**fields), patching).found
    assert check_next_token(Forgets(**fields), patching).passed is False
    assert check_next_token(Merges(**fields), patching).passed is False
    assert check_patcher(Patcher(**fields), patching).passed
    assert check_patcher(entropy_patcher, patching).passed is False


@pytest.mark.parametrize("alphabet", ["dna", "rna", "protein", "bytes"])
def test_a_perturbed_row_differs_in_one_place(alphabet):
    tokens = ByteTokenizer().encode("acguACGTNNXKacgt")
    positions, rows = perturbed_rows(tokens, alphabet)
    assert len(positions) == 8
    assert [(row != tokens).nonzero().flatten().tolist() for row in rows] == [[at] for at in positions]
    letters = ByteTokenizer().decode(tokens).upper()
    for at, row in zip(positions, rows, strict=True):
        symbol = ByteTokenizer().decode(row[at : at + 1]).upper()
        assert symbol.replace("U", "T") != letters[at].replace("U", "T")


def test_short_rows_are_perturbed_everywhere():
    assert perturbed_rows(ByteTokenizer().encode("A"), "dna") == ([], [])
    assert perturbed_rows(ByteTokenizer().encode("ACG"), "dna")[0] == [1, 2]
    assert perturbed_rows(ByteTokenizer().encode("ACG"), "dna", first=0)[0] == [0, 1, 2]
