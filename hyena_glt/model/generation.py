"""Cached decoding: letters drawn one by one, patches decided as they come.

    prompt -> NetStream -> logits of the next byte -> allowed letters -> draw -> NetStream -> ...

Whether the next byte starts a patch is decided before it is drawn, so the trunk runs right before the first byte of a
patch and only then. Every row is a stream of its own: it gives the same alone and beside any others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hyena_glt.errors import ConfigError, DataError, PatchingError
from hyena_glt.model.inputs import check_tokens
from hyena_glt.model.sources import Piece, encode_piece, pad_rows, resolve_patcher
from hyena_glt.model.streaming import NetStream
from hyena_glt.patching.sources import likely_alphabet
from hyena_glt.sequences.alphabets import get_alphabet
from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID, ByteTokenizer

if TYPE_CHECKING:
    from hyena_glt.model.hyena_glt import HyenaGLT

ALPHABET_NAMES = ("dna", "rna", "protein", "bytes")
Stop = str | bytes | Sequence[str | bytes] | Callable[[bytes], bool]


class Generated(NamedTuple):
    """What `generate` gives with `return_scores`."""

    sequences: Any  # as without scores
    scores: Any  # (new bytes,) float32 nats of each sequence, log-probability of each drawn letter among the allowed


@dataclass(frozen=True, slots=True, eq=False)
class Letters:
    """What may be drawn."""

    ids: Tensor  # (letters,) int64, in the net's vocabulary
    tokens: Tensor  # (letters,) int64, as byte tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How a letter is chosen from the logits.

    Args:
        temperature: 0 takes the likeliest letter; above 1 the choice is flatter than the net's.
        top_k: Only the `top_k` likeliest letters; None: all.
        top_p: Only the likeliest letters that together reach this probability, after `top_k`; None: all.

    Raises:
        ConfigError: A value out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature: expected a number >= 0, got {self.temperature}; 0 is greedy")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k: expected at least 1 letter, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: expected a probability in (0, 1], got {self.top_p}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probability of each letter.

        Args:
            logits: `(letters,)`, finite.

        Returns:
            `(letters,)` float64; of letters with equal logits the earlier one counts as likelier.
        """
        values = logits.detach().double().cpu().numpy()
        top_k = 1 if self.temperature == 0 else self.top_k or values.size
        top_p = np.inf if self.top_p is None else self.top_p
        return torch.from_numpy(chances(values, self.temperature or 1.0, top_k, top_p))


@njit(cache=True, nogil=True)
def chances(logits, temperature, top_k, top_p):
    """Probability of each letter, `(letters,)` float64, as `Sampling` says; above 1, `top_p` leaves all letters."""
    order = np.argsort(-logits, kind="mergesort")[:top_k]
    kept = np.exp((logits[order] - logits[order[0]]) / temperature)
    kept /= kept.sum()
    before = 0.0
    for place in range(kept.size):
        chance = kept[place]
        if before >= top_p:
            kept[place] = 0.0
        before += chance
    result = np.zeros(logits.size)
    result[order] = kept / kept.sum()
    return result


