"""Entropies or tokens -> patch starts -> patch lengths.

`Patcher` is the whole stage; the functions beside it are its steps, pure and on any device; `Scanner` is the
same decided as scores arrive, `OnlinePatcher` the whole stage of a stream; `calibrate` finds the threshold for a
wanted mean patch length; `patch_hierarchy` makes coarse patches of fine ones.
"""

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "AdaptiveThreshold": ".adaptive",
    "CalibrationRecord": ".args",
    "EntropyCache": ".entropy_cache",
    "OnlineHierarchy": ".online_hierarchy",
    "OnlinePatcher": ".online",
    "PatchedRows": ".patcher",
    "Patcher": ".patcher",
    "PatcherArgs": ".args",
    "PatchingModeEnum": "..config",
    "PatchingWarning": ".advice",
    "ScanRule": ".scan",
    "Scanner": ".scan",
    "calculate_entropies": "..entropies",
    "calibrate": ".calibration",
    "calibrate_each": ".calibration",
    "calibrate_hierarchy": ".hierarchy",
    "calibrate_threshold": ".calibration",
    "check_non_zero_after_zero": ".patch_lengths",
    "check_patch_lengths": ".patch_lengths",
    "count_patches": ".scan",
    "entropy": "..entropies",
    "find_bpe_delim_patch_start_ids": ".bpe_starts",
    "find_bpe_patcher_patch_start_ids": ".bpe_starts",
    "find_entropy_patch_start_ids": ".entropy_starts",
    "find_space_patch_start_ids": ".space_starts",
    "load_contig_thresholds": ".calibration",
    "patch_hierarchy": ".hierarchy",
    "patch_lengths_from_start_ids": ".patch_lengths",
    "patch_lengths_from_start_mask": ".patch_lengths",
    "patch_start_ids_from_patch_start_mask": ".patch_lengths",
    "patch_start_mask_from_entropy_with_monotonicity": ".entropy_starts",
    "patch_start_mask_global_and_monotonicity": ".entropy_starts",
    "rightpad": ".patch_lengths",
    "split_large_numbers": ".patch_lengths",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
