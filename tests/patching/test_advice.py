from __future__ import annotations

import warnings

import pytest
import torch

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.patching import Patcher, PatcherArgs, PatchingWarning

DNA = "ACGTTGCAAGCT" * 10
MODEL = MarkovEntropy.fit([DNA], order=2)


def advice_of(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(warning.message) for warning in caught]


def test_monotonicity_with_a_second_threshold_is_one_warning_and_monotonicity_runs():
    entropies = torch.rand(1, 120, generator=torch.Generator().manual_seed(2))
    with pytest.warns(PatchingWarning, match="monotonicity runs"):
        patcher = Patcher(threshold=0.2, threshold_add=0.5, monotonicity=True)
    lengths = patcher.patch(DNA, entropies=entropies)[0]
    assert torch.equal(lengths, Patcher(threshold=0.2, monotonicity=True).patch(DNA, entropies=entropies)[0])


@pytest.mark.parametrize("model", [MODEL, None])
def test_the_text_threshold_on_dna_is_warned_about_once(model):
    patcher = Patcher(entropy_model=model)
    with pytest.warns(PatchingWarning, match="default for text"):
        patcher.patch([DNA, DNA])
    assert advice_of(lambda: patcher.patch(DNA)) == []


def test_a_large_threshold_for_the_rise_is_warned_about():
    with pytest.warns(PatchingWarning, match="difference of entropies"):
        Patcher(monotonicity=True, entropy_model=MODEL).patch(DNA)
    assert advice_of(lambda: Patcher(monotonicity=True, threshold=0.1, entropy_model=MODEL).patch(DNA)) == []


@pytest.mark.parametrize("mode", ["space", "bpe"])
@pytest.mark.parametrize("longest", [None, 16])
def test_bases_without_a_separator_are_warned_about(mode, longest):
    patcher = Patcher(patching_mode=mode, max_patch_length=longest)
    with pytest.warns(PatchingWarning, match="nothing to split bases at"):
        patcher.patch(["AC GT\x03", DNA])
    assert advice_of(lambda: patcher.patch(DNA)) == []


def test_a_warning_names_the_line_of_the_caller():
    with pytest.warns(PatchingWarning) as caught:
        Patcher(entropy_model=MODEL)(DNA)
    assert caught[0].filename == __file__
    with pytest.warns(PatchingWarning) as caught:
        PatcherArgs(monotonicity=True, threshold_add=0.1).build()
    assert caught[0].filename == __file__


def test_what_suits_the_data_is_not_warned_about():
    tokens = torch.full((1, 120), 69)

    def sound():
        Patcher().patch(tokens, entropies=torch.zeros(1, 120))
        Patcher(monotonicity=True).patch(tokens, entropies=torch.zeros(1, 120))
        Patcher(threshold=1.37, entropy_model=MODEL).patch(DNA)
        Patcher().patch("The quick brown fox, and so on. " * 5)
        Patcher(entropy_model=lambda tokens: torch.zeros(*tokens.shape, 260)).patch(DNA)
        Patcher(patching_mode="space").patch("word word")
        Patcher(patching_mode="space", delimiter_chars=["|"]).patch(DNA)
        Patcher(patching_mode="space").patch("AC")
        Patcher(patching_mode="static").patch(DNA)

    assert advice_of(sound) == []