@torch.inference_mode()
def generate(
    net: HyenaGLT,
    prompt: Piece | Sequence[Piece],
    max_new_tokens: int = 100,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    alphabet: str | None = None,
    num_return_sequences: int = 1,
    stop: Stop | None = None,
    include_prompt: bool = True,
    return_scores: bool = False,
    first_row: int = 0,
) -> Any:
    """Continue prompts by letters that a causal net draws one by one.

    Args:
        net: A causal net whose patcher decides from the past alone and can be streamed, or which learned to cut.
        prompt: str, bytes or 1-D byte tokens, not empty; a list of them, of any lengths; or 2-D tokens with PAD (-1)
            tails.
        max_new_tokens: Letters drawn for each row, at most.
        temperature, top_k, top_p: As in `Sampling`.
        seed: Of the draws, >= 0. Row `r` of the result draws from a stream made of the seed and `r`, so no row depends
            on the others.
        generator: Gives the seed, in place of `seed`; without both torch's default generator does.
        alphabet: What may be drawn: `"dna"`, `"rna"`, `"protein"`, `"bytes"`, or the letters themselves, such as
            `"ACGTN"`. None: the net's alphabet; a net over bytes takes that of the prompt.
        num_return_sequences: Continuations of each prompt, next to each other in the result.
        stop: Text after which a row ends, several of them, or a function of the new bytes. What made a row end stays
            in it.
        include_prompt: Put the prompt before the new letters.
        return_scores: Give log-probabilities as well.
        first_row: Number of the first row, where several calls make the rows of one run.

    Returns:
        Of the type of the prompt: str, bytes or 1-D tokens for one prompt; a list where a list was given or several
        sequences are asked for; 2-D tokens with PAD tails for 2-D tokens. With `return_scores` a `Generated`: that, and
        for each sequence `(new letters,)` float32 nats, the log-probability of each letter among the allowed ones at
        temperature 1, whatever the sampling.

    Raises:
        ConfigError: A net or patcher that needs the future, or options out of range.
        AlphabetError: Letters that the net's vocabulary does not have.
        DataError: An empty prompt, or logits that are not finite.
        PatchingError: A prompt that is no text, bytes or byte tokens.
    """
    _check(net, max_new_tokens, num_return_sequences, seed, generator)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    ends = _stop_condition(stop)
    prompts = _prompts(prompt)
    base = _base_seed(seed, generator)
    rows: list[tuple[Tensor, Tensor]] = []
    with _evaluation(net):
        for tokens in prompts:
            letters = allowed_letters(net, alphabet, tokens)
            stream = NetStream(net)
            logits = stream.feed(tokens).logits[0, -1] if max_new_tokens else None
            for copy in range(num_return_sequences):
                own = stream if copy == num_return_sequences - 1 else stream.fork()
                draws = np.random.default_rng((base, first_row + len(rows)))
                drawn, scores = _continue(own, logits, letters, sampling, draws, max_new_tokens, ends)
                rows.append((torch.cat([tokens, drawn]) if include_prompt else drawn, scores))
    sequences, found = [row for row, _ in rows], [scores for _, scores in rows]
    result, scored = _as_given(prompt, sequences, found, num_return_sequences)
    return Generated(result, scored) if return_scores else result


def allowed_letters(net: HyenaGLT, alphabet: str | None, prompt: Tensor) -> Letters:
    """What may be drawn after a prompt, `(length,)` byte tokens.

    Raises:
        AlphabetError: A letter that the net's vocabulary does not have.
        ConfigError: No letters.
    """
    named = net.config.alphabet_name if alphabet is None else alphabet
    if alphabet is None and named == "bytes":
        named = _alphabet_of(prompt)
    if named == "bytes":
        tokens = torch.arange(256) + OFFSET
    else:
        tokens = ByteTokenizer().encode(get_alphabet(named).letters if named in ALPHABET_NAMES else named)
    if not len(tokens):
        raise ConfigError("alphabet: expected letters, got none")
    ids = net.vocabulary_ids(tokens.unsqueeze(0))[0].tolist()
    first = dict(zip(reversed(ids), reversed(tokens.tolist()), strict=True))  # of equal ids the first letter
    chosen = sorted(first)
    return Letters(torch.tensor(chosen), torch.tensor([first[number] for number in chosen]))


def _alphabet_of(prompt: Tensor) -> str:
    """The alphabet that a prompt seems to be written in: nucleotides with U and no T are RNA."""
    name = likely_alphabet(prompt.numpy()).name
    text = ByteTokenizer().decode_bytes(prompt).upper()
    return "rna" if name == "dna" and b"U" in text and b"T" not in text else name


def _continue(
    stream: NetStream,
    logits: Tensor | None,
    letters: Letters,
    sampling: Sampling,
    draws: np.random.Generator,
    max_new_tokens: int,
    ends: Callable[[bytes], bool] | None,
) -> tuple[Tensor, Tensor]:
    """Draw letters after what the stream has seen: `(n,)` byte tokens and their `(n,)` log-probabilities."""
    drawn: list[int] = []
    scores: list[float] = []
    text = bytearray()
    ids = letters.ids.to(stream.net.device)
    tokens = letters.tokens.tolist()
    while logits is not None:
        choice, score = _draw(logits[ids].double().cpu(), sampling, draws, stream.state.num_bytes)
        drawn.append(tokens[choice])
        scores.append(score)
        text.append(tokens[choice] - OFFSET)
        if len(drawn) == max_new_tokens or (ends is not None and ends(bytes(text))):
            break
        logits = stream.feed(letters.tokens[choice : choice + 1]).logits[0, -1]
    return torch.tensor(drawn, dtype=torch.int64), torch.tensor(scores, dtype=torch.float32)


