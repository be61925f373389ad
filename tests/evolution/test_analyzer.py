"""The guide's class; each fault of DESIGN.md section 12 that concerns it is named by the test that it would fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.errors import AlphabetError, DataError
from hyena_glt.evolution import EvolutionaryAnalyzer, Genome
from hyena_glt.evolution.net_profiles import compare_with_net

skbio = pytest.importorskip("skbio")

# Lines 1128-1134 of the integration guide
GUIDE = [
    "ATGGCGTTAGCCAAAGGTCCAGGCTATGCAGTAG" * 50,
    "ATGGCGTTAGCCAAAGGTCCAGGCTTTGCAGTAG" * 50,
    "ATGGCGTTACCCCAAGGTCCAGGCTATGCAGTAG" * 50,
    "ATGGCGTTAGCCAAAGGTCCAGGCTATGCAGTAG" * 45,
    "CCCGCGTTAGCCAAAGGTCCAGGCTATGCAGTAG" * 50,
]
IDS = ["Species_A", "Species_B", "Species_C", "Species_D", "Species_E"]


@pytest.fixture(scope="module")
def analyzer(net):
    return EvolutionaryAnalyzer(net, Patcher(patching_mode="space", delimiter_chars=["T"]))


@pytest.fixture(scope="module")
def results(analyzer):
    return analyzer.analyze_evolutionary_distance(GUIDE, IDS)


def test_the_guides_keys_and_shapes(results):
    assert {"distance_matrix", "compression_matrix", "sequence_ids", "phylogenetic_tree"} <= set(results)
    assert set(results["phylogenetic_tree"]) == {"newick", "tree", "linkage_matrix", "sequence_ids"}
    assert results["distance_matrix"].shape == results["compression_matrix"].shape == (5, 5)
    assert results["sequence_ids"] == results["phylogenetic_tree"]["sequence_ids"] == IDS
    assert {tip.name for tip in results["phylogenetic_tree"]["tree"].tips()} == set(IDS)
    assert results["phylogenetic_tree"]["linkage_matrix"].shape == (4, 4)
    assert {tip.name for tip in skbio.TreeNode.read([results["phylogenetic_tree"]["newick"]]).tips()} == set(IDS)


def test_compression_similarity_of_a_sequence_with_itself_is_1(results):
    # the guide leaves its diagonal at 0
    matrix = results["compression_matrix"]
    assert (np.diag(matrix) == 1).all()
    assert ((matrix > 0) & (matrix <= 1)).all()


def test_parts_of_mixed_units_are_normalised(results):
    # section 12, "distances of mixed units": the guide adds 0.7 of a norm to 0.3 of a number of tokens
    parts = [results[name] / results[name].max() for name in ("representation_distances", "patching_distances")]
    assert np.allclose(results["distance_matrix"], 0.7 * parts[0] + 0.3 * parts[1])
    assert results["distance_matrix"].max() <= 1.0


def test_wasserstein_of_unequal_counts_is_right(analyzer, net):
    # section 12, 'a "Wasserstein" wrong for unequal counts'
    class Output:
        def __init__(self, lengths):
            self.patch_lengths = torch.tensor([lengths])
            self.last_hidden_state = torch.ones(1, len(lengths), 3)

    one, two = [4, 4, 4, 4, 4, 4], [4, 4, 10]
    found = analyzer.compute_patching_distance(Output(one), Output([*two, 0, 0]))
    assert found == wasserstein_distance(one, two)
    assert found == pytest.approx(2.0)
    padded = [*sorted(two), 10, 10, 10]
    guides = float(np.mean(np.abs(np.array(sorted(one)) - np.array(padded))))
    assert guides != pytest.approx(found)


def test_distances_of_outputs_are_those_of_the_matrix(net, analyzer, results):
    own = HyenaGLT(net.config, external_patcher=analyzer.patcher).eval()
    own.load_state_dict(net.state_dict())
    outputs = [own.forward_with_patching(text) for text in GUIDE[:2]]
    found = analyzer.compute_representation_distance(*outputs)
    assert found == pytest.approx(results["representation_distances"][0, 1], rel=1e-4)
    assert analyzer.compute_patching_distance(*outputs) == pytest.approx(results["patching_distances"][0, 1])
    assert analyzer.compute_representation_distance(outputs[0], outputs[0]) == 0.0


def test_neighbour_joining_is_the_default_and_upgma_is_asked_for(analyzer):
    # section 12, "UPGMA sold as phylogeny": b changed fast, but a and b are sisters
    fast = [[0, 11, 3, 4], [11, 0, 12, 13], [3, 12, 0, 3], [4, 13, 3, 0]]
    true = skbio.TreeNode.read(["((a,b),(c,d));"]).unrooted_copy()
    joined = analyzer.build_phylogenetic_tree(fast, list("abcd"))
    clock = analyzer.build_phylogenetic_tree(fast, list("abcd"), method="upgma")
    assert joined["tree"].compare_rfd(true) == 0
    assert max(clock["tree"].children, key=lambda child: child.is_tip()).name == "b"


def test_gaps_of_an_alignment(analyzer):
    plain = analyzer.analyze_evolutionary_distance(["ACGTTGCA" * 8, "ACGTTGCC" * 8], ["a", "b"])
    gapped = ["ACGT--TGCA" * 8, "ACGTTGCC." * 8]
    assert np.array_equal(
        analyzer.analyze_evolutionary_distance(gapped, ["a", "b"])["distance_matrix"], plain["distance_matrix"]
    )
    with pytest.raises(AlphabetError, match="gap"):
        analyzer.analyze_evolutionary_distance(gapped, ["a", "b"], alignment_aware=False)


def test_what_is_refused(analyzer):
    with pytest.raises(DataError, match="expected 2 names"):
        analyzer.analyze_evolutionary_distance(["ACGT", "ACGA"], ["a"])
    with pytest.raises(DataError, match="differ"):
        analyzer.analyze_evolutionary_distance(["ACGT", "ACGA"], ["a", "a"])
    with pytest.raises(DataError, match="two genomes or more"):
        analyzer.analyze_evolutionary_distance(["ACGT"], ["a"])


@pytest.fixture(scope="module")
def over_bytes(patcher):
    """Makes analyzers of nets over all bytes, with the seed that is given."""

    def make(seed=0, **fields):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = HyenaGLT(HyenaGLTConfig.preset("tiny", **fields)).eval()
        return EvolutionaryAnalyzer(net, patcher)

    return make


@pytest.mark.parametrize("fields", [{}, {"genomic_vocab_size": 256}, {"genomic_vocab_size": 4}])
def test_a_net_whose_config_names_no_alphabet(over_bytes, fields):
    # lines 166 and 350 of the guide: genomic_vocab_size=256, no alphabet
    found = over_bytes(**fields).analyze_evolutionary_distance(GUIDE, IDS)
    assert found["distance_matrix"].shape == (5, 5)
    assert found["distance_matrix"].max() > 0


def test_the_guides_own_setup():
    from hyena_glt import setup_integrated_model

    model, patcher, _ = setup_integrated_model("static", "tiny", "cpu", patcher_options={"patch_size": 8})
    found = EvolutionaryAnalyzer(model, patcher).analyze_evolutionary_distance(GUIDE, IDS)
    assert found["distance_matrix"].max() > 0
    assert {tip.name for tip in found["phylogenetic_tree"]["tree"].tips()} == set(IDS)


def test_a_net_over_bytes_does_not_see_a_soft_mask_or_n(over_bytes, net, patcher):
    masked = [GUIDE[0], GUIDE[0][:800].lower() + GUIDE[0][800:], GUIDE[0] + "N" * 804, GUIDE[4]]
    analyzer = over_bytes()
    found = analyzer.analyze_evolutionary_distance(masked, IDS[:4])["representation_distances"]
    assert found[0, 1] == 0.0
    assert found[0, 3] > 0
    as_dna = compare_with_net(
        [Genome.of(name, text) for name, text in zip(IDS, masked, strict=False)],
        analyzer.model,
        patcher,
        "representation",
    )
    assert np.array_equal(found, as_dna.distances().values)


def test_a_net_over_bytes_reads_whatever_is_no_dna(over_bytes):
    texts = ["MKVLAWGRTM" * 5, "mkvlawgrtm" * 5, "é" * 20, bytes(range(256))]
    found = over_bytes().analyze_evolutionary_distance(texts, IDS[:4])["distance_matrix"]
    assert found[0, 1] == 0.0
    assert np.isfinite(found).all()
    assert (found[0, 2:] > 0).all()
