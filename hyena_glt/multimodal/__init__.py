"""DNA, RNA and protein side by side: a net for each, and cross-attention that relates what they say.

sequences (RNA with its dot-bracket structure) -> patches -> one HyenaGLT per modality -> patch states
patch states -> projections to a shared space -> attention of each modality over the others -> pooled vectors
GenBank files -> pairs of coding sequence and protein -> contrastive training -> retrieval
"""

from __future__ import annotations

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "AlignedOutputs": ".alignment",
    "AlignmentRecipe": ".contrastive",
    "CodingFeature": ".genbank",
    "CodingPair": ".pairs",
    "CrossModalAlignment": ".alignment",
    "GenBankRecord": ".genbank",
    "MultiModalGenomicProcessor": ".processor",
    "PairSet": ".pairs",
    "PatchStates": ".alignment",
    "RnaStructure": ".dot_bracket",
    "TrainingReport": ".contrastive",
    "base_pairs": ".dot_bracket",
    "near_duplicate_groups": ".pair_split",
    "read_dot_bracket": ".dot_bracket",
    "read_genbank": ".genbank",
    "read_pairs": ".pairs",
    "recall_at": ".retrieval",
    "split_pairs": ".pair_split",
    "structure_patch_lengths": ".dot_bracket",
    "train_alignment": ".contrastive",
    "translate": ".genetic_code",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
