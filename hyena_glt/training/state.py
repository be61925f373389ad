"""What training needs beside the weights, as tensors and JSON: optimizer state by parameter name, random generators.

optimizer -> optimizer_tensors -> CheckpointFolder -> restore_optimizer -> the same next update, bit for bit
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from hyena_glt.errors import ConfigError, ModelFileError
from hyena_glt.training.engine import is_sharded, spread_like, whole_tensor

# Options that say how an update is computed, not which one: those of the running optimizer stay.
HOW = {"foreach", "fused", "capturable", "differentiable"}
NUMPY_GENERATOR = "MT19937"

logger = logging.getLogger(__name__)


def optimizer_tensors(optimizer: Optimizer, *, is_kept: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimizer whose state and options are tensors, numbers and texts, such as AdamW.

    A collective where weights are sharded (FSDP2): every rank calls it.

    Args:
        optimizer: Made from `named_parameters()`, so that it knows the names of its parameters.
        is_kept: False on the ranks that write no checkpoint: they take part and keep no tensor.

    Returns:
        Whole tensors on the CPU, named `PARAMETER:KEY`, and JSON facts: class, groups of names with their
        options, and the numbers of each parameter's state.

    Raises:
        ConfigError: Parameters without names, or state or options that are neither tensors nor JSON.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for name, parameter in _named_parameters(optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                whole = whole_tensor(value.detach())
                if is_kept:
                    tensors[f"{name}:{key}"] = whole.cpu().clone()
            else:
                numbers.setdefault(name, {})[key] = _json_value(value, f"{name}:{key}")
    groups = [_group_facts(group) for group in optimizer.param_groups]
    return tensors, {"class": type(optimizer).__name__, "groups": groups, "numbers": numbers}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Give an optimizer the state that `optimizer_tensors` took, matched by the names of parameters.

    Options come from the state too, learning rate included, but for those that say how an update is computed
    (`foreach`, `fused`, `capturable`, `differentiable`). A collective where weights are sharded.

    Args:
        optimizer: Of the same class, with the same names in each group, in any order.
        tensors: The same on every rank.
        facts: The JSON beside them.

    Raises:
        ConfigError: Parameters without names.
        ModelFileError: The state is of another class, or of other parameters, groups or shapes; nothing has
            changed then.
    """
    groups = _check_facts(optimizer, facts)
    state = _state_by_name(optimizer, tensors, facts["numbers"])
    names = [name for name, _ in _named_parameters(optimizer)]
    place = {name: number for number, name in enumerate(names)}
    with_options = []
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        kept = {key: value for key, value in group.items() if key not in saved["options"] or key in HOW}
        options = {key: _like(value, group.get(key)) for key, value in saved["options"].items() if key not in HOW}
        with_options.append({**kept, **options, "params": [place[name] for name in group["param_names"]]})
    optimizer.load_state_dict(
        {"state": {place[name]: values for name, values in state.items()}, "param_groups": with_options}
    )


