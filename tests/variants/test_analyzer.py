"""The guide's analyzer, and the faults of its version that must not come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyena_glt.errors import ConfigError, DataError, RegionError
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.variants.analyzer import KEPT_OUTPUTS, GenomicVariantAnalyzer
from hyena_glt.variants.edits import Edit
from hyena_glt.variants.scoring import PlacedEdit, VariantScorer

pytestmark = pytest.mark.usefixtures("one_thread")
GUIDE = "ATGGCGTTAGCCAAAGGTCCA" * 200
RANDOM = generate_random_genomic_sequence(900, seed=9)


@pytest.fixture(scope="module")
def net(scoring_net, entropy_patcher):
    return scoring_net(entropy_patcher)


def variant(position: int, ref: str, alt: str) -> dict[str, object]:
    return {"position": position, "ref_allele": ref, "alt_allele": alt}


def test_the_guides_example_with_alleles_that_are_there(net):
    variants = [variant(1000, "G", "T"), variant(1500, "A", "C"), variant(2001, GUIDE[2001:2004], GUIDE[2001])]
    variants = [{**v, "ref_allele": GUIDE[v["position"] : v["position"] + len(v["ref_allele"])]} for v in variants]
    effects = GenomicVariantAnalyzer(net, net.external_patcher).analyze_variant_effects(
        GUIDE, variants, context_window=128
    )
    for effect, given in zip(effects, variants, strict=True):
        assert effect["variant"] == given
        assert effect["effect_score"] > 0
        assert effect["ref_compression"] > 1
        assert effect["alt_compression"] > 1
        assert set(effect["patch_changes"]) == {"boundary_changes", "length_variance_change", "compression_change"}
        assert np.isfinite(effect["log_likelihood_difference"])


def test_the_guides_own_alleles_do_not_match_and_are_refused(net):
    with pytest.raises(DataError, match="variant 1: REF is 'ATG' but the sequence has 'GTT' at 2000"):
        GenomicVariantAnalyzer(net).analyze_variant_effects(GUIDE, [variant(1500, "G", "C"), variant(2000, "ATG", "A")])


def test_alt_is_put_at_its_position_not_at_the_first_match(net):
    """The guide's `str.replace(ref, alt, 1)` edits the first equal base of the context, wherever it lies."""
    analyzer, seen = GenomicVariantAnalyzer(net), []
    analyzer._output = lambda context: seen.append(context) or net.forward_with_patching(context)
    position = 450
    base = RANDOM[position]
    analyzer.analyze_variant_effects(RANDOM, [variant(position, base, "N" if base == "A" else "A")], context_window=100)
    reference, changed = (np.frombuffer(context, np.uint8) for context in seen)
    assert np.flatnonzero(reference != changed).tolist() == [50]
    guide = RANDOM[400:500].replace(base, "A", 1)
    assert guide != bytes(changed).decode()


@pytest.mark.parametrize(("ref", "alt"), [("", "ACGTACGTAC"), (RANDOM[450:460], "")])
def test_contexts_of_an_indel_are_of_equal_length(net, ref, alt):
    """The guide's contexts differ by the length of the indel."""
    analyzer, seen = GenomicVariantAnalyzer(net), []
    analyzer._output = lambda context: seen.append(context) or net.forward_with_patching(context)
    analyzer.analyze_variant_effects(RANDOM, [variant(450, ref, alt)], context_window=100)
    assert [len(context) for context in seen] == [100, 100]


def test_the_score_is_the_cosine_distance_of_the_mean_states(net):
    analyzer = GenomicVariantAnalyzer(net)
    one, other = (net.forward_with_patching(RANDOM[i : i + 90]) for i in (0, 300))
    means = [output.last_hidden_state.mean(dim=1) for output in (one, other)]
    expected = 1 - torch.cosine_similarity(*means, dim=-1).item()
    assert analyzer.compute_variant_effect(one, other, {}) == pytest.approx(expected, abs=1e-6)
    assert analyzer.compute_variant_effect(one, one, {}) == 0.0
    changes = analyzer.analyze_patch_changes(one, other)
    counts = [output.patch_lengths.shape[1] for output in (one, other)]
    assert changes["boundary_changes"] == abs(counts[0] - counts[1])
    variances = [torch.var(output.patch_lengths.double()).item() for output in (one, other)]
    assert changes["length_variance_change"] == pytest.approx(variances[1] - variances[0])
    assert changes["compression_change"] == pytest.approx(90 / counts[1] - 90 / counts[0])


