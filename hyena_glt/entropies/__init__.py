"""Token ids in, one entropy per token out, in nats.

`MarkovEntropy` is the default and needs no weights; `entropy` and `calculate_entropies` serve any causal model
that gives logits.
"""

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "MarkovEntropy": ".markov",
    "MarkovFitter": ".markov",
    "MarkovStream": ".markov",
    "MixEntropy": ".mixing",
    "Scores": ".symbols",
    "calculate_entropies": ".shannon",
    "default_order": ".fitting",
    "entropy": ".shannon",
    "entropy_reference": ".shannon",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
