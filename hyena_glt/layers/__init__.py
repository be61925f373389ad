"""Modules with parameters that the stages are built from: filters, operators, convolutions, attention."""

from __future__ import annotations

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "ExplicitFilter": ".hyena_filter",
    "ExponentialFilter": ".hyena_filter",
    "FeedForward": ".feed_forward",
    "GatedConv": ".gated_conv",
    "GatedConvStack": ".gated_conv",
    "HyenaDNAFilter": ".hyenadna_filter",
    "HyenaOperator": ".hyena_operator",
    "ImplicitFilter": ".hyena_filter",
    "LagFilter": ".lag_filter",
    "SummedFilter": ".hyena_filter",
    "WindowedCrossAttention": ".cross_attention",
    "load_hyenadna_filter": ".hyenadna_filter",
}

__all__ = [
    "ExplicitFilter",
    "ExponentialFilter",
    "FeedForward",
    "GatedConv",
    "GatedConvStack",
    "HyenaDNAFilter",
    "HyenaOperator",
    "ImplicitFilter",
    "LagFilter",
    "SummedFilter",
    "WindowedCrossAttention",
    "load_hyenadna_filter",
]
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
