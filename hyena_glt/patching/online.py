"""Tokens in chunks of any size -> patch lengths, each as soon as its patch is complete.

    chunk -> symbols -> scores or starts (streamed) -> Scanner -> completed patches

What `feed` and `finish` give for the chunks of a sequence equals what `Patcher.patch` gives for the whole of it, in
memory that does not grow with the sequence.
"""

from __future__ import annotations

import codecs
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.config import PatchingModeEnum
from hyena_glt.entropies import entropy
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.bpe_starts import predicted_delimiters
from hyena_glt.patching.devices import resolve_device
from hyena_glt.patching.patcher import Patcher
from hyena_glt.patching.rows import BYTE_TYPES, as_bytes
from hyena_glt.patching.scan import Bools, Floats, Scanner, ScanRule
from hyena_glt.patching.stream_starts import ENDS_ALWAYS, ClassStarts, TokenStarts
from hyena_glt.tokens.byte_tokenizer import PAD_ID

Symbols = NDArray[np.uint8] | NDArray[np.int64]  # bytes, or tokens
GIVE_SCORES = "give entropies= with every chunk, or a MarkovEntropy fitted beforehand as entropy_model"


class OnlinePatcher:
    """Cuts sequences into patches as they arrive.

    The options are read when a sequence begins; changes to them count from the next sequence on. A patch is complete
    once the token after its last one is known to start a patch. A chunk that is refused leaves the state as it was.

    Args:
        patcher: Any mode but top-k and the merges of a tokenizer. In entropy mode its source must stream, as
            `MarkovEntropy` does; any other needs the scores given.

    Example:
        >>> online = OnlinePatcher(Patcher(patching_mode="static", patch_size=4))
        >>> online.feed("ACGTA").tolist(), online.feed("CGTACG").tolist(), online.finish().tolist()
        ([4], [4], [3])
    """

    def __init__(self, patcher: Patcher) -> None:
        self.patcher = patcher
        self._sequence: TokenSequence | None = None
        self._open_length = 0
        self._device = torch.device("cpu")  # of the lengths

    @property
    def open_length(self) -> int:
        """Tokens fed whose patch has not been returned yet."""
        return self._open_length

    def feed(self, chunk: Any, entropies: Any = None, preds: Any = None) -> Tensor:
        """Take the next tokens of the sequence.

        Args:
            chunk: str, bytes, a 1-D uint8 array of bytes, or 1-D integer tokens; may be empty.
            entropies: `(n,)` nats of these tokens, in place of the entropy model's; with every chunk of a sequence
                or with none.
            preds: `(n, vocab)` logits made after each of these tokens: their entropy counts in entropy mode, their
                argmax in bpe_patcher mode, which takes `(n,)` predictions of a delimiter as well.

        Returns:
            `(num_patches,)` int64 lengths of the patches completed so far and not yet returned, on the patcher's
            device, else where the first chunk of the sequence is.

        Raises:
            ConfigError: Boundaries that depend on what follows, or a source that cannot be streamed.
            PatchingError: PAD, NaN, wrong shapes or dtypes, or scores for some chunks of a sequence only.
        """
        sequence = self._sequence or TokenSequence(self.patcher)
        lengths = sequence.feed(sequence.symbols(chunk), entropies, preds)
        if self._sequence is None:
            self._device = _device(self.patcher.args, chunk)
        self._sequence = sequence
        self._open_length += sequence.taken - int(lengths.sum())
        return torch.from_numpy(lengths).to(self._device)

    def finish(self) -> Tensor:
        """End the sequence; the next `feed` begins another one.

        Returns:
            `(num_patches,)` int64, the rest: the patch that was open, if any.
        """
        sequence, self._sequence = self._sequence, None
        self._open_length = 0
        lengths = np.zeros(0, np.int64) if sequence is None else sequence.finish()
        return torch.from_numpy(lengths).to(self._device)


