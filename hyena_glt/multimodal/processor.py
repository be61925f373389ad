"""DNA, RNA and protein, each by its own patcher and net, brought together by cross-attention."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn

from hyena_glt.checks import build_config
from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError
from hyena_glt.model import HyenaGLT, HyenaGLTOutput
from hyena_glt.model.batching import split_rows
from hyena_glt.model.sources import pad_rows
from hyena_glt.multimodal.alignment import AlignedOutputs, CrossModalAlignment, PatchStates
from hyena_glt.multimodal.rows import MODALITIES, ModalRow, cut_modal_rows, read_modal_rows
from hyena_glt.patching import Patcher, PatcherArgs, calibrate

VOCABULARY_SIZES = {"dna": 4, "rna": 4, "protein": 20}
MAX_PATCH_LENGTHS = {"dna": 64, "rna": 64, "protein": 32}
MEAN_PATCH_LENGTHS = {"dna": 8.0, "rna": 8.0, "protein": 4.0}
ALIGNED = "aligned"


class MultiModalGenomicProcessor:
    """Runs DNA, RNA and protein sequences, each through its own patcher and net, and aligns what comes out.

    Every net is a `HyenaGLT` over its own letters that reads both directions (`causal=False` whatever the base
    configuration says: whole sequences are compared, nothing is predicted). The patchers, unless given:

    - dna, rna: entropy mode with the budget of one patch per 8 bases, each sequence scored by a model of itself; an RNA
      that comes with a structure is cut by that (`structure_patch_lengths`). `fit_patchers` puts fitted ones in place.
    - protein: 4 residues per patch, or the tokens of `protein_tokenizer`.

    Weights are fresh: `train_alignment` trains them, `from_pretrained` reads trained ones.

    Args:
        base_model_config: Shape of the nets: a `HyenaGLTConfig` or a mapping of its fields.
        patchers: Modality -> patcher, in place of the ones above.
        protein_tokenizer: `tokenizer.json` of a BPE tokenizer for proteins, or a folder that holds one.
        modalities: Which of dna, rna, protein are there.
        shared_size: Width of the shared space.
        num_heads: Heads of the attention between modalities.
        seed: Of the fresh weights; None takes torch's own random numbers.

    Raises:
        ConfigError: An unknown modality or field, or options that contradict each other.

    Example:
        >>> processor = MultiModalGenomicProcessor(HyenaGLTConfig.preset("tiny"), seed=0)
        >>> data = {"dna": ["ATGGCGTTAGCC"], "protein": ["MALA"]}
        >>> results = processor.process_multimodal_data(data)
        >>> results["aligned"].pooled["dna"].shape, results["protein"][0].compression_ratio
        (torch.Size([1, 64]), 4.0)
    """

    processors: dict[str, HyenaGLT]  # modality -> net, with its patcher
    alignment: CrossModalAlignment

    def __init__(
        self,
        base_model_config: HyenaGLTConfig | Mapping[str, Any],
        *,
        patchers: Mapping[str, Any] | None = None,
        protein_tokenizer: str | os.PathLike[str] | None = None,
        modalities: Iterable[str] = MODALITIES,
        shared_size: int = 64,
        num_heads: int = 4,
        seed: int | None = None,
    ) -> None:
        fields = base_model_config
        self.base_config = fields.copy() if isinstance(fields, HyenaGLTConfig) else build_config(HyenaGLTConfig, fields)
        self.modalities = _checked_names("modalities", modalities, MODALITIES)
        _checked_names("patchers", patchers or {}, self.modalities)
        self.protein_tokenizer = None if protein_tokenizer is None else os.fspath(protein_tokenizer)
        self.shared_size, self.num_heads, self.seed = shared_size, num_heads, seed
        self._given_patchers = dict(patchers or {})
        self.processors = {}
        self.setup_specialized_processors()

    def setup_specialized_processors(self) -> None:
        """Make a net with its patcher for each modality, and their alignment; all weights are fresh."""
        with nullcontext() if self.seed is None else torch.random.fork_rng(devices=[]):
            if self.seed is not None:
                torch.manual_seed(self.seed)
            for name in self.modalities:
                fields = {"genomic_vocab_size": VOCABULARY_SIZES[name], "alphabet": name, "causal": False}
                config = build_config(HyenaGLTConfig, {**self.base_config.model_dump(), **fields})
                patcher = self._given_patchers.get(name) or self._default_patcher(name)
                self.processors[name] = HyenaGLT(config, external_patcher=patcher).eval()
            widths = {name: net.config.hidden_size for name, net in self.processors.items()}
            self.alignment = CrossModalAlignment(widths, self.shared_size, self.num_heads).eval()

    @torch.no_grad()
    def process_multimodal_data(
        self, data: Mapping[str, Any], align_outputs: bool = True, *, batch_size: int = 32
    ) -> dict[str, Any]:
        """Run the sequences of each modality, without gradients.

        In evaluation mode the patches of a sequence do not depend on its batch, and its states only by rounding.

        Args:
            data: Modality -> list of sequences; an RNA may come with its structure, see `read_modal_rows`.
            align_outputs: Let the modalities read each other; sequence `i` of one belongs to sequence `i` of the
                others, so their numbers have to agree.
            batch_size: Sequences of a forward.

        Returns:
            Modality -> outputs of its net, one per sequence, `(1, ...)` without padding; and where there is more than
            one modality `"aligned"`: `AlignedOutputs`.

        Raises:
            ConfigError: An unknown modality, unequal numbers of sequences, or a batch size below 1.
            AlphabetError: A symbol that the modality does not have.
            AnnotationError: A structure that does not belong to its sequence.
        """
        rows = {name: self._rows(name, sequences) for name, sequences in data.items()}
        results: dict[str, Any] = {name: self._outputs(name, part, batch_size) for name, part in rows.items()}
        if align_outputs and len(results) > 1:
            results[ALIGNED] = self.align_multimodal_outputs(results)
        return results

    def align_multimodal_outputs(self, results: Mapping[str, list[HyenaGLTOutput]]) -> AlignedOutputs:
        """Let the outputs of each modality attend to those of the others, row by row.

        Args:
            results: Modality -> outputs of its net, one per sequence; an entry "aligned" is passed over.

        Raises:
            ConfigError: Unequal numbers of outputs, or an unknown modality.
        """
        return self.alignment({name: self._stack(name, part) for name, part in results.items() if name != ALIGNED})

    def patch_states(self, modality: str, sequences: Any, *, batch_size: int = 32) -> PatchStates:
        """Trunk states of the patches of sequences, for `alignment`; gradients flow unless they are switched off.

        Nothing behind the trunk runs.

        Raises:
            ConfigError: An unknown modality, something that is no sequence, or a batch size below 1.
            AlphabetError: A symbol that the modality does not have.
            AnnotationError: A structure that does not belong to its sequence.
        """
        rows, net = self._rows(modality, sequences), self.processors[modality]
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for batch in _batches(rows, batch_size):
            patched = cut_modal_rows(net.patcher(), [rows[index] for index in batch]).to(net.device)
            states, info = net.hidden_states(patched.tokens, patched.patch_lengths)
            found |= zip(batch, zip(states, info.patch_lengths, strict=True), strict=True)
        return _padded(self._width(modality), [found[index] for index in range(len(rows))], net.device)

    @torch.no_grad()
    def embed(self, modality: str, sequences: Any, *, batch_size: int = 32) -> Tensor:
        """Vectors in the shared space, each from its sequence alone: `(num, shared)` of length 1; for retrieval.

        Raises:
            ConfigError, AlphabetError, AnnotationError: As `patch_states`.
        """
        return self.alignment.vectors(modality, self.patch_states(modality, sequences, batch_size=batch_size))

    def fit_patchers(
        self, data: Mapping[str, Any], target_mean_length: float | Mapping[str, float] | None = None
    ) -> dict[str, PatcherArgs]:
        """Put patchers in place whose entropy model is fitted on these sequences, and whose threshold is calibrated.

        Args:
            data: Modality -> sequences, as in `process_multimodal_data`; structures are not looked at.
            target_mean_length: Tokens per patch, one number or one per modality; None: 8 for dna and rna, 4 for
                protein.

        Returns:
            What was found for each modality.

        Raises:
            ConfigError: A mean length that the sequences cannot reach, or an unknown modality.
        """
        targets = target_mean_length if isinstance(target_mean_length, Mapping) else {}
        number = None if isinstance(target_mean_length, Mapping) else target_mean_length
        found = {}
        for name, sequences in data.items():
            rows = self._rows(name, sequences)
            found[name] = calibrate(
                [row.tokens for row in rows],
                target_mean_length=targets.get(name, number or MEAN_PATCH_LENGTHS[name]),
                max_patch_length=MAX_PATCH_LENGTHS[name],
            )
        for name, args in found.items():
            self.set_patcher(name, args.build())
        return found

    def set_patcher(self, modality: str, patcher: Any) -> None:
        """Put another patcher in place; what was trained with the old one may not suit it.

        Raises:
            ConfigError: An unknown modality.
        """
        self._net(modality).__dict__["external_patcher"] = patcher

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """The nets by modality, and the alignment."""
        yield from self.processors.items()
        yield "alignment", self.alignment

    def train(self, mode: bool = True) -> Self:
        """Put everything into training (or evaluation) mode."""
        for _, module in self.modules():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Put everything into evaluation mode."""
        return self.train(False)

    def to(self, device: str | torch.device) -> Self:
        """Move the weights."""
        for _, module in self.modules():
            module.to(device)
        return self

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write nets, patchers and alignment into a folder (safetensors and JSON), a manifest of hashes last.

        Raises:
            ModelFileError: A weight is NaN or infinite.
            SystemProblem: The folder cannot be written.
        """
        from hyena_glt.multimodal.saving import save_processor

        save_processor(self, folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what `save_pretrained` wrote, in evaluation mode; no network is used.

        Raises:
            ModelFileError: A file is missing, damaged, of another version, or does not fit the others.
        """
        from hyena_glt.multimodal.saving import load_processor

        return load_processor(cls, folder)

    def _default_patcher(self, modality: str) -> Patcher:
        cap = MAX_PATCH_LENGTHS[modality]
        if modality != "protein":
            return Patcher(threshold=None, patch_size=MEAN_PATCH_LENGTHS[modality], max_patch_length=cap)
        if self.protein_tokenizer is not None:
            return Patcher(patching_mode="bpe", model_name=self.protein_tokenizer, max_patch_length=cap)
        return Patcher(patching_mode="static", patch_size=MEAN_PATCH_LENGTHS[modality])

    def _net(self, modality: str) -> HyenaGLT:
        if modality not in self.processors:
            raise ConfigError(f"unsupported data type: expected one of {', '.join(self.processors)}, got {modality!r}")
        return self.processors[modality]

    def _rows(self, modality: str, sequences: Any) -> list[ModalRow]:
        self._net(modality)
        return read_modal_rows(modality, sequences)

    def _width(self, modality: str) -> int:
        return self.processors[modality].config.hidden_size

    def _outputs(self, modality: str, rows: list[ModalRow], batch_size: int) -> list[HyenaGLTOutput]:
        net = self.processors[modality]
        found: dict[int, HyenaGLTOutput] = {}
        for batch in _batches(rows, batch_size):
            patched = cut_modal_rows(net.patcher(), [rows[index] for index in batch])
            output = net(patched.tokens, patched.patch_lengths)
            found |= zip(batch, split_rows(output), strict=True)
        return [found[index] for index in range(len(rows))]

    def _stack(self, modality: str, outputs: list[HyenaGLTOutput]) -> PatchStates:
        """Outputs of single sequences as one padded batch."""
        net = self._net(modality)
        rows = [(output.last_hidden_state[0], output.patch_lengths[0]) for output in outputs]
        return _padded(self._width(modality), rows, net.device)


