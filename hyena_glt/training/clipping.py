"""Gradients -> one global norm, and gradients no longer than a limit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor

from hyena_glt.errors import ConfigError
from hyena_glt.training.engine import Engine, is_sharded


@torch.no_grad()
def clip_by_global_norm(parameters: Iterable[Tensor], max_norm: float, engine: Engine) -> float:
    """Scale all gradients by one factor, in place, so that their common norm is at most `max_norm`.

    The norm is that of the whole net, whether each process has all gradients (DDP) or a share of each (FSDP2).
    A norm that is not finite is returned and nothing is scaled: the caller stops before the update.

    Args:
        parameters: Those without a gradient are left out.
        max_norm: Above 0; infinity only measures.
        engine: The processes; all of them call this.

    Returns:
        The 2-norm before clipping, the same on every rank.

    Raises:
        ConfigError: `max_norm` is not above 0.
    """
    if not max_norm > 0:
        raise ConfigError(f"max_norm: expected a number above 0, got {max_norm!r}")
    gradients = [parameter.grad.detach() for parameter in parameters if parameter.grad is not None]
    shares = [cast(Any, gradient).to_local() for gradient in gradients if is_sharded(gradient)]
    whole = [gradient for gradient in gradients if not is_sharded(gradient)]
    share = _norm(shares)
    if engine.strategy == "fsdp2":
        share = math.sqrt(engine.sum(share * share))
    norm = math.hypot(_norm(whole), share)
    if math.isfinite(norm) and norm > max_norm:
        torch._foreach_mul_([*shares, *whole], max_norm / norm)
    return norm


def _norm(gradients: list[Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
