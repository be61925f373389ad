"""The seam between a net and whatever cuts its sequences."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.config import AdvancedPatcherConfig
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.model.inputs import PatchedTokens
from hyena_glt.model.sources import encode_piece, encode_rows, join_patches, patch_rows, resolve_patcher
from hyena_glt.patching import Patcher, PatcherArgs


class Halves:
    """A foreign patcher: two patches per row, no more than `patch`."""

    def patch(self, tokens):
        lengths = (tokens >= 0).sum(1)
        return torch.stack([lengths - lengths // 2, lengths // 2], dim=1), None


def test_rows_are_padded_to_the_longest():
    assert encode_rows(["AC", b"G"]).tolist() == [[69, 71], [75, -1]]
    assert encode_rows("AC").tolist() == encode_rows(torch.tensor([69, 71])).tolist() == [[69, 71]]
    assert encode_rows([]).shape == (0, 0)


def test_a_piece_is_text_bytes_or_tokens():
    assert encode_piece("A").tolist() == encode_piece(b"A").tolist() == encode_piece(torch.tensor([69])).tolist()
    with pytest.raises(PatchingError, match="got int"):
        encode_piece(65)


def test_the_options_of_a_call_rule_over_the_patcher_of_the_net(small_config):
    external = Patcher(patching_mode="byte")
    for options in (
        AdvancedPatcherConfig(patching_mode="static", patch_size=4, batch_size=2),
        PatcherArgs(patching_mode="static", patch_size=4),
        {"patching_mode": "static", "patch_size": 4},
    ):
        patcher = resolve_patcher(small_config(), external, options)
        assert patcher.patch(["ACGTAC"])[0].tolist() == [[4, 2]]
    assert resolve_patcher(small_config(), external, None) is external


def test_the_options_of_a_call_keep_the_entropy_model(small_config):
    model = object()
    external = Patcher(patching_mode="byte", entropy_model=model)
    assert resolve_patcher(small_config(), external, {"patching_mode": "static"}).entropy_model is model


def test_without_a_patcher_the_message_says_what_to_do(small_config):
    with pytest.raises(ConfigError, match="external_patcher: expected a patcher, got none; use HyenaGLT"):
        resolve_patcher(small_config(), None, None)


def test_a_net_may_bring_its_own_patcher(small_config):
    config = small_config(use_external_patcher=False, patcher_threshold=1.2)
    patcher = resolve_patcher(config, None, None)
    assert (patcher.patching_mode, patcher.threshold) == ("entropy", 1.2)


def test_a_patcher_with_starts_passes_them_on():
    tokens = encode_rows(["ACNNNGT"])
    patched = patch_rows(Patcher(patching_mode="static", patch_size=4), tokens)
    assert patched.patch_lengths.tolist() == [[4, 3]]
    assert patched.known_starts is not None


def test_a_foreign_patcher_needs_only_patch():
    patched = patch_rows(Halves(), encode_rows(["ACGTA", "AC"]))
    assert patched.patch_lengths.tolist() == [[3, 2], [1, 1]]
    with pytest.raises(PatchingError, match=r"expected a method patch\(tokens\), got object"):
        patch_rows(object(), encode_rows(["A"]))


def test_an_overlapping_patcher_makes_windows_of_every_row():
    patcher = Patcher(patching_mode="static", patch_size=4, overlap=2)
    patched = patch_rows(patcher, encode_rows(["ACGTAC", "ACG"]))
    assert patched.patch_lengths.tolist() == [[4, 4], [3, 0]]
    assert patched.patch_starts.tolist() == [[0, 2], [0, 0]]
    assert patched.tokens[0].tolist() == encode_rows("ACGTGTAC")[0].tolist()


@pytest.mark.parametrize(("boundaries", "offset"), [([0, 2], 0), ([0, 2], 100), ([100, 102], 100), (None, 100)])
def test_boundaries_count_from_zero_or_from_the_offset(boundaries, offset):
    patched = join_patches(["AC", b"GT"], boundaries, offset)
    assert patched.tokens.equal(encode_rows("ACGT"))
    assert patched.patch_lengths.tolist() == [[2, 2]]
    assert patched.patch_starts is None or patched.patch_starts.tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("patches", "boundaries", "reason"),
    [
        (["A", "C"], [0], "one start for each of 2 patches, got 1"),
        (["A", "C"], [5, 6], "first to be 0 or the offset 10, got 5"),
        (["A", "C"], [0, 0], "ascending"),
        (["A", ""], [0, 1], "no empty patch, got one at 1"),
    ],
)
def test_boundaries_that_do_not_fit_are_refused(patches, boundaries, reason):
    with pytest.raises(PatchingError, match=reason):
        join_patches(patches, boundaries, 10)


def test_no_patches_are_an_empty_row():
    patched = join_patches([], [], 0)
    assert isinstance(patched, PatchedTokens)
    assert patched.tokens.shape == (1, 0)
