"""Sequences, the bytes at the start of the chain: alphabets, strict readers, atomic writers, a demo genome.

file or stdin -> bytes -> tokens -> entropies -> patch starts -> ...
"""

from __future__ import annotations

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "DNA": ".alphabets",
    "RNA": ".alphabets",
    "PROTEIN": ".alphabets",
    "BYTES": ".alphabets",
    "AMBIGUOUS": ".alphabets",
    "INVALID": ".alphabets",
    "Alphabet": ".alphabets",
    "get_alphabet": ".alphabets",
    "reverse_complement": ".alphabets",
    "soft_mask": ".alphabets",
    "Block": ".records",
    "Record": ".records",
    "read_blocks": ".fasta",
    "read_records": ".fasta",
    "write_fasta": ".fasta",
    "atomic_path": ".atomic",
    "atomic_write": ".atomic",
    "open_output": ".atomic",
    "make_folder": ".atomic",
    "sha256_file": ".atomic",
    "IndexedFasta": ".indexed_fasta",
    "Interval": ".intervals",
    "parse_region": ".intervals",
    "resolve": ".intervals",
    "read_bed": ".intervals",
    "Feature": ".annotations",
    "read_gff": ".annotations",
    "SimulatedGenome": ".simulate",
    "generate_random_genomic_sequence": ".simulate",
    "simulate_genome": ".simulate",
}

__all__ = list(_MODULES)

__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
