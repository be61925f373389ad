"""Any saved entropy model, opened by the format that its file names."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from hyena_glt.checks import parse_json
from hyena_glt.errors import ModelFileError

KEY = "hyena_glt"  # of the description in the metadata
SOURCES = {  # format without its version -> module and class; a table model is opened without loading torch
    "hyena-glt/markov": (".markov", "MarkovEntropy"),
    "hyena-glt/mix": (".mixing", "MixEntropy"),
    "hyena-glt/neural": (".neural", "NeuralEntropy"),
}
BARE_NETWORK = "hyena-glt/byte-network"


def load_source(path: str | os.PathLike[str]) -> Any:
    """Open a saved `MarkovEntropy`, `MixEntropy` or `NeuralEntropy`.

    Args:
        path: The safetensors file. The state of a mix stream gives a `MixEntropy` whose sequences start from it.

    Raises:
        ModelFileError: No such file, damaged, or no entropy model.
    """
    if not Path(path).is_file():
        raise ModelFileError("no such file", path=path)
    found = str(saved_format(path))
    kind = found.rpartition("/")[0]
    if kind not in SOURCES:
        hint = (
            "; a bare network is one: NeuralEntropy(ByteNetwork.load(path)).save(...)" if kind == BARE_NETWORK else ""
        )
        raise ModelFileError(
            f"expected an entropy model of format {', '.join(SOURCES)}, got {found!r}{hint}", path=path
        )
    module, name = SOURCES[kind]
    return getattr(import_module(module, __package__), name).load(path)


def saved_format(path: str | os.PathLike[str]) -> Any:
    """What the description in a safetensors file calls its format; None without one.

    Raises:
        ModelFileError: Not a safetensors file, or a damaged description.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as handle:
            text = (handle.metadata() or {}).get(KEY, "{}")
    except (SafetensorError, OSError) as problem:
        raise ModelFileError(f"not a readable safetensors file ({problem})", path=path) from None
    about = parse_json(text.encode(), path=path)
    return about.get("format") if isinstance(about, dict) else None
