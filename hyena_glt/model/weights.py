"""A net in a folder: configuration, weights, patcher, and a manifest of their hashes that is written last.

The names of the files and the `model_type` in the configuration are those that Hugging Face looks for, so the same
folder is read by `transformers` as well (see `huggingface.py`).
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from hyena_glt.checks import build_config, parse_json
from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError, ModelFileError, SystemProblem
from hyena_glt.sequences.atomic import atomic_write, make_folder, sha256_file

if TYPE_CHECKING:
    from hyena_glt.model.hyena_glt import HyenaGLT

Net = TypeVar("Net", bound="HyenaGLT")
CONFIG_FILE = "config.json"
FIELDS_BEFORE = {"reading_frame": False}  # of nets whose version had no such field yet
WEIGHTS_FILE = "model.safetensors"
PATCHER_FILE = "patcher.json"
MANIFEST_FILE = "manifest.json"
FORMAT = "hyena-glt"
FORMAT_VERSION = 1
MODEL_TYPE = "hyena_glt"  # by this `transformers.AutoConfig` knows the configuration

logger = logging.getLogger(__name__)


def save_net(net: HyenaGLT, folder: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
    """Write a net; the manifest last, so that an interrupted save is recognised.

    Args:
        net: What to write, with its patcher.
        folder: Made where it is missing.
        dtype: Of the weights in the file, such as `torch.bfloat16`; None: as they are. A net that is loaded computes
            in its own precision again.

    Raises:
        ModelFileError: A weight is NaN or infinite.
        SystemProblem: The folder cannot be written.
    """
    target = make_folder(folder)
    tensors = {name: _stored(tensor, dtype) for name, tensor in net.state_dict().items()}
    check_finite(tensors, path=target / WEIGHTS_FILE)
    (target / MANIFEST_FILE).unlink(missing_ok=True)
    _write(target / CONFIG_FILE, config_json(net.config).encode())
    _write(target / WEIGHTS_FILE, safetensors.torch.save(tensors, metadata={"format": "pt"}))
    names = [CONFIG_FILE, WEIGHTS_FILE, *_save_patcher(net.external_patcher, target)]
    files = {name: sha256_file(target / name) for name in names}
    manifest = {"format": FORMAT, "version": FORMAT_VERSION, "files": files}
    _write(target / MANIFEST_FILE, (json.dumps(manifest, indent=2) + "\n").encode())


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def load_net(
    net_class: type[Net],
    folder: str | os.PathLike[str],
    external_patcher: Any | None = None,
    config: HyenaGLTConfig | None = None,
) -> Net:
    """Read a net that `save_net` wrote, in evaluation mode.

    Args:
        net_class: What to build.
        folder: Where it lies; no network is used.
        external_patcher: In place of the saved one.
        config: In place of the saved one; the weights have to fit it.

    Raises:
        ModelFileError: A file is missing, damaged or of another version, or the weights do not fit the
            configuration.
    """
    source = Path(folder)
    files = _check_manifest(source)
    saved = read_config(source / CONFIG_FILE)
    if external_patcher is None and PATCHER_FILE in files:
        external_patcher = _load_patcher(source)
    net = net_class(config or saved, external_patcher)
    load_weights(net, source / WEIGHTS_FILE)
    return net.eval()


def push_net(
    net: HyenaGLT,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload HyenaGLT",
) -> str:
    """Save a net into a folder and upload that to the Hugging Face hub; the repository is made where it is missing.

    Args:
        net: What to upload, with its patcher.
        repo_id: `"user/name"`.
        private: Whether a new repository is private; None: as the account has it.
        token: Of the hub; None: the one that `hf auth login` stored.
        revision: Branch that gets the commit, made where it is missing; None: the main one.
        commit_message: Of that commit.

    Returns:
        Address of the commit.

    Raises:
        ConfigError: A name that the hub does not allow.
        ModelFileError: A weight is NaN or infinite.
        SystemProblem: No network, or the hub refused; nothing was committed.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi(token=token)
    with TemporaryDirectory() as folder:
        net.save_pretrained(folder)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
            )
        except HFValidationError as problem:
            raise ConfigError(f"repo_id: expected 'user/name', got {repo_id!r}: {_first_line(problem)}") from None
        except Exception as problem:  # the hub's client raises what its transport does, and that changes by version
            raise SystemProblem(
                f"push_to_hub: {repo_id!r} was not uploaded: {_first_line(problem)}; check the network and the token "
                "(hf auth login), or save_pretrained(folder) and upload that folder later"
            ) from problem
    return str(commit.commit_url)


