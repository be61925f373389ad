"""HyenaGLT: bytes -> local encoder -> pooling -> Hyena trunk -> bridge -> local decoder -> logits, in one forward."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError
from hyena_glt.layers.gated_conv import GatedConvStack
from hyena_glt.model.bridge import CrossAttentionPositionBridge
from hyena_glt.model.heads import ByteHead, mean_loss
from hyena_glt.model.inputs import PatchedTokens, check_tokens, positions_of
from hyena_glt.model.local_encoder import LocalEncoder, PatchPooling
from hyena_glt.model.outputs import HyenaGLTOutput
from hyena_glt.model.scoring import Strand, score_sequences
from hyena_glt.model.sources import Piece, encode_rows, join_patches, patch_rows, resolve_patcher
from hyena_glt.model.trunk import HyenaTrunk
from hyena_glt.model.weights import load_net, save_net
from hyena_glt.positions.position_info import PositionInfo
from hyena_glt.tokens.small_vocab import SmallVocabulary


class HyenaGLT(nn.Module):
    """A byte-resolution network whose depth runs once per patch.

    In causal mode (the default) nothing at position j changes any output at i < j, up to rounding of the FFT.

    Args:
        config: Shape and rules.
        external_patcher: What cuts sequences into patches; only `forward` with given patch lengths needs none.

    Example:
        >>> net = HyenaGLT(HyenaGLTConfig.preset("tiny"))
        >>> out = net(torch.tensor([[69, 71, 75, 88]]), torch.tensor([[1, 3]]))
        >>> out.logits.shape, out.last_hidden_state.shape
        (torch.Size([1, 4, 260]), torch.Size([1, 2, 128]))
    """

    def __init__(self, config: HyenaGLTConfig, external_patcher: Any | None = None) -> None:
        super().__init__()
        self.config = config
        self.__dict__["external_patcher"] = external_patcher  # never a submodule: its weights are not the net's
        small = config.genomic_vocab_size != 256
        self.vocabulary = SmallVocabulary(config.alphabet_name) if small else None
        dim = config.local_hidden_size
        self.local_encoder = LocalEncoder(config)
        self.pooling = PatchPooling(config)
        self.trunk = HyenaTrunk(config)
        self.bridge = CrossAttentionPositionBridge(config)
        self.local_decoder = GatedConvStack(
            dim, config.num_local_decoder_layers, config.local_kernel_size, causal=config.causal
        )
        self.head = ByteHead(dim, config.vocab_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.project.weight.device

    def forward(
        self,
        tokens: Tensor,
        patch_lengths: Tensor | None = None,
        known_starts: Tensor | None = None,
        next_starts_patch: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        compute_loss: bool = False,
        global_position_offset: int | Tensor = 0,
        return_position_info: bool = True,
        debug_mode: bool = False,
    ) -> HyenaGLTOutput:
        """Run the chain.

        Args:
            tokens: `(batch, length)` byte tokens, rows padded with -1 at the end.
            patch_lengths: `(batch, num_patches)` int64, right-padded with 0; None: the net's patcher cuts the rows.
            known_starts: `(batch, length)` bool, False at a patch start that its own token forced (the edge of a run
                of N): the byte before must not know. None: every start follows from the past.
            next_starts_patch: `(batch,)` bool, True where the token after the row is known to start a patch: then the
                last token reads its own patch. None: False.
            labels: `(batch, length)` byte tokens, -1 where there is no target. A causal net predicts label i + 1 at
                row i; another net label i.
            compute_loss: Take the tokens as labels (causal nets only).
            global_position_offset: Position of each row's first token on its contig: one int or `(batch,)` int64.
            return_position_info: Put positions into `patch_info`, beside lengths and boundaries.
            debug_mode: Describe each stage in `debug`.

        Raises:
            PatchingError: Tokens, patch lengths or masks of the wrong shape, type or coverage.
            ConfigError: No patch lengths and no patcher, or `compute_loss` without causality.
        """
        check_tokens(tokens)
        if patch_lengths is None:
            patched = patch_rows(self.patcher(), tokens.long())
        else:
            patched = PatchedTokens(
                tokens=tokens.long(),
                patch_lengths=patch_lengths,
                known_starts=known_starts,
                next_starts_patch=next_starts_patch,
            )
        if compute_loss and labels is None:
            labels = self._own_labels(tokens)
        output = self._run(patched, labels, global_position_offset, debug_mode)
        output.with_position_info = return_position_info
        return output

    def forward_with_patching(
        self,
        sequence: Piece | Sequence[Piece] | None = None,
        *,
        patches: Sequence[Piece] | None = None,
        boundaries: Any | None = None,
        patcher_config: Any | None = None,
        global_position_offset: int | Tensor = 0,
        return_position_info: bool = True,
        use_gradient_checkpointing: bool = False,
        debug_mode: bool = False,
    ) -> HyenaGLTOutput:
        """Cut and run: a sequence goes through the patcher, ready patches go in as they are.

        Args:
            sequence: Text, bytes or tokens; a list, or 2-D tokens, is a batch.
            patches: Pieces of one sequence in order, in place of `sequence`. They may overlap.
            boundaries: `(num_patches,)` start of each piece, counted from 0 or from the offset: it is added once.
            patcher_config: Options of a patcher for this call.
            global_position_offset: Position of the first token on its contig.
            return_position_info: Put positions into `patch_info`, beside lengths and boundaries.
            use_gradient_checkpointing: Recompute the trunk in the backward pass of this call.
            debug_mode: Describe each stage in `debug`.

        Raises:
            ConfigError: No patcher, or not exactly one of `sequence` and `patches`.
            PatchingError: Boundaries that do not belong to the patches.
        """
        if (sequence is None) == (patches is None):
            raise ConfigError("forward_with_patching: expected exactly one of sequence and patches")
        if patches is not None:
            patched = join_patches(patches, boundaries, int(global_position_offset))
        else:
            assert sequence is not None
            tokens = encode_rows(sequence)
            check_tokens(tokens)
            patched = patch_rows(self.patcher(patcher_config), tokens)
        before, self.trunk.checkpointing = self.trunk.checkpointing, (
            self.trunk.checkpointing or use_gradient_checkpointing
        )
        try:
            output = self._run(patched, None, global_position_offset, debug_mode)
        finally:
            self.trunk.checkpointing = before
        output.with_position_info = return_position_info
        return output
