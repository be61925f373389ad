"""A causal convolution in partitions of signal and filter: exact, with FFTs of one moderate size at any length.

Output block k is the sum over j of (input blocks k - j - 1 and k - j) convolved with filter block j, summed as
spectra, so that each input block is transformed once and each output block transformed back once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def partition_spectra(h: Tensor, step: int) -> Tensor:
    """Spectra of a filter's blocks: `(channels, blocks, step + 1)` complex from `(channels, taps)`."""
    blocks = -(-h.shape[-1] // step)
    padded = F.pad(h, (0, blocks * step - h.shape[-1]))
    return torch.fft.rfft(padded.unflatten(-1, (blocks, step)), n=2 * step)


def partitioned_conv(u: Tensor, spectra: Tensor, step: int) -> Tensor:
    """The causal convolution of signals with the filter of these spectra.

    Args:
        u: `(batch, channels, length)`.
        spectra: From `partition_spectra`.
        step: As given there.

    Returns:
        `(batch, channels, length)` in the dtype of `u`.
    """
    length = u.shape[-1]
    blocks = -(-length // step)
    frames = F.pad(u, (step, blocks * step - length)).unfold(-1, 2 * step, step)
    inputs = torch.fft.rfft(frames)  # (batch, channels, blocks, step + 1)
    outputs = _summed_in_place(inputs, spectra) if not torch.is_grad_enabled() else _summed(inputs, spectra)
    return torch.fft.irfft(outputs, n=2 * step)[..., step:].flatten(-2)[..., :length]


def _summed(inputs: Tensor, spectra: Tensor) -> Tensor:
    """Spectra of the output blocks, as a graph may follow them."""
    outputs = []
    for block in range(inputs.shape[-2]):
        total = inputs[..., block, :] * spectra[:, 0]
        for back in range(1, min(block + 1, spectra.shape[1])):
            total = torch.addcmul(total, inputs[..., block - back, :], spectra[:, back])
        outputs.append(total)
    return torch.stack(outputs, dim=-2)


def _summed_in_place(inputs: Tensor, spectra: Tensor) -> Tensor:
    """`_summed` without a new tensor for every term."""
    outputs = inputs * spectra[:, :1]
    for back in range(1, min(inputs.shape[-2], spectra.shape[1])):
        later, earlier = outputs[..., back:, :], inputs[..., : inputs.shape[-2] - back, :]
        later.addcmul_(earlier, spectra[:, back : back + 1])
    return outputs
