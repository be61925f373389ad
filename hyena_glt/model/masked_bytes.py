"""The masked-byte objective of nets that see both sides: hide some letters, predict them from all the rest.

    inputs, labels = mask_bytes(tokens, generator=generator)
    loss = net(inputs, static_patch_lengths(tokens, 16), labels=labels).loss

**Patches must not tell what is hidden.** Where a patcher cuts depends on the letters, so patch lengths of the
unmasked tokens, and the positions made of them, give some of the answer away. Three ways do not: static patches,
which depend on the length alone; lengths given for another reason (genes, a score that was measured); and a net
with `boundaries="learned"`, which cuts by the masked inputs themselves. A patcher may also cut the masked inputs,
but its boundaries then differ from those of the same sequence without masks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hyena_glt.errors import ConfigError
from hyena_glt.model.inputs import check_tokens
from hyena_glt.sequences.alphabets import AMBIGUOUS, Alphabet, get_alphabet
from hyena_glt.tokens.byte_tokenizer import BOE_ID, OFFSET, PAD_ID

MASK_ID = BOE_ID  # part of every vocabulary, and no tokenizer or patcher of ours puts it into a sequence
MASKED_SHARE = 0.8  # as in BERT (arXiv:1810.04805)
REPLACED_SHARE = 0.1
LOWER_CASE = 32


def mask_bytes(
    tokens: Tensor,
    rate: float = 0.15,
    generator: torch.Generator | None = None,
    alphabet: str | Alphabet = "dna",
) -> tuple[Tensor, Tensor]:
    """Choose letters to predict, and hide them.

    Of the chosen letters 80% become `MASK_ID`, 10% a random letter of the same case, 10% stay. Padding, special ids
    and ambiguity symbols (N, ...) are never chosen.

    Args:
        tokens: `(batch, length)` byte tokens, rows padded with -1 at the end.
        rate: Chance that a letter is chosen, in [0, 1].
        generator: Source of all draws: the same state gives the same result for tokens of the same shape. It
            lies on any device; None is PyTorch's own of the CPU.
        alphabet: What letters are; with `"bytes"` every byte is one.

    Returns:
        `(inputs, labels)`, both `(batch, length)` int64 on the device of the tokens; labels are -1 where nothing
        is to be predicted.

    Raises:
        ConfigError: A rate outside [0, 1].
        PatchingError: What is no batch of byte tokens.

    Example:
        >>> tokens = torch.tensor([[69, 71, 75, 82, -1]])  # ACGN and padding
        >>> inputs, labels = mask_bytes(tokens, rate=1.0, generator=torch.Generator().manual_seed(0))
        >>> labels.tolist(), inputs[0, 3:].tolist()
        ([[69, 71, 75, -1, -1]], [82, -1])
    """
    check_tokens(tokens)
    if not 0 <= rate <= 1 or math.isnan(rate):
        raise ConfigError(f"rate: expected a chance in [0, 1], got {rate}")
    tokens, alphabet = tokens.long(), get_alphabet(alphabet)
    device = torch.device("cpu") if generator is None else generator.device
    draws = torch.rand(3, *tokens.shape, generator=generator, device=device).to(tokens.device)
    chosen = letter_mask(tokens, alphabet) & (draws[0] < rate)
    masked = chosen & (draws[1] < MASKED_SHARE)
    replaced = chosen & ~masked & (draws[1] < MASKED_SHARE + REPLACED_SHARE)
    inputs = torch.where(replaced, random_letters(tokens, draws[2], alphabet), tokens)
    return inputs.masked_fill(masked, MASK_ID), tokens.masked_fill(~chosen, PAD_ID)


def letter_mask(tokens: Tensor, alphabet: Alphabet) -> Tensor:
    """`(batch, length)` bool; True at the real letters of the alphabet, either case."""
    is_letter = torch.tensor([code < AMBIGUOUS or not alphabet.has_ambiguity for code in alphabet.code_table])
    table = torch.cat([is_letter.new_zeros(OFFSET + 1), is_letter])  # entry t + 1 is token t
    return table.to(tokens.device)[tokens + 1]


def random_letters(tokens: Tensor, draws: Tensor, alphabet: Alphabet) -> Tensor:
    """A letter for each draw in [0, 1), with the same chance for each and in the case of the token there."""
    letters = torch.tensor([ord(letter) for letter in alphabet.letters], device=tokens.device) + OFFSET
    drawn = letters[(draws * alphabet.size).long().clamp_max(alphabet.size - 1)]
    byte = tokens - OFFSET
    is_lower = (byte >= ord("a")) & (byte <= ord("z")) & alphabet.has_ambiguity
    return drawn + LOWER_CASE * is_lower


def static_patch_lengths(tokens: Tensor, patch_size: int = 16) -> Tensor:
    """Patches of `patch_size` tokens, the last one of a row shorter: they know nothing of the letters.

    Args:
        tokens: `(batch, length)`, rows padded with -1 at the end.
        patch_size: Tokens, at least 1.

    Returns:
        `(batch, num_patches)` int64, right-padded with 0.

    Raises:
        ConfigError: `patch_size` below 1.
    """
    if patch_size < 1:
        raise ConfigError(f"patch_size: expected at least 1 token, got {patch_size}")
    row_lengths = (tokens != PAD_ID).sum(1, keepdim=True)
    starts = torch.arange(0, tokens.shape[1], patch_size, device=tokens.device)
    lengths = (row_lengths - starts).clamp(0, patch_size)
    longest = int((lengths > 0).sum(1).max()) if lengths.numel() else 0
    return lengths[:, :longest]
