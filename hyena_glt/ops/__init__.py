"""Tensor arithmetic without parameters: convolutions along a sequence, reductions over patches."""

from __future__ import annotations

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "StreamState": ".stream_state",
    "WEIGHT_CACHE": ".weight_cache",
    "WeightCache": ".weight_cache",
    "causal_conv": ".fftconv",
    "prepare_filter": ".fftconv",
    "stream_conv": ".streaming",
    "stream_short_conv": ".streaming",
    "two_sided_conv": ".fftconv",
    "short_conv": ".shifted_sum",
    "segment_max": ".segments",
    "segment_mean": ".segments",
    "segment_softmax": ".segments",
    "segment_sum": ".segments",
}

__all__ = [
    "WEIGHT_CACHE",
    "StreamState",
    "WeightCache",
    "causal_conv",
    "prepare_filter",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "short_conv",
    "stream_conv",
    "stream_short_conv",
    "two_sided_conv",
]
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
