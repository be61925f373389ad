"""tokens + patch lengths -> outputs: local encoder, Hyena trunk over patches, bridge back to bytes, heads."""

from __future__ import annotations

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "CrossAttentionPositionBridge": ".bridge",
    "HyenaGLT": ".hyena_glt",
    "HyenaGLTOutput": ".outputs",
    "HyenaTrunk": ".trunk",
    "LocalEncoder": ".local_encoder",
    "PatchPooling": ".local_encoder",
}

__all__ = [
    "CrossAttentionPositionBridge",
    "HyenaGLT",
    "HyenaGLTOutput",
    "HyenaTrunk",
    "LocalEncoder",
    "PatchPooling",
]
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
