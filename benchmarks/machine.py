"""What the figures were measured on."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

import numpy as np

import hyena_glt


def machine() -> str:
    """Processor, cores, Python and numpy, on one line."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}"


@cache
def code_hash() -> str:
    """Of the sources of the package, 12 characters: figures of equal hashes were made by the same code."""
    folder = Path(hyena_glt.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
