"""Sequences -> windows -> batches -> a trained net."""

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "Batch": ".loader",
    "CheckpointFolder": ".checkpoints",
    "Corpus": ".corpus",
    "Engine": ".engine",
    "FinetuneOptions": ".finetune",
    "FinetunedNet": ".finetuned",
    "PatchedCorpus": ".patched_corpus",
    "Recipe": ".recipe",
    "Regions": ".corpus",
    "Trainer": ".trainer",
    "WindowLoader": ".loader",
    "WindowTable": ".windows",
    "add_adapters": ".low_rank",
    "build_recipe": ".recipe",
    "eval_batches": ".loader",
    "finetune": ".finetune",
    "learned_targets": ".windows",
    "load_recipe": ".recipe",
    "merge_adapters": ".low_rank",
    "open_run": ".trainer",
    "split_corpus": ".corpus",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
