"""A BPE tokenizer of one's own genome: sequences in, a `tokenizers.Tokenizer` out.

    sequences or blocks -> runs of letters, soft mask folded -> pieces -> a sample of them -> merges

Byte-pair encoding (Gage 1994; Sennrich et al., arXiv:1508.07909) over the letters of an alphabet. A run of N, or of
any other symbol that is no single letter, ends a piece, and none of its symbols is ever merged.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.sequences.alphabets import Alphabet, get_alphabet
from hyena_glt.sequences.records import Block, Record

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCAB_SIZE = 4096
PIECE_LENGTH = 256  # symbols; longer pieces lose fewer merges at their ends and train no faster
MAX_SYMBOLS = 1 << 24  # that are trained on; the library takes about 65 bytes for each
UNKNOWN = "<unk>"  # stands for whatever the alphabet does not have; one for each symbol
SPLIT = ord(" ")  # what symbols that are no single letter become before training


def train_bpe(
    sequences: Iterable[Any] | str | bytes,
    vocab_size: int = VOCAB_SIZE,
    *,
    alphabet: str | Alphabet = "dna",
    piece_length: int = PIECE_LENGTH,
    min_frequency: int = 2,
    max_symbols: int = MAX_SYMBOLS,
    seed: int = 0,
) -> Tokenizer:
    """Learn a vocabulary of the most frequent words of sequences.

    The tokenizer folds lower case to upper case (and U to T in DNA, T to U in RNA), cuts at symbols that are no
    single letter, each of which is a token of its own, and leaves nothing out: the pieces that its offsets give join
    to the input. Over `bytes` nothing is folded and the base of the vocabulary is the 256 bytes.

    Args:
        sequences: str, bytes, 1-D uint8 arrays of bytes, 1-D byte-token tensors, or the `Block`s or `Record`s of a
            reader; one str or bytes is one sequence. How a sequence is cut into blocks changes nothing.
        vocab_size: Entries wanted, single symbols among them; fewer come out where nothing repeats any more.
        alphabet: "dna", "rna", "protein" or "bytes".
        piece_length: Symbols of a sequence that are taken together; no word crosses from one piece to the next.
        min_frequency: Times a pair has to occur to be merged.
        max_symbols: Of a larger input a uniform sample of pieces of this size in all is trained on.
        seed: Of the sample; the same input and options give the same tokenizer.

    Raises:
        DataError: No letter of the alphabet in the sequences.
        ConfigError: A size out of range.

    Example:
        >>> tokenizer = train_bpe(["ACGACGACG" * 20], vocab_size=20)
        >>> tokenizer.encode("acgNACGT").tokens
        ['ACG', 'N', 'ACG', 'T']
    """
    sampler = PieceSampler(alphabet, piece_length=piece_length, max_symbols=max_symbols, seed=seed)
    sampler.feed([sequences] if isinstance(sequences, str | bytes) else sequences)
    return train_on_pieces(sampler.pieces(), vocab_size, alphabet=alphabet, min_frequency=min_frequency)


def train_on_pieces(
    pieces: Sequence[str], vocab_size: int, *, alphabet: str | Alphabet = "dna", min_frequency: int = 2
) -> Tokenizer:
    """Learn a vocabulary from what a `PieceSampler` kept; arguments and errors as `train_bpe`."""
    letters = get_alphabet(alphabet)
    check_vocab_size(vocab_size, letters)
    if min_frequency < 1:
        raise ConfigError(f"min_frequency: expected 1 or more, got {min_frequency}")
    if not pieces:
        raise DataError(f"no letter of alphabet {letters.name} to train a tokenizer on")
    from tokenizers.trainers import BpeTrainer

    tokenizer = untrained_tokenizer(letters)
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[UNKNOWN] if letters.has_ambiguity else [],
        initial_alphabet=base_symbols(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces, trainer)
    return tokenizer


def check_vocab_size(vocab_size: int, alphabet: str | Alphabet) -> None:
    """Raise a ConfigError unless the single symbols have room."""
    letters = get_alphabet(alphabet)
    smallest = len(base_symbols(letters)) + letters.has_ambiguity
    if vocab_size < smallest:
        raise ConfigError(f"vocab_size: expected at least {smallest} for {letters.name}, got {vocab_size}")


def base_symbols(alphabet: Alphabet) -> list[str]:
    """The symbols that no merge has made: upper case, or the characters that stand for bytes."""
    if not alphabet.has_ambiguity:
        from tokenizers.pre_tokenizers import ByteLevel

        return sorted(ByteLevel.alphabet())
    return [*alphabet.letters, *(symbol for symbol in alphabet.ambiguous if symbol not in alphabet.synonyms)]


def untrained_tokenizer(alphabet: Alphabet) -> Tokenizer:
    """A BPE without merges that folds and cuts as the alphabet says."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    if not alphabet.has_ambiguity:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer
    folded = {ord(symbol): letter for symbol, letter in _folding(alphabet).items()}
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(chr(symbol), letter) for symbol, letter in folded.items()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"[^{alphabet.letters}]+"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


