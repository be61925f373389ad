"""Token ids in, one entropy per token out, in nats.

`MarkovEntropy` is the default and needs no weights; `NeuralEntropy` scores with a small network; `entropy` and
`calculate_entropies` serve any causal model that gives logits.
"""

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "ByteNetwork": ".byte_network",
    "ByteNetworkConfig": ".byte_network",
    "FitOptions": ".network_fit",
    "MarkovEntropy": ".markov",
    "MarkovFitter": ".markov",
    "MarkovStream": ".markov",
    "MixEntropy": ".mixing",
    "NeuralEntropy": ".neural",
    "Scores": ".symbols",
    "TrackEntropy": ".track",
    "calculate_entropies": ".shannon",
    "default_order": ".fitting",
    "entropy": ".shannon",
    "entropy_reference": ".shannon",
    "load_source": ".saved_sources",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
