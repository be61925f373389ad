"""Many sequences -> batches of similar length -> one output and one line of figures per sequence, in input order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hyena_glt.errors import DataError
from hyena_glt.model import HyenaGLT
from hyena_glt.model.batching import process_sequences
from hyena_glt.model.outputs import HyenaGLTOutput
from hyena_glt.model.sources import Piece
from hyena_glt.processing.running import as_pieces, check_batch_size, count_tokens, evaluating, usable_patcher

DEFAULT_MAX_LENGTH = 4096


class GenomicBatchProcessor:
    """Cuts and runs many sequences; what one gives does not depend on the others.

    Sequences of similar length share a forward, so little of it is padding. Patches are the same for any batch size,
    states within rounding (1e-5). Everything is kept until the end: for more than memory holds, use
    `MemoryOptimizedProcessor`, which gives batch after batch.

    Args:
        model: The net.
        patcher: What cuts; anything that `PatcherAdapter` recognises. None: the net's own.
        batch_size: Sequences of a forward.

    Raises:
        ConfigError: No patcher, one that is not recognised, or a batch size below 1.

    Example:
        >>> from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
        >>> patcher = Patcher(patching_mode="static", patch_size=4)
        >>> processor = GenomicBatchProcessor(HyenaGLT(HyenaGLTConfig.preset("tiny")), patcher, batch_size=2)
        >>> results = processor.process_genomic_batch(["ACGTACGT", "ACG"])
        >>> results["compression_ratios"], results["statistics"]["mean_compression_ratio"]
        ([4.0, 3.0], 3.5)
    """

    def __init__(self, model: HyenaGLT, patcher: Any | None = None, batch_size: int = 32) -> None:
        self.model, self.batch_size = model, check_batch_size(batch_size)
        self.patcher = usable_patcher(model, patcher)

    def process_genomic_batch(
        self,
        sequences: Piece | Iterable[Piece],
        max_length: int | None = DEFAULT_MAX_LENGTH,
        return_statistics: bool = True,
        *,
        return_position_info: bool = True,
    ) -> dict[str, Any]:
        """Cut and run sequences, without gradients and in evaluation mode.

        Args:
            sequences: One or many: texts, bytes or 1-D tokens.
            max_length: Bases that a sequence may have; a longer one is refused, never cut. None: any number.
            return_statistics: Add `statistics`.
            return_position_info: Put positions into each `patch_info`, beside lengths and boundaries.

        Returns:
            In the order of the sequences: `outputs` (`HyenaGLTOutput` of `(1, ...)` without padding), `patch_info`
            (that of the outputs), `compression_ratios` (bases per patch; 0.0 for an empty sequence) and
            `processing_times` (seconds: the share of its batch's time that its share of the bases is). In
            `statistics`: `mean_compression_ratio, std_compression_ratio, mean_processing_time` (None without
            sequences), `total_sequences, total_bases, total_patches, total_processing_time`.

        Raises:
            DataError: A sequence is longer than `max_length`; its index is named, and nothing has run.
            PatchingError: Something that is no sequence, or an answer of a patcher that is not understood.
        """
        pieces = as_pieces(sequences)
        lengths = np.array([count_tokens(piece) for piece in pieces], np.int64)
        _check_lengths(lengths, max_length)
        outputs: list[HyenaGLTOutput | None] = [None] * len(pieces)
        seconds = np.zeros(len(pieces))
        with evaluating(self.model):
            for bucket in length_buckets(lengths, self.batch_size):
                result = process_sequences(self.model, self.patcher, [pieces[i] for i in bucket], len(bucket))
                seconds[bucket] = result.performance_stats.elapsed_s * _shares(lengths[bucket])
                for index, output in zip(bucket.tolist(), result.outputs, strict=True):
                    outputs[index] = replace(output, with_position_info=return_position_info)
        done = [output for output in outputs if output is not None]
        num_patches = np.array([output.patch_lengths.shape[1] for output in done], np.int64)
        ratios = lengths / np.maximum(num_patches, 1)
        results: dict[str, Any] = {
            "outputs": done,
            "patch_info": [output.patch_info for output in done],
            "compression_ratios": ratios.tolist(),
            "processing_times": seconds.tolist(),
        }
        if return_statistics:
            results["statistics"] = _statistics(lengths, num_patches, ratios, seconds)
        return results


def length_buckets(lengths: np.ndarray, batch_size: int) -> Sequence[np.ndarray]:
    """Indices of sequences that share a forward, `(<= batch_size,)` int64 each, from short to long.

    Args:
        lengths: `(num_sequences,)` int64.
        batch_size: Sequences of a forward.
    """
    order = np.argsort(lengths, kind="stable")
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def _shares(lengths: np.ndarray) -> np.ndarray:
    """What each sequence has of its batch's bases, `(n,)` float64; equal shares where there are none."""
    total = int(lengths.sum())
    return lengths / total if total else np.full(len(lengths), 1 / len(lengths))


def _statistics(lengths: np.ndarray, patches: np.ndarray, ratios: np.ndarray, seconds: np.ndarray) -> dict[str, Any]:
    is_any = len(lengths) > 0
    return {
        "mean_compression_ratio": float(ratios.mean()) if is_any else None,
        "std_compression_ratio": float(ratios.std()) if is_any else None,
        "mean_processing_time": float(seconds.mean()) if is_any else None,
        "total_sequences": len(lengths),
        "total_bases": int(lengths.sum()),
        "total_patches": int(patches.sum()),
        "total_processing_time": float(seconds.sum()),
    }


def _check_lengths(lengths: np.ndarray, max_length: int | None) -> None:
    too_long = np.flatnonzero(lengths > max_length) if max_length is not None else np.zeros(0, np.int64)
    if too_long.size:
        index = int(too_long[0])
        raise DataError(
            f"expected at most max_length={max_length} bases, got {lengths[index]}; cut it into windows or raise "
            "max_length",
            record=f"sequence {index}",
        )
