"""Whether net and patcher fit together, where the time goes, and whether patching pays.

debugger.py          IntegrationDebugger: one sequence step by step, checked; many sequences timed
consistency.py       the checks that need no second forward, and what a check gives
invariance.py        the checks that run the net again: causality, batches, padding
stages.py            one forward by stages: seconds, memory, operations
flops.py             operations of a forward: counted where torch counts, by formula elsewhere
trace.py             a Chrome trace with the same stages
mode_comparison.py   byte mode against patches: forward, training step, memory, bits per base
verdict.py           one sentence about that comparison
genome_windows.py    evenly spaced windows of a genome
cost.py              seconds and peak memory of a call
"""

from __future__ import annotations

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "CheckResult": ".consistency",
    "IntegrationDebugger": ".debugger",
    "ModeRow": ".mode_comparison",
    "StageFigures": ".stages",
    "StageProfile": ".stages",
    "compare_modes": ".mode_comparison",
    "profile_stages": ".stages",
    "write_trace": ".trace",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
