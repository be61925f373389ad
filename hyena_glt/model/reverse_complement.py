"""Both strands of double-stranded sequence: run the other strand too, turn its states back, and put both together.

A patcher reads in one direction, so the two strands of a sequence would be cut in different places. Here the
patches are decided on one strand, the one that comes first in the order of its tokens, whichever of the two was
given, and mirrored for the other. A row that is its own reverse complement gets the cuts of its first half on both
halves. So the patches of the reverse complement are always the mirror image, and

    wrapper(reverse_complement(x)) == flip(wrapper(x)), complementary letters exchanged,

holds for any patcher and any weights. Nothing here is causal: each strand has read what lies ahead on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError
from hyena_glt.model.hyena_glt import HyenaGLT
from hyena_glt.model.inputs import check_tokens
from hyena_glt.model.sources import Piece, encode_rows
from hyena_glt.patching.patch_lengths import patch_lengths_from_start_mask
from hyena_glt.positions.position_info import PositionInfo
from hyena_glt.sequences.alphabets import Alphabet, get_alphabet
from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID
from hyena_glt.tokens.small_vocab import SmallVocabulary

StateRule = Literal["mean", "both"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StrandOutput:
    """Both strands together, in the order of the strand that was given. Padding holds zeros."""

    last_hidden_state: Tensor  # (batch, num_patches, hidden), or twice as wide with states="both"
    byte_hidden_state: Tensor  # (batch, length, local), or twice as wide with states="both"
    logits: Tensor | None  # (batch, length, vocab), about token i at row i; None for a causal net
    patch_lengths: Tensor  # (batch, num_patches) int64, right-padded with 0


class ReverseComplementEquivariant(nn.Module):
    """A net that gives the same for both strands, up to their order and the exchange of complementary letters.

    Exact in evaluation mode: both strands of a batch run separately, and a sum of two does not depend on their
    order. A causal net has no logits here: of each letter its strands predict from different sides, and
    `score_sequences(rc="avg")` averages the likelihoods.

    Args:
        net: Its alphabet is DNA or RNA; a net of bytes is taken for DNA.
        states: `"mean"` averages the states of both strands. `"both"` puts them side by side, the given strand
            first; the reverse complement exchanges the two halves of the channels.

    Raises:
        AlphabetError: The alphabet has no complement.
        ConfigError: `states` is unknown.

    Example:
        >>> wrapper = ReverseComplementEquivariant(HyenaGLT(HyenaGLTConfig.preset("tiny", causal=False)).eval())
        >>> wrapper(torch.tensor([[69, 71, 75]]), torch.tensor([[1, 2]])).logits.shape
        torch.Size([1, 3, 260])
    """

    def __init__(self, net: HyenaGLT, states: StateRule = "mean") -> None:
        super().__init__()
        if states not in ("mean", "both"):
            raise ConfigError(f"states: expected 'mean' or 'both', got {states!r}")
        self.net, self.states = net, states
        self.alphabet = strand_alphabet(net.config)
        self.register_buffer("letter_order", complement_ids(net.config), persistent=False)

    def forward(self, tokens: Tensor, patch_lengths: Tensor | None = None) -> StrandOutput:
        """Run both strands.

        Args:
            tokens: `(batch, length)` byte tokens, rows padded with -1 at the end. U is read as T in DNA and T as U
                in RNA, so that complementing twice changes nothing.
            patch_lengths: `(batch, num_patches)` int64 of these tokens; None: the net's patcher cuts, once for
                both strands. For the equality, lengths given for the reverse complement are the mirrored ones.

        Raises:
            AlphabetError: A symbol that is not in the alphabet.
            ConfigError: No patch lengths and no patcher, or one whose patches overlap.
        """
        check_tokens(tokens)
        other = reverse_complement_tokens(tokens, self.alphabet)
        tokens = reverse_complement_tokens(other, self.alphabet)
        lengths = strand_patch_lengths(self.net, tokens, other) if patch_lengths is None else patch_lengths
        here = self.net(tokens, lengths)
        there = self.net(other, mirror_patch_lengths(lengths))
        num_tokens, num_patches = here.positions.mask.sum(1), here.positions.patch_mask.sum(1)
        byte_states = flip_rows(there.byte_hidden_state, num_tokens)
        patch_states = flip_rows(there.last_hidden_state, num_patches)
        logits = None
        if not self.net.config.causal:
            letter_order: Tensor = self.get_buffer("letter_order")
            logits = (here.logits + flip_rows(there.logits, num_tokens)[..., letter_order]) / 2
        return StrandOutput(
            last_hidden_state=self._join(here.last_hidden_state, patch_states),
            byte_hidden_state=self._join(here.byte_hidden_state, byte_states),
            logits=logits,
            patch_lengths=here.patch_lengths,
        )

    def _join(self, here: Tensor, there: Tensor) -> Tensor:
        return torch.cat([here, there], dim=-1) if self.states == "both" else (here + there) / 2


def reverse_complement_average(
    net: HyenaGLT, sequences: Piece | Sequence[Piece], patch_lengths: Tensor | None = None
) -> StrandOutput:
    """States and logits of sequences, averaged over both strands, without gradients and dropout.

    Args:
        net: A net whose alphabet has a complement.
        sequences: A text, bytes or tokens, or a list of them.
        patch_lengths: `(batch, num_patches)` int64; None: the net's patcher cuts, once for both strands.

    Returns:
        In the order of the given strand; `logits` is None for a causal net.

    Raises:
        AlphabetError: The alphabet has no complement, or a symbol is not in it.
        ConfigError: No patch lengths and no patcher, or one whose patches overlap.
    """
    was_training = net.training
    try:
        with torch.no_grad():
            return ReverseComplementEquivariant(net.eval())(encode_rows(sequences).to(net.device), patch_lengths)
    finally:
        net.train(was_training)


def reverse_complement_tokens(tokens: Tensor, alphabet: str | Alphabet = "dna") -> Tensor:
    """The other strand of each row: complemented and reversed, padding still at the end, case kept.

    Args:
        tokens: `(batch, length)` byte tokens, rows padded with -1 at the end; special ids stay as they are.
        alphabet: DNA or RNA.

    Raises:
        AlphabetError: The alphabet has no complement, or a symbol is not in it.

    Example:
        >>> reverse_complement_tokens(torch.tensor([[69, 69, 71, -1]])).tolist()  # AAC -> GTT
        [[75, 88, 88, -1]]
    """
    alphabet = get_alphabet(alphabet)
    table = complement_tokens(alphabet).to(tokens.device)
    SmallVocabulary(alphabet.name).fold(tokens)  # refuses what is not in the alphabet
    return flip_rows(table[tokens + 1], (tokens != PAD_ID).sum(1))


def complement_tokens(alphabet: Alphabet) -> Tensor:
    """`(261,)` int64: the complement of token `t` at entry `t + 1`; padding and special ids stay.

    Raises:
        AlphabetError: The alphabet has no complement.
    """
    return torch.cat([torch.arange(PAD_ID, OFFSET), torch.tensor(list(alphabet.complement_table)) + OFFSET])


def complement_ids(config: HyenaGLTConfig) -> Tensor:
    """`(vocab,)` int64: the id of the complementary letter for each id of the logits; its own inverse.

    Ids without a partner stay: special ids, symbols that are no letters, and the U of DNA or the T of RNA.

    Raises:
        AlphabetError: The alphabet has no complement.
    """
    table = complement_tokens(strand_alphabet(config))
    if config.genomic_vocab_size != 256:
        vocabulary = SmallVocabulary(config.alphabet_name)
        ids = torch.arange(vocabulary.size).unsqueeze(0)
        return vocabulary.fold(table[vocabulary.unfold(ids) + 1])[0]
    complements = table[1:]
    ids = torch.arange(len(complements))
    return torch.where(complements[complements] == ids, complements, ids)


def strand_alphabet(config: HyenaGLTConfig) -> Alphabet:
    """The alphabet whose complement a net uses: DNA for a net of bytes, else its own."""
    return get_alphabet("dna" if config.alphabet_name == "bytes" else config.alphabet_name)


def flip_rows(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each row, its padding left where it is.

    Args:
        x: `(batch, length, ...)`.
        lengths: `(batch,)` int64, entries of each row that are no padding.
    """
    index = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths.view(-1, 1) - 1 - index
    source = torch.where(mirrored >= 0, mirrored, index)  # (batch, length)
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    return x[rows, source]


