"""Sequences in, one vector each: a transformer in the style of scikit-learn, which is not imported here.

sequences -> patches (the net's patcher, or one calibrated by `fit`) -> windows -> net -> one row per sequence
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from hyena_glt.entropies.markov import MarkovEntropy
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.block_decisions import scan_rule
from hyena_glt.patching.genome import patch_blocks
from hyena_glt.patching.survey import survey_genome
from hyena_glt.processing.embedding import EmbeddingRows, WindowCutter, embed_rows, other_strand, pool_records
from hyena_glt.sequences.alphabets import get_alphabet
from hyena_glt.sequences.records import Block

if TYPE_CHECKING:
    from hyena_glt.model import HyenaGLT

Pieces = Sequence[str | bytes]


class GenomeEmbedder:
    """Turns sequences into vectors of one size, for `sklearn.pipeline.Pipeline` and by itself.

    A sequence's vector does not depend on the others in the list but by rounding. Without a patcher (`patcher`, or the
    one saved with the net) `fit` fits a context model on its sequences and calibrates it; with one it learns nothing.

    Args:
        model: A `HyenaGLT`, a folder of `save_pretrained`, or None for the net that ships with the package.
        patcher: A `Patcher`, `PatcherArgs` with a live entropy model, or None.
        pool: `mean` or `max` over the patches of a sequence.
        layer: States after so many layers of the trunk; 0 is before it, -1 the last.
        rc: `avg` takes the mean of both strands of each window, `none` the strand given.
        window: Bases that go through the net together; longer sequences are cut.
        batch_size: Windows per forward.
        alphabet: Of the sequences: dna, rna, protein or bytes.
        target_length: Mean patch length of a patcher that `fit` calibrates.

    Attributes:
        net_: The net, after `fit`.
        args_, entropy_model_: How it cuts.
        n_features_out_: Numbers of a vector.

    Example:
        >>> from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
        >>> net = HyenaGLT(HyenaGLTConfig.preset("tiny"), Patcher(patching_mode="static", patch_size=8))
        >>> GenomeEmbedder(net).fit_transform(["ACGTACGTTGCA", "GGGCCC"]).shape
        (2, 128)
    """

    def __init__(
        self,
        model: HyenaGLT | str | os.PathLike[str] | None = None,
        *,
        patcher: Any | None = None,
        pool: str = "mean",
        layer: int = -1,
        rc: str = "none",
        window: int = 8192,
        batch_size: int = 8,
        alphabet: str = "dna",
        target_length: float = 16.0,
    ) -> None:
        self.model, self.patcher = model, patcher
        self.pool, self.layer, self.rc = pool, layer, rc
        self.window, self.batch_size = window, batch_size
        self.alphabet, self.target_length = alphabet, target_length

    def fit(self, X: Pieces, y: Any = None) -> Self:
        """Load the net, and calibrate a patcher on the sequences where there is none.

        Raises:
            ConfigError: Options out of range, or a patcher without a fitted entropy model.
            DataError: A sequence that holds no letter or a symbol outside the alphabet.
            ModelFileError: The folder holds no sound net.
        """
        sequences = self._checked(X)
        net = _load(self.model)
        depth = net.config.num_layers
        if not -depth - 1 <= self.layer <= depth:
            raise ConfigError(f"layer: expected {-depth - 1} to {depth} for this net, got {self.layer}")
        patcher = net.external_patcher if self.patcher is None else self.patcher
        rule = self._calibrated(sequences) if patcher is None else patching_rule(patcher, self.alphabet)
        if rule is None:
            raise ConfigError("patcher: expected one with a fitted entropy model, or a mode that needs none")
        self.net_ = net
        self.args_, self.entropy_model_ = with_cap(rule[0], self.window), rule[1]
        self.n_features_out_ = net.config.hidden_size
        return self

    def transform(self, X: Pieces) -> NDArray[np.float32]:
        """Embed sequences: `(num_sequences, hidden)` float32, in their order.

        Raises:
            ConfigError: `fit` was not called.
            DataError: A sequence that holds no letter or a symbol outside the alphabet; its index is named.
        """
        if not self.__sklearn_is_fitted__():
            raise ConfigError("GenomeEmbedder: expected fit() before transform()")
        sequences = self._checked(X)
        alphabet, cutter = get_alphabet(self.alphabet), WindowCutter(self.window)
        patched = patch_blocks(_blocks(sequences), alphabet, self.entropy_model_, self.args_, entropies=False)
        flip = partial(other_strand, alphabet=alphabet, cut=self._cut) if self.rc == "avg" else None
        options: dict[str, Any] = {"pool": self.pool, "layer": self.layer, "flip": flip}
        rows = embed_rows(self.net_, cutter.windows(patched), self.batch_size, **options)
        found = list(pool_records(rows, self.pool))  # type: ignore[arg-type]
        vectors = np.empty((len(sequences), self.n_features_out_), dtype=np.float32)
        seen = np.zeros(len(sequences), dtype=bool)
        if found:
            whole = EmbeddingRows.joined(found)
            vectors[whole.records], seen[whole.records] = whole.vectors, True
        if not seen.all():
            raise DataError("holds no letter, so there is nothing to embed", record=f"sequence {int(seen.argmin())}")
        return vectors

    def fit_transform(self, X: Pieces, y: Any = None) -> NDArray[np.float32]:
        """`fit` and `transform` of the same sequences."""
        return self.fit(X, y).transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """`hyenaglt0`, `hyenaglt1`, ...: `(hidden,)`.

        Raises:
            ConfigError: `fit` was not called.
        """
        if not self.__sklearn_is_fitted__():
            raise ConfigError("GenomeEmbedder: expected fit() before get_feature_names_out()")
        return np.array([f"hyenaglt{index}" for index in range(self.n_features_out_)], dtype=object)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor by name."""
        return {name: getattr(self, name) for name in _parameters()}

    def set_params(self, **params: Any) -> Self:
        """Change arguments of the constructor; they count from the next `fit` on.

        Raises:
            ConfigError: An unknown name.
        """
        names = _parameters()
        if unknown := sorted(set(params) - set(names)):
            raise ConfigError(f"GenomeEmbedder: expected parameters among {', '.join(names)}, got {unknown[0]!r}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        model = type(self.model).__name__ if hasattr(self.model, "config") else repr(self.model)
        return f"GenomeEmbedder(model={model}, pool={self.pool!r}, layer={self.layer}, rc={self.rc!r})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_out_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator; only scikit-learn calls this."""
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=[]),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
        )

    def _checked(self, X: Any) -> list[bytes]:
        """The sequences as bytes, once the options are known to be sound."""
        self._check_options()
        if isinstance(X, str | bytes | bytearray) or not hasattr(X, "__len__"):
            raise ConfigError(f"X: expected a list of sequences, got one {type(X).__name__}")
        if hasattr(X, "to_numpy"):
            X = X.to_numpy()
        if isinstance(X, np.ndarray):
            if X.ndim != 1 and X.shape[1:] != (1,):
                raise ConfigError(f"X: expected (num_sequences,) sequences, got shape {X.shape}")
            X = X.ravel().tolist()
        return [_as_bytes(sequence, index) for index, sequence in enumerate(X)]

    def _check_options(self) -> None:
        for name, known in (("pool", ("mean", "max")), ("rc", ("avg", "none"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("window", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.rc == "avg" and not get_alphabet(self.alphabet).complements:
            raise ConfigError(f"rc: expected 'none', since alphabet {self.alphabet!r} has one strand")

    def _calibrated(self, sequences: list[bytes]) -> tuple[PatcherArgs, Any]:
        """A context model of all sequences, and the threshold for the mean patch length that comes nearest."""
        survey = survey_genome(_blocks(sequences), get_alphabet(self.alphabet))
        if not survey.sample:
            raise DataError("no letter in the sequences, so no patcher can be calibrated on them")
        args = PatcherArgs(threshold=0.0, max_patch_length=self.window)
        threshold = survey.calibrate(scan_rule(args), self.target_length).threshold
        return args.model_copy(update={"threshold": threshold, "entropy_model": survey.model}), survey.model

    def _cut(self, sequence: bytes) -> NDArray[np.int64]:
        """Patch lengths of a sequence by itself."""
        alphabet = get_alphabet(self.alphabet)
        blocks = patch_blocks(_blocks([sequence]), alphabet, self.entropy_model_, self.args_, entropies=False)
        return np.concatenate([patched.lengths for patched in blocks])


def patching_rule(patcher: Any, alphabet: str) -> tuple[PatcherArgs, Any] | None:
    """Options and entropy model of a patcher, as `patch_blocks` takes them.

    Args:
        patcher: A `Patcher` or `PatcherArgs`.
        alphabet: Of the sequences; modes without scores need a model that knows nothing.

    Returns:
        None where the patcher needs scores and has no source of them that reads blocks.
    """
    args = patcher if isinstance(patcher, PatcherArgs) else getattr(patcher, "args", None)
    if args is None:
        return None
    if hasattr(args.entropy_model, "stream"):
        return args, args.entropy_model
    return None if args.uses_scores else (args, MarkovEntropy.uniform(alphabet))


def with_cap(args: PatcherArgs, window: int) -> PatcherArgs:
    """The options with no patch longer than a window."""
    cap = min(args.max_patch_length or window, window)
    return args.model_copy(update={"max_patch_length": cap})


def _load(model: Any) -> HyenaGLT:
    from hyena_glt.model import HyenaGLT

    if isinstance(model, HyenaGLT):
        return model.eval()
    if model is None:
        from hyena_glt.model.shipped import shipped_net

        return shipped_net()
    if isinstance(model, str | os.PathLike):
        return HyenaGLT.from_pretrained(model)
    raise ConfigError(f"model: expected a HyenaGLT, a folder or None, got {type(model).__name__}")


def _parameters() -> list[str]:
    return [name for name in inspect.signature(GenomeEmbedder.__init__).parameters if name != "self"]


def _as_bytes(sequence: Any, index: int) -> bytes:
    if isinstance(sequence, str):
        return sequence.encode()
    if isinstance(sequence, bytes | bytearray):
        return bytes(sequence)
    raise DataError(f"expected str or bytes, got {type(sequence).__name__}", record=f"sequence {index}")


def _blocks(sequences: list[bytes]) -> Iterator[Block]:
    for index, sequence in enumerate(sequences):
        if not sequence:
            raise DataError("is empty, so there is nothing to embed", record=f"sequence {index}")
        yield Block(f"sequence {index}", "", 0, sequence, True, 0)
