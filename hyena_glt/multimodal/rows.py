"""Sequences of one modality, as a caller hands them in -> checked rows -> byte tokens with patch lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hyena_glt.errors import ConfigError
from hyena_glt.model.inputs import PatchedTokens
from hyena_glt.model.sources import encode_piece, pad_rows, patch_rows
from hyena_glt.multimodal.dot_bracket import RnaStructure, check_structure, structure_patch_lengths
from hyena_glt.sequences.alphabets import get_alphabet
from hyena_glt.tokens.byte_tokenizer import PAD_ID

MODALITIES = ("dna", "rna", "protein")


@dataclass(frozen=True, slots=True)
class ModalRow:
    """One sequence, and for RNA its structure where there is one."""

    tokens: Tensor  # (length,) int64 byte tokens
    structure: str | None = None  # dot-bracket


def read_modal_rows(modality: str, sequences: Any) -> list[ModalRow]:
    """Check the sequences of one modality.

    Args:
        modality: One of `MODALITIES`.
        sequences: A list of str or bytes; one of them alone counts as a list of one. For RNA an element may come
            with its structure: `(sequence, structure)`, an `RnaStructure`, or a text of two words.

    Raises:
        ConfigError: An unknown modality, or something that is no sequence.
        AlphabetError: A symbol that the modality does not have; the sequence's index is named.
        AnnotationError: A structure that does not belong to its sequence.
    """
    if modality not in MODALITIES:
        raise ConfigError(f"unsupported data type: expected one of {', '.join(MODALITIES)}, got {modality!r}")
    if isinstance(sequences, str | bytes | RnaStructure):
        sequences = [sequences]
    if not isinstance(sequences, Sequence):
        raise ConfigError(f"{modality}: expected a list of sequences, got {type(sequences).__name__}")
    return [_row(modality, item, f"{modality} sequence {index}") for index, item in enumerate(sequences)]


def cut_modal_rows(patcher: Any, rows: Sequence[ModalRow]) -> PatchedTokens:
    """Byte tokens and patch lengths of rows: by their structures where they have one, else by the patcher.

    A row gives the same alone and among others.

    Args:
        patcher: Of the modality; its `max_patch_length` holds for structures too.
        rows: What `read_modal_rows` gave.
    """
    tokens = pad_rows([row.tokens for row in rows], PAD_ID)
    if all(row.structure is None for row in rows):
        return patch_rows(patcher, tokens)
    cap = getattr(patcher, "max_patch_length", None)
    lengths = [
        torch.from_numpy(structure_patch_lengths(row.structure, cap))
        if row.structure is not None
        else _without_padding(patch_rows(patcher, row.tokens.unsqueeze(0)).patch_lengths[0])
        for row in rows
    ]
    return PatchedTokens(tokens=tokens, patch_lengths=pad_rows(lengths, 0))


def _row(modality: str, item: Any, record: str) -> ModalRow:
    sequence, structure = _parts(item) if modality == "rna" else (item, None)
    if not isinstance(sequence, str | bytes):
        raise ConfigError(f"{record}: expected str or bytes, got {type(sequence).__name__}")
    get_alphabet(modality).encode(sequence, record=record)
    if structure is not None:
        check_structure(sequence if isinstance(sequence, str) else sequence.decode(), structure, record=record)
    return ModalRow(encode_piece(sequence), structure)


def _parts(item: Any) -> tuple[Any, str | None]:
    """Sequence and structure of an RNA."""
    if isinstance(item, RnaStructure):
        return item.sequence, item.structure
    if isinstance(item, str) and len(item.split()) == 2:
        item = item.split()
    if isinstance(item, tuple | list):
        if len(item) != 2 or not all(isinstance(part, str) for part in item):
            raise ConfigError("rna: expected (sequence, structure) as two texts")
        return item[0], item[1]
    return item, None


def _without_padding(lengths: Tensor) -> Tensor:
    return lengths[lengths > 0]