def _draw(logits: Tensor, sampling: Sampling, draws: np.random.Generator, position: int) -> tuple[int, float]:
    """The place of the chosen letter, and its log-probability at temperature 1."""
    values = logits.numpy()
    if not np.isfinite(values).all():
        raise DataError(f"logits are not finite after {position:,} bytes; the weights are damaged")
    if sampling.temperature == 0:
        choice = int(values.argmax())
    else:
        heights = sampling.probabilities(logits).numpy().cumsum()
        choice = int(heights.searchsorted(draws.random() * heights[-1], side="right"))
    highest = values.max()
    return choice, float(values[choice] - highest - np.log(np.exp(values - highest).sum()))


def _check(
    net: HyenaGLT, max_new_tokens: int, num_return_sequences: int, seed: int | None, generator: torch.Generator | None
) -> None:
    if not net.config.causal:
        raise ConfigError("generate: expected a causal net, got causal=False")
    patcher = resolve_patcher(net.config, net.external_patcher, None) if net.merger is None else None
    if not getattr(patcher, "is_causal", True):
        raise ConfigError(
            "patcher: expected boundaries that the past decides, got is_causal False (top-k, a tokenizer's merges or "
            "the entropy model 'auto'); use static mode, or entropy mode with a fitted entropy_model and a threshold"
        )
    for name, value, least in (
        ("max_new_tokens", max_new_tokens, 0),
        ("num_return_sequences", num_return_sequences, 1),
    ):
        if value < least:
            raise ConfigError(f"{name}: expected at least {least}, got {value}")
    if seed is not None and (seed < 0 or generator is not None):
        raise ConfigError(f"seed: expected a number >= 0 and no generator beside it, got {seed}")


def _prompts(prompt: Piece | Sequence[Piece]) -> list[Tensor]:
    """Byte tokens of every prompt, on the CPU."""
    if isinstance(prompt, Tensor) and prompt.ndim == 2:
        check_tokens(prompt)
        rows = [row[row != PAD_ID].long().cpu() for row in prompt]
    elif isinstance(prompt, str | bytes | bytearray | Tensor):
        rows = [encode_piece(prompt).cpu()]
    elif isinstance(prompt, Sequence):
        rows = [encode_piece(piece).cpu() for piece in prompt]
    else:
        raise PatchingError(f"prompt: expected text, bytes, tokens or a list of them, got {type(prompt).__name__}")
    for index, row in enumerate(rows):
        if not len(row):
            raise DataError("expected at least one symbol, got an empty prompt", record=f"prompt {index}")
    return rows


def _base_seed(seed: int | None, generator: torch.Generator | None) -> int:
    if seed is not None:
        return seed
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (1,), generator=generator, device=device))


def _stop_condition(stop: Stop | None) -> Callable[[bytes], bool] | None:
    if stop is None or callable(stop):
        return stop
    texts = [stop] if isinstance(stop, str | bytes) else stop
    endings = tuple(text.encode() if isinstance(text, str) else bytes(text) for text in texts)
    if not all(endings):
        raise ConfigError("stop: expected texts of at least one symbol, got an empty one")
    return lambda text: text.endswith(endings)


def _as_given(prompt: Any, rows: list[Tensor], scores: list[Tensor], count: int) -> tuple[Any, Any]:
    """Rows in the type of the prompt, and the scores beside them."""
    if isinstance(prompt, Tensor):
        if prompt.ndim == 2:
            return pad_rows(rows, PAD_ID).to(prompt.device), scores
        texts: list[Any] = [row.to(prompt.device) for row in rows]
    elif isinstance(prompt, str | bytes | bytearray):
        texts = [_decode(row, isinstance(prompt, str)) for row in rows]
    else:
        kinds = [piece for piece in prompt for _ in range(count)]
        return [_as_given(kind, [row], [], 1)[0] for kind, row in zip(kinds, rows, strict=True)], scores
    return (texts[0], scores[0] if scores else None) if count == 1 else (texts, scores)


def _decode(row: Tensor, as_text: bool) -> str | bytes:
    """Bytes of a row, or text that keeps what is no UTF-8 as surrogate escapes."""
    data = ByteTokenizer().decode_bytes(row)
    return data.decode("utf-8", errors="surrogateescape") if as_text else data


@contextmanager
def _evaluation(net: HyenaGLT) -> Iterator[None]:
    """Dropout off within the block."""
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)
