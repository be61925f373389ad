"""What a foreign patcher gave for one row -> the patches of that row.

    row -> as the patcher takes it -> whatever it gives -> starts in its units -> starts and ends in bytes

`PatcherAdapter` lists the forms that are understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.errors import PatchingError
from hyena_glt.patching.rows import sequence_tokens
from hyena_glt.tokens.byte_tokenizer import OFFSET

Takes = Literal["text", "bytes", "tokens"]
Form = Literal["any", "starts", "spans", "lengths"]
PIECE_TYPES = (str, bytes, bytearray, memoryview)
RECOGNISED = (
    "patch lengths that sum to the sequence, starts from 0, a bool mask of starts, (start, end) spans, pieces, "
    "(pieces, boundaries), (numbers, scores), or a mapping or object with patch_lengths, patches and boundaries, "
    "offset_mapping or offsets"
)


class Cut(NamedTuple):
    """Where the patches of one row lie."""

    starts: NDArray[np.int64]  # (num_patches,), the first is 0
    ends: NDArray[np.int64]  # (num_patches,), beyond the next start where patches overlap
    scores: Tensor | None  # (1, length) float32


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence, and how the wrapped object counts it."""

    tokens: NDArray[np.int64]  # (length,) byte tokens
    given: Any  # what the wrapped object gets: str, bytes or (1, length) tokens
    edges: NDArray[np.int64]  # (units + 1,) token where each unit begins; units are characters of a text, else tokens


class _Answer(NamedTuple):
    """What the wrapped object gave, sorted by form."""

    pieces: Sequence[Any] | None = None
    boundaries: Any = None  # of the pieces
    numbers: Any = None
    form: Form = "any"  # of the numbers
    scores: Any = None


def given_row(tokens: NDArray[np.int64], takes: Takes) -> Row:
    """A row as the wrapped object takes it.

    Args:
        tokens: `(length,)` byte tokens.
        takes: "text", "bytes" or "tokens".

    Raises:
        PatchingError: Special ids, or bytes that are no UTF-8, for what takes text or bytes.
    """
    edges = np.arange(tokens.size + 1)
    if takes == "tokens":
        return Row(tokens, torch.from_numpy(tokens.copy())[None], edges)
    if tokens.size and tokens.min() < OFFSET:
        raise PatchingError(f"tokens: expected bytes (ids >= {OFFSET}) for a patcher of {takes}, got {tokens.min()}")
    codes = (tokens - OFFSET).astype(np.uint8)
    if takes == "bytes":
        return Row(tokens, codes.tobytes(), edges)
    try:
        text = codes.tobytes().decode()
    except UnicodeDecodeError as problem:
        raise PatchingError(
            f"tokens: expected UTF-8 for a patcher of text, got byte {codes[problem.start]:#04x} at {problem.start}"
        ) from None
    return Row(tokens, text, np.append(np.flatnonzero((codes & 0xC0) != 0x80), codes.size))


def read_answer(output: Any, row: Row, num_next: int) -> Cut:
    """Understand an answer.

    Args:
        output: What the wrapped object gave.
        row: For which.
        num_next: Units that it counts behind the row: 1 with `include_next_token`.

    Raises:
        PatchingError: It is of no form that `PatcherAdapter` lists, or does not belong to the row.
    """
    answer = _sort_out(output)
    if answer.pieces is not None:
        return _cut_of_pieces(answer.pieces, answer.boundaries, row)
    edges = np.concatenate([row.edges, row.edges[-1] + 1 + np.arange(num_next)])
    starts = edges[_starts(answer.numbers, edges.size - 1, answer.form)]
    return Cut(starts, np.append(starts[1:], edges[-1]), _row_scores(answer.scores, row))


def _sort_out(output: Any) -> _Answer:
    named: dict[str, Form] = {"boundaries": "starts", "offset_mapping": "spans", "offsets": "spans"}
    lengths, patches = _field(output, "patch_lengths"), _field(output, "patches")
    if lengths is not None:
        return _Answer(numbers=lengths, form="lengths", scores=_field(output, "scores"))
    if patches is not None:
        return _Answer(pieces=patches, boundaries=_field(output, "boundaries"))
    for name, form in named.items():
        if (numbers := _field(output, name)) is not None:
            return _Answer(numbers=numbers, form=form)
    if _are_pieces(output):
        return _Answer(pieces=output)
    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], list | Tensor | np.ndarray):
        first, second = output
        return _Answer(pieces=first, boundaries=second) if _are_pieces(first) else _Answer(numbers=first, scores=second)
    return _Answer(numbers=output)


