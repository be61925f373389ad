"""Figures as files: PNG, SVG or PDF by suffix, whole or not at all, the same bytes each time; matplotlib (extra `plot`)
is loaded when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyena_glt.errors import ConfigError, MissingExtraError
from hyena_glt.sequences.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
STYLE = {"svg.hashsalt": "hyena-glt"}
# Leave the time out, so that a figure made again is the same file.
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def check_figure_path(path: str | os.PathLike[str]) -> str:
    """The format that a figure's name asks for, once it is known that figures can be drawn.

    Raises:
        ConfigError: Another suffix than .png, .svg or .pdf.
        MissingExtraError: matplotlib is not installed.
    """
    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in METADATA:
        raise ConfigError(f"{os.fspath(path)}: expected a name that ends with .png, .svg or .pdf")
    load_matplotlib()
    return suffix


def write_figure_file(
    path: str | os.PathLike[str], draw: Callable[[], Figure], style: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Draw with matplotlib's settings `style` and write what was drawn.

    Raises:
        ConfigError: Another suffix than .png, .svg or .pdf.
        MissingExtraError: matplotlib is not installed.
        OutputExistsError: The file exists.
        SystemProblem: It cannot be written.
    """
    suffix = check_figure_path(path)
    with load_matplotlib().rc_context({**STYLE, **style}):
        figure = draw()
        with atomic_write(path, overwrite=overwrite) as handle:
            figure.savefig(handle, format=suffix, dpi=DOTS_PER_INCH, metadata=METADATA[suffix])


def load_matplotlib() -> Any:
    """The library, or how to get it.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("figures need matplotlib; install it with: pip install 'hyena-glt[plot]'") from None
    return matplotlib
