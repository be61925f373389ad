"""Partitions of signal and filter make the causal convolution."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.ops import causal_conv, prepare_filter
from hyena_glt.ops.partitioned import partition_spectra, partitioned_conv
from hyena_glt.ops.reference import two_sided_conv_reference


def signal_and_filter(length: int, taps: int):
    generator = torch.Generator().manual_seed(length * 1000 + taps)
    u = torch.randn(2, 3, length, generator=generator, dtype=torch.float64)
    return u, torch.randn(3, taps, generator=generator, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 60), taps=st.integers(1, 60), step=st.integers(1, 30))
def test_it_equals_the_definition(length, taps, step):
    u, h = signal_and_filter(length, taps)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            result = partitioned_conv(u, partition_spectra(h, step), step)
        torch.testing.assert_close(result, two_sided_conv_reference(u, h), atol=1e-12, rtol=0)


def test_gradients_are_those_of_the_sum():
    u, h = signal_and_filter(11, 9)
    inputs = (u.requires_grad_(), h.requires_grad_())
    assert torch.autograd.gradcheck(lambda u, h: partitioned_conv(u, partition_spectra(h, 4), 4), inputs)


def test_prepared_filters_beyond_the_longest_fft_use_it(monkeypatch):
    monkeypatch.setattr("hyena_glt.ops.fftconv.LONGEST_FFT", 128)
    u, h = signal_and_filter(300, 290)
    prepared = prepare_filter(h, 300, dtype=torch.float64)
    assert prepared.method is partitioned_conv
    torch.testing.assert_close(prepared(u), causal_conv(u, h), atol=1e-11, rtol=0)
