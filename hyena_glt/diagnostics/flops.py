"""Operations of a forward: what torch sees is counted, what it does not see is computed from the shapes.

Counted while the net runs: matrix products and library convolutions (2 for each multiply-add, as
`torch.utils.flop_counter` counts), and FFTs: 5 n log2 n for a complex one of n points, half for a real one. The
transforms of filters that are kept from run to run do not run again and do not count.

By formula, for loops that are compiled and unseen: see `unseen_flops`. Activations, norms, additions and other work
of one operation per element are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.layers.hyena_operator import PROJECTION_TAPS
from hyena_glt.ops.fftconv import SHIFTED_TAPS

COMPLEX_FFT = 5.0  # times n log2 n
REAL_FFT = 2.5


def flop_counter() -> FlopCounterMode:
    """A context that counts products, convolutions and FFTs of everything within it."""
    aten = torch.ops.aten
    mapping: dict[Any, Any] = {
        aten._fft_r2c: _real_to_complex,
        aten._fft_c2r: _complex_to_real,
        aten._fft_c2c: _complex_to_complex,
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)


def unseen_flops(config: HyenaGLTConfig, num_tokens: int, num_patches: int, compiled: bool) -> dict[str, float]:
    """Operations of the compiled loops by stage, 2 for each multiply-add.

    - local encoder, decoder: `taps` for each channel, byte and layer;
    - pooling: each head's weighted sum of the bytes' states, `heads * local`, and two turned ones;
    - trunk: 3 taps of the 3 projections in each block, and explicit filters of at most 8 taps;
    - bridge: a score and a weighted sum over `bridge_num_patches` states and the null state, `2 * local` each.

    Args:
        config: Of the net.
        num_tokens: Without padding.
        num_patches: Without padding.
        compiled: The pooling and the bridge run as compiled loops (CPU, float32, no gradients); elsewhere they are
            products that are counted, or work of single elements.
    """
    local, hidden = config.local_hidden_size, config.hidden_size
    sides = 1 if config.causal else 2
    layout = config.trunk_layout
    kinds = [layout[index % len(layout)] for index in range(config.num_layers)]
    explicit = {"short": config.short_filter_length, "medium": config.medium_filter_length}
    taps = [min(explicit.get(kind, num_patches), num_patches) * sides for kind in kinds]
    short = sum(count for count in taps if count <= SHIFTED_TAPS)
    per_layer = 2.0 * config.local_kernel_size * local * num_tokens
    return {
        "local encoder": per_layer * config.num_local_encoder_layers,
        "pooling": 2.0 * (config.pooling_heads + 2 * config.reading_frame) * local * num_tokens if compiled else 0.0,
        "trunk": 2.0 * hidden * num_patches * (3 * PROJECTION_TAPS * config.num_layers + short),
        "bridge": 4.0 * (config.bridge_num_patches + 1) * local * num_tokens if compiled else 0.0,
        "decoder": per_layer * config.num_local_decoder_layers,
    }


def _real_to_complex(shape: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    return _transforms(REAL_FFT, shape, dim)


def _complex_to_real(shape: Sequence[int], dim: Sequence[int], *rest: Any, **__: Any) -> int:
    """The last transformed dimension has as many points as the third argument says."""
    full = list(shape)
    full[dim[-1]] = int(rest[1])
    return _transforms(REAL_FFT, full, dim)


def _complex_to_complex(shape: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    return _transforms(COMPLEX_FFT, shape, dim)


def _transforms(factor: float, shape: Sequence[int], dim: Sequence[int]) -> int:
    """`factor * n * log2 n` for the points of one transform, times how many there are."""
    points = math.prod(shape[index] for index in dim)
    return round(factor * math.prod(shape) * math.log2(points)) if points > 1 else 0
