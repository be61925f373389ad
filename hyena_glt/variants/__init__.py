"""VCF records in, the same records with more INFO out; what their alleles are, where they lie, and what they do.

file or stdin -> VcfReader (strict) -> VcfRecord -> alleles, edits -> VcfWriter (every other byte untouched)
                                                 -> windows -> VariantScorer (with a net) -> AlleleEffect ^
"""

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "Allele": ".alleles",
    "AlleleEffect": ".scoring",
    "Breakend": ".alleles",
    "Edit": ".edits",
    "GenomicVariantAnalyzer": ".analyzer",
    "InfoField": ".vcf_header",
    "MissingAllele": ".alleles",
    "PlacedEdit": ".scoring",
    "RecordTally": ".skipped",
    "SequenceAllele": ".alleles",
    "SkippedRecords": ".skipped",
    "SpanningDeletion": ".alleles",
    "SymbolicAllele": ".alleles",
    "UnscoredReason": ".alleles",
    "VariantScorer": ".scoring",
    "VcfHeader": ".vcf_header",
    "VcfReader": ".vcf_reader",
    "VcfRecord": ".vcf_records",
    "VcfWriter": ".vcf_writer",
    "allele_windows": ".windows",
    "alleles_of": ".alleles",
    "applied": ".edits",
    "as_vcf": ".edits",
    "check_reference": ".reference_check",
    "edit_of": ".edits",
    "fetcher": ".reference_check",
    "index_vcf": ".vcf_writer",
    "left_aligned": ".edits",
    "normalised": ".edits",
    "open_reference": ".reference",
    "open_vcf_writer": ".vcf_writer",
    "parse_allele": ".alleles",
    "trimmed": ".edits",
    "unscored_reason": ".alleles",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
