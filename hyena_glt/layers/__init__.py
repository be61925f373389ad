"""Modules with parameters that the stages are built from: filters, operators, convolutions, attention."""

from __future__ import annotations

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "ExplicitFilter": ".hyena_filter",
    "ExponentialFilter": ".hyena_filter",
    "FeedForward": ".feed_forward",
    "GatedConvStack": ".gated_conv",
    "HyenaOperator": ".hyena_operator",
    "ImplicitFilter": ".hyena_filter",
    "WindowedCrossAttention": ".cross_attention",
}

__all__ = [
    "ExplicitFilter",
    "ExponentialFilter",
    "FeedForward",
    "GatedConvStack",
    "HyenaOperator",
    "ImplicitFilter",
    "WindowedCrossAttention",
]
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