def test_one_patch_has_no_variance(net):
    one = net.forward_with_patching("A")
    assert GenomicVariantAnalyzer(net).analyze_patch_changes(one, one)["length_variance_change"] == 0.0


def test_the_log_likelihood_difference_is_that_of_the_scorer(net):
    place = 448  # where the scorer's shared windows begin as the analyzer's own do
    base, other = RANDOM[place], "A" if RANDOM[place] != "A" else "C"
    effect = GenomicVariantAnalyzer(net).analyze_variant_effects(RANDOM, [variant(place, base, other)], 128)[0]
    scorer = VariantScorer(net, {"c": RANDOM.encode()}, window=128, rc="none")
    numbers = scorer.score([PlacedEdit("c", Edit(place, base.encode(), other.encode()))])[0].numbers
    assert effect["log_likelihood_difference"] == pytest.approx(numbers[0], rel=1e-5, abs=1e-5)
    assert effect["effect_score"] == pytest.approx(numbers[1], rel=1e-5, abs=1e-9)
    assert effect["patch_changes"]["compression_change"] == pytest.approx(numbers[4])


def test_reference_contexts_are_kept_and_bounded(net):
    analyzer = GenomicVariantAnalyzer(net)
    alts = [alt for alt in "ACGT" if alt != RANDOM[450]]
    analyzer.analyze_variant_effects(RANDOM, [variant(450, RANDOM[450], alt) for alt in alts], 64)
    assert len(analyzer.reference_cache) == 1
    analyzer.reference_cache.update({str(i): None for i in range(KEPT_OUTPUTS)})
    analyzer.analyze_variant_effects(RANDOM, [variant(300, RANDOM[300], "")], 64)
    assert len(analyzer.reference_cache) == KEPT_OUTPUTS


def test_a_net_that_sees_both_sides_has_no_log_likelihood(scoring_net):
    net = scoring_net(causal=False)
    effect = GenomicVariantAnalyzer(net).analyze_variant_effects(RANDOM, [variant(450, RANDOM[450], "")], 64)[0]
    assert effect["log_likelihood_difference"] is None
    assert effect["effect_score"] > 0


@pytest.mark.parametrize(
    ("alt", "reason"),
    [
        ("*", "spanning_deletion"),
        (".", "no_alt"),
        ("<DEL>", "symbolic"),
        ("<NON_REF>", "unspecified"),
        ("T[c:5[", "breakend"),
    ],
)
def test_an_alt_that_is_no_sequence_keeps_its_place_without_a_score(net, alt, reason):
    given = [variant(450, RANDOM[450], alt), variant(450, RANDOM[450], "")]
    unscored, scored = GenomicVariantAnalyzer(net).analyze_variant_effects(RANDOM, given, 64)
    assert unscored.keys() == scored.keys()
    assert (unscored.pop("variant"), unscored.pop("reason")) == (given[0], reason)
    assert set(unscored.values()) == {None}
    assert scored["reason"] is None
    assert scored["effect_score"] > 0


def test_what_cannot_be_analyzed(net):
    analyzer = GenomicVariantAnalyzer(net)
    for given, error, words in (
        ({"position": 3, "ref_allele": "A"}, ConfigError, "alt_allele is missing"),
        (variant(-1, "A", "C"), RegionError, "within the 900 bases"),
        (variant(899, RANDOM[899] + "A", "C"), RegionError, "within the 900 bases"),
        (variant(3, RANDOM[3], "<DEL"), DataError, "expected the bases"),
        (variant(3, RANDOM[3], 5), DataError, "expected the bases"),
        (variant(3, "ACGT"[RANDOM[3] == "A"], "<DEL>"), DataError, "REF is"),
        ({**variant(3, "A", "C"), "position": 3.0}, ConfigError, "whole number"),
    ):
        with pytest.raises(error, match=words):
            analyzer.analyze_variant_effects(RANDOM, [given])
    with pytest.raises(ConfigError, match="window"):
        analyzer.analyze_variant_effects(RANDOM, [], context_window=3)
    assert analyzer.analyze_variant_effects(RANDOM, []) == []