class TokenSequence:
    """The state carried between the chunks of one sequence."""

    def __init__(self, patcher: Patcher) -> None:
        self.taken = 0  # tokens of the chunk fed last
        self._patcher = patcher
        self._args = patcher.args.model_copy()
        _refuse_whole_sequence_modes(patcher)
        self._scanner = Scanner(ScanRule.from_args(self._args))
        in_tokens = self._args.patching_mode in (PatchingModeEnum.space, PatchingModeEnum.bpe)
        self._token_starts = TokenStarts(self._args) if in_tokens else None
        self._starts_predicted = ClassStarts(always=2)
        self._scored_by: str | None = None  # "entropies", "preds" or "model", once a token has come
        self._stream: Any = None  # of the model
        self._encoder: codecs.IncrementalEncoder | None = None

    def feed(self, symbols: Symbols, entropies: Any, preds: Any) -> NDArray[np.int64]:
        self.taken = symbols.size
        if self._args.uses_scores:
            scores, forced = self.score(symbols, entropies, preds)
            return self._scanner.feed(scores, forced)
        if self._args.patching_mode is PatchingModeEnum.bpe_patcher:
            return self._scanner.feed(self._predicted_starts(symbols, preds))
        return self._scanner.feed(symbols if self._token_starts is None else self._token_starts.feed(symbols))

    def finish(self) -> NDArray[np.int64]:
        tail = self._encoder.encode("", final=True) if self._encoder else b""  # encodings that end with a reset
        closed = self.feed(np.frombuffer(tail, np.uint8), None, None) if tail else np.zeros(0, np.int64)
        return np.concatenate([closed, self._scanner.finish()])

    def symbols(self, chunk: Any) -> Symbols:
        """The bytes of text and byte arrays, the tokens of anything else."""
        if isinstance(chunk, str):
            return np.frombuffer(self._encode(chunk), np.uint8)
        is_bytes = isinstance(chunk, np.ndarray) and chunk.dtype == np.uint8 and chunk.ndim == 1
        return as_bytes(chunk) if is_bytes or isinstance(chunk, BYTE_TYPES) else _tokens(chunk)

    def _encode(self, text: str) -> bytes:
        encoder = self._encoder or codecs.getincrementalencoder(self._args.encoding)()
        before = encoder.getstate()
        try:
            encoded = encoder.encode(text)
        except UnicodeEncodeError as problem:
            encoder.setstate(before)
            raise PatchingError(
                f"text: expected characters of {self._args.encoding}, got {text[problem.start]!r} at "
                f"{problem.start} of the chunk"
            ) from None
        self._encoder = encoder
        return encoded

    def score(self, symbols: Symbols, entropies: Any, preds: Any) -> tuple[Floats, Bools | None]:
        """Scores of the next tokens and the starts that their source forces, in the modes that use scores."""
        scored_by = "model" if entropies is None and preds is None else "preds" if entropies is None else "entropies"
        if not symbols.size and scored_by == "model":
            return np.zeros(0, np.float32), None
        if self._scored_by not in (None, scored_by):
            raise PatchingError(
                f"chunk: expected scores from {self._scored_by} as in the chunks before, got them from {scored_by}; "
                "finish() ends the sequence"
            )
        if scored_by == "model":
            scores, forced = self._score_by_model(symbols)
        else:
            scores, forced = _given_scores(entropies, preds, symbols), None
        self._scored_by = scored_by
        return scores, forced

    def _score_by_model(self, symbols: Symbols) -> tuple[Floats, Bools | None]:
        if self._stream is None:
            self._stream = _open_stream(self._patcher)
        scored = self._stream.feed(symbols.tobytes() if symbols.dtype == np.uint8 else symbols)
        return np.asarray(scored.entropies, np.float32), getattr(scored, "forced_starts", None)

    def _predicted_starts(self, symbols: Symbols, preds: Any) -> Bools:
        if preds is None and symbols.size:
            raise ConfigError(
                "preds: expected predictions with every chunk in bpe_patcher mode, got None; a network that looks at "
                "windows cannot be streamed exactly"
            )
        if preds is None:
            return np.zeros(0, np.bool_)
        values = _as_tensor(preds).cpu()
        found = predicted_delimiters(values[None])[0].numpy()
        _check_fit("preds", tuple(values.shape), symbols)
        return self._starts_predicted.feed(found.astype(np.uint8) * np.uint8(ENDS_ALWAYS))


