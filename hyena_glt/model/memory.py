"""How much memory a forward or a training step will take, from the shape alone and before anything runs.

A step of the chain needs most while its widest tensors are alive together; the estimate counts these for every step
and takes the largest sum. The counts follow the code of the layers and were checked against the allocator; what the
process holds beyond them is the C library's: freed blocks below 32 MiB stay in its heap, larger ones go back at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyena_glt.errors import ConfigError
from hyena_glt.layers.hyena_filter import CHUNKED_LENGTH
from hyena_glt.ops.exponential_conv import CHUNK
from hyena_glt.ops.fftconv import DIRECT_TAPS, OVERLAP_RATIO, fft_size
from hyena_glt.ops.weight_cache import WEIGHT_CACHE

if TYPE_CHECKING:
    from hyena_glt.config import HyenaGLTConfig
    from hyena_glt.model.hyena_glt import HyenaGLT

FLOAT = 4  # bytes
COMPLEX = 8
MAPPED = 32 << 20  # bytes from which glibc gives a freed block back at once
HEAP_SLACK = 0.8  # of the smaller blocks, what the heap holds beside them (measured, 8k to 131k bases)
FIXED = 70 << 20  # bytes that the first forward of a process loads: compiled loops, code and buffers of the libraries
FEED_FORWARD_BLOCK = 1024  # positions, as in layers.feed_forward
BLOCKS = 3 << 20  # bytes of the blocks that the operator works in
LOCAL_BLOCKS = 16 << 20  # of those that encoder, pooling, bridge and decoder work in


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Peak memory of one run in bytes, and where it comes from."""

    parts: Mapping[str, int]  # step -> bytes of all tensors alive while it needs most; weights left out
    kept: Mapping[str, int]  # what stays to the end: states, logits, filters; in training also gradients and moments
    overhead_bytes: int  # what the process holds beyond its tensors
    weights_bytes: int  # there before the run; not counted in the peak

    @property
    def dominant(self) -> str:
        """The step that needs most."""
        return max(self.parts, key=lambda name: self.parts[name])

    @property
    def peak_bytes(self) -> int:
        """Growth of the process from before the first run to its highest point."""
        return self.parts[self.dominant] + self.overhead_bytes


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the tensors that the steps are made of."""

    byte_state: int  # (batch, length, local) float32
    patch_state: int  # (batch, num_patches, hidden)
    logits: int  # (batch, length, vocab)
    window: int  # (batch, num_patches, slots, 2 * local), keys and values that bytes read
    index: int  # (batch, length) int64
    feed_forward: int  # (batch, block, inner)

    @classmethod
    def of(cls, config: HyenaGLTConfig, length: int, batch: int, num_patches: int) -> Sizes:
        """Sizes for one batch."""
        tokens, patches, local = batch * length, batch * num_patches, config.local_hidden_size
        return cls(
            byte_state=tokens * local * FLOAT,
            patch_state=patches * config.hidden_size * FLOAT,
            logits=tokens * config.vocab_size * FLOAT,
            window=patches * config.bridge_num_patches * 2 * local * FLOAT,
            index=tokens * 8,
            feed_forward=batch * min(num_patches, FEED_FORWARD_BLOCK) * config.feed_forward_size * FLOAT,
        )


def estimate_memory(
    net: HyenaGLT, length: int, batch: int = 1, patch_length: float = 16, training: bool = False
) -> MemoryEstimate:
    """Peak memory of `net(tokens, patch_lengths)`, or of one training step with AdamW.

    For a forward in float32 on a CPU with glibc within 20 % of the measured growth of the resident memory (`small`
    and `base` at 8k, 32k and 131k bases, patches of 16 bases; byte mode at 8k and 32k). The training estimate counts
    tensors the same way and is rougher.

    Args:
        net: Any net; nothing is run.
        length: Tokens per row.
        batch: Rows.
        patch_length: Mean tokens per patch.
        training: Keep what the backward pass needs, without recomputing, and the optimizer's state.

    Raises:
        ConfigError: A number below 1.
    """
    for name, value in (("length", length), ("batch", batch), ("patch_length", patch_length)):
        if not value >= 1:
            raise ConfigError(f"{name}: expected at least 1, got {value}")
    num_patches = math.ceil(length / patch_length)
    sizes = Sizes.of(net.config, length, batch, num_patches)
    weights = sum(weight.numel() * weight.element_size() for weight in net.parameters())
    if training:
        alive = _training_parts(net.config, sizes)
        kept = {"gradients": weights, "moments": 2 * weights}
        activations = sum(alive.values())
        parts = {**alive, "backward": activations + 2 * sizes.logits + 2 * weights, "optimizer": 3 * weights}
        in_heap = activations if sizes.byte_state < MAPPED else _in_heap(sizes)
        slack = HEAP_SLACK * in_heap / 4  # most of it is alive to the end
        return MemoryEstimate(parts=parts, kept=kept, overhead_bytes=FIXED + int(slack), weights_bytes=weights)
    filters = cached_filter_bytes(net.config, num_patches)
    parts, kept = _forward_parts(sizes, filters)
    overhead = FIXED + int(HEAP_SLACK * _in_heap(sizes))
    return MemoryEstimate(parts=parts, kept=kept, overhead_bytes=overhead, weights_bytes=weights)


def cached_filter_bytes(config: HyenaGLTConfig, num_patches: int) -> int:
    """What the trunk's filters leave in the cache of one forward: spectra, or the matrices of chunks."""
    layout = config.trunk_layout
    taps = {"short": config.short_filter_length, "medium": config.medium_filter_length, "long": num_patches}
    total = 0
    for index in range(config.num_layers):
        kind = layout[index % len(layout)]
        if kind == "long" and config.long_filter == "exponential" and num_patches >= CHUNKED_LENGTH:
            total += config.hidden_size * CHUNK * (CHUNK + 2 * config.filter_num_exponentials) * FLOAT
        else:
            total += _spectrum_bytes(config.hidden_size, min(taps[kind], num_patches), num_patches)
    return min(total * (1 if config.causal else 2), WEIGHT_CACHE.max_bytes)


