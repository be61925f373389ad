"""Questions that biologists ask of patches and outputs.

boundary_enrichment.py   what patch boundaries coincide with: starts and stops of genes, codon positions, repeats
variants, evolution      effects of variants, distances and trees have packages of their own; theirs are here too
"""

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "BoundaryEnrichment": ".boundary_enrichment",
    "EnrichmentRow": ".boundary_enrichment",
    "EvolutionaryAnalyzer": "..evolution.analyzer",
    "GenomicVariantAnalyzer": "..variants.analyzer",
    "write_enrichment": ".boundary_enrichment",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
