"""The options of a patcher: the published fields, the entropy source, and how the threshold was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hyena_glt.checks import build_config, config_error
from hyena_glt.config import PatcherFields, PatchingModeEnum
from hyena_glt.errors import ConfigError

if TYPE_CHECKING:
    from hyena_glt.patching.patcher import Patcher

SCORE_MODES = (PatchingModeEnum.entropy, PatchingModeEnum.track)


class CalibrationRecord(BaseModel):
    """Where a calibrated threshold came from."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    target_mean_length: float = Field(description="tokens per patch that were asked for")
    mean_length: float = Field(description="tokens per patch on the data below")
    num_tokens: int = Field(description="tokens of the data")
    data_sha256: str = Field(description="hash of the sequences or scores")
    entropy_model: str | None = Field(None, description="name of the model that scored them")


class PatcherArgs(PatcherFields):
    """Every option of a `Patcher`; `build` makes one.

    Fields may be changed at any time; a patcher that was built from these arguments follows.

    With `overlap`, static mode makes windows: `Patcher.patch_with_boundaries` gives them whole, `Patcher.patch` cuts
    each row at their first tokens, so that lengths still sum to the row.

    Args:
        entropy_model: What scores tokens in entropy mode: None or "auto" (each row by a context model fitted
            on that row alone), the path of a saved entropy model, an object with `entropies(tokens)`, or a callable
            from tokens to logits. In bpe_patcher mode the network that predicts delimiters, or its path. Not part
            of the serialised fields.
        calibration: How `calibrate` found the threshold; None for one that was set by hand.

    Raises:
        ConfigError: Unknown field, wrong type, or a value out of range.

    Example:
        >>> PatcherArgs(patching_mode="static", patch_size=8).build().patch("ACGT" * 3)[0].tolist()
        [[8, 4]]
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    entropy_model: Any = Field(None, exclude=True, repr=False, description="source of the entropies; None: auto")
    calibration: CalibrationRecord | None = Field(None, description="origin of the threshold")

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as problem:
            raise config_error(problem, type(self)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except ValidationError as problem:
            raise config_error(problem, type(self)) from None

    @classmethod
    def from_config(cls, config: PatcherFields, **changes: Any) -> Self:
        """The arguments that a configuration (such as `AdvancedPatcherConfig`) stands for, some of them changed.

        Raises:
            ConfigError: A change that this class refuses.
        """
        given = {name: getattr(config, name) for name in config.model_fields_set if name in cls.model_fields}
        return build_config(cls, {**given, **changes})

    def build(self) -> Patcher:
        """A patcher that follows these arguments.

        Raises:
            ConfigError: Options that contradict each other, or a model name that means nothing.
            ModelFileError: A saved model that cannot be read.
            SystemProblem: A device that is not there.
        """
        from hyena_glt.patching.patcher import Patcher

        return Patcher(self)

    @property
    def uses_scores(self) -> bool:
        """True in the modes that compare a score of each token with a threshold."""
        return self.patching_mode in SCORE_MODES

    def check_options(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: The first contradiction.
        """
        mode, static = self.patching_mode, self.patching_mode is PatchingModeEnum.static
        if self.overlap and not static:
            raise ConfigError(f"overlap: expected 0 in {mode} mode, got {self.overlap}; windows belong to static mode")
        if static:
            self._check_stride()
        if self.delimiter_chars is not None and mode is not PatchingModeEnum.space:
            raise ConfigError(f"delimiter_chars: expected none in {mode} mode; use patching_mode='space'")
        if self.uses_scores and self.threshold is None and (self.monotonicity or self.threshold_add is not None):
            raise ConfigError(
                "threshold: expected nats with monotonicity or threshold_add, got None, which means top-k"
            )
        if self.uses_scores and self.threshold is None and self.patch_size is None:
            raise ConfigError("patch_size: expected tokens per patch with threshold=None, got None")

    def _check_stride(self) -> None:
        size = self.static_patch_size
        if size < 1:
            raise ConfigError(f"patch_size: expected at least 1 token in static mode, got {size:g}")
        if self.overlap and (self.overlap >= size or size != int(size)):
            raise ConfigError(f"overlap: expected less than a whole patch_size, got {self.overlap} and {size:g}")
