"""What a net makes of genomes: mean patch states and patch lengths, and the distances between them.

genome -> patches -> windows of whole patches -> trunk states -> sums per block

`representation` is the cosine distance of mean patch states, `wasserstein` that of the distributions of patch lengths,
`combined` is 0.7 of the first and 0.3 of the second, each divided by its maximum over the genomes first: their units
have nothing in common. So `combined` depends on the company, and the other two do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.evolution.genome import Genome, check_genomes, first_copies
from hyena_glt.evolution.matrix import DistanceMatrix

if TYPE_CHECKING:
    from hyena_glt.model import HyenaGLT

NET_METRICS = ("representation", "wasserstein", "combined")
REPRESENTATION_SHARE, WASSERSTEIN_SHARE = 0.7, 0.3
WINDOW = 8192  # bases that go through the net together, about
TARGET_LENGTH, LONGEST_PATCH = 16, 64  # bases, of patches where the net has no patcher of its own


@dataclass(frozen=True, slots=True, eq=False)
class NetProfile:
    """A genome as a net sees it. Patches of ambiguity symbols alone are left out."""

    state_sums: NDArray[np.float64]  # (blocks, hidden), sums of patch states
    lengths: NDArray[np.int64]  # (patches,), tokens of each patch
    blocks: NDArray[np.int64]  # (patches,), the block in which each patch starts

    @property
    def compression_ratio(self) -> float:
        """Tokens per patch."""
        return float(self.lengths.mean())


class ProfileStore(Protocol):
    """Where finished profiles are kept between runs of one net, patcher, window and number of blocks."""

    def find(self, key: str) -> NetProfile | None:
        """A profile that was put there, if it is sound."""

    def put(self, key: str, profile: NetProfile) -> None:
        """Keep a profile."""


@dataclass(frozen=True, slots=True, eq=False)
class NetComparison:
    """Profiles of all genomes, and the metric that compares them."""

    names: tuple[str, ...]
    profiles: tuple[NetProfile, ...]
    metric: str

    @property
    def blocks(self) -> int:
        """Stretches of each genome."""
        return len(self.profiles[0].state_sums)

    def distances(self, weights: Any | None = None) -> DistanceMatrix:
        """Distances; `weights`, `(blocks,)`, say how often each block counts, once by default."""
        chosen = np.ones(self.blocks) if weights is None else np.asarray(weights, np.float64)
        makers = {"representation": representation_distances, "wasserstein": wasserstein_distances}
        if self.metric in makers:
            return DistanceMatrix.of(self.names, makers[self.metric](self.profiles, chosen))
        parts = [make(self.profiles, chosen) for make in makers.values()]
        return DistanceMatrix.of(self.names, combine(*parts))


def compare_with_net(
    genomes: Sequence[Genome],
    model: HyenaGLT,
    patcher: Any | None = None,
    metric: str = "combined",
    *,
    blocks: int = 1,
    window: int = WINDOW,
    store: ProfileStore | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> NetComparison:
    """Run a net over genomes and compare what it says.

    Args:
        genomes: Two or more, of one alphabet and different names.
        model: The net; evaluated without gradients.
        patcher: Cuts the genomes; None: `patcher_for`.
        metric: "representation", "wasserstein" or "combined".
        blocks: Stretches of each genome whose sums are kept apart.
        window: Bases that go through the net together; longer genomes are cut at patch starts.
        store: Finished profiles are kept and found there, one for each distinct content.
        advance: Told how many more genomes are finished; copies of one content are so together.

    Raises:
        ConfigError: An unknown metric, patches that overlap, or genomes that `patcher_for` cannot cut.
        DataError: Genomes that cannot be compared.
    """
    if metric not in NET_METRICS:
        raise ConfigError(f"metric: expected one of {', '.join(NET_METRICS)} with a net, got {metric!r}")
    if blocks < 1 or window < 1:
        raise ConfigError(f"blocks, window: expected 1 or more, got {blocks} and {window}")
    check_genomes(genomes)
    cutter = patcher_for(model, genomes) if patcher is None else patcher
    first = first_copies(genomes)
    profiles: dict[int, NetProfile] = {}
    with _evaluating(model):
        for index, copies in Counter(first).items():
            genome = genomes[index]
            found = None if store is None else store.find(genome.sha256)
            if found is None or len(found.state_sums) != blocks:
                found = profile_genome(model, cutter, genome, blocks=blocks, window=window)
                if store is not None:
                    store.put(genome.sha256, found)
            profiles[index] = found
            advance(copies)
    return NetComparison(tuple(genome.name for genome in genomes), tuple(profiles[index] for index in first), metric)


def patcher_for(model: HyenaGLT, genomes: Sequence[Genome], target_length: float = TARGET_LENGTH) -> Any:
    """The patcher that the net was saved with or learned; else one calibrated on all genomes together.

    Raises:
        ConfigError: The genomes are too short or too uniform for patches of about that length.
    """
    from hyena_glt.entropies.markov import MarkovEntropy
    from hyena_glt.patching import calibrate

    if model.external_patcher is not None or model.merger is not None:
        return model.patcher()
    contigs = [part for genome in genomes for part in genome.sequences]
    table = MarkovEntropy.fit(contigs, alphabet=genomes[0].alphabet.name)
    options = {"target_mean_length": target_length, "max_patch_length": LONGEST_PATCH}
    try:
        return calibrate(contigs, entropy_model=table, **options).build()
    except ConfigError as problem:
        raise ConfigError(
            f"patcher: expected one, since no threshold cuts these genomes into patches of about {target_length:g} "
            f"letters: {str(problem).partition(': ')[2]}"
        ) from None


def profile_genome(
    model: HyenaGLT, patcher: Any, genome: Genome, *, blocks: int = 1, window: int = WINDOW
) -> NetProfile:
    """Run one genome through a net in evaluation mode.

    Raises:
        ConfigError: Patches that overlap.
    """
    total = sum(map(len, genome.sequences))
    sums = np.zeros((blocks, model.config.hidden_size))
    kept_lengths, kept_blocks = [], []
    offset = 0
    for sequence in filter(None, genome.sequences):
        lengths = _patch_lengths(patcher, sequence, genome)
        starts = np.cumsum(lengths) - lengths
        codes = genome.alphabet.encode(sequence)
        is_letter = np.ones(codes.size, bool) if not genome.alphabet.has_ambiguity else codes < genome.alphabet.size
        has_letters = np.add.reduceat(is_letter.astype(np.int64), starts) > 0
        block = (starts + offset) * blocks // total
        for first, last, states in _window_states(model, sequence, lengths, starts, window):
            own = has_letters[first:last]
            np.add.at(sums, block[first:last][own], states[own])
        kept_lengths.append(lengths[has_letters])
        kept_blocks.append(block[has_letters])
        offset += len(sequence)
    return NetProfile(sums, np.concatenate(kept_lengths), np.concatenate(kept_blocks))


def representation_distances(profiles: Sequence[NetProfile], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine distances of the mean patch states, `(genomes, genomes)` in [0, 2], blocks weighted."""
    sums = np.stack([weights @ profile.state_sums for profile in profiles])  # a mean and a sum have one direction
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    directions = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0)
    gaps = ((directions[:, None] - directions) ** 2).sum(-1) / 2  # 1 - cos, and exactly 0 for equal vectors
    np.fill_diagonal(gaps, 0.0)
    return gaps


