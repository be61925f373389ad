"""A network in one safetensors file: its tensors, and a JSON description in the metadata. Nothing is executed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from hyena_glt.checks import parse_json
from hyena_glt.errors import ModelFileError

Network = TypeVar("Network", bound=nn.Module)
KEY = "hyena_glt"  # of the description in the metadata


def save_network(
    path: str | os.PathLike[str], network: nn.Module, about: Mapping[str, Any], *, overwrite: bool = True
) -> None:
    """Write the weights of a network with a description, whole or not at all.

    Args:
        path: Target.
        network: Its parameters are written.
        about: JSON values, with `format` among them.
        overwrite: Replace a file that is there.

    Raises:
        ModelFileError: A weight is NaN or infinite.
    """
    from safetensors.torch import save

    from hyena_glt.sequences.atomic import atomic_write

    tensors = cpu_weights(network)
    _check_finite(tensors, path)
    content = save(tensors, metadata={KEY: json.dumps(about, sort_keys=True, allow_nan=False)})
    with atomic_write(path, overwrite=overwrite) as handle:
        handle.write(content)


def load_network(
    path: str | os.PathLike[str], expected_format: str, build: Callable[[dict[str, Any]], Network]
) -> tuple[Network, dict[str, Any]]:
    """Read a network and its description.

    Args:
        path: A file that `save_network` wrote.
        expected_format: What its description must name.
        build: Makes the network from the description's `network`; it is called where no memory is taken.

    Returns:
        The network in evaluation mode on the CPU, and the description.

    Raises:
        ModelFileError: Not such a file, damaged, or tensors that do not fit the description.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    about = read_description(path)
    if about.get("format") != expected_format:
        raise ModelFileError(f"format: expected {expected_format!r}, got {about.get('format')!r}", path=path)
    if not isinstance(about.get("network"), dict):
        raise ModelFileError("damaged description (no network); save the model again", path=path)
    try:
        with torch.device("meta"):
            network = build(about["network"])
        tensors = load_file(os.fspath(path))
    except ValidationError as problem:
        fault = problem.errors()[0]
        place = ".".join(str(part) for part in ("network", *fault["loc"]))
        raise ModelFileError(
            f"damaged description ({place}: {fault['msg']}); save the model again", path=path
        ) from None
    except (SafetensorError, OSError) as problem:
        raise ModelFileError(f"not a readable safetensors file ({problem})", path=path) from None
    _check_fit(network, tensors, path)
    _check_finite(tensors, path)
    network.load_state_dict(tensors, assign=True)
    return network.eval(), about


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON description of a model file of this package, of any format; empty where there is none.

    Raises:
        ModelFileError: No such file, no safetensors file, or a description that is no JSON object.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as handle:
            text = (handle.metadata() or {}).get(KEY, "{}")
    except FileNotFoundError:
        raise ModelFileError("no such file", path=path) from None
    except (SafetensorError, OSError) as problem:
        raise ModelFileError(f"not a readable safetensors file ({problem})", path=path) from None
    return parse_json(text, path=path)


def cpu_weights(network: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a network, on the CPU."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def weights_sha256(network: nn.Module) -> str:
    """Hash of names and values of the weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(cpu_weights(network).items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _check_fit(network: nn.Module, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    expected = network.state_dict()
    for kind, names in (("missing", set(expected) - set(tensors)), ("unexpected", set(tensors) - set(expected))):
        if names:
            raise ModelFileError(f"{len(names)} {kind} tensors, such as {min(names)}", path=path)
    for name, tensor in tensors.items():
        own = expected[name]
        if tensor.shape != own.shape or tensor.dtype != own.dtype:
            raise ModelFileError(
                f"tensor {name}: expected {own.dtype} {tuple(own.shape)}, got {tensor.dtype} {tuple(tensor.shape)}",
                path=path,
            )


def _check_finite(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ModelFileError(f"tensor {name}: expected finite weights, got NaN or infinity", path=path)
