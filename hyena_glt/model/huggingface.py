"""A net behind the classes of `transformers`: AutoConfig, AutoModel and AutoModelForCausalLM read a saved net.

    folder of save_pretrained (config.json, model.safetensors, patcher.json, manifest.json)
          -> HFHyenaGLTConfig -> HFHyenaGLT | HFHyenaGLTForCausalLM, each around one `HyenaGLT`

Both sides write and read the same files, and the weights have the same names. Needs the extra `[hf]`; nothing else in
the package imports this module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from hyena_glt.checks import build_config
from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError, MissingExtraError, PatchingError
from hyena_glt.model.hyena_glt import HyenaGLT
from hyena_glt.model.weights import CONFIG_FILE, MODEL_TYPE, load_net, read_config
from hyena_glt.tokens.byte_tokenizer import PAD_ID

try:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
    from transformers.utils import ModelOutput
except ImportError as problem:
    raise MissingExtraError(
        f"hyena_glt.model.huggingface needs the package transformers ({problem}); install it with "
        "pip install 'hyena-glt[hf]'"
    ) from None

IGNORED_LABEL = -100  # as everywhere in transformers
HUB_OPTIONS = ("cache_dir", "force_download", "revision", "token")
NO_MEANING = ("_from_auto", "adapter_kwargs", "low_cpu_mem_usage", "proxies", "trust_remote_code", "use_safetensors")


class HFHyenaGLTConfig(PretrainedConfig):
    """`HyenaGLTConfig` as a configuration of `transformers`.

    The net's fields are attributes of this object too, and checked when they are set. What `transformers` adds for
    itself is kept in memory and not written.

    Args:
        **options: Fields of `HyenaGLTConfig`; others are those of `PretrainedConfig`.

    Raises:
        ConfigError: A field out of range, or fields that contradict each other.

    Example:
        >>> HFHyenaGLTConfig(hidden_size=64, num_layers=2).num_hidden_layers
        2
    """

    model_type = MODEL_TYPE
    attribute_map = {"num_hidden_layers": "num_layers"}  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        fields = {name: options.pop(name) for name in HyenaGLTConfig.model_fields if name in options}
        self.__dict__["net_config"] = build_config(HyenaGLTConfig, fields)
        options |= {"num_labels": self.net_config.num_labels, "tie_word_embeddings": False}
        super().__init__(**options)

    @classmethod
    def from_net_config(cls, config: HyenaGLTConfig) -> Self:
        """The same configuration in this form."""
        return cls(**config.model_dump(mode="json"))

    def __getattr__(self, name: str) -> Any:
        name = type(self).attribute_map.get(name, name)
        if name == "vocab_size" or name in HyenaGLTConfig.model_fields:
            return getattr(self.__dict__["net_config"], name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        name = type(self).attribute_map.get(name, name)
        if name in HyenaGLTConfig.model_fields:
            fields = {**self.net_config.model_dump(), name: value}
            self.__dict__["net_config"] = build_config(HyenaGLTConfig, fields)
        if name not in HyenaGLTConfig.model_fields or name == "num_labels":
            super().__setattr__(name, value)

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` holds: the model type and the fields of the net."""
        return {"model_type": MODEL_TYPE, **self.net_config.model_dump(mode="json")}

    def to_diff_dict(self) -> dict[str, Any]:
        """As `to_dict`: every field is written."""
        return self.to_dict()


@dataclass
class HFHyenaGLTOutput(ModelOutput):
    """What a forward gives; the fields are those of `HyenaGLTOutput`, and None is left out."""

    loss: Tensor | None = None  # scalar, nats per predicted token; with labels only
    logits: Tensor | None = None  # (batch, length, vocab), row i predicts token i + 1; language models only
    last_hidden_state: Tensor | None = None  # (batch, num_patches, hidden), per patch
    byte_hidden_state: Tensor | None = None  # (batch, length, local), per token
    patch_lengths: Tensor | None = None  # (batch, num_patches) int64, right-padded with 0


