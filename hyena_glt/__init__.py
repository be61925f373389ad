"""Hyena-GLT: genomes byte by byte, at the cost of patches.

bytes -> tokens -> entropies -> patch starts -> patch lengths -> positions
      -> local encoder -> Hyena trunk -> bridge -> outputs -> analysis -> CLI
"""

from hyena_glt.__about__ import __version__
from hyena_glt._lazy import lazy_exports

_MODULES = {
    "DistributedGenomicProcessor": ".processing",
    "EvolutionaryAnalyzer": ".evolution",
    "GenomeEmbedder": ".processing",
    "GenomicBatchProcessor": ".processing",
    "GenomicStreamProcessor": ".processing",
    "GenomicVariantAnalyzer": ".variants",
    "HyenaGLT": ".model",
    "HyenaGLTConfig": ".config",
    "HyenaGLTOutput": ".model",
    "IntegrationDebugger": ".diagnostics",
    "MarkovEntropy": ".entropies",
    "MemoryOptimizedProcessor": ".processing",
    "MultiModalGenomicProcessor": ".multimodal",
    "Patcher": ".patching",
    "PatcherAdapter": ".adapters",
    "PatcherArgs": ".patching",
    "PatcherIntegrator": ".integration",
    "PatchingModeEnum": ".config",
    "setup_integrated_model": ".integration",
}
__all__ = ["__version__", *_MODULES]
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