def rng_state(device: torch.device | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The states of the random generators of Python, NumPy (the global one), torch, and of every CUDA device.

    Args:
        device: Where training computes; CUDA generators are left out where this is the CPU.

    Returns:
        Tensors whose names, shapes and dtypes are the same in every process of a run (`engine.stack` puts
        them together), and JSON facts on the kinds of generators.

    Raises:
        ConfigError: NumPy's global generator was replaced by one of another kind.
    """
    version, words, next_gauss = random.getstate()
    kind, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - the global generator itself
    if kind != NUMPY_GENERATOR:
        raise ConfigError(f"rng: expected NumPy's global generator to be {NUMPY_GENERATOR}, got {kind}")
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": _pair(next_gauss is not None, next_gauss or 0.0),
        "numpy": torch.tensor([*map(int, keys), place], dtype=torch.int64),
        "numpy_gauss": _pair(bool(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
    }
    if torch.device(device).type == "cuda":
        tensors |= {f"cuda_{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    return tensors, {"python": version, "numpy": kind}


def restore_rng(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device | str) -> None:
    """Give all random generators the states that `rng_state` took.

    States of CUDA devices go to the devices of the same number; a warning says where the numbers of devices differ.

    Raises:
        ModelFileError: A state is missing, or of another kind or size; nothing has changed then.
    """
    if facts.get("python") != random.getstate()[0] or facts.get("numpy") != NUMPY_GENERATOR:
        raise ModelFileError(f"rng: expected states of this Python and of {NUMPY_GENERATOR}, got {dict(facts)}")
    here, _ = rng_state(device)
    for name, state in here.items():
        if name not in tensors and not name.startswith("cuda_"):
            raise ModelFileError(f"rng: expected a state of {name!r}, got none")
        found = tensors.get(name, state)
        if found.shape != state.shape or found.dtype != state.dtype:
            raise ModelFileError(f"rng: {name}: expected {_shown(state)}, got {_shown(found)}")
    python, gauss = tuple(tensors["python"].tolist()), _unpair(tensors["python_gauss"])
    random.setstate((facts["python"], python, gauss))
    *keys, place = tensors["numpy"].tolist()
    numpy_gauss = _unpair(tensors["numpy_gauss"])
    numpy_state = (NUMPY_GENERATOR, np.array(keys, np.uint32), place, int(numpy_gauss is not None), numpy_gauss or 0.0)
    np.random.set_state(numpy_state)  # noqa: NPY002 - the global generator itself
    torch.set_rng_state(_own_memory(tensors["torch"]))
    _restore_cuda(tensors, here)


def _restore_cuda(tensors: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> None:
    saved, present = ({name for name in names if name.startswith("cuda_")} for names in (tensors, here))
    for name in saved & present:
        torch.cuda.set_rng_state(_own_memory(tensors[name]), int(name.removeprefix("cuda_")))
    if saved != present:
        logger.warning("rng: states of %d CUDA devices were saved, %d are here", len(saved), len(present))


def _own_memory(state: Tensor) -> Tensor:
    """A copy: torch takes the beginning of the memory, whatever part of it a view shows, and may crash."""
    return state.to("cpu", copy=True, memory_format=torch.contiguous_format)


def _pair(is_there: bool, value: float) -> Tensor:
    """A number that may be missing, as two."""
    return torch.tensor([float(is_there), value], dtype=torch.float64)


def _unpair(pair: Tensor) -> float | None:
    is_there, value = pair.tolist()
    return value if is_there else None


def _shown(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _named_parameters(optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    seen: set[str] = set()
    for group in optimizer.param_groups:
        names = group.get("param_names")
        if names is None:
            raise ConfigError("optimizer: expected named parameters; make it from net.named_parameters()")
        for name, parameter in zip(names, group["params"], strict=True):
            if name in seen:
                raise ConfigError(f"optimizer: expected each name once, got {name!r} twice")
            seen.add(name)
            yield name, parameter


def _group_facts(group: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
    return {
        "names": list(group["param_names"]),
        "options": {key: _json_value(value, key) for key, value in options.items()},
    }


def _json_value(value: Any, name: str) -> Any:
    """A JSON value; a tensor of one number, such as a learning rate, becomes that number."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        raise ConfigError(f"optimizer: {name}: expected a tensor or a JSON value, got {type(value).__name__}") from None


def _like(value: Any, current: Any) -> Any:
    """A JSON value in the type that the optimizer has: tuples, and tensors of one number."""
    if isinstance(current, Tensor):
        return torch.full_like(current, value)
    return tuple(value) if isinstance(current, tuple) and isinstance(value, list) else value


def _check_facts(optimizer: Optimizer, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups of saved facts, if they are of an optimizer like this one."""
    own = [_group_facts(group) for group in optimizer.param_groups]
    name = type(optimizer).__name__
    if facts.get("class") != name:
        raise ModelFileError(f"optimizer: expected the state of {name}, got that of {facts.get('class')!r}")
    groups = facts.get("groups")
    if not isinstance(groups, list) or len(groups) != len(own) or not isinstance(facts.get("numbers"), dict):
        found = len(groups) if isinstance(groups, list) else groups
        raise ModelFileError(f"optimizer: expected {len(own)} groups of parameters, got {found!r}")
    for number, (group, saved) in enumerate(zip(own, groups, strict=True)):
        if not isinstance(saved, dict) or not isinstance(saved.get("options"), dict):
            raise ModelFileError(f"optimizer: group {number}: expected names and options")
        expected, found = set(group["names"]), set(saved.get("names", []))
        for kind, names in (("missing", expected - found), ("unexpected", found - expected)):
            if names:
                raise ModelFileError(f"optimizer: group {number}: {len(names)} {kind}, such as {min(names)}")
    return groups


def _state_by_name(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """State of each parameter; a tensor of the parameter's shape is spread like the parameter."""
    parameters = dict(_named_parameters(optimizer))
    state: dict[str, dict[str, Any]] = {name: dict(values) for name, values in numbers.items()}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition(":")
        if name not in parameters:
            raise ModelFileError(f"optimizer: {full_name}: expected the state of a parameter, got an unknown name")
        parameter = parameters[name]
        if tensor.numel() != 1 and tensor.shape != parameter.shape:
            raise ModelFileError(
                f"optimizer: {full_name}: expected {tuple(parameter.shape)}, got {tuple(tensor.shape)}"
            )
        state.setdefault(name, {})[key] = tensor
    unknown = state.keys() - parameters.keys()
    if unknown:
        raise ModelFileError(f"optimizer: state of an unknown parameter {min(unknown)}")
    for name, values in state.items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                values[key] = _placed(value.clone(), parameters[name])
    return state


def _placed(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Sharded where the parameter is, and of its shape; a step count stays a plain tensor."""
    if is_sharded(parameter) and tensor.shape == parameter.shape and tensor.ndim > 0:
        return spread_like(tensor, parameter.detach())
    return tensor
