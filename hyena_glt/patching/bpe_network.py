"""The network of bpe_patcher mode: a small causal network that predicts where the tokens of a BPE tokenizer start.

A tokenizer's merges depend on what follows; the network decides from the past alone, so its patches can be had while
a sequence is being written. It sees canonical tokens, as `NeuralEntropy` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.entropies.byte_network import ByteNetwork, ByteNetworkConfig, network_from_config
from hyena_glt.entropies.network_files import load_network, read_description, save_network, weights_sha256
from hyena_glt.entropies.network_fit import IGNORED, FitOptions, LabelledSequences, Progress, fit_network
from hyena_glt.entropies.neural import split_ends, token_of_codes
from hyena_glt.entropies.symbols import symbol_codes
from hyena_glt.entropies.windows import WindowPlan, network_device, windowed_logits
from hyena_glt.errors import AlphabetError, ConfigError, DataError, ModelFileError
from hyena_glt.patching.rows import read_rows
from hyena_glt.patching.tokenizer_starts import find_tokenizer_file, load_tokenizer, tokenizer_start_mask
from hyena_glt.sequences.alphabets import Alphabet, get_alphabet
from hyena_glt.sequences.atomic import sha256_file
from hyena_glt.tokens.byte_tokenizer import BPE_ID, OFFSET

FORMAT = "hyena-glt/bpe-patcher/1"
PIECE = 1 << 16  # symbols that the tokenizer sees at once; what it says of a piece's last symbol is not used
MARGIN_STEP = 2.0**-12  # to which scores are rounded before they are compared
SAMPLE = 1 << 18  # symbols that the margin is chosen on, at most
OUTPUTS = 2  # no start, start
ENCODING = "latin-1"  # one character a byte


@dataclass(frozen=True, slots=True)
class BoundaryScores:
    """How well predicted boundaries agree with the true ones."""

    precision: float  # of the predicted boundaries, the share that are true; 0 for none
    recall: float  # of the true boundaries, the share that were predicted; 0 for none
    f1: float  # harmonic mean of both
    predicted_rate: float  # share of the places where a boundary is predicted
    true_rate: float  # share of the places where there is one
    places: int

    def baselines(self) -> dict[str, float]:
        """F1 of boundaries at every place, at none, and at random at the predicted rate (expected)."""
        both = self.predicted_rate + self.true_rate
        return {
            "always": 2.0 * self.true_rate / (1.0 + self.true_rate),
            "none": 0.0,
            "random": 2.0 * self.predicted_rate * self.true_rate / both if both else 0.0,
        }


def boundary_scores(predicted: Any, true: Any) -> BoundaryScores:
    """Precision, recall and F1 of boundaries.

    Args:
        predicted: Bool, any shape.
        true: Bool, the same shape.

    Raises:
        DataError: Different shapes, or nothing to compare.
    """
    found, real = np.asarray(predicted, np.bool_), np.asarray(true, np.bool_)
    if found.shape != real.shape or not found.size:
        raise DataError(
            f"predicted: expected as many entries as in true and at least 1, got {found.shape}, {real.shape}"
        )
    hits, num_found, num_real = (int(np.count_nonzero(mask)) for mask in (found & real, found, real))
    return BoundaryScores(
        precision=hits / num_found if num_found else 0.0,
        recall=hits / num_real if num_real else 0.0,
        f1=2.0 * hits / (num_found + num_real) if hits else 0.0,
        predicted_rate=num_found / found.size,
        true_rate=num_real / found.size,
        places=found.size,
    )


class BpePatcherNetwork:
    """Predicts after each byte whether a BPE token starts at the next one. Build it with `fit_bpe_patcher` or `load`.

    A callable that gives logits whose largest is that of `BPE_ID` where a start is predicted, so it is the
    `entropy_model` of a patcher in bpe_patcher mode. `delimiters` says the same of a sequence of any length, in
    windows on a fixed plan: a row gives the same alone and in any batch.

    Args:
        network: Two outputs: no start, start.
        alphabet: "dna", "rna", "protein" or "bytes"; case is folded in all but bytes.
        margin: Nats by which the score of a start may fall short of that of no start.
        plan: Windows; None takes 8192 tokens that overlap by the network's reach.
        tokenizer_sha256: Hash of the tokenizer that it learned from.
        device: "auto" leaves the network where it is.

    Raises:
        ConfigError: Another number of outputs, or an unknown device.
    """

    is_causal = True

    def __init__(
        self,
        network: ByteNetwork,
        *,
        alphabet: str | Alphabet = "dna",
        margin: float = 0.0,
        plan: WindowPlan | None = None,
        tokenizer_sha256: str = "",
        device: str = "auto",
    ) -> None:
        if network.config.outputs != OUTPUTS or network.config.vocab_size < 256 + OFFSET:
            raise ConfigError(
                f"network: expected {OUTPUTS} outputs and at least {256 + OFFSET} tokens, got "
                f"{network.config.outputs} and {network.config.vocab_size}"
            )
        self.network = network.eval()
        self.alphabet = get_alphabet(alphabet)
        self.margin = float(margin)
        self.plan = plan or WindowPlan(overlap=min(4096, 4096 if network.reach is None else network.reach))
        self.tokenizer_sha256 = tokenizer_sha256
        self._tokens_of_codes = token_of_codes(self.alphabet)
        self.to(device)

    def to(self, device: str) -> BpePatcherNetwork:
        """Move the network; returns self."""
        self.device = network_device(device, self.network)
        self.network.to(self.device)
        return self

    def __call__(self, tokens: Tensor) -> Tensor:
        """`(rows, length, 4)` logits from `(rows, length)` byte tokens; the last column is that of `BPE_ID`."""
        rows = tokens.detach().cpu().numpy()
        seen = torch.from_numpy(self._canonical(rows.reshape(-1)).astype(np.int64).reshape(rows.shape))
        with torch.inference_mode():
            scores = self._scores(self.network(seen.to(self.device)))
        logits = torch.full((*tokens.shape, BPE_ID + 1), -torch.inf, device=scores.device)
        logits[..., 0] = 0.0
        logits[..., BPE_ID] = scores
        return logits.to(tokens.device)

    def delimiters(self, tokens: Any) -> NDArray[np.bool_]:
        """True after each byte whose next one is predicted to start a BPE token, `(length,)`.

        Args:
            tokens: str, bytes, or 1-D byte tokens.
        """
        seen = self._canonical(tokens)
        found = np.zeros(seen.size, np.bool_)
        for window in windowed_logits(self.network, self.plan, seen, device=self.device):
            values = (self._scores(window.logits) > 0)[window.part].cpu().numpy()
            found[window.position : window.position + values.size] = values
        return found

    def describe(self) -> dict[str, Any]:
        """What it is and what it learned from, as it appears in outputs."""
        return {
            "name": "bpe_patcher",
            "alphabet": self.alphabet.name,
            "margin": self.margin,
            "window": self.plan.window,
            "overlap": self.plan.overlap,
            "network": self.network.config.model_dump(),
            "parameters": sum(weight.numel() for weight in self.network.parameters()),
            "weights_sha256": weights_sha256(self.network),
            "tokenizer_sha256": self.tokenizer_sha256,
        }

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write it as one safetensors file, whole or not at all."""
        about = {
            "format": FORMAT,
            "alphabet": self.alphabet.name,
            "margin": self.margin,
            "plan": asdict(self.plan),
            "tokenizer_sha256": self.tokenizer_sha256,
            "network": self.network.config.model_dump(),
        }
        save_network(path, self.network, about, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> BpePatcherNetwork:
        """Read what `save` wrote; "auto" leaves it on the CPU.

        Raises:
            ModelFileError: Not such a file, damaged, or weights that do not fit its description.
        """
        network, about = load_network(path, FORMAT, network_from_config)
        try:
            loaded = cls(
                network,
                alphabet=str(about["alphabet"]),
                margin=float(about["margin"]),
                plan=WindowPlan(**about["plan"]),
                tokenizer_sha256=str(about["tokenizer_sha256"]),
            )
        except (KeyError, TypeError, ValueError, AlphabetError, ConfigError) as problem:
            raise ModelFileError(f"damaged description ({problem}); save the network again", path=path) from None
        return loaded.to(device)

    def _canonical(self, sequence: Any) -> NDArray[np.int16]:
        return self._tokens_of_codes[symbol_codes(sequence, self.alphabet)]

    def _scores(self, logits: Tensor) -> Tensor:
        """Above 0 where a start is predicted; rounded, so that the last bits of the logits decide little."""
        scores = logits[..., 1] - logits[..., 0] + self.margin
        return (scores / MARGIN_STEP).round() * MARGIN_STEP


@dataclass(frozen=True, slots=True)
class BpePatcherFit:
    """A trained network and how it does on sequence that it has not seen."""

    patcher: BpePatcherNetwork
    held_out: BoundaryScores | None  # None without held-out sequence
    losses: tuple[float, ...]  # nats per label, of each batch
    num_symbols: int  # learned from


def fit_bpe_patcher(
    sequences: Iterable[Any] | str | bytes,
    tokenizer_path: str | os.PathLike[str],
    *,
    alphabet: str | Alphabet = "dna",
    config: ByteNetworkConfig | None = None,
    options: FitOptions | None = None,
    held_out: float = 0.1,
    progress: Progress | None = None,
) -> BpePatcherFit:
    """Train a network to predict the token starts of a BPE tokenizer.

    Afterwards the margin is set so that, on the sequence it learned from, as many starts are predicted as there are:
    patches are as long on average as the tokenizer's tokens. (A start is seldom likelier than not, so without a margin
    there would be few.)

    Args:
        sequences: Strings, bytes or 1-D byte-token arrays.
        tokenizer_path: `tokenizer.json`, a folder that holds one, or a model in the local cache.
        alphabet: "dna", "rna", "protein" or "bytes".
        config: Sizes of the network; `outputs` is set.
        options: Of the training; None takes 500 steps.
        held_out: Share at the end of each sequence that is set aside for `held_out` of the result.
        progress: As in `fit_network`.

    Raises:
        DataError: Nothing to learn.
        ConfigError: No such tokenizer, or a number out of range.
        ModelFileError: A tokenizer that cannot be used.
    """
    if not 0.0 <= held_out < 1.0:
        raise ConfigError(f"held_out: expected a share from 0 to below 1, got {held_out}")
    letters = get_alphabet(alphabet)
    path = find_tokenizer_file(os.fspath(tokenizer_path))
    tokenizer = load_tokenizer(path)
    listed = [sequences] if isinstance(sequences, str | bytes) else sequences
    learned, kept = split_ends([symbol_codes(sequence, letters) for sequence in listed], held_out)
    config = (config or ByteNetworkConfig()).model_copy(update={"outputs": OUTPUTS})
    tokens_of_codes = token_of_codes(letters)
    rows = [tokens_of_codes[codes] for codes in learned]
    targets = [start_labels(codes, letters, tokenizer, path) for codes in learned]
    network, result = fit_network(
        lambda: ByteNetwork(config), LabelledSequences(rows, targets), options or FitOptions(), progress=progress
    )
    assert isinstance(network, ByteNetwork)
    patcher = BpePatcherNetwork(network, alphabet=letters, tokenizer_sha256=sha256_file(path))
    patcher.margin = matching_margin(patcher, rows, targets)
    ends = [start_labels(codes, letters, tokenizer, path) for codes in kept]
    scores = held_out_scores(patcher, [tokens_of_codes[codes] for codes in kept], ends)
    return BpePatcherFit(patcher, scores, result.losses, sum(row.size for row in rows))


def start_labels(codes: NDArray[np.uint8], alphabet: Alphabet, tokenizer: Any, path: Path) -> NDArray[np.int16]:
    """Whether a BPE token starts after each symbol, `(length,)` 0 or 1; `IGNORED` where that is not known.

    Not known after the last symbol of a piece of `PIECE` symbols, and next to ambiguity symbols: the tokenizer never
    sees those, since one that has no token for them drops them and counts the characters behind them wrongly.

    Args:
        codes: `(length,)` codes of the alphabet; the tokenizer reads them in upper case.
        alphabet: Theirs.
        tokenizer: What `load_tokenizer` gave.
        path: Its file, for messages.

    Raises:
        ModelFileError: The tokenizer fails, or has no token for a letter.
    """
    text = (token_of_codes(alphabet)[codes] - OFFSET).astype(np.uint8)
    _check_letters(text[codes < alphabet.size], tokenizer, path)
    labels = np.full(codes.size, IGNORED, np.int16)
    for start, end in _runs(codes < alphabet.size):
        for first in range(start, end, PIECE):
            piece = text[first : min(first + PIECE, end)]
            starts = tokenizer_start_mask(read_rows([piece]), tokenizer, ENCODING, path)[0].numpy()
            labels[first : first + piece.size - 1] = starts[1 : piece.size]
    return labels


def _runs(mask: NDArray[np.bool_]) -> list[list[int]]:
    """`[first, end]` of each run of True."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return edges.reshape(-1, 2).tolist()


def _check_letters(text: NDArray[np.uint8], tokenizer: Any, path: Path) -> None:
    for letter in bytes(np.flatnonzero(np.bincount(text, minlength=256)).tolist()).decode(ENCODING):
        if not tokenizer.encode(letter, add_special_tokens=False).ids:
            raise ModelFileError(f"the tokenizer has no token for {letter!r}", path=path)


def matching_margin(patcher: BpePatcherNetwork, rows: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any]]) -> float:
    """The margin with which as many starts are predicted as there are, on the beginnings of sequences."""
    room, scores, labels = SAMPLE, [np.zeros(0, np.float32)], [np.zeros(0, np.int16)]
    for row, target in zip(rows, targets, strict=True):
        part = row[:room]
        room -= part.size
        for window in windowed_logits(patcher.network, patcher.plan, part, device=patcher.device):
            values = (window.logits[..., 1] - window.logits[..., 0])[window.part].cpu().numpy()
            scores.append(values)
            labels.append(target[window.position : window.position + values.size])
    known, label = np.concatenate(scores), np.concatenate(labels)
    known, label = known[label != IGNORED], label[label != IGNORED]
    num_starts = int(label.sum())
    if not known.size or not 0 < num_starts < known.size:
        return 0.0
    return -float(np.partition(known, known.size - num_starts)[known.size - num_starts])


def held_out_scores(
    patcher: BpePatcherNetwork, rows: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any]]
) -> BoundaryScores | None:
    """Boundaries predicted in sequences against the labels; None where there is no label."""
    labels = np.concatenate([np.zeros(0, np.int16), *targets])
    known = labels != IGNORED
    if not known.any():
        return None
    found = np.concatenate([np.zeros(0, np.bool_), *(patcher.delimiters(row) for row in rows)])
    return boundary_scores(found[known], labels[known] == 1)


def load_bpe_network(path: str | os.PathLike[str], device: str = "auto") -> BpePatcherNetwork:
    """Open the saved network of bpe_patcher mode.

    Raises:
        ModelFileError: No such file, damaged, or another kind of model.
    """
    if not Path(path).is_file():
        raise ModelFileError("entropy_model: expected a file that BpePatcherNetwork.save wrote", path=path)
    found = read_description(path).get("format")
    if found != FORMAT:
        raise ModelFileError(
            f"expected the network of a bpe_patcher, format {FORMAT!r}, got {found!r}; make one with "
            "hyena-glt train-bpe-patcher",
            path=path,
        )
    return BpePatcherNetwork.load(path, device=device)
