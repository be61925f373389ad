"""Where a patcher's scores come from: a saved or live entropy model, a callable that gives logits, or each row itself.

tokens -> entropies, and the starts that the source forces (the edges of runs of ambiguity symbols).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hyena_glt.entropies import MarkovEntropy, NeuralEntropy, calculate_entropies, load_source
from hyena_glt.errors import ConfigError, DataError, ModelFileError, PatchingError
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.bpe_network import load_bpe_network
from hyena_glt.patching.devices import resolve_device
from hyena_glt.patching.rows import TokenRows
from hyena_glt.sequences.alphabets import BYTES, DNA, PROTEIN, Alphabet
from hyena_glt.tokens.byte_tokenizer import OFFSET

AUTO = "auto"
LOOK_AT_TOKENS = 1 << 16  # of each row, when the alphabet of many is chosen
DNA_SHARE = 0.9  # of the bytes of a row that is taken for DNA


class Scored(NamedTuple):
    """Scores of token rows."""

    scores: Tensor  # (batch, length) float32 nats, 0 in padding
    forced: NDArray[np.bool_] | None  # (batch, length), True at starts that the source forces; None for none


@runtime_checkable
class EntropySource(Protocol):
    """What every entropy model offers."""

    def entropies(self, sequence: Any) -> Any:
        """`(length,)` float32 nats; entry `i` is of the prediction made after token `i`."""
        ...


class AutoEntropy:
    """Scores each sequence by a context model fitted on that sequence alone, so rows never see each other."""

    name = AUTO
    is_causal = False

    def model(self, tokens: NDArray[Any]) -> MarkovEntropy | None:
        """The model of one sequence; None where there is nothing to fit on."""
        try:
            return MarkovEntropy.fit([tokens], alphabet=likely_alphabet(tokens).name)
        except DataError:
            return None

    def score(self, tokens: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """Entropies and forced starts of one sequence."""
        model = self.model(tokens)
        if model is None:
            return np.zeros(tokens.size, np.float32), None
        return model.entropies(tokens), model.forced_starts(tokens)


def fit_on_all(rows: Sequence[NDArray[Any]]) -> MarkovEntropy:
    """One context model of many rows of byte tokens (or uint8 bytes).

    Raises:
        DataError: Nothing to fit on.
    """
    tokens = [row.astype(np.int64) + OFFSET if row.dtype == np.uint8 else row for row in rows]
    looked_at = np.concatenate([row[:LOOK_AT_TOKENS] for row in tokens])
    return MarkovEntropy.fit(tokens, alphabet=likely_alphabet(looked_at).name)


def likely_alphabet(tokens: NDArray[Any]) -> Alphabet:
    """DNA for nearly all nucleotides (RNA has the same codes), protein for other amino acids, else bytes."""
    if dna_share(tokens) >= DNA_SHARE:
        return DNA
    text = tokens[tokens >= OFFSET]
    return PROTEIN if np.isin(text - OFFSET, list(PROTEIN.symbols)).all() else BYTES


def dna_share(tokens: NDArray[Any]) -> float:
    """Share of the letters A C G T U N, either case, among the bytes of a row; 0.0 without any."""
    text = tokens[tokens >= OFFSET]
    return float(np.isin((text - OFFSET) & 0xDF, list(b"ACGTUN")).mean()) if text.size else 0.0


def resolve_source(args: PatcherArgs) -> Any:
    """The source that the arguments name: an `AutoEntropy`, a saved model, a language model, an object or a callable.

    Raises:
        ConfigError: Something that is no source, or a language model that is not on this machine.
        MissingExtraError: A language model without transformers.
        ModelFileError: A file that is no saved model.
        SystemProblem: CUDA is asked for and not there.
    """
    given = args.entropy_model
    if given is None and args.entropy_model_checkpoint_dir is not None:
        given = saved_model_path(args.entropy_model_checkpoint_dir)
    if given is None and args.model_name is not None:
        return NeuralEntropy.from_pretrained(args.model_name, device=args.patching_device)
    if given is None or (isinstance(given, str) and given == AUTO):
        return AutoEntropy()
    if isinstance(given, str | os.PathLike):
        model = load_model(given)
        return model.to(args.patching_device) if isinstance(model, NeuralEntropy) else model
    if isinstance(given, EntropySource) or callable(given):
        return given
    raise ConfigError(
        "entropy_model: expected 'auto', the path of a saved model, an object with entropies(tokens) or a "
        f"callable, got {type(given).__name__}"
    )


def load_model(path: str | os.PathLike[str]) -> Any:
    """Read a saved entropy model of any kind.

    Raises:
        ModelFileError: No such file, or not a model.
    """
    if not Path(path).is_file():
        raise ModelFileError("entropy_model: expected 'auto' or the file of a saved entropy model", path=path)
    return load_source(path)


def resolve_bpe_network(args: PatcherArgs) -> Any:
    """The network of bpe_patcher mode that the arguments name; None where they name none.

    Raises:
        ModelFileError: A file that is no such network.
        SystemProblem: CUDA is asked for and not there.
    """
    given = args.entropy_model
    if given is None and args.entropy_model_checkpoint_dir is not None:
        given = saved_model_path(args.entropy_model_checkpoint_dir)
    if isinstance(given, str | os.PathLike):
        return load_bpe_network(given, args.patching_device)
    return given


def saved_model_path(folder: str | os.PathLike[str]) -> Path:
    """The one saved model in a folder; the path itself where it is a file.

    Raises:
        ModelFileError: No folder, or not exactly one model in it.
    """
    place = Path(folder)
    if place.is_file():
        return place
    models = sorted(place.glob("*.safetensors")) if place.is_dir() else []
    if len(models) != 1:
        raise ModelFileError(
            f"entropy_model_checkpoint_dir: expected a folder with one .safetensors, found {len(models)}",
            path=folder,
        )
    return models[0]


def score_rows(source: Any, rows: TokenRows, args: PatcherArgs) -> Scored:
    """Score every row by itself.

    Args:
        source: What `resolve_source` gave.
        rows: `(batch, length)` tokens.
        args: Batch size and device of a callable source.

    Raises:
        PatchingError: Scores of another length, or NaN.
    """
    if not isinstance(source, AutoEntropy | EntropySource):
        return Scored(_scores_from_logits(source, rows, args), None)
    scores = np.zeros(rows.tokens.shape, np.float32)
    forced = np.zeros(rows.tokens.shape, np.bool_)
    for index, length in enumerate(rows.lengths):
        values, edges = _score_row(source, rows.row(index))
        scores[index, :length] = values
        if edges is not None:
            forced[index, :length] = edges
    on_device = torch.from_numpy(scores).to(rows.tokens.device)
    return Scored(on_device, forced if forced.any() else None)


def _score_row(source: Any, tokens: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    if isinstance(source, AutoEntropy):
        return source.score(tokens)
    values = np.asarray(source.entropies(tokens), np.float32)
    if values.shape != tokens.shape or np.isnan(values).any():
        raise PatchingError(
            f"entropies: expected {tokens.shape} numbers from {type(source).__name__}, got {values.shape} "
            f"with {int(np.isnan(values).sum())} NaN"
        )
    force = getattr(source, "forced_starts", None)
    return values, None if force is None else np.asarray(force(tokens), np.bool_)


def _scores_from_logits(model: Any, rows: TokenRows, args: PatcherArgs) -> Tensor:
    device = model_device(model, args.patching_device)
    return calculate_entropies(rows.tokens, model, args.patching_batch_size, device)


def model_device(model: Any, patching_device: str) -> torch.device | None:
    """Where a network runs: the device asked for, else where its weights are; None for no preference.

    Raises:
        SystemProblem: CUDA is asked for and not there.
    """
    device = resolve_device(patching_device, "patching_device")
    if device is None and isinstance(model, nn.Module):
        return next((weight.device for weight in model.parameters()), None)
    return device
