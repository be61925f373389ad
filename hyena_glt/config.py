"""Every option that a file or a caller can set, in one place: patchers and the network.

Pydantic models that refuse unknown keys; no torch here, so that reading a configuration costs nothing.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    field_validator,
    model_validator,
)

from hyena_glt.errors import ConfigError

DEFAULT_THRESHOLD = 1.335442066192627
DEFAULT_PATCH_SIZE = 4.5
NUM_SPECIAL_TOKENS = 4


class PatchingModeEnum(StrEnum):
    """The rule that decides where patches start."""

    entropy = "entropy"
    bpe = "bpe"
    bpe_patcher = "bpe_patcher"
    space = "space"
    static = "static"
    byte = "byte"
    track = "track"


def _refuse_text(value: object) -> object:
    """Numbers written as text or truth values are mistakes in a file, not numbers."""
    if isinstance(value, str | bytes | bool):
        raise ValueError("expected a number")
    return value


Whole = Annotated[int, BeforeValidator(_refuse_text)]
Real = Annotated[float, BeforeValidator(_refuse_text), Field(allow_inf_nan=False)]
PositiveWhole = Annotated[Whole, Field(ge=1)]
Device = Annotated[str, Field(min_length=1)]


class PatcherFields(BaseModel):
    """The options of a patcher, with the names of the published interface."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), validate_assignment=True)

    patching_mode: PatchingModeEnum = Field(PatchingModeEnum.entropy, description="rule that decides patch starts")
    patching_device: Device = Field("auto", description="device of the entropy model: auto, cpu, cuda, cuda:0")
    entropy_model_checkpoint_dir: str | None = Field(None, description="folder of a saved entropy model")
    realtime_patching: StrictBool = Field(
        False, description="load the entropy model and score tokens as they come; 'auto' cannot and is refused"
    )
    threshold: Real | None = Field(
        DEFAULT_THRESHOLD,
        description="nats; a patch starts after an entropy above it; None: top-k by patch_size",
    )
    threshold_add: Real | None = Field(
        None, description="nats; second threshold, on the rise of the entropy; None: one threshold"
    )
    max_patch_length: PositiveWhole | None = Field(None, description="tokens; longer patches are cut")
    min_patch_length: PositiveWhole | None = Field(None, description="tokens; earlier starts are ignored")
    patch_size: Annotated[Real, Field(gt=0)] | None = Field(
        DEFAULT_PATCH_SIZE, description="tokens per patch on average; stride of static mode, budget of top-k"
    )
    patching_batch_size: PositiveWhole = Field(1, description="rows that the entropy model scores at once")
    device: Device = Field("auto", description="device of the patching itself: auto, cpu, cuda, cuda:0")
    monotonicity: StrictBool = Field(False, description="compare the threshold with the rise of the entropy")
    log_time: StrictBool = Field(False, description="keep seconds per step in patcher.log")
    model_name: str | None = Field(None, description="local language model (entropy) or tokenizer (bpe)")
    delimiter_chars: list[str] | None = Field(None, description="single characters that end a patch in space mode")
    preserve_delimiters: StrictBool = Field(True, description="keep delimiters in the pieces that are returned")
    overlap: Annotated[Whole, Field(ge=0)] = Field(0, description="tokens shared by neighbours in static mode")
    vocab_size: PositiveWhole | None = Field(None, description="entries of the tokenizer (bpe, bpe_patcher)")
    special_tokens: list[str] | None = Field(None, description="tokens that the tokenizer never splits")
    encoding: str = Field("utf-8", description="encoding of text that is patched")

    @field_validator("delimiter_chars")
    @classmethod
    def _single_characters(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and (not value or any(len(item) != 1 for item in value)):
            raise ValueError("expected a list of single characters")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            codecs.lookup(value)
        except LookupError:
            raise ValueError("expected the name of a text encoding") from None
        return value

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if self.min_patch_length and self.max_patch_length and self.min_patch_length > self.max_patch_length:
            raise ValueError(
                f"min_patch_length: expected at most max_patch_length {self.max_patch_length}, "
                f"got {self.min_patch_length}"
            )
        return self

    @property
    def static_patch_size(self) -> float:
        """Tokens per patch in static mode: an explicit `patch_size`, else `max_patch_length`, else 4.5."""
        if self.patch_size is not None and "patch_size" in self.model_fields_set:
            return self.patch_size
        return float(self.max_patch_length or DEFAULT_PATCH_SIZE)


class AdvancedPatcherConfig(PatcherFields):
    """A patcher's options together with how it is run."""

    batch_size: PositiveWhole = Field(32, description="sequences patched and processed at once")
    no_cache: StrictBool = Field(
        False, description="compute entropies anew; False: EntropyCache.from_config gives a cache of 256 MiB"
    )

    def validate(self) -> Self:  # type: ignore[override]
        """Return self when no two options contradict each other.

        Raises:
            ConfigError: Two options exclude each other, or one has no meaning in this mode.
        """
        faults = [message for wrong, message in self._contradictions() if wrong]
        if faults:
            raise ConfigError("; ".join(faults))
        return self

    def _contradictions(self) -> list[tuple[bool, str]]:
        mode, static = self.patching_mode, self.patching_mode is PatchingModeEnum.static
        space = self.patching_mode is PatchingModeEnum.space
        return [
            (
                self.monotonicity and self.threshold_add is not None,
                "monotonicity, threshold_add: expected at most one of them; set threshold_add to None",
            ),
            (
                self.monotonicity and self.threshold is None,
                "monotonicity: expected a threshold for the rise of the entropy, got None",
            ),
            (self.overlap > 0 and not static, f"overlap: expected 0 in {mode} mode, got {self.overlap}"),
            (
                static and self.overlap >= self.static_patch_size,
                f"overlap: expected less than the patch size {self.static_patch_size:g}, got {self.overlap}",
            ),
            (
                self.delimiter_chars is not None and not space,
                f"delimiter_chars: expected none in {mode} mode; use patching_mode='space'",
            ),
            (
                not self.preserve_delimiters and not space,
                f"preserve_delimiters: expected True in {mode} mode; only space mode has delimiters",
            ),
        ]


AlphabetName = Literal["dna", "rna", "protein", "bytes"]
FilterKind = Literal["short", "medium", "long"]
VOCABULARY_LETTERS: Mapping[int, tuple[AlphabetName, ...]] = {
    256: ("bytes", "dna", "rna", "protein"),
    4: ("dna", "rna"),
    20: ("protein",),
}
PRESETS: Mapping[str, Mapping[str, int]] = {
    "tiny": {"hidden_size": 128, "num_layers": 2},
    "small": {"hidden_size": 256, "num_layers": 6},
    "base": {"hidden_size": 512, "num_layers": 12},
    "large": {"hidden_size": 768, "num_layers": 24, "local_hidden_size": 128},
}


class HyenaGLTConfig(BaseModel):
    """The shape and the rules of one `HyenaGLT` network."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), validate_assignment=True)

    genomic_vocab_size: Literal[256, 4, 20] = Field(256, description="256 bytes, 4 nucleotides or 20 amino acids")
    alphabet: AlphabetName | None = Field(None, description="what the letters mean; None: bytes, dna or protein")
    hidden_size: PositiveWhole = Field(512, description="width of the trunk, per patch")
    num_layers: PositiveWhole = Field(12, description="blocks of the trunk")
    use_external_patcher: StrictBool = Field(True, description="the caller brings the patcher")
    patcher_threshold: Real | None = Field(DEFAULT_THRESHOLD, description="nats; threshold of the net's own patcher")
    patcher_monotonicity: StrictBool = Field(False, description="monotonicity of the net's own patcher")
    mixed_precision: Literal["fp32", "fp16", "bf16"] = Field("fp32", description="precision of matrix products")
    causal: StrictBool = Field(True, description="predict from the past alone; False: every byte sees both sides")

    local_hidden_size: PositiveWhole = Field(64, description="width of the local encoder and decoder, per byte")
    num_local_encoder_layers: PositiveWhole = Field(1, description="gated convolutions before the pooling")
    num_local_decoder_layers: PositiveWhole = Field(1, description="gated convolutions after the bridge")
    local_kernel_size: Annotated[Whole, Field(ge=2, le=64)] = Field(7, description="bytes seen by a local convolution")
    ngram_sizes: tuple[Annotated[Whole, Field(ge=2, le=32)], ...] = Field(
        (3, 6, 10), description="bytes of the n-grams that are embedded by hash; empty: none"
    )
    ngram_table_size: PositiveWhole = Field(4096, description="rows of each n-gram table")
    ngram_dropout: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.0, description="probability that the vector of an n-gram is left out, while training"
    )
    pooling_heads: PositiveWhole = Field(4, description="attention heads that pool the bytes of a patch")
    position_scales: Annotated[Whole, Field(ge=1, le=30)] = Field(
        16, description="periods 4, 16, 64, ... bases of the global position"
    )
    reading_frame: StrictBool = Field(
        True, description="patches and bytes know places modulo 3, so codons are found in patches of any lengths"
    )

    trunk_layout: tuple[FilterKind, ...] = Field(
        ("short", "medium", "long"),
        min_length=1,
        description="filters of the trunk's blocks, repeated in order",
    )
    short_filter_length: Annotated[Whole, Field(ge=2, le=64)] = Field(7, description="patches; short explicit filter")
    medium_filter_length: Annotated[Whole, Field(ge=2)] = Field(128, description="patches; medium explicit filter")
    long_filter: Literal["implicit", "exponential", "both"] = Field(
        "exponential", description="long filter: MLP of the lag, a sum of real exponentials, or their sum"
    )
    filter_hidden_size: PositiveWhole = Field(64, description="width of the implicit filter's MLP")
    filter_num_exponentials: PositiveWhole = Field(16, description="exponentials per channel")
    feed_forward_multiple: Annotated[Real, Field(gt=0)] = Field(8 / 3, description="inner over outer width")
    bridge_heads: PositiveWhole = Field(4, description="attention heads of the bridge")
    bridge_num_patches: PositiveWhole = Field(4, description="patch states that a byte attends to")
    dropout: Annotated[Real, Field(ge=0, lt=1)] = Field(0.0, description="probability, in the trunk, while training")

    boundaries: Literal["patcher", "learned"] = Field(
        "patcher", description="who cuts: a patcher, or the net itself by its byte states"
    )
    target_patch_length: Annotated[Real, Field(gt=1)] = Field(
        16.0, description="tokens; mean length that learned boundaries are drawn to"
    )
    ratio_loss_weight: Annotated[Real, Field(ge=0)] = Field(
        0.3, description="weight of the loss that draws learned boundaries to the target"
    )
    min_patch_length: PositiveWhole | None = Field(None, description="tokens; earlier learned starts are ignored")
    max_patch_length: PositiveWhole | None = Field(None, description="tokens; longer learned patches are cut")

    num_labels: PositiveWhole = Field(2, description="classes or regression targets of a net with a task head")
    head_pooling: Literal["bytes", "patches"] = Field("bytes", description="states that a sequence head averages")
    class_weights: tuple[Annotated[Real, Field(ge=0)], ...] | None = Field(
        None, description="weight of each class in the loss of a classification head; None: equal"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        allowed = VOCABULARY_LETTERS[self.genomic_vocab_size]
        if self.alphabet is not None and self.alphabet not in allowed:
            raise ValueError(
                f"alphabet: expected one of {', '.join(allowed)} with genomic_vocab_size "
                f"{self.genomic_vocab_size}, got {self.alphabet}"
            )
        for name in ("bridge_heads", "pooling_heads"):
            if self.local_hidden_size % getattr(self, name):
                raise ValueError(
                    f"{name}: expected a divisor of local_hidden_size {self.local_hidden_size}, "
                    f"got {getattr(self, name)}"
                )
        return self

    @model_validator(mode="after")
    def _patch_limits_fit(self) -> Self:
        low, high = self.min_patch_length, self.max_patch_length
        if self.boundaries == "patcher" and (low is not None or high is not None):
            raise ValueError("min_patch_length, max_patch_length: expected none with boundaries='patcher'")
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_patch_length: expected at most max_patch_length {high}, got {low}")
        if self.boundaries == "learned" and not (low or 1) <= self.target_patch_length <= (high or math.inf):
            raise ValueError(
                f"target_patch_length: expected from min_patch_length {low} to max_patch_length {high}, "
                f"got {self.target_patch_length:g}"
            )
        return self

    @model_validator(mode="after")
    def _one_weight_per_class(self) -> Self:
        if self.class_weights is not None and len(self.class_weights) != self.num_labels:
            raise ValueError(f"class_weights: expected {self.num_labels} weights, got {len(self.class_weights)}")
        return self

    @classmethod
    def preset(cls, size: str, **overrides: Any) -> Self:
        """A named size, with any field set otherwise.

        Args:
            size: `"tiny"` 128/2, `"small"` 256/6, `"base"` 512/12, `"large"` 768/24: trunk width/blocks.
            **overrides: Fields of this class.

        Raises:
            ConfigError: Unknown size.
            ValidationError: Unknown field, or a value out of range.

        Example:
            >>> HyenaGLTConfig.preset("tiny", causal=False).hidden_size
            128
        """
        if size not in PRESETS:
            raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {size!r}")
        return cls.model_validate({**PRESETS[size], **overrides})

    @property
    def alphabet_name(self) -> AlphabetName:
        """The declared alphabet, or the one that the vocabulary implies."""
        return self.alphabet or VOCABULARY_LETTERS[self.genomic_vocab_size][0]

    @property
    def vocab_size(self) -> int:
        """Ids of the embedding and of the logits: bytes + 4; letters + 4 + one ambiguity symbol."""
        ambiguity = 0 if self.genomic_vocab_size == 256 else 1
        return self.genomic_vocab_size + NUM_SPECIAL_TOKENS + ambiguity

    @property
    def feed_forward_size(self) -> int:
        """Inner width of the trunk's feed-forward layers, a multiple of 16."""
        return 16 * math.ceil(self.hidden_size * self.feed_forward_multiple / 16)

    def copy(self, **changes: Any) -> Self:
        """An independent copy, with some fields changed.

        Raises:
            ValidationError: A change that the class refuses.
        """
        return self.model_validate({**self.model_dump(), **changes})

    def update(self, changes: Mapping[str, Any] | None = None, **more: Any) -> Self:
        """Change fields in place, all of them or none, and return self.

        Raises:
            ValidationError: A change that the class refuses; nothing has changed then.
        """
        changed = self.copy(**{**(changes or {}), **more})
        self.__dict__.update(changed.__dict__)
        return self

    def to_json(self) -> str:
        """The fields as indented JSON text; `checks.load_config(HyenaGLTConfig, path)` reads it again."""
        return self.model_dump_json(indent=2) + "\n"