class HFHyenaGLT(PreTrainedModel):
    """A net as a model of `transformers`, for `AutoModel`: states of patches and of bytes.

    `input_ids` are byte tokens (byte + 4); padding is at the end of rows, marked by the attention mask or -1. The net
    itself is the attribute `net`, with everything it can do.

    Args:
        config: Shape and rules.
        external_patcher: What cuts sequences into patches; see `HyenaGLT`.
        net: A net that is there already, of this configuration, in place of a new one; its weights are shared.
    """

    config_class = HFHyenaGLTConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False

    def __init__(
        self, config: HFHyenaGLTConfig, external_patcher: Any | None = None, net: HyenaGLT | None = None
    ) -> None:
        super().__init__(config)
        self.__dict__["net"] = net or HyenaGLT(config.net_config, external_patcher)
        for name, part in self.net.named_children():
            self._modules[name] = part  # no submodule `net`: the weights keep the names that they have in its file
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        patch_lengths: Tensor | None = None,
        known_starts: Tensor | None = None,
        next_starts_patch: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Run the net.

        Args:
            input_ids: `(batch, length)` byte tokens.
            attention_mask: `(batch, length)`, 0 in padding, which is at the end of rows; None: padding is -1.
            patch_lengths, known_starts, next_starts_patch: As in `HyenaGLT.forward`; None: the patcher cuts.
            return_dict: False gives a tuple.

        Raises:
            PatchingError: Padding before a token, ids outside [-1, 260), or masks of another shape.
            ConfigError: No patch lengths and no patcher.
        """
        return self._forward(
            input_ids, attention_mask, None, patch_lengths, known_starts, next_starts_patch, return_dict
        )

    def _forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        patch_lengths: Tensor | None,
        known_starts: Tensor | None,
        next_starts_patch: Tensor | None,
        return_dict: bool | None,
        with_logits: bool = False,
    ) -> Any:
        output = self.net(
            padded_tokens(input_ids, attention_mask),
            patch_lengths,
            known_starts,
            next_starts_patch,
            labels=None if labels is None else padded_tokens(labels, attention_mask),
        )
        result = HFHyenaGLTOutput(
            loss=output.loss,
            logits=output.logits if with_logits else None,
            last_hidden_state=output.last_hidden_state,
            byte_hidden_state=output.byte_hidden_state,
            patch_lengths=output.patch_lengths,
        )
        return result.to_tuple() if return_dict is False else result

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *_: Any,
        config: HFHyenaGLTConfig | None = None,
        external_patcher: Any | None = None,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        device_map: Any | None = None,
        local_files_only: bool = True,
        output_loading_info: bool = False,
        **options: Any,
    ) -> Any:
        """Read what `save_pretrained` wrote, by a net or by this class, in evaluation mode.

        Args:
            pretrained_model_name_or_path: A folder, or the name of a repository of the hub.
            config: In place of the saved one; the weights have to fit it.
            external_patcher: In place of the saved one.
            dtype, torch_dtype: float32 or None; the option `mixed_precision` computes in another one.
            device_map: One device, or None for the CPU.
            local_files_only: False lets a repository that is not in the local cache be downloaded.
            output_loading_info: Give the empty report of missing and unexpected weights too: a file that does not fit
                is refused.
            **options: Fields of `HyenaGLTConfig` that replace the saved ones, `cache_dir`, `force_download`,
                `revision`, `token`.

        Raises:
            ModelFileError: A file is missing, damaged, of another version, or does not fit the others.
            ConfigError: An option that has no meaning here, or a repository that is not on this machine.
        """
        for asked in (dtype, torch_dtype):
            if asked not in (None, "auto", "float32", torch.float32):
                raise ConfigError(f"dtype: expected float32, got {asked}; mixed_precision='bf16' computes in bfloat16")
        hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
        folder = find_folder(pretrained_model_name_or_path, local_files_only, hub)
        for name in NO_MEANING:
            options.pop(name, None)
        unknown = options.keys() - HyenaGLTConfig.model_fields.keys()
        if unknown:
            raise ConfigError(f"from_pretrained: unknown option {min(unknown)!r}")
        net_config = None if config is None else config.net_config
        if options:
            saved = net_config or read_config(folder / CONFIG_FILE)
            net_config = build_config(HyenaGLTConfig, {**saved.model_dump(), **options})
        model = cls.from_net(load_net(HyenaGLT, folder, external_patcher, net_config))
        if device_map is not None:
            model.to(one_device(device_map))
        if output_loading_info:
            return model, {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}
        return model

    @classmethod
    def from_net(cls, net: HyenaGLT) -> Self:
        """The model around a net that is there already; they share their weights."""
        return cls(HFHyenaGLTConfig.from_net_config(net.config), net=net).train(net.training)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **options: Any
    ) -> None:
        """Write the files that `HyenaGLT.save_pretrained` writes.

        Args:
            save_directory: Folder.
            is_main_process: False writes nothing, as the other processes of a distributed run want it.
            **options: Accepted for callers that know other models: one file of safetensors is written, whatever they
                say.

        Raises:
            ConfigError: Another format than safetensors, or an upload: that is `push_to_hub`.
            ModelFileError: A weight is NaN or infinite.
            SystemProblem: The folder cannot be written.
        """
        if options.get("safe_serialization") is False:
            raise ConfigError("safe_serialization: expected True; weights are written as safetensors only")
        if options.get("push_to_hub"):
            raise ConfigError("push_to_hub: expected False in save_pretrained; use push_to_hub(repo_id)")
        if is_main_process:
            self.net.save_pretrained(save_directory)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """As `HyenaGLT.push_to_hub`."""
        return self.net.push_to_hub(repo_id, **options)

    def train(self, mode: bool = True) -> Self:
        """Switch the net and its parts."""
        super().train(mode)
        self.net.train(mode)
        return self

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any | None = None) -> None:
        """As `HyenaGLT.gradient_checkpointing_enable`; it has no options."""
        self.net.gradient_checkpointing_enable()

    def gradient_checkpointing_disable(self) -> None:
        """Keep the trunk's activations again."""
        self.net.gradient_checkpointing_enable(False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether the trunk is recomputed in the backward pass."""
        return self.net.gradient_checkpointing

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the parts of a net draw their own weights."""


class HFHyenaGLTForCausalLM(HFHyenaGLT):
    """A causal net as a language model of `transformers`, for `AutoModelForCausalLM`: logits of the next byte.

    Args:
        config: Shape and rules, with `causal=True`.
        external_patcher, net: As in `HFHyenaGLT`.

    Raises:
        ConfigError: A configuration with `causal=False`.
    """

    def __init__(
        self, config: HFHyenaGLTConfig, external_patcher: Any | None = None, net: HyenaGLT | None = None
    ) -> None:
        if not config.net_config.causal:
            raise ConfigError("config: expected causal=True for a causal language model; AutoModel takes both")
        super().__init__(config, external_patcher, net)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        patch_lengths: Tensor | None = None,
        known_starts: Tensor | None = None,
        next_starts_patch: Tensor | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> Any:
        """As `HFHyenaGLT.forward`, with logits, and with labels the loss.

        Args:
            input_ids, attention_mask, patch_lengths, known_starts, next_starts_patch, return_dict: As there.
            labels: `(batch, length)` byte tokens, mostly `input_ids` again: the net shifts them itself. -100 or -1
                where there is no target; padding has none.
        """
        given = patch_lengths, known_starts, next_starts_patch
        return self._forward(input_ids, attention_mask, labels, *given, return_dict, with_logits=True)

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
        """Continue rows of byte tokens.

        Args:
            input_ids: `(batch, length)` byte tokens.
            attention_mask: As in `forward`.
            **options: Those of `HyenaGLT.generate`, such as `max_new_tokens`, `temperature`, `seed`.

        Returns:
            `(batch, new length)` byte tokens, -1 after the end of a row.
        """
        return self.net.generate(padded_tokens(input_ids, attention_mask), **options)


def register() -> None:
    """Make `AutoConfig`, `AutoModel` and `AutoModelForCausalLM` know saved nets; once is enough, twice does no harm.

    Example:
        >>> register()
        >>> AutoConfig.for_model("hyena_glt").hidden_size
        512
    """
    AutoConfig.register(MODEL_TYPE, HFHyenaGLTConfig, exist_ok=True)
    AutoModel.register(HFHyenaGLTConfig, HFHyenaGLT, exist_ok=True)
    AutoModelForCausalLM.register(HFHyenaGLTConfig, HFHyenaGLTForCausalLM, exist_ok=True)


def padded_tokens(ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Byte tokens with PAD (-1) where there is none: where the mask is 0, and at ignored labels.

    Raises:
        PatchingError: A mask of another shape than the ids.
    """
    if ids.is_floating_point() or ids.dtype is torch.bool:
        return ids  # the net refuses them
    tokens = ids.long().masked_fill(ids == IGNORED_LABEL, PAD_ID)
    if attention_mask is None:
        return tokens
    if attention_mask.shape != ids.shape:
        expected, got = tuple(ids.shape), tuple(attention_mask.shape)
        raise PatchingError(f"attention_mask: expected shape {expected}, got {got}")
    return tokens.masked_fill(attention_mask == 0, PAD_ID)


def find_folder(name: str | os.PathLike[str], local_files_only: bool, hub: dict[str, Any]) -> Path:
    """The folder of a saved net: itself, or a repository's in the local cache.

    Raises:
        ConfigError: No such folder, and no such repository on this machine.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), local_files_only=local_files_only, **hub))
    except Exception as problem:  # of the hub's client or its transport, which changes by version
        reason = (str(problem).strip().partition("\n")[0] or type(problem).__name__).rstrip(".")
        raise ConfigError(
            f"pretrained_model_name_or_path: expected a folder or a repository in the local cache, got {str(name)!r}: "
            f"{reason}; local_files_only=False lets it be downloaded"
        ) from problem


def one_device(device_map: Any) -> torch.device:
    """The device that a map means; `"auto"` is a GPU where there is one.

    Raises:
        ConfigError: Several devices: a net is not split.
    """
    if isinstance(device_map, dict) and len(set(device_map.values())) == 1:
        device_map = next(iter(device_map.values()))
    if device_map == "auto":
        device_map = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(device_map)
    except (TypeError, RuntimeError):
        raise ConfigError(f"device_map: expected one device, got {device_map!r}") from None
