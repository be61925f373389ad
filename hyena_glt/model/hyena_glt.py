"""bytes -> local encoder -> pooling -> Hyena trunk -> bridge -> local decoder -> logits, in one forward."""

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
from hyena_glt.model.inputs import PatchedTokens, check_tokens, padding_mask, positions_of, zero_padding
from hyena_glt.model.local_encoder import LocalEncoder, PatchPooling
from hyena_glt.model.outputs import HyenaGLTOutput, describe
from hyena_glt.model.scoring import Strand, score_sequences
from hyena_glt.model.sources import Piece, encode_rows, join_patches, patch_rows, resolve_patcher
from hyena_glt.model.trunk import HyenaTrunk
from hyena_glt.model.weights import load_net, save_net
from hyena_glt.positions.position_info import PositionInfo
from hyena_glt.tokens.small_vocab import SmallVocabulary

MIXED_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class HyenaGLT(nn.Module):
    """A byte-resolution network whose depth runs once per patch.

    In causal mode (the default) nothing at position j changes any output at i < j, up to rounding of the FFT.

    Args:
        config: Shape and rules.
        external_patcher: What cuts sequences into patches; only `forward` with given patch lengths needs
            none.

    Example:
        >>> net = HyenaGLT(HyenaGLTConfig.preset("tiny"))
        >>> out = net(torch.tensor([[69, 71, 75, 88]]), torch.tensor([[1, 3]]))
        >>> out.logits.shape, out.last_hidden_state.shape
        (torch.Size([1, 4, 260]), torch.Size([1, 2, 128]))
    """

    def __init__(self, config: HyenaGLTConfig, external_patcher: Any | None = None) -> None:
        super().__init__()
        self.config = config
        self.__dict__["external_patcher"] = external_patcher  # no submodule: its weights are not the net's
        self.gradient_checkpointing = False
        self._warned = False
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
            patch_lengths: `(batch, num_patches)` int64, right-padded with 0; None: the net's patcher cuts.
            known_starts: `(batch, length)` bool, False at a patch start that its own token forced (the edge of
                a run of N): the byte before must not know. None: every start follows from the past.
            next_starts_patch: `(batch,)` bool, True where the token after the row is known to start a patch:
                then the last token reads its own patch. None: False.
            labels: `(batch, length)` byte tokens, -1 where there is no target. A causal net predicts label
                i + 1 at row i, another net label i.
            compute_loss: Take the tokens as labels (causal nets only).
            global_position_offset: Position of each row's first token on its contig: one int, or `(batch,)`.
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
        return self._run(
            patched,
            global_position_offset,
            labels=self._own_labels(tokens) if compute_loss and labels is None else labels,
            with_position_info=return_position_info,
            debug_mode=debug_mode,
        )

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
            boundaries: `(num_patches,)` start of each piece, from 0 or from the offset: it is added once.
            patcher_config: Options of a patcher for this call.
            global_position_offset: Position of the first token on its contig.
            return_position_info: Put positions into `patch_info`, beside lengths and boundaries.
            use_gradient_checkpointing: Recompute the trunk in the backward pass of this call.
            debug_mode: Describe each stage in `debug`.

        Raises:
            ConfigError: No patcher, or not exactly one of `sequence` and `patches`.
            PatchingError: Boundaries that do not belong to the patches.
        """
        return self._run(
            self._cut(sequence, patches, boundaries, patcher_config, global_position_offset),
            global_position_offset,
            recompute=use_gradient_checkpointing,
            with_position_info=return_position_info,
            debug_mode=debug_mode,
        )

    def score_sequences(self, sequences: Sequence[str | bytes], rc: Strand = "none") -> Tensor:
        """Mean log-likelihood of each sequence, nats per base: `(num_sequences,)` float64.

        Args:
            sequences: At least two bases each; the first base has no prediction and is left out.
            rc: `"avg"` averages with the reverse complement.

        Raises:
            ConfigError: The net is not causal or has no patcher.
            DataError: A sequence is too short or its score is not finite.
        """
        return score_sequences(self, sequences, rc)

    def patcher(self, options: Any | None = None) -> Any:
        """The patcher of a call: from `options`, else the external one, else the net's own.

        Raises:
            ConfigError: There is none.
        """
        patcher = resolve_patcher(self.config, self.external_patcher, options)
        if self.config.causal and not getattr(patcher, "is_causal", True) and not self._warned:
            self._warned = True
            warnings.warn(
                "this patcher's boundaries can depend on the future, so the outputs of a causal net can too; "
                "use a fitted entropy model and a threshold",
                stacklevel=3,
            )
        return patcher

    def gradient_checkpointing_enable(self, enabled: bool = True) -> None:
        """Recompute the trunk in the backward pass: less memory, one more forward of the trunk."""
        self.gradient_checkpointing = enabled

    def vocabulary_ids(self, tokens: Tensor) -> Tensor:
        """Ids of this net's vocabulary for byte tokens; the width of the logits counts these.

        Raises:
            AlphabetError: A byte that a small vocabulary does not have.
        """
        return tokens if self.vocabulary is None else self.vocabulary.fold(tokens)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write configuration, weights and patcher into a folder (safetensors and JSON).

        Raises:
            ModelFileError: A weight is NaN or infinite.
            SystemProblem: The folder cannot be written.
        """
        save_net(self, folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], external_patcher: Any | None = None) -> Self:
        """Read what `save_pretrained` wrote, in evaluation mode; no network is used.

        Args:
            folder: Where it lies.
            external_patcher: In place of the saved patcher.

        Raises:
            ModelFileError: A file is missing, damaged, of another version, or does not fit the others.
        """
        return load_net(cls, folder, external_patcher)

    def _cut(
        self,
        sequence: Piece | Sequence[Piece] | None,
        patches: Sequence[Piece] | None,
        boundaries: Any | None,
        patcher_config: Any | None,
        offset: int | Tensor,
    ) -> PatchedTokens:
        if sequence is not None and patches is None:
            tokens = encode_rows(sequence)
            check_tokens(tokens)
            return patch_rows(self.patcher(patcher_config), tokens)
        if patches is not None and sequence is None:
            return join_patches(patches, boundaries, int(offset))
        raise ConfigError("forward_with_patching: expected exactly one of sequence and patches")

    def _run(
        self,
        patched: PatchedTokens,
        offset: int | Tensor,
        *,
        labels: Tensor | None = None,
        recompute: bool = False,
        with_position_info: bool = True,
        debug_mode: bool = False,
    ) -> HyenaGLTOutput:
        patched = patched.to(self.device)
        info = positions_of(patched, offset)
        ids = self.vocabulary_ids(patched.tokens)
        with self._precision():
            stages = self._stages(ids, info, patched, recompute or self.gradient_checkpointing)
        return HyenaGLTOutput(
            last_hidden_state=stages["trunk"],
            byte_hidden_state=stages["decoder"],
            logits=stages["logits"],
            positions=info,
            loss=None if labels is None else self._loss(stages["logits"], labels.to(self.device)),
            with_position_info=with_position_info,
            debug={name: describe(tensor) for name, tensor in stages.items()} if debug_mode else {},
        )

    def _stages(self, ids: Tensor, info: PositionInfo, patched: PatchedTokens, recompute: bool) -> dict[str, Tensor]:
        """Every stage of the chain by name. In causal mode padding, being last, needs no mask on the way."""
        byte_mask, patch_mask = padding_mask(info.mask), padding_mask(info.patch_mask)
        seen_bytes, seen_patches = (None, None) if self.config.causal else (byte_mask, patch_mask)
        encoded = self.local_encoder(ids, seen_bytes)
        pooled = self.pooling(encoded, info)
        trunk = self.trunk(pooled, seen_patches, recompute)
        bridged = self.bridge(encoded, trunk, info, patched.known_starts, patched.next_starts_patch)
        decoded = zero_padding(self.local_decoder(bridged, seen_bytes), byte_mask)
        return {
            "encoder": encoded,
            "pooling": pooled,
            "trunk": zero_padding(trunk, patch_mask),
            "bridge": bridged,
            "decoder": decoded,
            "logits": self.head(decoded),
        }

    def _own_labels(self, tokens: Tensor) -> Tensor:
        if not self.config.causal:
            raise ConfigError("compute_loss: expected labels, since a net with causal=False sees its own tokens")
        return tokens

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        targets = self.vocabulary_ids(labels)
        return mean_loss(logits[:, :-1], targets[:, 1:]) if self.config.causal else mean_loss(logits, targets)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.config.mixed_precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, MIXED_DTYPES[self.config.mixed_precision])