def mirror_patch_lengths(patch_lengths: Tensor) -> Tensor:
    """Patch lengths of the same patches read from the other end, right-padded with 0 as before."""
    return flip_rows(patch_lengths, (patch_lengths > 0).sum(1))


def strand_patch_lengths(net: HyenaGLT, tokens: Tensor, other: Tensor) -> Tensor:
    """Patch lengths of `tokens`, cut on whichever strand comes first in the order of its tokens.

    Args:
        net: Cuts with its patcher, or by itself where boundaries are learned.
        tokens: `(batch, length)`, padded with -1 at the end.
        other: Their reverse complement.

    Returns:
        `(batch, num_patches)` int64: the mirror image of what the call with both strands exchanged gives.

    Raises:
        ConfigError: There is no patcher, or its patches overlap.
    """
    patcher = net.patcher()
    if getattr(patcher, "overlap", 0):
        raise ConfigError("overlap: expected a patcher without overlap, since its patches have no mirror image")
    order = compare_rows(tokens, other)
    is_first = order <= 0
    cut = patcher.patch(torch.where(is_first.unsqueeze(1), tokens, other))[0].to(tokens.device)
    cut = symmetric_patch_lengths(cut, tokens.shape[1], order == 0)
    return torch.where(is_first.unsqueeze(1), cut, mirror_patch_lengths(cut))


def compare_rows(first: Tensor, second: Tensor) -> Tensor:
    """`(batch,)` int64: -1, 0 or 1 as the first row comes before, is or comes after the second, by its tokens."""
    signs = (first - second).sign()
    if not signs.shape[1]:
        return signs.new_zeros(len(signs))
    return signs.gather(1, (signs != 0).long().argmax(1, keepdim=True)).squeeze(1)


def symmetric_patch_lengths(patch_lengths: Tensor, length: int, chosen: Tensor) -> Tensor:
    """For the chosen rows the cuts of the first half, on both halves; the others as they are.

    Args:
        patch_lengths: `(batch, num_patches)` int64.
        length: Tokens per row with padding.
        chosen: `(batch,)` bool.

    Returns:
        `(batch, num_patches)` int64; a chosen row is its own mirror image.
    """
    if not bool(chosen.any()) or not length:
        return patch_lengths
    info = PositionInfo.from_patch_lengths(patch_lengths, 0, length)
    row_lengths = patch_lengths.sum(1)
    starts = (info.offsets == 0) & info.mask
    index = torch.arange(length, device=starts.device)
    early = starts & (2 * index <= row_lengths.unsqueeze(1)) & (index > 0)
    mirrored = flip_rows(F.pad(early, (0, 1)), row_lengths + 1)[:, :length]  # a cut before t -> before n - t
    starts = torch.where(chosen.unsqueeze(1), early | mirrored, starts)
    return patch_lengths_from_start_mask(starts | (index == 0), row_lengths)
