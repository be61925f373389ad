"""bridge -> local decoder -> logits for a block of bytes at a time: nothing between them is ever whole.

Only where no gradient is recorded, on the CPU: there a block stays in the cache, and the memory of a forward is that
of its results. The decoder's states take the place of the encoder's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hyena_glt.layers.feed_forward import LEAST_SHARE, row_blocks
from hyena_glt.layers.gated_conv import BLOCK_BYTES, GatedConvStack
from hyena_glt.model.bridge import CrossAttentionPositionBridge
from hyena_glt.model.heads import ByteHead
from hyena_glt.model.inputs import PatchedTokens, zero_padding
from hyena_glt.ops.allocation import empty_large
from hyena_glt.ops.shifted_sum import compiled_loops_read
from hyena_glt.positions.position_info import PositionInfo


def runs_in_blocks(encoder: nn.Module, bridge: nn.Module, decoder: nn.Module, head: ByteHead, encoded: Tensor) -> bool:
    """Whether `decode_in_blocks` may stand for the last three modules; hooks of the four want to see whole tensors."""
    modules = [part for module in (encoder, bridge, decoder, head) for part in module.modules()]
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in modules)
    return not (torch.is_grad_enabled() or hooked) and compiled_loops_read(encoded, head.project.weight)


def decode_in_blocks(
    bridge: CrossAttentionPositionBridge,
    decoder: GatedConvStack,
    head: ByteHead,
    encoded: Tensor,
    states: Tensor,
    info: PositionInfo,
    patched: PatchedTokens,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Byte states after the decoder, and their logits.

    Args:
        bridge: From patch states to bytes.
        decoder: After it.
        head: At the end.
        encoded: `(batch, length, local)` byte states before the bridge; written over.
        states: `(batch, num_patches, hidden)`.
        info: Positions of the bytes.
        patched: What the bridge may know of patch starts.
        mask: `(batch, length)` bool, False in padding; None: there is none.

    Returns:
        `(batch, length, local)` with zeros in padding, and `(batch, length, vocab)`.
    """
    batch, length, _ = encoded.shape
    read = bridge.reader(states, info, patched.known_starts, patched.next_starts_patch)
    decode, write = decoder.prepared(encoded), head.writer()
    before, after = decoder.reach
    step = max(BLOCK_BYTES, LEAST_SHARE * (before + after))
    logits = empty_large(encoded, batch, length, head.num_ids)
    waiting, decoded = (slice(0), slice(0)), encoded[:0, :0]
    for rows, part in row_blocks(batch, length, step):
        seen = slice(max(part.start - before, 0), min(part.stop + after, length))
        bridged = read(encoded[rows, seen], rows, seen)
        encoded[waiting] = decoded  # no later block reads what was there
        block = decode(bridged, None if mask is None else mask[rows, seen])
        block = block[:, part.start - seen.start : part.stop - seen.start]
        waiting, decoded = (rows, part), zero_padding(block, None if mask is None else mask[rows, part])
        write(logits[waiting].view(-1, head.num_ids), decoded.flatten(0, 1))
    encoded[waiting] = decoded
    return encoded, logits