def _spectrum_bytes(channels: int, taps: int, length: int) -> int:
    if taps <= DIRECT_TAPS:
        return channels * taps * FLOAT
    size = fft_size(OVERLAP_RATIO * taps if OVERLAP_RATIO * taps <= length else length + taps - 1)
    return channels * (size // 2 + 1) * COMPLEX


def _forward_parts(sizes: Sizes, filters: int) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes alive while each step needs most, and what stays to the end."""
    state, patch = sizes.byte_state, sizes.patch_state
    positions = 3 * sizes.index + sizes.index // 2
    operator = 6 * patch + BLOCKS
    feed_forward = 4 * patch + 4 * sizes.feed_forward
    kept = {"positions": positions, "states": state + patch, "filters": filters, "logits": sizes.logits}
    before = positions + state  # the byte states, from the pooling to the end
    after = before + patch + filters  # from the trunk to the end
    parts = {
        "encoder": positions + state + LOCAL_BLOCKS,
        "pooling": before + patch + LOCAL_BLOCKS,
        "trunk": before + patch + filters + max(operator, feed_forward),
        "bytes": after + sizes.logits + 2 * sizes.index + sizes.window + LOCAL_BLOCKS,
    }
    return parts, kept


def _training_parts(config: HyenaGLTConfig, sizes: Sizes) -> dict[str, int]:
    """What each step keeps for the backward pass, counted with the allocator's records at 8k and 16k bases."""
    state = sizes.byte_state
    layers = config.num_local_encoder_layers, config.num_local_decoder_layers
    return {
        "encoder": int((1 + 7.1 * layers[0]) * state),
        "pooling": int(7.5 * state),
        "trunk": 30 * config.num_layers * sizes.patch_state,
        "bridge": 12 * state + 3 * sizes.window,
        "decoder": 7 * layers[1] * state,
        "head": state + 2 * sizes.logits,
    }


def _in_heap(sizes: Sizes) -> int:
    """Bytes of a forward's tensors in blocks that the C library keeps: those below its limit."""
    blocks = (
        (sizes.byte_state, sizes.byte_state),
        (sizes.logits, sizes.logits),
        (6 * sizes.patch_state, sizes.patch_state),
    )
    return sum(total for total, one in blocks if one < MAPPED)