def _batches(rows: list[ModalRow], size: int) -> list[list[int]]:
    """Indices of rows of similar length that go together."""
    if size < 1:
        raise ConfigError(f"batch_size: expected at least 1, got {size}")
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].tokens))
    return [order[first : first + size] for first in range(0, len(order), size)]


def _padded(width: int, rows: list[Any], device: torch.device) -> PatchStates:
    """`(patches, width)` states and `(patches,)` lengths of each row, side by side; padding of a row is cut first."""
    if not rows:
        empty = torch.zeros(0, 0, dtype=torch.int64, device=device)
        return PatchStates(torch.zeros(0, 0, width, device=device), empty)
    counts = [int((lengths > 0).sum()) for _, lengths in rows]
    states = nn.utils.rnn.pad_sequence([row[0][:count] for row, count in zip(rows, counts, strict=True)], True)
    lengths = pad_rows([row[1][:count] for row, count in zip(rows, counts, strict=True)], 0)
    return PatchStates(states, lengths)


def _checked_names(what: str, names: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """The names, once each, in the order of `known`."""
    names, known = list(names), tuple(known)
    for name in names:
        if name not in known:
            raise ConfigError(f"{what}: expected some of {', '.join(known)}, got {name!r}")
    if what == "modalities" and not names:
        raise ConfigError("modalities: expected at least one, got none")
    return tuple(name for name in known if name in names)