def wasserstein_distances(profiles: Sequence[NetProfile], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wasserstein distances of the patch lengths in tokens, `(genomes, genomes)`, blocks weighted.

    The area between two cumulative distributions on the lengths that occur: `scipy.stats.wasserstein_distance`, for all
    pairs at once.
    """
    from scipy.spatial.distance import cdist

    support = np.unique(np.concatenate([profile.lengths for profile in profiles]))
    if support.size < 2:
        return np.zeros((len(profiles), len(profiles)))
    shares = np.zeros((len(profiles), support.size))
    for row, profile in zip(shares, profiles, strict=True):
        at = np.searchsorted(support, profile.lengths)
        counts = np.bincount(at, weights[profile.blocks], minlength=support.size)
        row += counts / max(counts.sum(), 1.0)
    areas = np.cumsum(shares, axis=1)[:, :-1] * np.diff(support)
    return cdist(areas, areas, "cityblock")


def combine(representation: NDArray[np.float64], wasserstein: NDArray[np.float64]) -> NDArray[np.float64]:
    """0.7 of the first and 0.3 of the second, each divided by its maximum unless that is 0."""
    parts = [values / (values.max() or 1.0) for values in (representation, wasserstein)]
    return REPRESENTATION_SHARE * parts[0] + WASSERSTEIN_SHARE * parts[1]


def _patch_lengths(patcher: Any, sequence: bytes, genome: Genome) -> NDArray[np.int64]:
    lengths = patcher.patch([sequence.decode() if sequence.isascii() else sequence])[0][0].cpu().numpy()
    lengths = lengths[lengths > 0]
    if lengths.sum() != len(sequence):
        raise ConfigError("patcher: expected patches that follow each other, got patches that overlap; set overlap=0")
    return lengths.astype(np.int64)


def _window_states(
    model: HyenaGLT, sequence: bytes, lengths: NDArray[np.int64], starts: NDArray[np.int64], window: int
) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    """Trunk states of the patches of each window: first patch, end, `(patches, hidden)` float64."""
    import torch

    from hyena_glt.tokens.byte_tokenizer import OFFSET

    tokens = torch.from_numpy(np.frombuffer(sequence, np.uint8).astype(np.int64) + OFFSET)
    edges = [0, *(np.flatnonzero(np.diff(starts // window)) + 1).tolist(), lengths.size]
    for first, last in pairwise(edges):
        begin = int(starts[first])
        own = torch.from_numpy(lengths[first:last])
        piece = tokens[begin : begin + int(own.sum())]
        states, _ = model.hidden_states(
            piece[None].to(model.device), own[None].to(model.device), global_position_offset=begin
        )
        yield first, last, states[0].detach().double().cpu().numpy()


@contextmanager
def _evaluating(model: HyenaGLT) -> Iterator[None]:
    """No gradients and no dropout meanwhile."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def check_output_lengths(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Patch lengths without padding.

    Raises:
        DataError: No patch.
    """
    real = lengths[lengths > 0]
    if not real.size:
        raise DataError("patch_lengths: expected a patch, got none")
    return real
