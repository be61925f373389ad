"""The net of a command: the one that ships, one from a folder, or one of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hyena_glt.cli.runtime import note
from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ModelFileError, SystemProblem, UsageError

if TYPE_CHECKING:
    from hyena_glt.model import HyenaGLT

VOCABULARY = {"dna": 4, "rna": 4, "protein": 20, "bytes": 256}


def open_net(
    folder: Path | None,
    *,
    untrained: bool = False,
    size: str = "tiny",
    causal: bool = True,
    alphabet: str = "dna",
    seed: int = 0,
    device: str = "auto",
    threads: int = 1,
    patcher: Any | None = None,
) -> tuple[HyenaGLT, str]:
    """The net in evaluation mode, and what its weights are, for people and for the provenance of the output.

    Args:
        folder: Written by `HyenaGLT.save_pretrained`; None: the net that ships with the package.
        untrained: Random weights in place of both; `size`, `causal`, `alphabet` and `seed` are of these alone.
        size: Preset of the random net.
        causal: Whether the random net reads the past alone.
        alphabet: Of the sequences.
        seed: Of the random weights.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: Of torch.
        patcher: In place of the one that is saved with the net; an untrained net has no other.

    Raises:
        UsageError: A folder and `untrained` together, or an alphabet that the net that ships does not know.
        SystemProblem: CUDA is asked for and not there.
        ModelFileError: The folder holds no sound model.
    """
    from hyena_glt.model import HyenaGLT
    from hyena_glt.model.shipped import SHIPPED_FOLDER, weights_label

    if untrained and folder is not None:
        raise UsageError("--model and --untrained exclude each other; give one of them")
    torch.set_num_threads(threads)
    place = usable_device(device)
    if untrained:
        note("the weights are random (--untrained): the figures tell sequences apart but know no biology")
        net = untrained_net(size, alphabet, seed, causal=causal, patcher=patcher)
        return net.to(place), f"untrained {size} net, seed {seed}"
    if folder is None and alphabet != "dna":
        raise UsageError(f"the net that ships knows DNA alone, not {alphabet}; give --model FOLDER or --untrained")
    if folder is None and not SHIPPED_FOLDER.is_dir():
        raise ModelFileError(
            "the weights that ship are not in this installation; give --model FOLDER or --untrained",
            path=SHIPPED_FOLDER.name,
        )
    folder = SHIPPED_FOLDER if folder is None else folder
    net = HyenaGLT.from_pretrained(folder, patcher)
    label = weights_label(folder)
    note(f"weights: {label}")
    return net.to(place), label


def untrained_net(size: str, alphabet: str, seed: int, *, causal: bool, patcher: Any | None = None) -> HyenaGLT:
    """A net of random weights; the process's own random numbers are left as they were."""
    from hyena_glt.model import HyenaGLT

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = HyenaGLTConfig.preset(size, causal=causal, genomic_vocab_size=VOCABULARY[alphabet], alphabet=alphabet)
        return HyenaGLT(config, patcher).eval()


def usable_device(device: str) -> str:
    """The device that is meant.

    Raises:
        SystemProblem: CUDA is asked for and not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemProblem(f"--device {device}: no CUDA device is usable here; give --device cpu")
    return device
