"""The net that comes with the package, small enough to travel with it and loaded from there alone."""

from __future__ import annotations

import json
from pathlib import Path

from hyena_glt.errors import ModelFileError
from hyena_glt.model.hyena_glt import HyenaGLT
from hyena_glt.model.weights import MANIFEST_FILE, WEIGHTS_FILE

SHIPPED_NAME = "hyena-glt-dna"
SHIPPED_FOLDER = Path(__file__).parent.parent / "shipped" / SHIPPED_NAME
HASH_DIGITS = 12


def shipped_net() -> HyenaGLT:
    """The net that ships with the package, in evaluation mode: causal, DNA, with its patcher.

    Raises:
        ModelFileError: The files are not in this installation, or are damaged.
    """
    return HyenaGLT.from_pretrained(SHIPPED_FOLDER)


def weights_label(folder: Path) -> str:
    """Name and hash of the weights of a folder, as commands print them and write them into their output.

    Args:
        folder: Written by `save_pretrained`; its manifest holds the hash.

    Raises:
        ModelFileError: No manifest that names the weights.
    """
    path = folder / MANIFEST_FILE
    try:
        digest = json.loads(path.read_text())["files"][WEIGHTS_FILE]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFileError("expected a manifest that names the weights; save the model again", path=path) from None
    return f"{folder.name}, sha256 {digest[:HASH_DIGITS]}"
