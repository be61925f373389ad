"""Patcher: one mode, one device, the whole stage from tokens or text to patch lengths.

    rows of tokens -> scores -> patch starts -> patch lengths, with the minimum and the cap in force

Rows never influence each other: a row gives the same alone and in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hyena_glt.checks import build_config
from hyena_glt.config import PatchingModeEnum
from hyena_glt.entropies import entropy
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching.advice import LOOK_AT_ROWS, Adviser
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.batch_lengths import close_starts, lay_out, no_columns, patch_in_one_pass
from hyena_glt.patching.bpe_starts import predict_delimiters
from hyena_glt.patching.devices import resolve_device
from hyena_glt.patching.entropy_cache import EntropyCache
from hyena_glt.patching.given import given_logits, given_predictions, given_scores
from hyena_glt.patching.pieces import Pieces, cut_pieces
from hyena_glt.patching.rows import TokenRows, read_rows
from hyena_glt.patching.sources import (
    AutoEntropy,
    Scored,
    model_device,
    resolve_bpe_network,
    resolve_source,
    score_rows,
)
from hyena_glt.patching.start_masks import StartRequest, find_starts
from hyena_glt.patching.step_clock import StepClock, new_log
from hyena_glt.patching.tokenizer_starts import find_tokenizer_file, load_tokenizer, tokenizer_start_mask

NO_STARTS = torch.zeros(0, 0, dtype=torch.bool)


class PatchedRows(NamedTuple):
    """Patches of token rows, and which of their starts the past alone gives."""

    patch_lengths: Tensor  # (batch, num_patches) int64, right-padded with 0
    scores: Tensor | None  # (batch, length) float32 nats, 0 in padding; None in modes without scores
    known_starts: Tensor  # (batch, length) bool, False exactly at starts that only the forced mask made


class Patcher:
    """Cuts rows of tokens into patches.

    The tokens 0 and 1 of a row start a patch in every mode that finds boundaries, by BLT's convention of a BOS token;
    without one the first base is a patch of its own. Exceptions are `delimiter_chars` and a tokenizer.

    Args:
        args: Options; the patcher follows later changes to them.
        cache: Keeps entropies by content, for rows that come again; None keeps none. May be set later.
        **fields: The fields of `PatcherArgs`, in place of `args`.

    Raises:
        ConfigError: Unknown or contradicting options.
        ModelFileError: A saved model that cannot be read.
        SystemProblem: CUDA is asked for and not there.

    Example:
        >>> patcher = Patcher(patching_mode="static", patch_size=4)
        >>> patcher.patch(["ACGTAC", "ACG"])[0].tolist()
        [[4, 2], [3, 0]]
    """

    args: PatcherArgs
    log: dict[str, float]  # seconds of each step since the start, and the tokens patched
    cache: EntropyCache | None  # of the entropies that the patcher computes; not saved with it

    def __init__(self, args: PatcherArgs | None = None, *, cache: EntropyCache | None = None, **fields: Any) -> None:
        if args is not None and fields:
            raise ConfigError(f"Patcher: expected args or fields, got args and {', '.join(fields)}")
        self.__dict__["args"] = args if args is not None else build_config(PatcherArgs, fields)
        self.__dict__["log"] = new_log()
        self.__dict__["cache"] = cache
        self.__dict__["_adviser"] = Adviser()
        self.__dict__["_kept"] = {}  # what was loaded, and the options that named it
        self._check()
        self._adviser.about_options(self.args)

    def _check(self) -> None:
        """Find what is wrong with the options, and files that are not there, before any token arrives."""
        resolve_device(self.args.device)
        resolve_device(self.args.patching_device, "patching_device")
        self.args.check_options()
        names_file = isinstance(self.args.entropy_model, str | PathLike)
        if self.args.uses_scores and (names_file or self.args.entropy_model_checkpoint_dir is not None):
            self._source()
        if self._uses_tokenizer:
            find_tokenizer_file(str(self.args.model_name))

    def __getattr__(self, name: str) -> Any:
        if name in PatcherArgs.model_fields and "args" in self.__dict__:
            return getattr(self.args, name)
        raise AttributeError(f"Patcher has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in PatcherArgs.model_fields:
            setattr(self.args, name, value)
        else:
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Patcher({self.args!r})"

    def __call__(self, tokens: Any, *more: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        """The same as `patch`."""
        return self.patch(tokens, *more, **options)

    @property
    def is_causal(self) -> bool:
        """False where a boundary can depend on what follows: top-k, a tokenizer's merges, overlap, `auto`."""
        if not self.args.uses_scores:
            return not (self._uses_tokenizer or self.args.overlap)
        scored_elsewhere = self.args.patching_mode is PatchingModeEnum.track or self.args.model_name is not None
        source = None if scored_elsewhere and self.args.entropy_model is None else self._source()
        return self.args.threshold is not None and bool(getattr(source, "is_causal", True))

    def patch(
        self,
        tokens: Any,
        include_next_token: bool = False,
        entropies: Any = None,
        preds: Any = None,
        threshold: float | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Cut every row into patches.

        Args:
            tokens: `(batch, length)` integers with PAD (-1) in the tails of shorter rows, a str, bytes, or a
                list of str, byte arrays and 1-D token tensors of unequal lengths.
            include_next_token: Rows are one token longer than the tokens.
            entropies: `(batch, length)` nats in place of the entropy model's.
            preds: Logits `(batch, length, vocab)` made after each token: their entropy counts in entropy
                mode, their argmax in bpe_patcher mode, which takes `(batch, length)` predictions of a
                delimiter as well.
            threshold: Nats, in place of `args.threshold`.

        Returns:
            `(patch_lengths, scores)`: `(batch, num_patches)` int64, right-padded with 0, each row summing to
            its length; and `(batch, length)` float32 nats, 0 in padding, or None in modes without scores.

        Raises:
            PatchingError: Wrong shapes or dtypes, NaN, or PAD inside a row.
            ConfigError: Nothing to score the tokens with.
        """
        patched = self._patch(tokens, include_next_token, entropies, preds, threshold, wants_known=False)
        return patched.patch_lengths, patched.scores

    def patch_with_starts(
        self,
        tokens: Any,
        include_next_token: bool = False,
        entropies: Any = None,
        preds: Any = None,
        threshold: float | None = None,
    ) -> PatchedRows:
        """As `patch`, together with which starts could be known before their token was seen."""
        return self._patch(tokens, include_next_token, entropies, preds, threshold, wants_known=True)

    def patch_with_boundaries(self, sequence: Any) -> tuple[Pieces, Tensor]:
        """The pieces of one sequence, and where they begin.

        In static mode with `overlap`, each piece has `patch_size` tokens and shares `overlap` with the next.
        With `preserve_delimiters=False`, space mode leaves the delimiters out of the pieces.

        Args:
            sequence: str, bytes or a 1-D token tensor.

        Returns:
            `(patches, boundaries)`: the pieces, each of the type of `sequence`, and `(num_patches,)` int64
            0-based first tokens (bytes). A piece that is no whole text keeps its bytes as surrogate escapes.

        Raises:
            PatchingError: Another type.
        """
        if isinstance(sequence, list | tuple):
            raise PatchingError("sequence: expected one str, bytes or 1-D tokens, got a list; use patch for many")
        lengths, _ = self.patch([sequence])
        return cut_pieces(sequence, lengths[0].cpu(), self.args)

    @contextmanager
    def timing_context(self) -> Iterator[dict[str, float]]:
        """Keep seconds per step in `log` within the block, whatever `log_time` says outside."""
        before = self.args.log_time
        self.args.log_time = True
        try:
            yield self.log
        finally:
            self.args.log_time = before

    def save(self, folder: str | PathLike[str]) -> None:
        """Write `patcher.json` and, beside it, the entropy model or tokenizer it refers to.

        Raises:
            ConfigError: A source that cannot be saved (a callable, or an object that is none of this package's).
            SystemProblem: The folder cannot be written.
        """
        from hyena_glt.patching.saved import save_patcher

        save_patcher(folder, self.args)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Patcher:
        """Read what `save` wrote.

        Raises:
            ModelFileError: A file is missing, damaged or not the one that was saved.
        """
        from hyena_glt.patching.saved import load_patcher

        return cls(load_patcher(folder))

    def _patch(
        self,
        tokens: Any,
        include_next: bool,
        entropies: Any,
        preds: Any,
        threshold: float | None,
        wants_known: bool,
    ) -> PatchedRows:
        rows = read_rows(tokens, self.args.encoding, resolve_device(self.args.device))
        threshold = self.args.threshold if threshold is None else threshold
        if threshold is not None and math.isnan(threshold):
            raise PatchingError("threshold: expected nats, got NaN")
        clock = StepClock(self.log if self.args.log_time else None)
        scored = self._score(rows, entropies, preds, threshold)
        predictions = self._predict(rows, preds)
        clock.lap("calculate_entropies")
        request = StartRequest(
            args=self.args,
            rows=rows,
            num_next=int(include_next),
            threshold=threshold,
            scores=scored and scored.scores,
            predictions=predictions,
            given=self._tokenized(rows),
        )
        if not wants_known and (scored is None or scored.forced is None):
            at_once = patch_in_one_pass(request)
            if at_once is not None:
                if at_once.is_split is not None:
                    self._adviser.about_split(self.args, rows, at_once.is_split)
                clock.lap("find_entropy_patch_start_ids")
                clock.lap("patch_lengths_from_start_ids")
                clock.lap("postprocessing_patch_lengths", rows)
                return PatchedRows(at_once.lengths, request.scores, NO_STARTS)
        starts = find_starts(request)
        self._adviser.about_split(self.args, rows, starts[:LOOK_AT_ROWS, 2:].any(dim=1).cpu().numpy())
        clock.lap("find_entropy_patch_start_ids")
        known = np.ones(rows.tokens.shape, np.bool_) if wants_known else no_columns(rows.lengths.size)
        closed = close_starts(request, starts, scored and scored.forced, known)
        clock.lap("patch_lengths_from_start_ids")
        patch_lengths = lay_out(closed, rows)
        clock.lap("postprocessing_patch_lengths", rows)
        return PatchedRows(patch_lengths, request.scores, torch.from_numpy(known).to(rows.tokens.device))

    def _score(self, rows: TokenRows, entropies: Any, preds: Any, threshold: float | None) -> Scored | None:
        if not self.args.uses_scores:
            return None
        if entropies is not None:
            return Scored(given_scores(entropies, rows), None)
        if preds is not None:
            return Scored(given_scores(entropy(given_logits(preds, rows)), rows), None)
        if self.args.patching_mode is PatchingModeEnum.track and self.args.entropy_model is None:
            raise PatchingError("entropies: expected the track's scores in track mode, got None")
        source = self._source()
        if self.args.realtime_patching and isinstance(source, AutoEntropy):
            raise ConfigError(
                "realtime_patching: expected a model that scores tokens as they come (entropy_model or "
                "entropy_model_checkpoint_dir), got 'auto', which is fitted on the whole row"
            )
        if hasattr(source, "forced_starts") or not callable(source):
            self._adviser.about_scores(self.args, threshold, rows)
        score = score_rows if self.cache is None else self.cache.score_rows
        return score(source, rows, self.args)

    def _predict(self, rows: TokenRows, preds: Any) -> Tensor | None:
        if self.args.patching_mode is not PatchingModeEnum.bpe_patcher:
            return None
        if preds is not None:
            return given_predictions(preds, rows)
        network = self._source()
        if not callable(network):
            raise PatchingError(
                "preds: expected predictions in bpe_patcher mode, got None; pass preds, or a callable from "
                "tokens to logits, or the file that train-bpe-patcher wrote, as entropy_model"
            )
        device = model_device(network, self.args.patching_device)
        return predict_delimiters(rows.tokens, network, self.args.patching_batch_size, device)

    def _tokenized(self, rows: TokenRows) -> Tensor | None:
        if not self._uses_tokenizer:
            return None
        path, tokenizer = self._tokenizer()
        return tokenizer_start_mask(rows, tokenizer, self.args.encoding, path)

    @property
    def _uses_tokenizer(self) -> bool:
        return self.args.patching_mode is PatchingModeEnum.bpe and self.args.model_name is not None

    def _source(self) -> Any:
        """The source of the scores, or the network of bpe_patcher mode; loaded once while its options stay."""
        args = self.args
        named = (args.patching_mode, args.entropy_model, args.entropy_model_checkpoint_dir, args.model_name)
        resolve = resolve_bpe_network if args.patching_mode is PatchingModeEnum.bpe_patcher else resolve_source
        return self._loaded("source", named, lambda: resolve(args))

    def _tokenizer(self) -> tuple[Path, Any]:
        path = find_tokenizer_file(str(self.args.model_name))
        return path, self._loaded("tokenizer", (self.args.model_name,), lambda: load_tokenizer(path))

    def _loaded(self, what: str, named: tuple[Any, ...], load: Callable[[], Any]) -> Any:
        before, value = self._kept.get(what, ((), None))
        if len(before) != len(named) or any(old is not new for old, new in zip(before, named, strict=True)):
            value = load()
            self._kept[what] = (named, value)
        return value