def _refuse_whole_sequence_modes(patcher: Patcher) -> None:
    """Raise a ConfigError in modes that no score can make causal."""
    if patcher.args.uses_scores or patcher.is_causal or patcher.args.overlap:  # `ScanRule.from_args` refuses overlap
        return
    raise ConfigError(
        "model_name: a tokenizer's merges depend on what follows and cannot be decided online; use Patcher.patch, "
        "or bpe mode with delimiters in the tokens"
    )


def _open_stream(patcher: Patcher) -> Any:
    """The stream of the patcher's source.

    Raises:
        ConfigError: `auto`, a callable without state, or a source without a stream.
        PatchingError: Track mode, whose scores are given.
    """
    if patcher.args.patching_mode is PatchingModeEnum.track and patcher.args.entropy_model is None:
        raise PatchingError("entropies: expected the track's scores in track mode, got None")
    if not patcher.is_causal:
        raise ConfigError(
            f"entropy_model: 'auto' (or a source that is not causal) needs the whole sequence; {GIVE_SCORES}"
        )
    source = patcher._source()
    if not hasattr(source, "stream"):
        raise ConfigError(
            f"entropy_model: {type(source).__name__} keeps no state between chunks, so it cannot be streamed exactly; "
            f"{GIVE_SCORES}"
        )
    return source.stream()


def _given_scores(entropies: Any, preds: Any, symbols: Symbols) -> Floats:
    name, values = ("entropies", entropies) if entropies is not None else ("preds", preds)
    values = _as_tensor(values)
    expected = ("(n,)", 1) if name == "entropies" else ("(n, vocab)", 2)
    if (values.numel() and not values.is_floating_point()) or values.dim() != expected[1]:
        raise PatchingError(f"{name}: expected floating point {expected[0]}, got {values.dtype} {tuple(values.shape)}")
    _check_fit(name, tuple(values.shape), symbols)
    scores = values if name == "entropies" else entropy(values)
    return scores.to("cpu", torch.float32).numpy()


def _as_tensor(values: Any) -> Tensor:
    """A tensor itself, anything else copied: torch warns of arrays that may not be written to."""
    return values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.array(values))


def _check_fit(name: str, shape: tuple[int, ...], symbols: Symbols) -> None:
    if shape[:1] != symbols.shape:
        raise PatchingError(
            f"{name}: expected one entry for each of the {symbols.size} tokens of the chunk, got {shape}"
        )


def _tokens(chunk: Any) -> NDArray[np.int64]:
    """1-D tokens of a tensor or an array.

    Raises:
        PatchingError: Another type, shape or dtype, or PAD.
    """
    if not isinstance(chunk, Tensor | np.ndarray):
        raise PatchingError(f"chunk: expected str, bytes or 1-D tokens, got {type(chunk).__name__}")
    values = _as_tensor(chunk)
    if values.dim() != 1 or values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise PatchingError(f"chunk: expected 1-D integer tokens, got {values.dtype} {tuple(values.shape)}")
    tokens = values.cpu().numpy().astype(np.int64)
    if tokens.size and tokens.min() < 0:
        place = int((tokens < 0).argmax())
        raise PatchingError(
            f"chunk: expected ids >= 0, got {tokens[place]} at token {place}; a stream holds no PAD ({PAD_ID}), "
            "cut the row at its end"
        )
    return tokens


def _device(args: PatcherArgs, chunk: Any) -> torch.device:
    """Where lengths go: the patcher's device, else where the chunk is."""
    there = chunk.device if isinstance(chunk, Tensor) else torch.device("cpu")
    return resolve_device(args.device) or there
