"""Entropies from a network: any causal network over bytes as an entropy source, in windows on a fixed plan.

The network sees canonical tokens: letters in upper case, one spelling of U and T, and one token for everything that
is no letter of the alphabet. Its prediction is taken over the letters alone, renormalised (over A C G T for DNA), so
that figures compare with those of the table models. Entropies are rounded to `ENTROPY_STEP` nats: rounding in the last
bits of the logits, which another machine or thread count may bring, then leaves nearly all of them equal to the bit,
and a threshold that was calibrated on one of them falls on the same side again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hyena_glt.entropies.byte_network import ByteNetwork, ByteNetworkConfig, network_from_config
from hyena_glt.entropies.network_files import load_network, save_network, weights_sha256
from hyena_glt.entropies.network_fit import (
    AfterStep,
    FitOptions,
    FitResult,
    LabelledSequences,
    Progress,
    fit_network,
    next_symbols,
)
from hyena_glt.entropies.sequence_entropy import SequenceEntropy
from hyena_glt.entropies.shannon import entropy
from hyena_glt.entropies.symbols import RunEdges, Scores, bits_per_letter, symbol_codes
from hyena_glt.entropies.windows import WindowPlan, network_device, windowed_logits
from hyena_glt.errors import AlphabetError, ConfigError, ModelFileError, PatchingError
from hyena_glt.sequences.alphabets import Alphabet, get_alphabet
from hyena_glt.tokens.byte_tokenizer import OFFSET

FORMAT = "hyena-glt/neural/1"
ENTROPY_STEP = 2.0**-16  # nats: far above the rounding of logits, far below what thresholds are told apart by
DEFAULT_WINDOW = 8192
AMBIGUOUS_SYMBOL = {"dna": "N", "rna": "N", "protein": "X"}
STRANDED = ("dna", "rna")


class NeuralEntropy(SequenceEntropy):
    """A network as an entropy source. Build it from a network, or with `fit`, `load` or `from_pretrained`.

    Ambiguity symbols and whatever is no letter reach the network as one token, N (X for proteins); their own entropy
    and surprise are 0 and the edges of their runs are `forced_starts`, as in the table models. Unlike there, the
    network goes on seeing the letters before a run. The first symbol of a sequence costs `ln(letters)`.

    On the CPU scores do not depend on batch, length or chunking, bit for bit. Another batch size, thread count or
    machine may change the last bits of the logits.

    Args:
        network: Causal: `(rows, length)` int64 byte tokens (`byte + 4`) to logits, or an object that has them as
            `.logits`; with one output a letter, in the order of the alphabet, or one a token (260 or more).
        alphabet: "dna", "rna", "protein" or "bytes".
        window: Tokens that the network sees at once; every call costs a whole window, so short reads want a small one.
        overlap: First tokens of a window that are context only; None takes the network's reach, half the window at
            most.
        batch_size: Windows in one call; None takes 1 on the CPU, 16 on a GPU.
        device: Where the network runs: "auto" leaves it where it is.
        name: What outputs call it.
        held_out_bits: Bits per letter of sequence it was not trained on, if known.

    Raises:
        AlphabetError: Unknown alphabet.
        ConfigError: Sizes that cannot be.
        SystemProblem: CUDA is asked for and not there.

    Example:
        >>> model = NeuralEntropy(ByteNetwork(width=8, outputs=4), window=64)
        >>> model.entropies("ACGTACGT").shape
        (8,)
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        *,
        alphabet: str | Alphabet = "dna",
        window: int = DEFAULT_WINDOW,
        overlap: int | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        name: str = "neural",
        held_out_bits: float | None = None,
    ) -> None:
        if not callable(network):
            raise ConfigError(f"network: expected a callable from tokens to logits, got {type(network).__name__}")
        self.alphabet = get_alphabet(alphabet)
        self.name = name
        self.held_out_bits = held_out_bits
        self.fit_result: FitResult | None = None  # of `fit`; it is not saved
        self.network = network.eval() if isinstance(network, nn.Module) else network
        reach = getattr(network, "reach", None)
        overlap = min(window // 2, window if reach is None else reach) if overlap is None else overlap
        self.plan = WindowPlan(window, overlap, 1 if batch_size is None else batch_size)
        self._default_batch = batch_size is None
        self._tokens_of_codes = token_of_codes(self.alphabet)
        self.to(device)

    def to(self, device: str) -> Self:
        """Move the network, and take that device's batch size unless one was given; returns self.

        Raises:
            ConfigError: No such kind of device.
            SystemProblem: CUDA is asked for and not there.
        """
        self.device = network_device(device, self.network)
        if isinstance(self.network, nn.Module):
            self.network.to(self.device)
        if self._default_batch:
            size = 1 if self.device.type == "cpu" else 16
            self.plan = WindowPlan(self.plan.window, self.plan.overlap, size)
        return self

    @classmethod
    def fit(
        cls,
        sequences: Iterable[Any] | str | bytes,
        alphabet: str | Alphabet = "dna",
        *,
        config: ByteNetworkConfig | None = None,
        options: FitOptions | None = None,
        held_out: float = 0.05,
        progress: Progress | None = None,
        state: Mapping[str, Tensor] | None = None,
        after_step: AfterStep | None = None,
        **source: Any,
    ) -> NeuralEntropy:
        """Train a `ByteNetwork` to predict the next letter; for DNA and RNA on both strands.

        Args:
            sequences: Strings, bytes or 1-D byte-token arrays; windows never cross from one to the next.
            alphabet: "dna", "rna", "protein" or "bytes".
            config: Sizes of the network; `outputs` is set to the number of letters.
            options: Of the training; None takes 500 steps.
            held_out: Share at the end of each sequence that is not learned, for `held_out_bits`; 0 for none.
            progress, state, after_step: As in `fit_network`.
            **source: More arguments of the class.

        Raises:
            DataError: Nothing to learn.
            ConfigError: A number out of range.
        """
        letters = get_alphabet(alphabet)
        if not 0.0 <= held_out < 1.0:
            raise ConfigError(f"held_out: expected a share from 0 to below 1, got {held_out}")
        listed = [sequences] if isinstance(sequences, str | bytes) else sequences
        coded = [symbol_codes(sequence, letters) for sequence in listed]
        learned, kept = split_ends(coded, held_out)
        config = (config or ByteNetworkConfig()).model_copy(update={"outputs": letters.size})
        tokens_of_codes = token_of_codes(letters)
        rows = both_strands(learned, letters)
        data = LabelledSequences(
            [tokens_of_codes[row] for row in rows], [next_symbols(row, letters.size) for row in rows]
        )
        beginning = int(tokens_of_codes[-1]) if letters.has_ambiguity else None
        network, result = fit_network(
            lambda: ByteNetwork(config),
            data,
            options or FitOptions(),
            first_token=beginning,
            progress=progress,
            state=state,
            after_step=after_step,
        )
        model = cls(network, alphabet=letters, **source)
        model.fit_result = result
        if any((row < letters.size).any() for row in kept):
            model.held_out_bits = bits_per_letter(model.score, [tokens_of_codes[row] for row in kept], letters)
        return model

    @classmethod
    def from_pretrained(cls, model_name: str, alphabet: str | Alphabet = "dna", **source: Any) -> NeuralEntropy:
        """A Hugging Face causal language model with one token a letter, from the disk; nothing is downloaded.

        Args:
            model_name: A folder, or the name of a model in the local cache.
            alphabet: "dna", "rna", "protein" or "bytes".
            **source: More arguments of the class.

        Raises:
            ConfigError: No such model on this machine, or a tokenizer that is not one token a letter.
            MissingExtraError: transformers is not installed.
            ModelFileError: Files that cannot be read.
        """
        from hyena_glt.entropies.causal_lm import causal_lm_network

        network = causal_lm_network(model_name, get_alphabet(alphabet))
        source = {"window": min(DEFAULT_WINDOW, network.max_length), "name": model_name, **source}
        return cls(network, alphabet=alphabet, **source)

    def score(self, codes: np.ndarray) -> Scores:
        """Entropies, surprises and forced starts of the symbol codes of one sequence, `(length,)` uint8."""
        return self.stream().feed(np.asarray(codes, dtype=np.uint8))

    def stream(self) -> NeuralStream:
        """A scorer that takes one sequence in blocks of any size."""
        return NeuralStream(self)

    def describe(self) -> dict[str, Any]:
        """Name, alphabet, windows, network and hash of its weights, as they appear in outputs."""
        network = self.network
        about: dict[str, Any] = {
            "name": self.name,
            "alphabet": self.alphabet.name,
            "window": self.plan.window,
            "overlap": self.plan.overlap,
            "bits_per_base": None if self.held_out_bits is None else round(self.held_out_bits, 6),
            "network": network.config.model_dump() if isinstance(network, ByteNetwork) else type(network).__name__,
        }
        if isinstance(network, nn.Module):
            about["parameters"] = sum(weight.numel() for weight in network.parameters())
            about["weights_sha256"] = weights_sha256(network)
        return about

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write network and windows as one safetensors file, whole or not at all.

        Raises:
            ConfigError: A network that is no `ByteNetwork`.
            ModelFileError: A weight is NaN or infinite.
        """
        if not isinstance(self.network, ByteNetwork):
            raise ConfigError(
                f"network: expected a ByteNetwork to save, got {type(self.network).__name__}; keep that model where "
                "it is and name it"
            )
        about = {
            "format": FORMAT,
            "name": self.name,
            "alphabet": self.alphabet.name,
            "window": self.plan.window,
            "overlap": self.plan.overlap,
            "held_out_bits": self.held_out_bits,
            "network": self.network.config.model_dump(),
        }
        save_network(path, self.network, about, overwrite=overwrite)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, device: str = "auto", batch_size: int | None = None
    ) -> NeuralEntropy:
        """Read a model that `save` wrote; "auto" leaves it on the CPU.

        Raises:
            ModelFileError: Not such a file, damaged, or weights that do not fit its description.
        """
        network, about = load_network(path, FORMAT, network_from_config)
        try:
            bits = about["held_out_bits"]
            model = cls(
                network,
                alphabet=str(about["alphabet"]),
                window=about["window"],
                overlap=about["overlap"],
                batch_size=batch_size,
                name=str(about["name"]),
                held_out_bits=None if bits is None else float(bits),
            )
        except (KeyError, TypeError, ValueError, AlphabetError, ConfigError) as problem:
            raise ModelFileError(f"damaged description ({problem}); save the model again", path=path) from None
        _check_outputs(network, model.alphabet, path)
        return model.to(device)


class NeuralStream:
    """Scores one sequence block by block; the blocks' results joined equal the whole sequence's.

    Keeps the tokens of the window that the next symbol falls into and runs that window again for every block: blocks
    of many windows cost what the whole sequence costs, blocks of one symbol a window each.
    """

    def __init__(self, model: NeuralEntropy) -> None:
        self.model = model
        self.seen = 0  # symbols fed so far
        self._origin = 0  # position of the first kept token
        self._tokens = np.zeros(0, np.int16)
        self._expected: NDArray[np.float32] | None = None  # (letters,) ln p of the next symbol; None at the start
        self._edges = RunEdges()

    def feed(self, block: Any, out: np.ndarray | None = None) -> Scores:
        """Scores of the next block of symbols.

        Args:
            block: Text, tokens, or codes from `Alphabet.encode`.
            out: `(2, length)` float32, where entropies and surprises are put; None takes fresh memory.

        Raises:
            PatchingError: NaN from the network, or logits of another shape.
        """
        is_codes = isinstance(block, np.ndarray) and block.dtype == np.uint8
        codes = block if is_codes else symbol_codes(block, self.model.alphabet)
        entropies, surprises = np.empty((2, codes.size), dtype=np.float32) if out is None else out
        ambiguous = codes >= self.model.alphabet.size
        if codes.size:
            self._score(codes, entropies, surprises)
            entropies[ambiguous] = 0.0
            surprises[ambiguous] = 0.0
        return Scores(entropies, surprises, self._edges.feed(ambiguous))

    def _score(self, codes: np.ndarray, entropies: np.ndarray, surprises: np.ndarray) -> None:
        model, begin = self.model, self.seen
        letters = model.alphabet.size
        symbols = np.minimum(codes, letters - 1).astype(np.int64)
        tokens = np.concatenate([self._tokens, model._tokens_of_codes[codes]])
        expected = np.full(letters, -math.log(letters), np.float32) if self._expected is None else self._expected
        surprises[0] = -expected[symbols[0]]
        for window in windowed_logits(
            model.network, model.plan, tokens, origin=self._origin, first=begin, device=model.device
        ):
            first = window.position - begin
            predicted = letter_logits(window.logits, model.alphabet)
            values = entropy(predicted)[window.part].cpu().numpy()
            if np.isnan(values).any():
                raise PatchingError("entropies: expected finite values, got NaN from the network; check its weights")
            entropies[first : first + values.size] = np.rint(values / ENTROPY_STEP) * ENTROPY_STEP
            log_probabilities = predicted.log_softmax(dim=-1)[window.part].cpu().numpy()
            following = symbols[first + 1 : first + 1 + values.size]
            seen = np.take_along_axis(log_probabilities[: following.size], following[:, None], axis=1)
            surprises[first + 1 : first + 1 + following.size] = -seen[:, 0]
            expected = log_probabilities[-1]
        self._expected = expected
        self.seen = begin + codes.size
        kept_from = model.plan.owner(self.seen) * model.plan.step
        self._tokens, self._origin = tokens[kept_from - self._origin :].copy(), kept_from


def token_of_codes(alphabet: Alphabet) -> NDArray[np.int16]:
    """The token that a network sees for each code, `(256,)`; the last entry is the one of all ambiguity symbols."""
    tokens = np.arange(256, dtype=np.int16) + OFFSET
    if alphabet.has_ambiguity:
        tokens[:] = ord(AMBIGUOUS_SYMBOL[alphabet.name]) + OFFSET
        tokens[: alphabet.size] = np.frombuffer(alphabet.letters.encode(), np.uint8).astype(np.int16) + OFFSET
    return tokens


def letter_logits(logits: Tensor, alphabet: Alphabet) -> Tensor:
    """The columns of an alphabet's letters, in its order.

    Args:
        logits: `(n, outputs)`: one output a letter, or one a byte token.
        alphabet: The letters.

    Raises:
        PatchingError: Another number of outputs.
    """
    outputs = logits.shape[-1]
    if outputs == alphabet.size:
        return logits
    if outputs < 256 + OFFSET:
        raise PatchingError(
            f"logits: expected {alphabet.size} outputs, one a letter of {alphabet.name}, or at least {256 + OFFSET}, "
            f"one a byte token, got {outputs}"
        )
    return logits[..., [ord(letter) + OFFSET for letter in alphabet.letters]]


def split_ends(coded: Sequence[np.ndarray], share: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Each sequence without the given share at its end, and the ends."""
    ends = [row.size - round(row.size * share) for row in coded]
    pairs = list(zip(coded, ends, strict=True))
    return [row[:end] for row, end in pairs], [row[end:] for row, end in pairs]


def both_strands(coded: Sequence[np.ndarray], alphabet: Alphabet) -> list[np.ndarray]:
    """The codes of each sequence, and of its reverse complement where the alphabet has one."""
    if alphabet.name not in STRANDED:
        return list(coded)
    other = np.arange(256, dtype=np.uint8)
    other[: alphabet.size] = other[: alphabet.size][::-1]  # A C G T are T G C A on the other strand
    return [*coded, *(other[row[::-1]] for row in coded)]


def _check_outputs(network: ByteNetwork, alphabet: Alphabet, path: str | os.PathLike[str]) -> None:
    if network.config.vocab_size < 256 + OFFSET:
        raise ModelFileError(f"vocab_size: expected at least {256 + OFFSET} tokens", path=path)
    if network.config.outputs != alphabet.size and network.config.outputs < 256 + OFFSET:
        raise ModelFileError(f"outputs: expected {alphabet.size} or at least {256 + OFFSET}", path=path)
