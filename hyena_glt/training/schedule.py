"""How fast and how long: the learning rate over a run, and the optimizer that follows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from hyena_glt.training.recipe import OptimizerSection, ScheduleSection

FIRST_RATE = 0.1  # share of the warm-up that the first update is already in, so that its rate is not 0


def share_done(schedule: ScheduleSection, steps: int, elapsed_s: float) -> float:
    """Share of the run that is behind, in [0, 1]: by updates or by time, whichever is further.

    Args:
        schedule: When it ends.
        steps: Updates that are done.
        elapsed_s: Training time so far, in all parts of a run that was resumed.
    """
    shares = [0.0]
    if schedule.most_steps is not None:
        shares.append(steps / schedule.most_steps)
    if schedule.seconds is not None:
        shares.append(elapsed_s / schedule.seconds)
    return min(max(shares), 1.0)


def rate_at(done: float, warm_up: float, floor: float) -> float:
    """Share of the highest learning rate where that share of the run is done.

    Args:
        done: In [0, 1].
        warm_up: Share of the run in which the rate rises linearly.
        floor: Where the cosine ends.

    Example:
        >>> [rate_at(done, warm_up=0.5, floor=0.1) for done in (0.5, 1.0)]
        [1.0, 0.1]
    """
    if done < warm_up:
        return (done / warm_up + FIRST_RATE) / (1.0 + FIRST_RATE)
    down = (done - warm_up) / (1.0 - warm_up)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * down))


def make_optimizer(net: nn.Module, options: OptimizerSection) -> torch.optim.AdamW:
    """AdamW over the named parameters of a net; only the matrices of its linear layers decay.

    Filters, convolution taps, tables, norms and biases keep their size: pulling them to 0 means something else there.
    """
    matrices = matrix_names(net)
    named = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [pair for pair in named if pair[0] in matrices], "weight_decay": options.weight_decay},
        {"params": [pair for pair in named if pair[0] not in matrices], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=options.lr, betas=options.betas)


def matrix_names(net: nn.Module) -> set[str]:
    """Names of the weight matrices of a net's linear layers."""
    layers = ((name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear))
    return {f"{name}.weight" if name else "weight" for name, _ in layers}


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use a learning rate from the next update on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
