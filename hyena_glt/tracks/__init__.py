"""Patches and per-base values as files that browsers and data frames open: BED, TSV, Parquet, bedGraph, bigWig."""

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "BedGraphWriter": ".values",
    "BedWriter": ".patches",
    "BigWigWriter": ".values",
    "ParquetWriter": ".patches",
    "PatchBatch": ".patches",
    "PatchWriter": ".patches",
    "Provenance": ".provenance",
    "TsvWriter": ".patches",
    "ValueBatch": ".values",
    "ValueWriter": ".values",
    "scaled_scores": ".patches",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
