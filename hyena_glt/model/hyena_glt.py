"""bytes -> local encoder -> pooling -> Hyena trunk -> bridge -> local decoder -> logits, in one forward."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError
from hyena_glt.layers.gated_conv import GatedConvStack
from hyena_glt.model.adaptive_merger import (
    AdaptiveTokenMerger,
    LearnedPatcher,
    cut_tokens,
    smooth_states,
    start_weights,
    weigh_by_confidence,
)
from hyena_glt.model.batching import BatchResult, forward_patches, process_sequences
from hyena_glt.model.bridge import CrossAttentionPositionBridge
from hyena_glt.model.byte_blocks import decode_in_blocks, runs_in_blocks
from hyena_glt.model.heads import ByteHead, mean_loss
from hyena_glt.model.inputs import PatchedTokens, check_tokens, padding_mask, positions_of, zero_padding
from hyena_glt.model.local_encoder import LocalEncoder, PatchPooling
from hyena_glt.model.outputs import HyenaGLTOutput, describe
from hyena_glt.model.scoring import Strand, score_sequences
from hyena_glt.model.sources import Piece, encode_rows, join_patches, patch_rows, resolve_patcher
from hyena_glt.model.trunk import HyenaTrunk
from hyena_glt.model.weights import load_net, push_net, save_net
from hyena_glt.positions.position_info import PositionInfo
from hyena_glt.tokens.byte_tokenizer import PAD_ID
from hyena_glt.tokens.small_vocab import SmallVocabulary

if TYPE_CHECKING:
    from hyena_glt.model.memory import MemoryEstimate
    from hyena_glt.model.streaming import NetStream

MIXED_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class HyenaGLT(nn.Module):
    """A byte-resolution network whose depth runs once per patch.

    In causal mode (the default) nothing at position j changes any output at i < j, up to rounding of the FFT.

    Args:
        config: Shape and rules.
        external_patcher: What cuts sequences into patches; only `forward` with given patch lengths needs
            none, and a net with `boundaries="learned"`, which cuts by its own byte states.

    Raises:
        ConfigError: An external patcher where the boundaries are learned.

    Example:
        >>> net = HyenaGLT(HyenaGLTConfig.preset("tiny"))
        >>> out = net(torch.tensor([[69, 71, 75, 88]]), torch.tensor([[1, 3]]))
        >>> out.logits.shape, out.last_hidden_state.shape
        (torch.Size([1, 4, 260]), torch.Size([1, 2, 128]))
    """

    def __init__(self, config: HyenaGLTConfig, external_patcher: Any | None = None) -> None:
        super().__init__()
        if config.boundaries == "learned" and external_patcher is not None:
            raise ConfigError("external_patcher: expected none with boundaries='learned'; the net cuts by itself")
        self.config = config
        self.__dict__["external_patcher"] = external_patcher  # no submodule: its weights are not the net's
        self.gradient_checkpointing = False
        self._warned = False
        small = config.genomic_vocab_size != 256
        self.vocabulary = SmallVocabulary(config.alphabet_name) if small else None
        dim = config.local_hidden_size
        self.local_encoder = LocalEncoder(config)
        self.merger = self._make_merger()
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
            patch_lengths: `(batch, num_patches)` int64, right-padded with 0; None: the net's patcher cuts, or
                the net itself. Lengths that a net with learned boundaries gave go back into it together with
                the output's `known_starts` and `next_starts_patch`.
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
        return self._run(
            self._cut_rows(tokens, patch_lengths, known_starts, next_starts_patch),
            global_position_offset,
            labels=self._own_labels(tokens) if compute_loss and labels is None else labels,
            with_position_info=return_position_info,
            debug_mode=debug_mode,
        )

    def hidden_states(
        self,
        tokens: Tensor,
        patch_lengths: Tensor | None = None,
        *,
        layer: int = -1,
        global_position_offset: int | Tensor = 0,
    ) -> tuple[Tensor, PositionInfo]:
        """States of the patches after one layer of the trunk; nothing behind that layer runs.

        Args:
            tokens: `(batch, length)` byte tokens, rows padded with -1 at the end.
            patch_lengths: `(batch, num_patches)` int64; None: the net's patcher cuts, or the net itself.
            layer: 0 is the pooled patches before the trunk, N the state after N layers, -1 the last: there it is
                `last_hidden_state` of `forward`.
            global_position_offset: Position of each row's first token on its contig: one int, or `(batch,)`.

        Returns:
            `(batch, num_patches, hidden)` with zeros in padding, and the positions, which hold the patch lengths.

        Raises:
            PatchingError: Tokens or patch lengths of the wrong shape, type or coverage.
            ConfigError: There is no such layer, or no patch lengths and no patcher.
        """
        check_tokens(tokens)
        encoded, probabilities, info, _ = self._begin(self._cut_rows(tokens, patch_lengths), global_position_offset)
        patch_mask = padding_mask(info.patch_mask)
        with self._precision():
            pooled = self.pooling(encoded, info)
            states = self.trunk.hidden_states(pooled, None if self.config.causal else patch_mask, layer)
            if probabilities is not None and layer in (-1, len(self.trunk.blocks)):
                states = smooth_states(states, start_weights(probabilities, info))
        return zero_padding(states, patch_mask), info

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

    def batch_forward_with_patches(
        self,
        patches: Sequence[Sequence[Piece]],
        boundaries: Sequence[Any] | None = None,
        max_length: int | None = None,
        global_position_offset: int | Sequence[int] | Tensor = 0,
    ) -> list[HyenaGLTOutput]:
        """Run many sequences that are cut already, in one forward.

        Args:
            patches: The pieces of each sequence, in order. They may overlap.
            boundaries: The starts of each sequence's pieces, each from 0 or from the offset; None: they follow
                each other.
            max_length: Bases that a sequence may have, those that patches share counted once; None: any number.
            global_position_offset: Position of each sequence's first token: one int, or one per sequence.

        Returns:
            One output per sequence, `(1, ...)` without padding.

        Raises:
            DataError: A sequence is longer than `max_length`; its index is named.
            PatchingError: Boundaries that do not belong to the patches.
        """
        return forward_patches(self, patches, boundaries, max_length, global_position_offset)

    def batch_process_with_patching(
        self, sequences: Piece | Sequence[Piece], batch_size: int = 32, patcher_config: Any | None = None
    ) -> BatchResult:
        """Cut and run many sequences, without gradients.

        In evaluation mode the patches of a sequence do not depend on its batch, and its states only by rounding.

        Args:
            sequences: One or many: texts, bytes or 1-D tokens.
            batch_size: Sequences of a forward; those of similar length go together.
            patcher_config: Options of a patcher for this call.

        Returns:
            `outputs`, `compression_stats` and `performance_stats`, whose `speedup` is measured when asked for.

        Raises:
            ConfigError: No patcher, or a batch size below 1.
            PatchingError: Something that is no sequence.
        """
        return process_sequences(self, self.patcher(patcher_config), sequences, batch_size)

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

    def stream(self, patcher: Any | None = None, global_position_offset: int = 0) -> NetStream:
        """Run this causal net over one sequence in blocks of any size; see `NetStream`.

        Raises:
            ConfigError: A net or a patcher that needs the future, or a patcher that cannot be streamed.
        """
        from hyena_glt.model.streaming import NetStream

        return NetStream(self, patcher, global_position_offset)

    def generate(self, prompt: Piece | Sequence[Piece], max_new_tokens: int = 100, **options: Any) -> Any:
        """Continue a prompt, or several, by letters drawn one by one; the options are those of `generation.generate`.

        Example:
            >>> from hyena_glt import Patcher
            >>> net = HyenaGLT(HyenaGLTConfig.preset("tiny"), Patcher(patching_mode="static", patch_size=4))
            >>> len(net.generate("ACGT", max_new_tokens=8, temperature=0.0))
            12
        """
        from hyena_glt.model.generation import generate

        return generate(self, prompt, max_new_tokens, **options)

    def estimate_memory(
        self, length: int, batch: int = 1, patch_length: float = 16, training: bool = False
    ) -> MemoryEstimate:
        """Peak memory of a forward or a training step, before it runs; see `memory.estimate_memory`.

        Raises:
            ConfigError: A number below 1.
        """
        from hyena_glt.model.memory import estimate_memory

        return estimate_memory(self, length, batch, patch_length, training)

    def patcher(self, options: Any | None = None) -> Any:
        """The patcher of a call: from `options`, else learned boundaries, the external one or the net's own.

        Raises:
            ConfigError: There is none.
        """
        if options is None and self.merger is not None:
            return LearnedPatcher(self)
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

    def drop_ngrams(self) -> None:
        """Embed single tokens alone from now on, without the vectors of n-grams; `config` is replaced, not changed.

        For fine-tuning on little: tables of n-grams remember a small set by heart (docs/results.md).
        """
        self.local_encoder.embedding.drop_ngrams()
        self.config = self.config.copy(ngram_sizes=())

    def vocabulary_ids(self, tokens: Tensor) -> Tensor:
        """Ids of this net's vocabulary for byte tokens; the width of the logits counts these.

        Raises:
            AlphabetError: A byte that a small vocabulary does not have.
        """
        return tokens if self.vocabulary is None else self.vocabulary.fold(tokens)

    def encode_bytes(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """The narrow first stage alone.

        Args:
            tokens: `(batch, length)` int64 byte tokens with PAD tails, on the net's device.

        Returns:
            `(batch, length, local)` byte states, and where boundaries are learned the probability that each
            token starts a patch, `(batch, length)`, else None.

        Raises:
            AlphabetError: A byte that a small vocabulary does not have.
        """
        ids, mask = self.vocabulary_ids(tokens), tokens != PAD_ID
        with self._precision():
            encoded = self.local_encoder(ids, None if self.config.causal else padding_mask(mask))
        return encoded, None if self.merger is None else self.merger(encoded, mask)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write configuration, weights and patcher into a folder (safetensors and JSON).

        Raises:
            ModelFileError: A weight is NaN or infinite.
            SystemProblem: The folder cannot be written.
        """
        save_net(self, folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload HyenaGLT",
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face hub; the only method here that uses the network.

        Args:
            repo_id: `"user/name"`; made where it is missing.
            private: Whether a new repository is private; None: as the account has it.
            token: Of the hub; None: the one that `hf auth login` stored.
            revision: Branch that gets the commit, made where it is missing; None: the main one.
            commit_message: Of that commit.

        Returns:
            Address of the commit.

        Raises:
            ConfigError: A name that the hub does not allow.
            ModelFileError: A weight is NaN or infinite.
            SystemProblem: No network, or the hub refused.
        """
        return push_net(self, repo_id, private=private, token=token, revision=revision, commit_message=commit_message)

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
    ) -> PatchedTokens | Tensor:
        if sequence is not None and patches is None:
            tokens = encode_rows(sequence)
            check_tokens(tokens)
            if self.merger is not None and patcher_config is None:
                return tokens
            return patch_rows(self.patcher(patcher_config), tokens)
        if patches is not None and sequence is None:
            return join_patches(patches, boundaries, int(offset))
        raise ConfigError("forward_with_patching: expected exactly one of sequence and patches")

    def _cut_rows(
        self,
        tokens: Tensor,
        patch_lengths: Tensor | None,
        known_starts: Tensor | None = None,
        next_starts_patch: Tensor | None = None,
    ) -> PatchedTokens | Tensor:
        """Checked tokens with given patch lengths, or those of the patcher; the tokens alone where the net cuts."""
        if patch_lengths is None:
            return tokens.long() if self.merger else patch_rows(self.patcher(), tokens.long())
        return PatchedTokens(
            tokens=tokens.long(),
            patch_lengths=patch_lengths,
            known_starts=known_starts,
            next_starts_patch=next_starts_patch,
        )

    def _begin(
        self, patched: PatchedTokens | Tensor, offset: int | Tensor
    ) -> tuple[Tensor, Tensor | None, PositionInfo, PatchedTokens]:
        """Byte states, probabilities of starts where they are learned, positions, and the tokens as they were cut."""
        patched = patched.to(self.device)
        encoded, probabilities = self.encode_bytes(patched if isinstance(patched, Tensor) else patched.tokens)
        if isinstance(patched, Tensor):
            patched = cut_tokens(self.merger, patched, probabilities)
        return encoded, probabilities, positions_of(patched, offset), patched

    def _run(
        self,
        patched: PatchedTokens | Tensor,
        offset: int | Tensor,
        *,
        labels: Tensor | None = None,
        recompute: bool = False,
        with_position_info: bool = True,
        debug_mode: bool = False,
    ) -> HyenaGLTOutput:
        own_cut = isinstance(patched, Tensor)
        encoded, probabilities, info, cut = self._begin(patched, offset)
        with self._precision():
            recompute = recompute or self.gradient_checkpointing
            stages = self._stages(encoded, probabilities, info, cut, recompute, every_stage=debug_mode)
        ratio_loss = self._ratio_loss(probabilities, info) if own_cut else None
        loss = None if labels is None else self._loss(stages["logits"], labels.to(self.device))
        return HyenaGLTOutput(
            last_hidden_state=stages["trunk"],
            byte_hidden_state=stages["decoder"],
            logits=stages["logits"],
            positions=info,
            loss=loss if loss is None or ratio_loss is None else loss + self.config.ratio_loss_weight * ratio_loss,
            ratio_loss=ratio_loss,
            boundary_probabilities=probabilities,
            known_starts=cut.known_starts,
            next_starts_patch=cut.next_starts_patch,
            with_position_info=with_position_info,
            debug={name: describe(tensor) for name, tensor in stages.items()} if debug_mode else {},
        )

    def _stages(
        self,
        encoded: Tensor,
        probabilities: Tensor | None,
        info: PositionInfo,
        patched: PatchedTokens,
        recompute: bool,
        every_stage: bool,
    ) -> dict[str, Tensor]:
        """Every stage after the encoder by name. In causal mode padding, being last, needs no mask on the way."""
        byte_mask, patch_mask = padding_mask(info.mask), padding_mask(info.patch_mask)
        pooled = self.pooling(encoded, info)
        trunk = self.trunk(pooled, None if self.config.causal else patch_mask, recompute)
        if probabilities is not None:
            trunk = smooth_states(trunk, start_weights(probabilities, info))
        return {
            "encoder": encoded,
            "pooling": pooled,
            "trunk": zero_padding(trunk, patch_mask),
            **self._byte_stages(encoded, probabilities, trunk, info, patched, byte_mask, every_stage),
        }

    def _byte_stages(
        self,
        encoded: Tensor,
        probabilities: Tensor | None,
        trunk: Tensor,
        info: PositionInfo,
        patched: PatchedTokens,
        mask: Tensor | None,
        every_stage: bool,
    ) -> dict[str, Tensor]:
        parts = self.bridge, self.local_decoder, self.head
        if not every_stage and runs_in_blocks(self.local_encoder, *parts, encoded):
            decoded, logits = decode_in_blocks(*parts, encoded, trunk, info, patched, mask)
            return {"decoder": decoded, "logits": logits}
        bridged = self.bridge(encoded, trunk, info, patched.known_starts, patched.next_starts_patch)
        if probabilities is not None:
            bridged = weigh_by_confidence(encoded, bridged, probabilities, info)
        decoded = zero_padding(self.local_decoder(bridged, None if self.config.causal else mask), mask)
        return {"bridge": bridged, "decoder": decoded, "logits": self.head(decoded)}

    def _make_merger(self) -> AdaptiveTokenMerger | None:
        config = self.config
        if config.boundaries == "patcher":
            return None
        limits = config.min_patch_length, config.max_patch_length
        return AdaptiveTokenMerger(config.local_hidden_size, config.target_patch_length, *limits)

    def _ratio_loss(self, probabilities: Tensor | None, info: PositionInfo) -> Tensor | None:
        if self.merger is None or probabilities is None:
            return None
        return self.merger.ratio_loss(probabilities, info.patch_lengths)

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
