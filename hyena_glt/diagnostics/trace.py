"""A Chrome trace of one forward: the operations as torch records them, and the stages above them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hyena_glt.diagnostics.stages import WARM_UP_TOKENS, Marks, forward, run_watched
from hyena_glt.model import HyenaGLT
from hyena_glt.sequences.atomic import atomic_write


def write_trace(
    net: HyenaGLT,
    patcher: Any,
    tokens: Tensor,
    path: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Record one batch; chrome://tracing and ui.perfetto.dev show it.

    Args:
        net: The net, in evaluation mode.
        patcher: What cuts; None: the net's own.
        tokens: `(batch, length)` int64, PAD tails.
        path: A JSON file, whole or not at all.
        provenance: Written beside the events.
        overwrite: Replace an existing file.

    Raises:
        OutputExistsError: The file exists.
        SystemProblem: It cannot be written.
    """
    patcher = net.patcher() if patcher is None else patcher
    with atomic_write(path, "w", overwrite=overwrite) as handle:
        trace = record_trace(net, patcher, tokens)
        json.dump({"provenance": dict(provenance or {}), **trace}, handle)


@torch.no_grad()
def record_trace(net: HyenaGLT, patcher: Any, tokens: Tensor) -> dict[str, Any]:
    """What the profiler exports of one batch, a short one before it unrecorded."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if net.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    forward(net, patcher, tokens[:, :WARM_UP_TOKENS])
    with tempfile.NamedTemporaryFile(prefix="hyena-glt-trace-", suffix=".json") as spool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch tells of its own profiler's defaults
            with _without_stderr(), torch.profiler.profile(activities=activities) as profiler:
                run_watched(net, patcher, tokens, Marks())
            profiler.export_chrome_trace(spool.name)
        with open(spool.name, encoding="utf-8") as exported:
            return json.load(exported)


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep off the terminal what the profiler's library writes to the descriptor itself."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
