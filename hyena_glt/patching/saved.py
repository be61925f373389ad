"""A patcher on the disk: `patcher.json`, and beside it the model or tokenizer that it names by hash."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyena_glt.checks import build_config
from hyena_glt.config import PatchingModeEnum
from hyena_glt.entropies import MarkovEntropy, MixEntropy, NeuralEntropy
from hyena_glt.errors import ConfigError, ModelFileError
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.bpe_network import BpePatcherNetwork, load_bpe_network
from hyena_glt.patching.saved_json import named_beside, read_saved_json, reference_to
from hyena_glt.patching.sources import AUTO, load_model, saved_model_path
from hyena_glt.sequences.atomic import atomic_write, make_folder, sha256_file

FORMAT = "hyena-glt/patcher/1"
FILE_NAME = "patcher.json"
LARGEST_FILE = 1 << 20  # bytes of JSON that are read
KEYS = {"format", "args", "entropy_model", "tokenizer", "provenance"}


def save_patcher(path: str | os.PathLike[str], args: PatcherArgs, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a patcher's options; the model that it scores with goes beside them.

    Args:
        path: A folder, which gets `patcher.json`, or the name of a `.json` file.
        args: What is saved.
        provenance: Kept in the file as it is.

    Raises:
        ConfigError: A source that cannot be saved.
        SystemProblem: The folder cannot be written.
    """
    target = patcher_file(path)
    make_folder(target.parent)
    fields = args.model_dump(mode="json", exclude={"entropy_model_checkpoint_dir"})
    if "patch_size" not in args.model_fields_set:
        del fields["patch_size"]  # in static mode only a size that was set rules over max_patch_length
    content = {
        "format": FORMAT,
        "args": fields,
        "entropy_model": _save_model(args, target),
        "tokenizer": _save_tokenizer(args, target),
        "provenance": dict(provenance or {}),
    }
    with atomic_write(target, "w", overwrite=True) as handle:
        handle.write(json.dumps(content, indent=2) + "\n")


def load_patcher(path: str | os.PathLike[str]) -> PatcherArgs:
    """Read what `save_patcher` wrote.

    Args:
        path: The folder or the `.json` file.

    Raises:
        ModelFileError: A file is missing, damaged, of another format, or not the one that was saved.
        ConfigError: Options that are unknown or out of range.
    """
    source = patcher_file(path)
    content = read_saved_json(
        source, kind="a saved patcher", file_format=FORMAT, keys=KEYS, mapping="args", largest=LARGEST_FILE
    )
    args = build_config(PatcherArgs, content["args"], place=str(source))
    model, tokenizer = content["entropy_model"], content["tokenizer"]
    if model == AUTO:
        args.entropy_model = AUTO
    elif model is not None:
        args.entropy_model = _load_model(args, _verified(source, model))
    if tokenizer is not None:
        args.model_name = str(_verified(source, tokenizer))
    return args


def patcher_file(path: str | os.PathLike[str]) -> Path:
    """The JSON file of a saved patcher, given it or its folder."""
    place = Path(path)
    return place if place.suffix == ".json" and not place.is_dir() else place / FILE_NAME


def _save_model(args: PatcherArgs, target: Path) -> dict[str, str] | str | None:
    given = args.entropy_model
    if given is None and args.entropy_model_checkpoint_dir is not None:
        given = saved_model_path(args.entropy_model_checkpoint_dir)
    if given is None or (isinstance(given, str) and given == AUTO):
        return given
    model = _load_model(args, given) if isinstance(given, str | os.PathLike) else given
    if not isinstance(model, MarkovEntropy | MixEntropy | NeuralEntropy | BpePatcherNetwork):
        raise ConfigError(
            "entropy_model: expected 'auto' or a model of this package to save, got "
            f"{type(model).__name__}; save it on its own and give it to the patcher again after loading"
        )
    place = target.with_name(f"{target.stem}.entropy_model.safetensors")
    model.save(place, overwrite=True)
    return reference_to(place)


def _load_model(args: PatcherArgs, path: str | os.PathLike[str]) -> Any:
    return load_bpe_network(path) if args.patching_mode is PatchingModeEnum.bpe_patcher else load_model(path)


def _save_tokenizer(args: PatcherArgs, target: Path) -> dict[str, str] | None:
    if args.patching_mode is not PatchingModeEnum.bpe or args.model_name is None:
        return None
    from hyena_glt.patching.tokenizer_starts import find_tokenizer_file

    place = target.with_name(f"{target.stem}.tokenizer.json")
    content = find_tokenizer_file(args.model_name).read_bytes()
    with atomic_write(place, overwrite=True) as handle:
        handle.write(content)
    return reference_to(place)


def _verified(source: Path, reference: Any) -> Path:
    """The file beside `source` that a reference names, if it has the hash that was saved."""
    place, expected = named_beside(source, reference)
    if not place.is_file():
        raise ModelFileError("missing; the patcher refers to it", path=place)
    found = sha256_file(place)
    if found != expected:
        raise ModelFileError(
            f"sha256: expected {expected}, got {found}; the file is not the one that was saved", path=place
        )
    return place
