"""One forward, other conditions: sequences longer than a window, many at a time."""

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "GenomicBatchProcessor": ".batch",
    "GenomicStreamProcessor": ".stream",
    "MemoryOptimizedProcessor": ".memory",
    "DistributedGenomicProcessor": ".distributed",
    "setup_distributed_processing": ".distributed",
    "GenomeTable": ".distributed_genomes",
    "process_genomes": ".distributed_genomes",
    "balanced_shards": ".sharding",
    "cut_contigs": ".sharding",
    "in_input_order": ".sharding",
    "Embedding": ".embedding",
    "EmbeddingRows": ".embedding",
    "GenomeEmbedder": ".embedder",
    "Window": ".embedding",
    "WindowCutter": ".embedding",
    "cut_windows": ".embedding",
    "embed_rows": ".embedding",
    "embed_windows": ".embedding",
    "mean_embedding": ".embedding",
    "other_strand": ".embedding",
    "pool_records": ".embedding",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