class PieceSampler:
    """Pieces of letters from sequences of any length, in bounded memory: a uniform sample where they are too many.

    Args:
        alphabet: Of the sequences.
        piece_length: Symbols of a piece, at most.
        max_symbols: Of all pieces kept.
        seed: Of the sample.

    Raises:
        ConfigError: A size out of range.
    """

    def __init__(
        self,
        alphabet: str | Alphabet = "dna",
        *,
        piece_length: int = PIECE_LENGTH,
        max_symbols: int = MAX_SYMBOLS,
        seed: int = 0,
    ) -> None:
        if piece_length < 2:
            raise ConfigError(f"piece_length: expected 2 symbols or more, got {piece_length}")
        if max_symbols < piece_length:
            raise ConfigError(f"max_symbols: expected at least one piece of {piece_length}, got {max_symbols}")
        self.alphabet = get_alphabet(alphabet)
        self.symbols = 0  # fed so far
        self._piece_length = piece_length
        self._capacity = max_symbols // piece_length
        self._random = np.random.default_rng(seed)
        self._kept: list[str] = []
        self._seen = 0
        self._table = _letters_or_split(self.alphabet)
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    def feed(self, sequences: Iterable[Any]) -> None:
        """Take sequences; a run of blocks that ends with one marked `last` is one sequence.

        Raises:
            DataError: Something that is no sequence.
        """
        rest = ""
        for sequence in sequences:
            data = _bytes_of(sequence)
            self.symbols += len(data)
            is_last = sequence.last if isinstance(sequence, Block) else True
            *runs, rest = self._runs(rest + self._text(data, is_last))
            for run in runs:
                self._keep(self._cut(run))
            whole = len(rest) if is_last else len(rest) // self._piece_length * self._piece_length
            self._keep(self._cut(rest[:whole]))
            rest = rest[whole:]
        self._keep(self._cut(rest))

    def pieces(self) -> list[str]:
        """The pieces kept: in order, or a sample without order."""
        return self._kept

    def _text(self, data: bytes, is_last: bool) -> str:
        """Letters and `SPLIT`; UTF-8 text where every byte counts, bytes that are none left out."""
        if self._table is None:
            return self._decoder.decode(data, is_last)
        return data.translate(self._table).decode("ascii")

    def _runs(self, text: str) -> list[str]:
        """Runs of letters; the last one, which may be empty, goes on in the next block."""
        if self._table is None:
            return [text]
        return text.split() + [""] * (not text or text.endswith(chr(SPLIT)))

    def _cut(self, run: str) -> Iterator[str]:
        return (run[start : start + self._piece_length] for start in range(0, len(run), self._piece_length))

    def _keep(self, pieces: Iterator[str]) -> None:
        """Reservoir sampling (Vitter's algorithm R): every piece has the same chance to be kept."""
        for piece in pieces:
            self._seen += 1
            if len(self._kept) < self._capacity:
                self._kept.append(piece)
                continue
            place = int(self._random.integers(self._seen))
            if place < self._capacity:
                self._kept[place] = piece


def _folding(alphabet: Alphabet) -> dict[str, str]:
    """Symbol -> the base symbol that it is folded to, where that is another one."""
    upper = {symbol: alphabet.synonyms.get(symbol, symbol) for symbol in map(chr, alphabet.symbols) if symbol.isupper()}
    lower = {symbol.lower(): target for symbol, target in upper.items()}
    return {symbol: target for symbol, target in {**lower, **upper}.items() if symbol != target}


def _letters_or_split(alphabet: Alphabet) -> bytes | None:
    """256 bytes for `bytes.translate`: byte -> its letter, upper case, or `SPLIT`; None where every byte counts."""
    if not alphabet.has_ambiguity:
        return None
    return bytes(ord(alphabet.letters[code]) if code < alphabet.size else SPLIT for code in alphabet.code_table)


def _bytes_of(sequence: Any) -> bytes:
    """The bytes of one sequence.

    Raises:
        DataError: Another type or shape.
    """
    if isinstance(sequence, Block | Record):
        return sequence.sequence
    if isinstance(sequence, str):
        return sequence.encode()
    if isinstance(sequence, bytes | bytearray | memoryview):
        return bytes(sequence)
    if isinstance(sequence, np.ndarray) and sequence.dtype == np.uint8 and sequence.ndim == 1:
        return sequence.tobytes()
    if hasattr(sequence, "detach"):  # a tensor; torch need not be imported to find out
        from hyena_glt.tokens.byte_tokenizer import ByteTokenizer

        return ByteTokenizer().decode_bytes(sequence)
    raise DataError(
        "sequence: expected str, bytes, a Block or Record, a 1-D uint8 array or a 1-D token tensor, "
        f"got {type(sequence).__name__}"
    )
