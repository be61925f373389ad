"""patch lengths -> where each token sits, and vectors of it."""

from __future__ import annotations

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "BLTPositionManager": ".position_manager",
    "OffsetEncoding": ".position_embedding",
    "PositionInfo": ".position_info",
    "PositionTracker": ".position_tracker",
    "SegmentAwarePositionalEncoding": ".position_embedding",
}

__all__ = [
    "BLTPositionManager",
    "OffsetEncoding",
    "PositionInfo",
    "PositionTracker",
    "SegmentAwarePositionalEncoding",
]
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
