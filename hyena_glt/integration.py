"""A net, its patcher and their options as one: many sequences run, their patches counted, everything set up in a call.

sequences -> patcher (any, through `PatcherAdapter`) -> patches -> HyenaGLT -> outputs and figures
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyena_glt.adapters import PatcherAdapter
from hyena_glt.checks import build_config
from hyena_glt.config import AdvancedPatcherConfig, HyenaGLTConfig, PatchingModeEnum
from hyena_glt.errors import ConfigError
from hyena_glt.model import BatchResult, HyenaGLT
from hyena_glt.model.batching import encode_each, process_sequences
from hyena_glt.model.inputs import positions_of
from hyena_glt.model.sources import Piece, patch_rows
from hyena_glt.patching import Patcher, PatcherArgs, calibrate
from hyena_glt.patching.devices import resolve_device
from hyena_glt.patching.entropy_cache import EntropyCache

DEFAULT_BATCH_SIZE = 32


class PatcherIntegrator:
    """Runs sequences through a patcher and a net, in batches, and says what the patching does to them.

    Args:
        model: The net.
        patcher: What cuts; anything that `PatcherAdapter` recognises. None: the net's own.
        config: How they are run: `batch_size` sequences at once; None: 32.

    Raises:
        ConfigError: No patcher, one that is not recognised, or options that contradict each other.

    Example:
        >>> patcher = Patcher(patching_mode="static", patch_size=4)
        >>> integrator = PatcherIntegrator(HyenaGLT(HyenaGLTConfig.preset("tiny")), patcher)
        >>> integrator.process_with_patching(["ACGTACGT", "ACG"]).compression_stats.tolist()
        [4.0, 3.0]
    """

    def __init__(
        self, model: HyenaGLT, patcher: Any | None = None, config: AdvancedPatcherConfig | None = None
    ) -> None:
        self.model = model
        self.config = None if config is None else config.validate()
        self._is_own = patcher is None or patcher is model.external_patcher
        patcher = model.patcher() if patcher is None else patcher
        self.patcher = patcher if hasattr(patcher, "patch_with_starts") else PatcherAdapter(patcher)
        self._warned = False

    @property
    def batch_size(self) -> int:
        """Sequences of a forward."""
        return DEFAULT_BATCH_SIZE if self.config is None else self.config.batch_size

    def process_with_patching(
        self,
        sequences: Piece | Sequence[Piece],
        batch_size: int | None = None,
    ) -> BatchResult:
        """Cut and run sequences, without gradients; as `HyenaGLT.batch_process_with_patching` with this patcher.

        Args:
            sequences: One or many: texts, bytes or 1-D tokens.
            batch_size: Sequences of a forward; None: the configuration's.

        Returns:
            `outputs`, `compression_stats` and `performance_stats`, in the order of the sequences.

        Raises:
            ConfigError: A batch size below 1.
            PatchingError: Something that is no sequence, or an answer of a patcher that is not understood.
        """
        size = self.batch_size if batch_size is None else batch_size
        self._warn_of_the_future()
        return process_sequences(self.model, self.patcher, sequences, size)

    def get_patch_statistics(self, sequences: Piece | Sequence[Piece]) -> dict[str, Any]:
        """What the patcher makes of sequences; the net does not run.

        Args:
            sequences: One or many: texts, bytes or 1-D tokens.

        Returns:
            Plain numbers, fit for JSON: `total_sequences, total_bases, total_patches`; `compression_ratios` (tokens
            per patch of each sequence), `mean_compression_ratio, std_compression_ratio`; `mean_patch_length,
            std_patch_length, median_patch_length, min_patch_length, max_patch_length` (tokens, over all patches; None
            without patches) and `patch_length_counts` (length -> patches); `patching_mode, threshold` (None where the
            patcher has none) and `is_causal`. Bases that patches share count in each.

        Raises:
            PatchingError: Something that is no sequence, or an answer of a patcher that is not understood.
        """
        rows = encode_each(sequences)
        lengths = [self._patch_lengths(row) for row in rows]
        ratios = np.array([row.mean() if row.size else 0.0 for row in lengths])
        every = np.concatenate([np.zeros(0, np.int64), *lengths])
        values, counts = np.unique(every, return_counts=True)
        return {
            "total_sequences": len(rows),
            "total_bases": sum(len(row) for row in rows),
            "total_patches": every.size,
            "compression_ratios": ratios.tolist(),
            "mean_compression_ratio": float(ratios.mean()) if ratios.size else None,
            "std_compression_ratio": float(ratios.std()) if ratios.size else None,
            **_length_figures(every),
            "patch_length_counts": dict(zip(values.tolist(), counts.tolist(), strict=True)),
            "patching_mode": _text_or_none(getattr(self.patcher, "patching_mode", None)),
            "threshold": getattr(self.patcher, "threshold", None),
            "is_causal": self.patcher.is_causal,
        }

    def _warn_of_the_future(self) -> None:
        if self._is_own:
            self.model.patcher()
        elif self.model.config.causal and not self.patcher.is_causal and not self._warned:
            self._warned = True
            warnings.warn(
                "the integrator's patcher does not say that it is causal, so the outputs of a causal net can depend on "
                "the future",
                stacklevel=3,
            )

    def _patch_lengths(self, tokens: Tensor) -> np.ndarray:
        """`(num_patches,)` int64 of one sequence."""
        patched = patch_rows(self.patcher, tokens.unsqueeze(0))
        return positions_of(patched.to(torch.device("cpu")), 0).patch_lengths[0].numpy()


def setup_integrated_model(
    patching_mode: str = "entropy",
    model_size: str = "base",
    device: str = "auto",
    *,
    sequences: Iterable[str | bytes] | None = None,
    target_mean_length: float = 16.0,
    entropy_model: Any = None,
    patcher_options: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
) -> tuple[HyenaGLT, Patcher, PatcherIntegrator]:
    """A net with fresh weights, a patcher and their integrator.

    In entropy mode give `sequences` (or a fitted `entropy_model` and a threshold): without them each sequence is scored
    by a model of itself and compared with a threshold made for text, which runs, with warnings that say so.

    Args:
        patching_mode: A mode of `PatchingModeEnum`.
        model_size: "tiny", "small", "base" or "large", as in `HyenaGLTConfig.preset`.
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1", ...
        sequences: Entropy mode: what the entropy model is fitted on, unless one is given, and the threshold calibrated.
        target_mean_length: Tokens per patch that the threshold is calibrated for.
        entropy_model: As in `PatcherArgs`.
        patcher_options: More fields of `AdvancedPatcherConfig`; unless `no_cache`, entropies are kept by content.
        model_options: More fields of `HyenaGLTConfig`. On a GPU `mixed_precision` is "fp16" unless set.

    Returns:
        `(model, patcher, integrator)`; the net in evaluation mode on the device, with the patcher as its
        `external_patcher`.

    Raises:
        ConfigError: An unknown mode, size or option, options that contradict each other, `sequences` outside of
            entropy mode, or a mean length that they cannot reach.
        SystemProblem: CUDA is asked for and not there.

    Example:
        >>> options = {"patch_size": 8}
        >>> model, patcher, integrator = setup_integrated_model("static", "tiny", patcher_options=options)
        >>> integrator.get_patch_statistics(["ACGTACGTAC"])["mean_patch_length"]
        5.0
    """
    place = resolve_device(device) or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = {"patching_mode": patching_mode, "device": device, "batch_size": DEFAULT_BATCH_SIZE}
    config = build_config(AdvancedPatcherConfig, {**options, **(patcher_options or {})}).validate()
    args = _patcher_args(config, sequences, target_mean_length, entropy_model)
    patcher = Patcher(args, cache=EntropyCache.from_config(config))
    precision = {"mixed_precision": "fp16" if place.type == "cuda" else "fp32"}
    shape = HyenaGLTConfig.preset(model_size).model_dump(exclude_unset=True)
    own = {"patcher_threshold": patcher.threshold, "patcher_monotonicity": patcher.monotonicity}
    fields = {**shape, **precision, **own, **(model_options or {})}
    model = HyenaGLT(build_config(HyenaGLTConfig, fields), external_patcher=patcher).to(place).eval()
    return model, patcher, PatcherIntegrator(model, patcher, config)


def _patcher_args(
    config: AdvancedPatcherConfig, sequences: Iterable[str | bytes] | None, target: float, entropy_model: Any
) -> PatcherArgs:
    args = PatcherArgs.from_config(config, entropy_model=entropy_model)
    if sequences is None:
        return args
    if args.patching_mode is not PatchingModeEnum.entropy:
        raise ConfigError(f"sequences: expected None in {args.patching_mode} mode, which has no threshold to calibrate")
    if "threshold" in config.model_fields_set:
        raise ConfigError("sequences, threshold: expected at most one of them; the sequences are there to find it")
    found = calibrate(
        sequences,
        entropy_model=entropy_model,
        target_mean_length=target,
        min_patch_length=args.min_patch_length,
        max_patch_length=args.max_patch_length,
        rule=_rule(args),
        **({} if args.threshold_add is None else {"threshold_add": args.threshold_add}),
    )
    return PatcherArgs.from_config(
        config, threshold=found.threshold, entropy_model=found.entropy_model, calibration=found.calibration
    )


def _rule(args: PatcherArgs) -> Any:
    if args.monotonicity:
        return "monotonicity"
    return "threshold" if args.threshold_add is None else "dual"


def _length_figures(lengths: np.ndarray) -> dict[str, float | int | None]:
    if not lengths.size:
        return dict.fromkeys(f"{name}_patch_length" for name in ("mean", "std", "median", "min", "max"))
    return {
        "mean_patch_length": float(lengths.mean()),
        "std_patch_length": float(lengths.std()),
        "median_patch_length": float(np.median(lengths)),
        "min_patch_length": int(lengths.min()),
        "max_patch_length": int(lengths.max()),
    }


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)
