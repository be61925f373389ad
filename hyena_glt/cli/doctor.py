"""`hyena-glt doctor`: what is installed, what runs it, and whether the numbers are right on this machine."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from hyena_glt.__about__ import __version__
from hyena_glt.cli import options as opt

LIBRARIES = (
    "torch",
    "numpy",
    "numba",
    "pydantic",
    "pysam",
    "pyBigWig",
    "pyarrow",
    "safetensors",
    "tokenizers",
    "scipy",
)
EXTRAS = {"plot": "matplotlib"}


def doctor(as_json: opt.Json = False) -> None:
    """Show versions and accelerator, and run a numeric self-test.

    Exits with 3 if a check fails.
    """
    checks = run_checks()
    facts: dict[str, Any] = {
        "hyena_glt": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: installed(name) for name in LIBRARIES},
        "extras": {extra: installed(package) for extra, package in EXTRAS.items()},
        "accelerator": accelerator(),
        "checks": checks,
    }
    print(json.dumps(facts, indent=2) if as_json else as_text(facts))
    if any(outcome != "ok" for outcome in checks.values()):
        raise typer.Exit(3)


def version_line() -> str:
    """Version, libraries and accelerator on one line."""
    libraries = ", ".join(f"{name} {installed(name)}" for name in ("torch", "numpy", "numba", "pysam"))
    return f"hyena-glt {__version__} (python {platform.python_version()}, {libraries}; {accelerator()})"


def installed(package: str) -> str:
    """Its version, or `not installed`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def accelerator() -> str:
    """The device that `auto` takes."""
    try:
        import torch
    except ImportError:
        return "none: torch is not installed"
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu, {torch.get_num_threads()} threads"


def run_checks() -> dict[str, str]:
    """Each check's name and `ok`, or what is wrong."""
    return {name: _outcome(check) for name, check in CHECKS.items()}


def _outcome(check: Any) -> str:
    try:
        return "ok" if check() else "wrong result"
    except Exception as problem:  # a broken installation may raise anything
        return f"{type(problem).__name__}: {problem}"


def check_context_model() -> bool:
    """Random bases cost two bits, a repeat costs little."""
    from hyena_glt.entropies import MarkovEntropy
    from hyena_glt.sequences.simulate import generate_random_genomic_sequence

    noise = MarkovEntropy.fit([generate_random_genomic_sequence(20_000, seed=1)], order=2)
    repeat = MarkovEntropy.fit(["ACGGT" * 2_000], order=4)
    return abs(noise.held_out_bits - 2.0) < 0.02 and repeat.held_out_bits < 0.3


def check_patcher() -> bool:
    """Strictly above the threshold, one token later; the first two tokens always start a patch."""
    import torch

    from hyena_glt import Patcher

    entropies = torch.tensor([[0.0, 2.0, 1.0, 0.0, 2.0, 0.0]])
    tokens = torch.full((1, 6), 69)
    lengths, _ = Patcher(patching_mode="entropy", threshold=1.0, device="cpu").patch(tokens, entropies=entropies)
    return lengths.tolist() == [[1, 1, 3, 1]]


def check_convolution() -> bool:
    """The fast long convolution equals the definition."""
    import torch

    from hyena_glt.ops import causal_conv
    from hyena_glt.ops.reference import two_sided_conv_reference

    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(1, 4, 300, generator=generator, dtype=torch.float64)
    taps = torch.randn(4, 300, generator=generator, dtype=torch.float64)
    difference = causal_conv(signal, taps) - two_sided_conv_reference(signal, taps)
    return float(difference.abs().max()) < 1e-9


CHECKS = {
    "context model": check_context_model,
    "patcher": check_patcher,
    "long convolution": check_convolution,
}


def as_text(facts: dict[str, Any]) -> str:
    """The facts as lines, with a mark before each check."""
    lines = [version_line(), f"platform     {facts['platform']}", f"executable   {sys.executable}"]
    lines += [f"library      {name} {found}" for name, found in facts["libraries"].items()]
    lines += [f"extra        {name}: {found}" for name, found in facts["extras"].items()]
    lines += [f"accelerator  {facts['accelerator']}"]
    lines += [f"check        {name}: {outcome}" for name, outcome in facts["checks"].items()]
    return "\n".join(lines)
