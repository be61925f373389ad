"""Embeddings in two dimensions, thinned to what a page can carry.

Embeddings -> points, labels and group numbers for the page
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from .encoding import base64_text, visible
from .records import Embeddings

COLOURED_GROUPS = 7  # the largest groups have a colour each, the others share one


def scatter_payload(embeddings: Embeddings | None, max_points: int) -> dict[str, Any] | None:
    """What the page draws, or None without any point."""
    if embeddings is None or len(embeddings.labels) == 0:
        return None
    kept = spaced(len(embeddings.labels), max_points)
    names, members = group_numbers([embeddings.groups[i] for i in kept] if embeddings.groups else None, len(kept))
    return {
        "points": base64_text(embeddings.points[kept].astype("<f4").tobytes()),  # x0 y0 x1 y1 ...
        "labels": [visible(embeddings.labels[i]) for i in kept],
        "groups": names,
        "group": members,
        "explained": explained_shares(embeddings.explained),
        "total": len(embeddings.labels),
    }


def explained_shares(explained: tuple[float, float] | None) -> list[float] | None:
    """Return the shares of the variance; None where they are not known, as for points that are all equal."""
    return list(explained) if explained is not None and np.isfinite(explained).all() else None


def spaced(total: int, limit: int) -> list[int]:
    """Choose at most `limit` of `total` indices, evenly spaced."""
    return np.unique(np.linspace(0, total - 1, min(total, limit)).astype(np.int64)).tolist()


def group_numbers(groups: list[str] | None, size: int) -> tuple[list[str], list[int]]:
    """Number the groups, the largest first; those beyond `COLOURED_GROUPS` become "other"."""
    if groups is None:
        return [], [0] * size
    ranked = [name for name, _ in Counter(groups).most_common()]
    names = ranked if len(ranked) <= COLOURED_GROUPS + 1 else [*ranked[:COLOURED_GROUPS], "other"]
    number = {name: min(i, len(names) - 1) for i, name in enumerate(ranked)}
    return [visible(name) for name in names], [number[name] for name in groups]
