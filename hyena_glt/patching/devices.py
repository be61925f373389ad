"""The device that an option names."""

from __future__ import annotations

import torch

from hyena_glt.errors import ConfigError, SystemProblem


def resolve_device(name: str, option: str = "device") -> torch.device | None:
    """The device of that name; None for "auto", which leaves tensors where they are.

    Args:
        name: "auto", "cpu", "cuda", "cuda:1", ...
        option: What the message calls it.

    Raises:
        ConfigError: No such kind of device.
        SystemProblem: CUDA is asked for and not there.
    """
    if name == "auto":
        return None
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{option}: expected auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found <= (device.index or 0):
            raise SystemProblem(
                f"{option}: expected a CUDA device for {name!r}, found {found}; use device='auto' or 'cpu'"
            )
    return device
