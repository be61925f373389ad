"""Tokens -> patch start masks after separators: BLT's byte classes, or characters that the caller names.

BLT's rule: a patch ends with the first of a run of separators (any byte that is no digit, no ASCII letter and
no UTF-8 continuation byte), and after every special token; tokens 0 and 1 always start a patch. With
`delimiter_chars` a patch ends after each delimiter, and only token 0 starts one on its own account. Pure
functions, any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.errors import ConfigError
from hyena_glt.patching.patch_lengths import patch_start_ids_from_patch_start_mask
from hyena_glt.patching.rows import check_tokens
from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID, VOCAB_SIZE

GOES_ON, ENDS_FIRST_OF_RUN, ENDS_ALWAYS = 0, 1, 2


@cache
def space_classes() -> Tensor:
    """Class of each token under BLT's rule, `(260,)` uint8, not to be changed.

    1 ends a patch where the token before goes on (the first of a run), 2 ends it always, 0 goes on.
    """
    byte = torch.arange(256)
    digit = (byte >= ord("0")) & (byte <= ord("9"))
    letter = ((byte | 32) >= ord("a")) & ((byte | 32) <= ord("z")) & (byte < 128)
    continuation = (byte >= 0b1000_0000) & (byte < 0b1100_0000)
    classes = torch.full((VOCAB_SIZE,), ENDS_ALWAYS, dtype=torch.uint8)
    classes[OFFSET:] = (~(digit | letter | continuation)).to(torch.uint8) * ENDS_FIRST_OF_RUN
    return classes


def patch_end_bytes() -> NDArray[np.bool_]:
    """True at the bytes that end a patch under BLT's rule, `(256,)`."""
    return (space_classes()[OFFSET:] == ENDS_FIRST_OF_RUN).numpy()


def delimiter_classes(delimiter_chars: Sequence[str], encoding: str = "utf-8") -> Tensor:
    """Class of each token where every delimiter ends a patch, `(260,)` uint8.

    Raises:
        ConfigError: A character that is not one byte in the encoding.
    """
    classes = torch.full((VOCAB_SIZE,), GOES_ON, dtype=torch.uint8)
    for character in delimiter_chars:
        encoded = character.encode(encoding, errors="replace")
        if len(encoded) != 1 or encoded.decode(encoding, errors="replace") != character:
            raise ConfigError(f"delimiter_chars: expected characters of one byte in {encoding}, got {character!r}")
        classes[encoded[0] + OFFSET] = ENDS_ALWAYS
    return classes


def class_start_mask(tokens: Tensor, classes: Tensor, always: int) -> Tensor:
    """True at the tokens after those whose class ends a patch.

    Args:
        tokens: `(batch, length)` integers; PAD tails are allowed and start nothing.
        classes: `(260,)` uint8 as `space_classes` gives them.
        always: Tokens at the start of a row that start a patch whatever the classes.

    Returns:
        `(batch, length + 1)` bool; the last column is about the token after the row.
    """
    kinds = classes.to(tokens.device)[tokens.to(torch.int64).clamp(0, VOCAB_SIZE - 1)]
    ends = kinds == ENDS_FIRST_OF_RUN
    ends[:, 1:] &= kinds[:, :-1] == GOES_ON
    mask = torch.ones(tokens.shape[0], tokens.shape[1] + 1, dtype=torch.bool, device=tokens.device)
    mask[:, 1:] = (ends | (kinds == ENDS_ALWAYS)) & (tokens != PAD_ID)
    mask[:, :always] = True
    return mask


def find_space_patch_start_ids(tokens: Tensor) -> Tensor:
    """Positions of the starts after separators, under BLT's rule.

    Args:
        tokens: `(batch, length)` byte tokens; PAD tails are allowed.

    Returns:
        `(batch, most starts of a row)` int64, ascending, right-padded with `length + 1`; an entry `length` is
        about the token after the row. `patch_lengths_from_start_ids` takes either length.

    Raises:
        PatchingError: Wrong rank or dtype.
    """
    check_tokens(tokens)
    return patch_start_ids_from_patch_start_mask(class_start_mask(tokens, space_classes(), always=2))
