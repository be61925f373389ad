"""The definitions, as the papers write them: loops, no tricks. Every fast twin is tested against these."""

from __future__ import annotations

import torch
from torch import Tensor


def two_sided_conv_reference(u: Tensor, h: Tensor, lead: int = 0) -> Tensor:
    """y[t] = sum over k of h[k] u[t + lead - k], u being 0 outside its length; quadratic in length.

    Args:
        u: `(batch, channels, length)`.
        h: `(channels, taps)`; tap `k` looks `k - lead` steps back.
        lead: Taps that look ahead; 0 is the causal convolution of Hyena (arXiv:2302.10866).
    """
    y = torch.zeros_like(u)
    length = u.shape[-1]
    for tap in range(h.shape[-1]):
        lag = tap - lead
        for t in range(max(lag, 0), min(length, length + lag)):
            y[..., t] += h[:, tap] * u[..., t - lag]
    return y


def segment_sum_reference(values: Tensor, segment_ids: Tensor, num_segments: int) -> Tensor:
    """Row `s` is the sum of the values whose segment is `s`: `(num_segments, ...)`."""
    rows = [values[segment_ids == segment].sum(0) for segment in range(num_segments)]
    return torch.stack(rows) if rows else values.new_zeros(0, *values.shape[1:])


def segment_max_reference(values: Tensor, segment_ids: Tensor, num_segments: int, empty: float = 0.0) -> Tensor:
    """Row `s` is the maximum of the values whose segment is `s`; `empty` where there is none."""
    result = values.new_full((num_segments, *values.shape[1:]), empty)
    for segment in range(num_segments):
        chosen = values[segment_ids == segment]
        if len(chosen):
            result[segment] = chosen.amax(0)
    return result


def segment_softmax_reference(scores: Tensor, segment_ids: Tensor, num_segments: int) -> Tensor:
    """Softmax among the scores of one segment; 0 for a score whose segment is `num_segments` (padding)."""
    weights = torch.zeros_like(scores)
    for segment in range(num_segments):
        chosen = segment_ids == segment
        if bool(chosen.any()):
            weights[chosen] = scores[chosen].softmax(0)
    return weights
