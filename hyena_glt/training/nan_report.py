"""A loss or gradient that is no number any more -> which module began it, in `nan_report.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hyena_glt.sequences.atomic import atomic_write

REPORT_FILE = "nan_report.json"


def first_module_not_finite(net: nn.Module, run: Callable[[], Any]) -> str | None:
    """Name of the first module of `net` whose output holds NaN or infinity while `run()` runs, or None.

    A module counts when it returns, so of nested ones the innermost is named.

    Args:
        net: Whose modules are watched.
        run: Runs the batch, without gradients.
    """
    found: list[str] = []
    with _watched(net, found), torch.no_grad():
        run()
    return found[0] if found else None


def gradients_not_finite(named: Iterable[tuple[str, nn.Parameter]]) -> list[str]:
    """Names of the parameters whose gradient holds NaN or infinity."""
    return [name for name, parameter in named if parameter.grad is not None and not all_finite(parameter.grad)]


def all_finite(tensor: Tensor) -> bool:
    """Whether every value of a tensor, or of this process's part of it, is finite."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return bool(local.detach().isfinite().all())


def write_nan_report(folder: Path, facts: dict[str, Any]) -> Path:
    """Write `nan_report.json`; values that are not finite are texts in it.

    Raises:
        SystemProblem: The folder cannot be written.
    """
    path = folder / REPORT_FILE
    with atomic_write(path, "w", overwrite=True) as handle:
        handle.write(json.dumps(facts, indent=2, allow_nan=False) + "\n")
    return path


@contextmanager
def _watched(net: nn.Module, found: list[str]) -> Iterator[None]:
    def watch(name: str) -> Callable[..., None]:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not found and not all(all_finite(tensor) for tensor in _tensors(output)):
                found.append(name)

        return look

    handles = [module.register_forward_hook(watch(name or "net")) for name, module in net.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> Iterator[Tensor]:
    """Floating point tensors of what a module returned; those of a record are its modules' outputs anyway."""
    if isinstance(output, Tensor):
        if output.is_floating_point() or output.is_complex():
            yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)