def _field(output: Any, name: str) -> Any:
    """A field of a mapping or an object; tensors, arrays and lists have none."""
    if isinstance(output, Mapping):
        return output.get(name)
    if isinstance(output, Tensor | np.ndarray | list | str | bytes):
        return None
    return getattr(output, name, None)


def _are_pieces(output: Any) -> bool:
    """A list or tuple of texts and bytes, or a list of 1-D tensors and arrays."""
    if not isinstance(output, list | tuple) or not output:
        return False
    arrays = () if isinstance(output, tuple) else (Tensor, np.ndarray)
    return all(isinstance(item, PIECE_TYPES) or (isinstance(item, arrays) and item.ndim == 1) for item in output)


def _cut_of_pieces(pieces: Sequence[Any], boundaries: Any, row: Row) -> Cut:
    parts = [sequence_tokens(piece) for piece in pieces]
    sizes = np.fromiter((part.size for part in parts), np.int64, len(parts))
    if boundaries is None:
        sizes = sizes[sizes > 0]
        starts = sizes.cumsum() - sizes
        if sizes.sum() != row.tokens.size:
            raise PatchingError(
                f"pieces: expected {row.tokens.size} bytes together, got {sizes.sum()}; "
                "give boundaries with them if they overlap or leave bytes out"
            )
    else:
        starts = row.edges[_starts(boundaries, row.edges.size - 1, "starts")]
        if starts.size != sizes.size:
            raise PatchingError(f"boundaries: expected one start for each of {sizes.size} pieces, got {starts.size}")
    within = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    places = np.repeat(starts, sizes) + within
    same = places < row.tokens.size
    same[same] = row.tokens[places[same]] == np.concatenate([np.zeros(0, np.int64), *parts])[same]
    if not same.all():
        place = int(places[~same][0])
        raise PatchingError(f"pieces: expected parts of the sequence as they are, got other bytes at {place}")
    return Cut(starts, starts + sizes, None)


def _starts(numbers: Any, length: int, form: Form) -> NDArray[np.int64]:
    """Starts, in units, from a mask, spans, starts or patch lengths of `length` units."""
    try:
        values = np.asarray(numbers.detach().cpu() if isinstance(numbers, Tensor) else numbers)
    except (TypeError, ValueError):
        values = np.zeros(0, object)
    if values.ndim > 1 and len(values) == 1 and (form != "spans" or values.ndim == 3):
        values = values[0]
    if values.dtype == np.bool_ and values.shape == (length,):
        return np.union1d([0], np.flatnonzero(values))
    if values.dtype.kind not in "iu" or not values.size or values.ndim not in (1, 2):
        raise PatchingError(f"patcher output: expected {RECOGNISED}; got {_shown(numbers)}")
    values = values.astype(np.int64)
    if values.ndim == 2 and values.shape[1] == 2 and form in ("any", "spans"):
        return _starts_of_spans(values, length)
    if values.ndim == 2 or form == "spans":
        raise PatchingError(f"patcher output: expected {RECOGNISED}; got numbers of shape {values.shape}")
    is_starts = form == "starts" or (form == "any" and values[0] == 0)
    return _checked_starts(values, length) if is_starts else _starts_of_lengths(values, length)


def _starts_of_spans(spans: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    spans = spans[spans[:, 0] < spans[:, 1]]
    starts = spans[:, 0]
    if (np.diff(starts) < 0).any() or (spans < 0).any() or (spans > length).any():
        raise PatchingError(f"spans: expected (start, end) in ascending order within [0, {length}]")
    return np.union1d([0], starts)


def _checked_starts(starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    starts = starts[:-1] if starts.size > 1 and starts[-1] == length else starts
    if starts[0] != 0 or (np.diff(starts) <= 0).any() or starts[-1] >= max(length, 1):
        raise PatchingError(f"boundaries: expected starts that ascend from 0 and stay below {length}")
    return starts


def _starts_of_lengths(lengths: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    lengths = np.trim_zeros(lengths, "b")
    if (lengths <= 0).any() or lengths.sum() != length:
        raise PatchingError(
            f"patch_lengths: expected lengths > 0 that sum to {length}, got a sum of {lengths.sum()}; "
            "numbers that are starts begin with 0"
        )
    return lengths.cumsum() - lengths


def _row_scores(scores: Any, row: Row) -> Tensor | None:
    if scores is None:
        return None
    try:
        values = torch.as_tensor(scores, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        values = torch.zeros(0)
    if values.numel() != row.tokens.size:
        raise PatchingError(f"scores: expected {row.tokens.size} numbers or None, got {_shown(scores)}")
    return values.reshape(1, -1)


def _shown(value: Any) -> str:
    shape = tuple(value.shape) if isinstance(value, Tensor | np.ndarray) else ""
    text = f"{type(value).__name__} {shape}" if shape else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
