"""`EvolutionaryAnalyzer`: distances and a tree from what a net and its patcher make of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyena_glt.errors import DataError
from hyena_glt.evolution.genome import UPPER, Genome
from hyena_glt.evolution.matrix import DistanceMatrix
from hyena_glt.evolution.net_profiles import (
    WINDOW,
    NetProfile,
    check_output_lengths,
    combine,
    compare_with_net,
    representation_distances,
    wasserstein_distances,
)
from hyena_glt.evolution.trees import build_tree, linkage
from hyena_glt.sequences.alphabets import BYTES, DNA, GAPS, Alphabet, get_alphabet

if TYPE_CHECKING:
    from hyena_glt.model import HyenaGLT


class EvolutionaryAnalyzer:
    """Compares sequences by the states and the patches of a net.

    Args:
        model: A `HyenaGLT`. Random weights tell sequences apart but know no biology.
        patcher: Cuts the sequences; None: the net's own, or one calibrated on the sequences.
        window: Bases that go through the net together; longer sequences are cut at patch starts.

    Example:
        >>> from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
        >>> net = HyenaGLT(HyenaGLTConfig.preset("tiny", genomic_vocab_size=4)).eval()
        >>> analyzer = EvolutionaryAnalyzer(net, Patcher(patching_mode="static", patch_size=8))
        >>> found = analyzer.analyze_evolutionary_distance(["ACGT" * 20, "ACGT" * 20, "AACC" * 20], ["a", "b", "c"])
        >>> float(found["distance_matrix"][0, 1]), bool(found["distance_matrix"][0, 2] > 0)
        (0.0, True)
    """

    def __init__(self, model: HyenaGLT, patcher: Any | None = None, *, window: int = WINDOW) -> None:
        self.model, self.patcher, self.window = model, patcher, window

    def analyze_evolutionary_distance(
        self, sequences: Sequence[str | bytes], sequence_ids: Sequence[str], alignment_aware: bool = True
    ) -> dict[str, Any]:
        """Distances between sequences, and their tree.

        Args:
            sequences: Two or more. Case means nothing, so soft-masked sequences equal others, a net over all bytes
                included: it is shown upper case. If all of its sequences are nucleotides they are read as DNA, with
                the rule for ambiguity codes; else every byte counts as a letter.
            sequence_ids: Their names, all different.
            alignment_aware: Remove the gaps `-` and `.` that an alignment has put in; else they are refused where
                the net's alphabet has none.

        Returns:
            `distance_matrix` (the combined distance), `representation_distances`, `patching_distances` and
            `compression_matrix` (the smaller compression ratio over the larger, 1 on the diagonal), all
            `(sequences, sequences)` float64; `sequence_ids`; `phylogenetic_tree` as `build_phylogenetic_tree` gives it.

        Raises:
            DataError: Fewer than two sequences, other numbers of names, a name twice, or a sequence without letters.
            AlphabetError: A symbol that the net's alphabet does not have.
        """
        if len(sequences) != len(sequence_ids):
            raise DataError(f"sequence_ids: expected {len(sequences)} names for the sequences, got {len(sequence_ids)}")
        texts = [text.encode() if isinstance(text, str) else bytes(text) for text in sequences]
        upper = [text.translate(UPPER, GAPS if alignment_aware else b"") for text in texts]
        alphabet = _alphabet_of(self.model.config.alphabet_name, upper)
        genomes = [Genome.of(name, text, alphabet) for name, text in zip(sequence_ids, upper, strict=True)]
        profiles = compare_with_net(genomes, self.model, self.patcher, window=self.window).profiles
        once = np.ones(1)
        representation, patching = representation_distances(profiles, once), wasserstein_distances(profiles, once)
        distances = combine(representation, patching)
        return {
            "distance_matrix": distances,
            "compression_matrix": compression_similarity(profiles),
            "sequence_ids": list(sequence_ids),
            "phylogenetic_tree": self.build_phylogenetic_tree(distances, sequence_ids),
            "representation_distances": representation,
            "patching_distances": patching,
        }

    def compute_representation_distance(self, output1: Any, output2: Any) -> float:
        """Cosine distance, in [0, 2], of the mean patch states of two outputs of `forward_with_patching`."""
        return float(representation_distances([_profile(output1), _profile(output2)], np.ones(1))[0, 1])

    def compute_patching_distance(self, output1: Any, output2: Any) -> float:
        """Wasserstein distance, in tokens, of the patch lengths of two outputs, of whatever numbers of patches."""
        from scipy.stats import wasserstein_distance

        return float(wasserstein_distance(_profile(output1).lengths, _profile(output2).lengths))

    def build_phylogenetic_tree(
        self, distance_matrix: ArrayLike, sequence_ids: Sequence[str], method: str = "nj", root: str = "none"
    ) -> dict[str, Any]:
        """A tree of given distances.

        Args:
            distance_matrix: `(sequences, sequences)`, symmetric, not negative, 0 on the diagonal.
            sequence_ids: Names of the rows.
            method: "nj", or "upgma", which assumes that all lineages change at one rate.
            root: "none" or "midpoint" (nj alone).

        Returns:
            `newick` (text), `tree` (`skbio.TreeNode`), `linkage_matrix` (SciPy's average linkage, whatever the
            method) and `sequence_ids`.

        Raises:
            DataError: No matrix of distances.
            SystemProblem: scikit-bio is not installed.
        """
        matrix = DistanceMatrix.of(list(sequence_ids), distance_matrix)
        phylogeny = build_tree(matrix, method, root=root)
        return {
            "newick": phylogeny.newick,
            "tree": phylogeny.tree,
            "linkage_matrix": linkage(matrix),
            "sequence_ids": list(sequence_ids),
        }


def compression_similarity(profiles: Sequence[NetProfile]) -> NDArray[np.float64]:
    """The smaller compression ratio over the larger, `(sequences, sequences)` in (0, 1]."""
    ratios = np.array([profile.compression_ratio for profile in profiles])
    return np.minimum(ratios[:, None], ratios) / np.maximum(ratios[:, None], ratios)


def _alphabet_of(name: str, sequences: Sequence[bytes]) -> Alphabet:
    """The alphabet of a net; over all bytes, that of DNA where the sequences hold nothing else."""
    if name != BYTES.name:
        return get_alphabet(name)
    return BYTES if any(text.translate(None, DNA.symbols) for text in sequences) else DNA


def _profile(output: Any) -> NetProfile:
    """The profile of an output of one sequence."""
    lengths = output.patch_lengths.detach().cpu().numpy().reshape(-1)
    states = output.last_hidden_state.detach().double().cpu().numpy()
    if states.ndim != 3 or states.shape[0] != 1:
        raise DataError(f"last_hidden_state: expected (1, num_patches, hidden), got shape {states.shape}")
    real = check_output_lengths(lengths)
    sums = states[0][lengths > 0].sum(axis=0, keepdims=True)
    return NetProfile(sums, real.astype(np.int64), np.zeros(real.size, np.int64))