def config_json(config: HyenaGLTConfig) -> str:
    """The text of `config.json`: the fields of the configuration, and the type by which others know it."""
    fields = {"model_type": MODEL_TYPE, **config.model_dump(mode="json")}
    return json.dumps(fields, indent=2) + "\n"


def read_config(path: Path) -> HyenaGLTConfig:
    """The configuration in a `config.json`.

    Raises:
        ModelFileError: There is no such file, or it is of another type of model, or has unknown or wrong fields.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot be read: {error.strerror}", path=path) from None
    options = parse_json(text, path=path)
    kind = options.pop("model_type", MODEL_TYPE)
    if kind != MODEL_TYPE:
        raise ModelFileError(f"model_type: expected {MODEL_TYPE!r}, got {kind!r}", path=path)
    try:
        return build_config(HyenaGLTConfig, {**FIELDS_BEFORE, **options})
    except ConfigError as error:
        raise ModelFileError(str(error), path=path) from None


def load_weights(net: torch.nn.Module, path: Path) -> None:
    """Put the tensors of a safetensors file into a net, all of them and no others.

    Raises:
        ModelFileError: The file is damaged, a tensor is missing, unknown, of another shape, NaN or infinite.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"not a safetensors file: {error}", path=path) from None
    expected = net.state_dict()
    _check_names(set(expected), set(tensors), path)
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
            raise ModelFileError(f"tensor {name}: expected shape {shapes}", path=path)
    check_finite(tensors, path=path)
    net.load_state_dict(tensors)


def check_finite(tensors: dict[str, Tensor], *, path: Path) -> None:
    """Refuse NaN and infinity.

    Raises:
        ModelFileError: Names the first tensor that holds one.
    """
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ModelFileError(f"tensor {name}: expected finite weights, got NaN or infinity", path=path)


def _check_names(expected: set[str], found: set[str], path: Path) -> None:
    for kind, names in (("missing", expected - found), ("unexpected", found - expected)):
        if names:
            raise ModelFileError(f"{len(names)} {kind} tensors, such as {min(names)}", path=path)


def _check_manifest(source: Path) -> dict[str, str]:
    path = source / MANIFEST_FILE
    if not path.is_file():
        raise ModelFileError("no manifest.json: not a saved net, or its saving was interrupted", path=source)
    manifest = parse_json(path.read_bytes(), path=path)
    if manifest.get("format") != FORMAT or manifest.get("version") != FORMAT_VERSION:
        found = f"{manifest.get('format')!r} {manifest.get('version')!r}"
        raise ModelFileError(f"expected format {FORMAT!r} {FORMAT_VERSION}, got {found}", path=path)
    files = manifest.get("files")
    if not isinstance(files, dict) or not {CONFIG_FILE, WEIGHTS_FILE} <= set(files):
        raise ModelFileError(f"files: expected hashes of {CONFIG_FILE} and {WEIGHTS_FILE}", path=path)
    for name in files:
        _check_hash(source, name, files[name])
    return files


def _check_hash(source: Path, name: str, digest: object) -> None:
    path = source / name
    if Path(name).name != name:
        raise ModelFileError(f"files: expected plain file names, got {name!r}", path=source / MANIFEST_FILE)
    if not path.is_file():
        raise ModelFileError("missing, though the manifest names it", path=path)
    if sha256_file(path) != digest:
        raise ModelFileError("its sha256 differs from the manifest's; the file is damaged or was edited", path=path)


def _save_patcher(patcher: Any | None, target: Path) -> list[str]:
    if patcher is None:
        return []
    if not hasattr(patcher, "save"):
        logger.warning("patcher of type %s has no save(); the net is saved without it", type(patcher).__name__)
        return []
    patcher.save(target)
    return [PATCHER_FILE] if (target / PATCHER_FILE).is_file() else []


def _load_patcher(source: Path) -> Any:
    from hyena_glt.patching import Patcher

    return Patcher.load(source)


def _first_line(problem: Exception) -> str:
    return str(problem).strip().partition("\n")[0] or type(problem).__name__


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path, overwrite=True) as handle:
        handle.write(data)
