"""Sequences -> windows -> batches -> a trained net."""

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "Batch": ".loader",
    "Corpus": ".corpus",
    "PatchedCorpus": ".patched_corpus",
    "Regions": ".corpus",
    "WindowLoader": ".loader",
    "WindowTable": ".windows",
    "eval_batches": ".loader",
    "learned_targets": ".windows",
    "split_corpus": ".corpus",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
