"""One forward, other conditions: sequences longer than a window, many at a time."""

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "Embedding": ".embedding",
    "Window": ".embedding",
    "cut_windows": ".embedding",
    "embed_windows": ".embedding",
    "mean_embedding": ".embedding",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
