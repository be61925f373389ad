"""Foreign patchers, Hugging Face tokenizers and plain functions -> the interface of `Patcher`.

    rows -> each row as the wrapped object takes it -> whatever it gives -> patch starts in bytes -> patch lengths

Rows go in one by one, so a row gives the same alone and in any batch.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hyena_glt.errors import ConfigError
from hyena_glt.patching.foreign_answers import Cut, Takes, given_row, read_answer
from hyena_glt.patching.given import given_scores
from hyena_glt.patching.patcher import PatchedRows
from hyena_glt.patching.rows import read_rows, sequence_tokens

TOKEN_NAMES = ("tokens", "token_ids", "input_ids")


class PatcherAdapter:
    """Makes a `Patcher` of what cuts sequences in its own way: for a net, `PatcherIntegrator`, or by itself.

    What it recognises, in this order:

    1. an object with `patch_with_starts`: a `Patcher`, used as it is;
    2. an object with `patch_with_boundaries(sequence)`, then one with `patch(...)`;
    3. a fast tokenizer of transformers, then a `tokenizers.Tokenizer`: a patch starts where a token does, characters
       between tokens belong to the patch before;
    4. any callable.

    What it hands to 2 and 4 is said by `takes`: "text" a str, "bytes" bytes, "tokens" `(1, length)` int64 byte tokens.
    None reads it from the first parameter: annotated `str` -> text, `Tensor` -> tokens, `bytes` -> bytes; else called
    `tokens`, `token_ids` or `input_ids` -> tokens; else text. Options such as `entropies` and `include_next_token` are
    passed on to what has a parameter of that name.

    What 2 and 4 may give, in this order:

    1. a mapping or an object with `patch_lengths`; `patches`, with `boundaries` or without; `boundaries`;
       `offset_mapping`; `offsets`;
    2. pieces: str, bytes or tokens, which make up the sequence;
    3. `(pieces, boundaries)`; `(any of the following, scores)` with scores of each token or None, as
       ByteLatent patchers give;
    4. a bool mask of starts; `(start, end)` spans in ascending order;
    5. numbers that begin with 0: starts, the sequence's length behind them or not; other numbers: patch lengths.

    Tensors and arrays may have a batch dimension of 1. Numbers count characters where the object takes text, else
    bytes.

    Args:
        patcher: What to wrap.
        takes: What it takes, where its signature does not say.

    Raises:
        ConfigError: None of these, or a slow tokenizer, which has no offsets.

    Example:
        >>> adapter = PatcherAdapter(lambda sequence: [sequence[:3], sequence[3:]])
        >>> adapter.patch(["ACGTA", "ACG"])[0].tolist()
        [[3, 2], [3, 0]]
    """

    def __init__(self, patcher: Any, takes: Takes | None = None) -> None:
        if takes not in (None, "text", "bytes", "tokens"):
            raise ConfigError(f"takes: expected 'text', 'bytes', 'tokens' or None, got {takes!r}")
        self.patcher = patcher
        self._is_native = hasattr(patcher, "patch_with_starts") and not isinstance(patcher, type)
        found = (patcher.patch, None) if self._is_native else _function_of(patcher)
        self._function: Callable[..., Any] = found[0]
        self._signature: inspect.Signature | None = found[1]
        self.takes: Takes = takes or _taken_by(self._signature)

    def __repr__(self) -> str:
        return f"PatcherAdapter({self.patcher!r})"

    @property
    def is_causal(self) -> bool:
        """True only where the wrapped object says so: no boundary depends on what follows."""
        return getattr(self.patcher, "is_causal", False) is True

    @property
    def threshold(self) -> float | None:
        """The wrapped object's threshold, None where it has none."""
        return getattr(self.patcher, "threshold", None)

    @property
    def entropy_model(self) -> Any:
        """The wrapped object's source of entropies, None where it has none."""
        return getattr(self.patcher, "entropy_model", None)

    @property
    def overlap(self) -> int:
        """Tokens that patches share, as the wrapped object says; a net then takes the patches whole."""
        overlap = getattr(self.patcher, "overlap", 0)
        return overlap if isinstance(overlap, int) else 0

    @property
    def cache(self) -> Any:
        """The wrapped object's cache of entropies, None where it has none."""
        return getattr(self.patcher, "cache", None)

    @cache.setter
    def cache(self, cache: Any) -> None:
        self.patcher.cache = cache

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and self.__dict__.get("_is_native"):
            return getattr(self.patcher, name)
        raise AttributeError(f"PatcherAdapter has no attribute {name!r}")

    def __call__(self, tokens: Any, *more: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        """The same as `patch`."""
        return self.patch(tokens, *more, **options)

    def patch(
        self, tokens: Any, include_next_token: bool = False, entropies: Any = None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Cut every row, at the starts of its patches where these overlap; as `Patcher.patch`.

        Args:
            tokens: As `Patcher.patch` takes them.
            include_next_token: Rows are one token longer than the tokens.
            entropies: `(batch, length)` nats.
            **options: More for the wrapped object.

        Returns:
            `(patch_lengths, scores)`: `(batch, num_patches)` int64, right-padded with 0, and `(batch, length)`
            float32, 0 in padding, or None where there are no scores.

        Raises:
            ConfigError: An option that the wrapped object does not take.
            PatchingError: Rows that are none, or an answer that is not understood.
        """
        if include_next_token:
            options["include_next_token"] = True
        if self._is_native:
            return self.patcher.patch(tokens, **options, **({} if entropies is None else {"entropies": entropies}))
        rows = read_rows(tokens)
        given = None if entropies is None else given_scores(entropies, rows)
        cuts = []
        for index, length in enumerate(rows.lengths.tolist()):
            if given is not None:
                options["entropies"] = given[index : index + 1, :length]
            cuts.append(self._cut(rows.row(index), options, int(include_next_token)))
        totals = rows.lengths + int(include_next_token)
        lengths = [np.diff(cut.starts, append=total) for cut, total in zip(cuts, totals, strict=True)]
        scores = [cut.scores[0] for cut in cuts if cut.scores is not None]
        device = rows.tokens.device
        return (
            _padded([torch.from_numpy(row) for row in lengths]).to(device),
            _padded(scores).to(device) if scores and len(scores) == len(cuts) else None,
        )

    def patch_with_starts(self, tokens: Any, **options: Any) -> PatchedRows:
        """As `patch`; a foreign object's starts all count as known, which is why it must say that it is causal."""
        if self._is_native:
            return self.patcher.patch_with_starts(tokens, **options)
        rows = read_rows(tokens)
        lengths, scores = self.patch(rows.tokens, **options)
        return PatchedRows(lengths, scores, torch.ones_like(rows.tokens, dtype=torch.bool))

    def patch_with_boundaries(self, sequence: Any) -> tuple[list[Any], Tensor]:
        """The pieces of one sequence, and where they begin; as `Patcher.patch_with_boundaries`.

        Args:
            sequence: str, bytes or a 1-D token tensor.

        Returns:
            `(patches, boundaries)`: the pieces, each of the type of `sequence`, and `(num_patches,)` int64
            0-based first tokens (bytes).

        Raises:
            PatchingError: No sequence, or an answer that is not understood.
        """
        if self._is_native and hasattr(self.patcher, "patch_with_boundaries"):
            return self.patcher.patch_with_boundaries(sequence)
        if self._is_native:
            return self.adapt_patcher_output(self.patcher.patch([sequence])[0], sequence)
        return _pieces(sequence, self._cut(sequence_tokens(sequence), {}))

    def adapt_patcher_output(self, output: Any, sequence: Any) -> tuple[list[Any], Tensor]:
        """What a patcher gave for a sequence, as pieces and boundaries.

        Args:
            output: Any of the forms that the class lists.
            sequence: str, bytes or a 1-D token tensor.

        Returns:
            `(patches, boundaries)` as `patch_with_boundaries` gives them.

        Raises:
            PatchingError: The output is not understood, or does not belong to the sequence.
        """
        row = given_row(sequence_tokens(sequence), "tokens" if self._is_native else self.takes)
        return _pieces(sequence, read_answer(output, row, 0))

    def _cut(self, tokens: NDArray[np.int64], options: Mapping[str, Any], num_next: int = 0) -> Cut:
        if not tokens.size and not num_next:
            return Cut(np.zeros(0, np.int64), np.zeros(0, np.int64), torch.zeros(1, 0))
        _check_options(self._signature, options)
        row = given_row(tokens, self.takes)
        return read_answer(self._function(row.given, **options), row, num_next)


def _function_of(patcher: Any) -> tuple[Callable[..., Any], inspect.Signature | None]:
    """What to call with a sequence, and its signature where it has one; for tokenizers None, as they take text."""
    if isinstance(patcher, type):
        raise ConfigError(f"patcher: expected an object, got the class {patcher.__name__}; make one of it")
    for name in ("patch_with_boundaries", "patch"):
        method = getattr(patcher, name, None)
        if callable(method):
            return method, _signature(method)
    if hasattr(patcher, "is_fast"):
        if not patcher.is_fast:
            raise ConfigError("patcher: expected a fast tokenizer, whose tokens have offsets, got a slow one")
        plain = {"add_special_tokens": False, "truncation": False, "padding": False, "verbose": False}
        return partial(patcher, return_offsets_mapping=True, **plain), None
    if hasattr(patcher, "encode") and hasattr(patcher, "token_to_id"):
        return partial(_uncut(patcher).encode, add_special_tokens=False), None
    if callable(patcher):
        return patcher, _signature(patcher.forward if isinstance(patcher, nn.Module) else patcher)
    raise ConfigError(
        "patcher: expected an object with patch or patch_with_boundaries, a fast tokenizer or a callable, got "
        f"{type(patcher).__name__}"
        + ("; a tokenizer by its name is Patcher(patching_mode='bpe', model_name=...)" * isinstance(patcher, str))
    )


def _uncut(tokenizer: Any) -> Any:
    """The tokenizer, or a copy of it that neither truncates nor pads."""
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return None


def _taken_by(signature: inspect.Signature | None) -> Takes:
    first = next(iter(signature.parameters.values()), None) if signature else None
    if first is None:
        return "text"
    note = first.annotation
    words = set(re.findall(r"\w+", note.__name__ if isinstance(note, type) else str(note)))
    kinds: dict[str, Takes] = {"str": "text", "Tensor": "tokens", "bytes": "bytes"}
    return next((kind for word, kind in kinds.items() if word in words), None) or (
        "tokens" if first.name in TOKEN_NAMES else "text"
    )


def _check_options(signature: inspect.Signature | None, options: Mapping[str, Any]) -> None:
    parameters = signature.parameters if signature else {}
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    unknown = [name for name in options if name not in parameters]
    if unknown:
        raise ConfigError(f"{unknown[0]}: expected nothing, since the wrapped patcher has no such parameter")


def _pieces(sequence: Any, cut: Cut) -> tuple[list[Any], Tensor]:
    spans = list(zip(cut.starts.tolist(), cut.ends.tolist(), strict=True))
    starts = torch.from_numpy(cut.starts)
    if isinstance(sequence, Tensor):
        return [sequence[start:end] for start, end in spans], starts
    data = sequence.encode() if isinstance(sequence, str) else bytes(sequence)
    pieces = [data[start:end] for start, end in spans]
    if isinstance(sequence, str):
        return [piece.decode(errors="surrogateescape") for piece in pieces], starts
    return pieces, starts


def _padded(rows: Sequence[Tensor]) -> Tensor:
    if not rows:
        return torch.zeros(0, 0, dtype=torch.int64)
    return pad_sequence(list(rows), batch_first=True)
