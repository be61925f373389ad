"""A sequence that arrives in chunks -> windows with context -> each base's result once, at its exact position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.model import HyenaGLT
from hyena_glt.model.outputs import HyenaGLTOutput
from hyena_glt.model.sources import Piece
from hyena_glt.patching import Patcher
from hyena_glt.positions import PositionTracker
from hyena_glt.positions.position_info import PositionInfo
from hyena_glt.processing.running import evaluating, usable_patcher
from hyena_glt.processing.stream_windows import StreamCutter, StreamWindow

DEFAULT_OVERLAP = 128
OVERLAP_SHARE = 8  # a window has at least this many times the default overlap


class GenomicStreamProcessor:
    """Runs a net over a stream in windows, in memory that does not grow with it.

    One patcher goes over the whole stream, so the patches are those of the whole sequence. Windows are cut at patch
    starts. Each begins with patches of the one before as context; a base is reported once, by the first window that
    shows it, where it has more past. So what the windows report joins to the whole stream. A base sees
    `window_size` bases at most: for states that see everything before them use `HyenaGLT.stream`.

    Args:
        model: The net.
        patcher: A `Patcher` that decides from the past alone, with a fitted entropy model in entropy mode. None: the
            net's own.
        window_size: Bases that go through the net at once, at most; no patch may be longer.
        overlap: Of these, bases that were in the window before, at most. None: 128, or an eighth of a window below
            1,024.

    Attributes:
        position_tracker: Where the stream that was begun last is: a new one for each stream.

    Raises:
        ConfigError: An overlap of a whole window or more, or a patcher that cannot be streamed.

    Example:
        >>> from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
        >>> patcher = Patcher(patching_mode="static", patch_size=4)
        >>> processor = GenomicStreamProcessor(HyenaGLT(HyenaGLTConfig.preset("tiny")), patcher, window_size=16)
        >>> [(r["global_position"], r["window_size"]) for r in processor.process_stream(["ACGTACGTACGTA", "CGTACG"])]
        [(0, 16), (16, 3)]
    """

    def __init__(
        self,
        model: HyenaGLT,
        patcher: Patcher | None = None,
        window_size: int = 1024,
        overlap: int | None = None,
    ) -> None:
        if window_size < 1:
            raise ConfigError(f"window_size: expected at least 1, got {window_size}")
        self.model, self.window_size = model, window_size
        self.patcher = _streamable(usable_patcher(model, patcher))
        default = min(DEFAULT_OVERLAP, window_size // OVERLAP_SHARE)
        self.overlap = self._checked(default if overlap is None else overlap)
        self.position_tracker = PositionTracker()

    def process_stream(
        self,
        sequence_stream: Iterable[Piece],
        overlap: int | None = None,
        *,
        global_position_offset: int = 0,
        return_position_info: bool = True,
    ) -> Iterator[dict[str, Any]]:
        """Run a stream, without gradients and in evaluation mode, window after window as the chunks come.

        Args:
            sequence_stream: Chunks of any size: str, bytes or 1-D tokens. It may be endless.
            overlap: In place of the processor's.
            global_position_offset: Position of the first base.
            return_position_info: Put positions into `patch_info`.

        Yields:
            For each window: `output` (`HyenaGLTOutput` of the bases and patches that it reports, without context),
            `global_position` (of the first of them), `window_size` (how many bases), `compression_ratio` (bases per
            patch) and `context` (bases that the net saw before them).

        Raises:
            ConfigError: An overlap of a whole window or more, a source that cannot be streamed, or a patch longer
                than a window.
            PatchingError: A chunk that is no sequence, or a negative offset.
        """
        overlap = self.overlap if overlap is None else self._checked(overlap)
        if isinstance(sequence_stream, str | bytes | bytearray | Tensor):
            sequence_stream = [sequence_stream]
        if not isinstance(sequence_stream, Iterable):
            raise PatchingError(f"sequence_stream: expected chunks, got {type(sequence_stream).__name__}")
        cutter = StreamCutter(self.patcher, self.window_size, overlap)
        tracker = self.position_tracker = PositionTracker()
        tracker.begin("", global_position_offset)
        return self._results(cutter, tracker, sequence_stream, return_position_info)

    def _results(
        self, cutter: StreamCutter, tracker: PositionTracker, chunks: Iterable[Piece], with_position_info: bool
    ) -> Iterator[dict[str, Any]]:
        before: StreamWindow | None = None
        offset = tracker.position
        for window in chain(chain.from_iterable(map(cutter.feed, chunks)), _late(cutter)):
            if before is not None:
                tracker.advance(len(before.tokens), overlap=window.num_context)
            assert tracker.position == offset + window.start
            output = self._run(window, tracker.position, with_position_info)
            num_bases, num_patches = output.byte_hidden_state.shape[1], output.patch_lengths.shape[1]
            yield {
                "output": output,
                "global_position": tracker.position + tracker.num_covered,
                "window_size": num_bases,
                "compression_ratio": num_bases / num_patches,
                "context": window.num_context,
            }
            before = window
        if before is not None:
            tracker.advance(len(before.tokens))

    @torch.no_grad()
    def _run(self, window: StreamWindow, position: int, with_position_info: bool) -> HyenaGLTOutput:
        """What the net gives for a window's bases behind the context."""
        with evaluating(self.model):
            output = self.model(
                torch.from_numpy(window.tokens).unsqueeze(0),
                torch.from_numpy(window.patch_lengths).unsqueeze(0),
                torch.from_numpy(window.known_starts).unsqueeze(0),
                torch.tensor([window.next_starts_patch]),
                global_position_offset=position,
                return_position_info=with_position_info,
            )
        return without_context(output, window.num_context, window.num_context_patches)

    def _checked(self, overlap: int) -> int:
        if not 0 <= overlap < self.window_size:
            raise ConfigError(
                f"overlap: expected 0 to {self.window_size - 1}, less than window_size, got {overlap}; windows that "
                "share all their bases never end"
            )
        return overlap


def without_context(output: HyenaGLTOutput, num_tokens: int, num_patches: int) -> HyenaGLTOutput:
    """The output of a row without its first tokens and patches, in memory of its own.

    Args:
        output: Of one row, without padding.
        num_tokens: First tokens to leave out; whole patches.
        num_patches: How many patches these are.
    """

    def patches(values: Tensor) -> Tensor:
        return values[:, num_patches:].clone()

    def tokens(values: Tensor) -> Tensor:
        return values[:, num_tokens:].clone()

    positions, known = output.positions, output.known_starts
    return replace(
        output,
        last_hidden_state=patches(output.last_hidden_state),
        byte_hidden_state=tokens(output.byte_hidden_state),
        logits=tokens(output.logits),
        positions=PositionInfo(
            patch_lengths=patches(positions.patch_lengths),
            patch_ids=tokens(positions.patch_ids) - num_patches,
            offsets=tokens(positions.offsets),
            global_positions=tokens(positions.global_positions),
            relative_positions=tokens(positions.relative_positions),
        ),
        known_starts=None if known is None else tokens(known),
    )


def _late(cutter: StreamCutter) -> Iterator[StreamWindow]:
    """The last windows, asked for when the stream has ended."""
    yield from cutter.finish()


def _streamable(patcher: Any) -> Patcher:
    if not isinstance(patcher, Patcher):
        raise ConfigError(f"patcher: expected a Patcher, which can be streamed, got {type(patcher).__name__}")
    return patcher
