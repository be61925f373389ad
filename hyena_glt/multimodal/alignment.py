"""Patch states of several modalities -> one shared space: cross-attention between them, vectors, scores of pairs.

    states (num, patches, width of the net) -> projection (num, patches, shared) -> attention over another modality
    -> states that know the other -> mean over the patches

Padding never matters: masked states are left out of every softmax and every mean. In evaluation mode no sequence
depends on the others of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.errors import ConfigError

COLDEST, WARMEST = 0.01, 1.0
FIRST_TEMPERATURE = 0.1
PLACE_WAVES = 8
BLOCK_ROWS = 32


@dataclass(frozen=True, slots=True, eq=False)
class PatchStates:
    """What a net says of a batch of sequences, patch by patch."""

    states: Tensor  # (num, patches, width), zeros in padding
    patch_lengths: Tensor  # (num, patches) int64, right-padded with 0

    @property
    def mask(self) -> Tensor:
        """`(num, patches)` bool; False in padding."""
        return self.patch_lengths > 0

    @property
    def places(self) -> Tensor:
        """Middle of each patch as a share of its sequence, `(num, patches)` float32 in [0, 1]; 0 in padding."""
        ends = self.patch_lengths.cumsum(1)
        total = ends[:, -1:].clamp(min=1) if ends.shape[1] else ends
        return ((ends - self.patch_lengths / 2) / total * self.mask).float()


@dataclass(frozen=True, slots=True, eq=False)
class AlignedOutputs:
    """Sequences of several modalities in one space; row `i` of each belongs to row `i` of the others."""

    modalities: tuple[str, ...]
    states: dict[str, Tensor]  # (num, patches, shared), each patch with what it read from the others; 0 in padding
    patch_mask: dict[str, Tensor]  # (num, patches) bool
    pooled: dict[str, Tensor]  # (num, shared), mean of `states`
    vectors: dict[str, Tensor]  # (num, shared), unit length, from the modality alone: what retrieval compares
    attention: dict[tuple[str, str], Tensor]  # (a, b): (num, patches of a, patches of b), mean over the heads
    similarity: dict[tuple[str, str], Tensor]  # (a, b): (num, num) cosines of `vectors`


class CrossModalAlignment(nn.Module):
    """Projects patch states of several nets to one space and lets them read each other.

    Args:
        widths: Modality -> width of its net's patch states.
        shared_size: Width of the shared space.
        num_heads: Attention heads.

    Raises:
        ConfigError: A shared size that the heads do not divide, or no modality.

    Example:
        >>> align = CrossModalAlignment({"dna": 8, "protein": 6}, shared_size=4, num_heads=2)
        >>> dna = PatchStates(torch.randn(2, 5, 8), torch.full((2, 5), 3))
        >>> protein = PatchStates(torch.randn(2, 3, 6), torch.full((2, 3), 4))
        >>> align({"dna": dna, "protein": protein}).attention["dna", "protein"].shape
        torch.Size([2, 5, 3])
    """

    def __init__(self, widths: Mapping[str, int], shared_size: int = 64, num_heads: int = 4) -> None:
        super().__init__()
        if not widths:
            raise ConfigError("widths: expected at least one modality, got none")
        if shared_size < 1 or num_heads < 1 or shared_size % num_heads:
            raise ConfigError(f"num_heads: expected a divisor of shared_size {shared_size}, got {num_heads}")
        self.shared_size, self.num_heads = shared_size, num_heads
        self.norm = nn.ModuleDict({name: nn.LayerNorm(width, bias=False) for name, width in widths.items()})
        self.project = nn.ModuleDict(
            {name: nn.Linear(width, shared_size, bias=False) for name, width in widths.items()}
        )
        self.center = nn.ModuleDict({name: nn.BatchNorm1d(shared_size, affine=False) for name in widths})
        self.place = nn.Linear(2 * PLACE_WAVES, shared_size, bias=False)
        self.to_query = nn.Linear(shared_size, shared_size, bias=False)
        self.to_key_value = nn.Linear(shared_size, 2 * shared_size, bias=False)
        self.null_key_value = nn.Parameter(torch.randn(2 * shared_size) / math.sqrt(shared_size))
        self.project_out = nn.Linear(shared_size, shared_size, bias=False)
        self.to_vector = nn.Linear(shared_size, shared_size, bias=False)
        share = (FIRST_TEMPERATURE - COLDEST) / (WARMEST - COLDEST)
        self.temperature_logit = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    @property
    def temperature(self) -> Tensor:
        """What scores are divided by in training: learned, between 0.01 and 1."""
        return COLDEST + (WARMEST - COLDEST) * self.temperature_logit.sigmoid()

    def shared(self, modality: str, inputs: PatchStates) -> Tensor:
        """Patch states in the shared space, `(num, patches, shared)`; zeros in padding.

        What all patches of a modality have in common is taken off (mean and variance of the batch in training, of the
        training in evaluation): with it all cosines are near 1 and the training stands still.

        Raises:
            ConfigError: An unknown modality, or states of another width.
        """
        if modality not in self.project:
            raise ConfigError(f"modality: expected one of {', '.join(self.project)}, got {modality!r}")
        projection = self.project[modality]
        assert isinstance(projection, nn.Linear)
        if inputs.states.shape[-1] != projection.in_features:
            raise ConfigError(
                f"{modality}: expected states of width {projection.in_features}, got {inputs.states.shape[-1]}"
            )
        projected, mask = projection(self.norm[modality](inputs.states)), inputs.mask
        centered = torch.zeros_like(projected)
        if bool(mask.any()):
            centered[mask] = self.center[modality](projected[mask])
        return centered

    def vectors(self, modality: str, inputs: PatchStates) -> Tensor:
        """One vector of length 1 for each sequence, from itself alone: `(num, shared)`; zeros without patches."""
        return self._vector(self.shared(modality, inputs), inputs.mask)

    def forward(self, inputs: Mapping[str, PatchStates]) -> AlignedOutputs:
        """Let the sequences of each row read each other.

        Args:
            inputs: Modality -> patch states, the same number of rows in each.

        Raises:
            ConfigError: Unequal numbers of rows, an unknown modality or another width.
        """
        _check_rows(inputs)
        shared = {name: self.shared(name, part) for name, part in inputs.items()}
        masks = {name: part.mask for name, part in inputs.items()}
        memories = {name: self._memory(shared[name], part) for name, part in inputs.items()}
        states, attention = dict(shared), {}
        for a, b in permutations(inputs, 2):
            read, weights = self._attend(self._query(shared[a], inputs[a]), memories[b])
            states[a] = states[a] + read / (len(inputs) - 1)
            attention[a, b] = weights[..., 1:].mean(1) * masks[a].unsqueeze(-1)
        states = {name: part * masks[name].unsqueeze(-1) for name, part in states.items()}
        vectors = {name: self._vector(shared[name], masks[name]) for name in inputs}
        return AlignedOutputs(
            modalities=tuple(inputs),
            states=states,
            patch_mask=masks,
            pooled={name: masked_mean(states[name], masks[name]) for name in inputs},
            vectors=vectors,
            attention=attention,
            similarity={(a, b): vectors[a] @ vectors[b].T for a, b in permutations(inputs, 2)},
        )

    def agreement(self, a: str, inputs_a: PatchStates, b: str, inputs_b: PatchStates) -> Tensor:
        """How well sequences of two modalities tell each other, every one with every one: `(num_a, num_b)` in [-1, 1].

        The mean over patches of the cosine between a patch and what it reads from the other sequence, averaged over
        both directions. Sequences are taken one by one, candidates in blocks: memory does not grow with their numbers.
        """
        shared_a, shared_b = self.shared(a, inputs_a), self.shared(b, inputs_b)
        forward = self._told(shared_a, inputs_a, shared_b, inputs_b)
        backward = self._told(shared_b, inputs_b, shared_a, inputs_a)
        return (forward + backward.T) / 2

    def _vector(self, shared: Tensor, mask: Tensor) -> Tensor:
        return F.normalize(self.to_vector(masked_mean(shared, mask)), dim=-1) * mask.any(1, keepdim=True)

    def _told(self, shared_a: Tensor, inputs_a: PatchStates, shared_b: Tensor, inputs_b: PatchStates) -> Tensor:
        """`(num_a, num_b)`: mean cosine of the patches of `a` with what they read from `b`.

        Candidates of similar length go together and are cut to the longest, so that little padding is computed.
        """
        if not len(shared_a) or not len(shared_b):
            return shared_a.new_zeros(len(shared_a), len(shared_b))
        query, counts_a = self._query(shared_a, inputs_a), inputs_a.mask.sum(1).tolist()
        counts = inputs_b.mask.sum(1)
        order = counts.argsort(stable=True)
        blocks = []
        for block in order.split(BLOCK_ROWS):
            part = (block, slice(int(counts[block].max())))
            memory = self._memory(shared_b[part], PatchStates(inputs_b.states[part], inputs_b.patch_lengths[part]))
            rows = [
                _mean_cosine(self._attend(query[row : row + 1, :, :count], memory)[0], shared_a[row : row + 1, :count])
                for row, count in enumerate(counts_a)
            ]
            blocks.append(torch.stack(rows))
        return torch.cat(blocks, dim=1)[:, order.argsort()]

    def _query(self, shared: Tensor, inputs: PatchStates) -> Tensor:
        """`(num, heads, patches, width)`."""
        return self._heads(self.to_query(shared + self.place(waves(inputs.places))))

    def _memory(self, shared: Tensor, inputs: PatchStates) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of the null state and the patches, `(num, heads, 1 + patches, width)`, and what to hide."""
        placed = shared + self.place(waves(inputs.places))
        key, _ = self.to_key_value(placed).chunk(2, dim=-1)
        _, value = self.to_key_value(shared).chunk(2, dim=-1)
        null_key, null_value = self.null_key_value.expand(len(shared), 1, -1).chunk(2, dim=-1)
        keys, values = torch.cat([null_key, key], dim=1), torch.cat([null_value, value], dim=1)
        hidden = F.pad(~inputs.mask, (1, 0))[:, None, None, :]
        return self._heads(keys), self._heads(values), hidden

    def _attend(self, query: Tensor, memory: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """What is read, `(num, patches, shared)`, and the weights `(num, heads, patches, 1 + memory's patches)`."""
        keys, values, hidden = memory
        scores = query @ keys.mT / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        return self.project_out((weights @ values).transpose(1, 2).flatten(2)), weights

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _mean_cosine(read: Tensor, states: Tensor) -> Tensor:
    """Mean over patches of the cosine of `(num, patches, size)` and `(1, patches, size)`, `(num,)`; 0 without any."""
    return F.cosine_similarity(read, states, dim=-1).sum(1) / max(states.shape[1], 1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the patches that are no padding, `(num, size)` from `(num, patches, size)`; 0 where there is none."""
    kept = mask.unsqueeze(-1)
    return (values * kept).sum(1) / kept.sum(1).clamp(min=1)


def waves(places: Tensor) -> Tensor:
    """Sines and cosines of 1 to 8 half periods over a sequence, `(num, patches, 16)` from places in [0, 1]."""
    angles = places.unsqueeze(-1) * (math.pi * torch.arange(1, PLACE_WAVES + 1, device=places.device))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def contrastive_loss(scores: Tensor, temperature: Tensor, groups: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE: each row has to find its own column, each column its row. Nats.

    Args:
        scores: `(num, num)`; row `i` and column `i` belong together.
        temperature: What scores are divided by.
        groups: `(num,)` int64; pairs of one group do not count as each other's negatives. None: all differ.
    """
    logits = scores / temperature
    targets = torch.arange(len(scores), device=scores.device)
    if groups is not None:
        groups = groups.to(scores.device)
        same = (groups[:, None] == groups) & (targets[:, None] != targets)
        logits = logits.masked_fill(same, -math.inf)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.mT, targets)) / 2


def _check_rows(inputs: Mapping[str, PatchStates]) -> None:
    counts = {name: len(part.states) for name, part in inputs.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ConfigError(
            f"expected the same number of sequences of each modality, since row i of one belongs to row i of the "
            f"others, got {shown}; or use align_outputs=False"
        )
