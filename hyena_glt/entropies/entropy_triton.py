"""Entropy of logits as one Triton kernel for CUDA tensors; its twin is `entropy_reference` in `shannon.py`.

Needs Triton when it is imported, so `shannon.py` loads it on the first CUDA tensor. So far the kernel has run in
Triton's interpreter and has been compiled for cards of compute capability 8.0 and 9.0; it has not run on a card yet.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDE_BLOCK = 1024  # logits; wider rows get twice the threads


@triton.jit
def row_entropy_kernel(scores, entropies, row_stride, column_stride, vocab, BLOCK: tl.constexpr):
    """`entropies[row] = ln(sum e^z) - sum(z e^z) / sum(e^z)` with `z = scores[row] - max`, one row per program.

    Both parts are at least 0, so nothing cancels. A logit of `-inf` adds nothing; NaN, `+inf` or a row without a
    finite logit give NaN.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    places = scores + row * row_stride + column * column_stride
    logits = tl.load(places, mask=column < vocab, other=float("-inf")).to(tl.float32)
    shifted = logits - tl.max(logits, axis=0)
    weights = tl.exp(shifted)
    total = tl.sum(weights, axis=0)
    weighted = tl.sum(weights * tl.where(weights > 0, shifted, 0.0), axis=0)
    tl.store(entropies + row, tl.log(total) - weighted / total)


def row_entropies(scores: Tensor) -> Tensor:
    """Shannon entropy of each row of logits, in nats, summed in float32.

    Within 1e-5 nats of the exact value for up to 4,096 logits (under 1e-6 in the interpreter), so not bitwise what
    the CPU gives: a boundary may move where an entropy lies that close to the threshold.

    Args:
        scores: `(rows, vocab)` float16, bfloat16 or float32, of any strides; `rows` and `vocab` at least 1. Read as
            one block of `vocab` rounded up to a power of 2.

    Returns:
        `(rows,)` float32, without gradient.
    """
    rows, vocab = scores.shape
    entropies = torch.empty(rows, dtype=torch.float32, device=scores.device)
    block = triton.next_power_of_2(vocab)
    with torch.cuda.device_of(scores):
        row_entropy_kernel[(rows,)](
            scores,
            entropies,
            scores.stride(0),
            scores.stride(1),
            vocab,
            BLOCK=block,
            num_warps=4 + 4 * (block > WIDE_BLOCK),
        )
    return entropies
