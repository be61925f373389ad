"""One sequence through patcher and net step by step, with checks; many sequences with their times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from hyena_glt.adapters import PatcherAdapter
from hyena_glt.diagnostics import consistency, invariance
from hyena_glt.diagnostics.consistency import CheckResult, Patching
from hyena_glt.diagnostics.cost import measured
from hyena_glt.errors import DataError, PatchingError
from hyena_glt.model import HyenaGLT, HyenaGLTOutput
from hyena_glt.model.batching import encode_each
from hyena_glt.model.sources import Piece, encode_piece

NEEDS_PATCHER = "the patches are not the patcher's, so the sequence cannot be run again with them"
WARM_UP_TOKENS = 256


class IntegrationDebugger:
    """Shows what a patcher and a net do to a sequence, and checks that it is sound.

    Nothing is learned: no gradients, and the net is in evaluation mode meanwhile.

    Args:
        model: The net.
        patcher: What cuts; anything that `PatcherAdapter` recognises. None: the net's own.

    Raises:
        ConfigError: No patcher, or one that is not recognised.

    Example:
        >>> from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
        >>> patcher = Patcher(patching_mode="static", patch_size=4)
        >>> debugger = IntegrationDebugger(HyenaGLT(HyenaGLTConfig.preset("tiny")), patcher)
        >>> all(debugger.debug_patching_process("ACGTACGTAC")["consistency"].values())
        True
    """

    def __init__(self, model: HyenaGLT, patcher: Any | None = None) -> None:
        self.model = model
        patcher = model.patcher() if patcher is None else patcher
        self.patcher = patcher if hasattr(patcher, "patch_with_starts") else PatcherAdapter(patcher)

    def debug_patching_process(self, sequence: Piece) -> dict[str, Any]:
        """Cut one sequence, run it, check both.

        Args:
            sequence: str, bytes or 1-D tokens.

        Returns:
            `sequence`; `steps`: `patcher_output` with `patches, boundaries, num_patches, compression_ratio` (tokens
            per patch; 0.0 without any), and `model_processing` with `output_shape, position_info, final_compression,
            stages` (shape, mean absolute value and whether finite, of each stage); `consistency`: a `CheckResult` by
            name; `passed`: whether none failed. `json.dumps(..., default=str)` writes it.

        Raises:
            PatchingError: No sequence, or one that the patcher refuses.
        """
        tokens = encode_piece(sequence)
        patches, boundaries = self.patcher.patch_with_boundaries(sequence)
        starts = torch.as_tensor(boundaries).cpu()
        with self._evaluating():
            output = self._run(tokens, patches, starts)
        checks = self.validate_integration_consistency(sequence, patches, starts, output)
        cut = {
            "step": "patcher_output",
            "patches": patches,
            "boundaries": starts.tolist(),
            "num_patches": len(patches),
            "compression_ratio": len(tokens) / len(patches) if len(patches) else 0.0,
        }
        run = {
            "step": "model_processing",
            "output_shape": tuple(output.last_hidden_state.shape),
            "position_info": output.patch_info,
            "final_compression": output.compression_ratio,
            "stages": output.debug,
        }
        return {
            "sequence": sequence,
            "steps": [cut, run],
            "consistency": checks,
            "passed": all(bool(check) for check in checks.values()),
        }

    def validate_integration_consistency(
        self,
        sequence: Piece,
        patches: Any,
        boundaries: Any,
        output: HyenaGLTOutput,
        *,
        include_next_token: bool = False,
        global_position_offset: int = 0,
    ) -> dict[str, CheckResult]:
        """Check the patches of one sequence and what the net made of them.

        The net runs about twenty times more: with single tokens changed, in a batch, with padding.

        Args:
            sequence: str, bytes or 1-D tokens.
            patches: Its pieces, or `(num_patches,)` integers, the lengths of the patches.
            boundaries: `(num_patches,)` integers, 0-based start of each patch in the sequence.
            output: Of the net for these patches, a batch of one.
            include_next_token: The lengths cover one token after the sequence, as
                `patch(..., include_next_token=True)` gives them; the output then has to have that token too.
            global_position_offset: That the output was made with.

        Returns:
            By name; each is false only where it failed: `length_consistency, boundary_consistency,
            content_consistency, patcher_consistency, next_token_consistency, shape_consistency, finite_values,
            position_tracking, position_round_trip, reproducibility, batch_consistency, padding_invariance, causality,
            input_sensitivity`.

        Raises:
            PatchingError: Something that is no sequence, no patches or no boundaries.
        """
        if len(output.patch_lengths) != 1:
            raise PatchingError(f"output: expected that of one sequence, got a batch of {len(output.patch_lengths)}")
        overlaps = bool(getattr(self.patcher, "overlap", 0))
        patching = Patching.read(
            sequence,
            patches,
            boundaries,
            include_next_token=include_next_token,
            keeps_delimiters=getattr(self.patcher, "preserve_delimiters", True) is not False,
            overlaps=overlaps,
        )
        with self._evaluating():
            found = [
                consistency.check_lengths(patching),
                consistency.check_boundaries(patching),
                consistency.check_content(patching),
                invariance.check_patcher(self.patcher, patching),
                invariance.check_next_token(self.patcher, patching),
                consistency.check_shapes(patching, output, self.model.config),
                consistency.check_finite(output),
                consistency.check_positions(patching, output, global_position_offset),
                consistency.check_round_trip(output),
            ]
            reason = self._why_not_again(patching, found)
            rerun = invariance.Rerun(self.model, self.patcher, patching, output, global_position_offset)
            found += [check(rerun) for check in RERUNS.values()] if reason is None else _left_out(reason)
        return {check.name: check for check in found}

    def performance_profile(self, sequences: Sequence[Piece]) -> dict[str, Any]:
        """Cut and run sequences one by one, measured; a short run before them is not counted.

        Args:
            sequences: Texts, bytes or 1-D tokens; at least one.

        Returns:
            Per sequence: `sequence_lengths` (tokens), `timings` and `cpu_timings` (seconds, patching included),
            `memory_usage` (peak bytes of this process, or of tensors on CUDA, above what was held before),
            `compression_ratios`. Over all: `avg_time, avg_cpu_time, avg_memory, avg_compression` (means) and
            `bases_per_second`.

        Raises:
            DataError: No sequence.
            PatchingError: Something that is no sequence.
        """
        rows = encode_each(list(sequences) if not isinstance(sequences, str | bytes) else [sequences])
        if not rows:
            raise DataError("sequences: expected at least one, got none")
        costs, ratios = [], []
        with self._evaluating():
            self._cut_and_run(rows[0][:WARM_UP_TOKENS])
            for row in rows:
                output, cost = measured(partial(self._cut_and_run, row), self.model.device)
                costs.append(cost)
                ratios.append(output.compression_ratio)
        memory = [cost.peak_bytes for cost in costs]
        timings = [cost.wall_s for cost in costs]
        return {
            "sequence_lengths": [len(row) for row in rows],
            "timings": timings,
            "cpu_timings": [cost.cpu_s for cost in costs],
            "memory_usage": memory,
            "compression_ratios": ratios,
            "avg_time": float(np.mean(timings)),
            "avg_cpu_time": float(np.mean([cost.cpu_s for cost in costs])),
            "avg_memory": float(np.mean(memory)),
            "avg_compression": float(np.mean(ratios)),
            "bases_per_second": sum(map(len, rows)) / sum(timings) if sum(timings) else 0.0,
        }

    def _cut_and_run(self, tokens: torch.Tensor) -> HyenaGLTOutput:
        patches, boundaries = self.patcher.patch_with_boundaries(tokens) if self._overlaps else ([], None)
        return self._run(tokens, patches, boundaries, debug_mode=False)

    @property
    def _overlaps(self) -> bool:
        return bool(getattr(self.patcher, "overlap", 0))

    @torch.no_grad()
    def _run(self, tokens: torch.Tensor, patches: Any, boundaries: Any, debug_mode: bool = True) -> HyenaGLTOutput:
        """The sequence as the net gets it; patches that overlap go in as they are, others are cut on the way."""
        if self._overlaps:
            return self.model.forward_with_patching(patches=patches, boundaries=boundaries, debug_mode=debug_mode)
        return invariance.run_rows(self.model, self.patcher, tokens[None], debug_mode=debug_mode)

    def _why_not_again(self, patching: Patching, found: list[CheckResult]) -> str | None:
        """Why the checks that run the net again cannot be made; None where they can."""
        checks = {check.name: check for check in found}
        if patching.overlaps:
            return "patches that overlap go into the net as they are"
        if patching.num_next:
            return "the patches cover a token that the sequence does not have"
        return None if checks["patcher_consistency"] and checks["shape_consistency"] else NEEDS_PATCHER

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(was_training)


RERUNS = {
    "reproducibility": invariance.check_same_again,
    "batch_consistency": invariance.check_batch,
    "padding_invariance": invariance.check_padding,
    "causality": invariance.check_causality,
    "input_sensitivity": invariance.check_sensitivity,
}


def _left_out(reason: str) -> list[CheckResult]:
    return [CheckResult(name, None, reason) for name in RERUNS]
