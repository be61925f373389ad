"""GenBank records -> pairs of a coding sequence and its protein, each checked by translating."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hyena_glt.multimodal.genbank import CodingFeature, GenBankRecord, read_genbank
from hyena_glt.multimodal.genetic_code import translate

STOP = b"*"


@dataclass(frozen=True, slots=True)
class CodingPair:
    """A coding sequence and its protein: residue `i` is codon `i`."""

    name: str  # record:gene
    dna: bytes  # three bases per residue, without the stop codon
    protein: bytes
    transl_table: int

    def crop(self, start: int, codons: int) -> CodingPair:
        """A stretch of `codons` codons and its residues, from codon `start`."""
        end = start + codons
        return CodingPair(self.name, self.dna[3 * start : 3 * end], self.protein[start:end], self.transl_table)


@dataclass(frozen=True, slots=True)
class PairSet:
    """What GenBank files gave, every CDS counted once: pairs + untranslated + mismatches = num_coding."""

    pairs: tuple[CodingPair, ...]
    num_coding: int  # CDS features
    num_own: int  # of the pairs, with a protein of our own translation, since the file has none
    untranslated: int  # CDS features without a protein
    mismatches: tuple[str, ...]  # CDS features where translating gives another protein: place and difference


def read_pairs(paths: Iterable[str | os.PathLike[str]], *, translate_missing: bool = False) -> PairSet:
    """Read the pairs of GenBank files, in order.

    Features whose translation is not the stored protein (edited RNA, ribosomal slippage, unusual amino acids) are
    counted and left out.

    Args:
        paths: GenBank flat files, plain or gzip.
        translate_missing: Where a feature is no pseudogene, has no stored protein and reads whole (an allowed start,
            one stop, at the end), take our own translation.

    Raises:
        AnnotationError: A record that cannot be read; with file and line.
    """
    pairs, mismatches, total, own, untranslated = [], [], 0, 0, 0
    for record, feature in _coding_features(paths):
        total += 1
        if feature.translation is None:
            translated = whole_reading(record, feature) if translate_missing else None
            pairs += [translated] if translated else []
            own += translated is not None
            untranslated += translated is None
            continue
        pair, fault = pair_of(record, feature)
        if pair is None:
            mismatches.append(f"{record.path}:{feature.line} ({record.name}:{feature.name}): {fault}")
        else:
            pairs.append(pair)
    return PairSet(tuple(pairs), total, own, untranslated, tuple(mismatches))


def pair_of(record: GenBankRecord, feature: CodingFeature) -> tuple[CodingPair | None, str]:
    """The pair of one feature with a stored protein, or None and how its translation differs."""
    assert feature.translation is not None
    dna = record.coding_sequence(feature)[feature.codon_start - 1 :]
    is_whole = not feature.starts_inside and feature.codon_start == 1
    found = translate(dna, feature.transl_table, from_start=is_whole)
    stored = feature.translation.removesuffix(STOP)
    found = found.removesuffix(STOP)
    if found != stored:
        return None, _difference(found, stored, feature.exception)
    return _pair(record, feature, dna, stored), ""


def whole_reading(record: GenBankRecord, feature: CodingFeature) -> CodingPair | None:
    """The pair of a feature without a stored protein by our own translation, or None where it does not read whole."""
    dna = record.coding_sequence(feature)
    if feature.is_pseudo or feature.starts_inside or feature.codon_start != 1 or len(dna) % 3:
        return None
    protein = translate(dna, feature.transl_table, from_start=True)
    if not protein.startswith(b"M") or protein.find(STOP) != len(protein) - 1:
        return None
    return _pair(record, feature, dna, protein[:-1])


def _pair(record: GenBankRecord, feature: CodingFeature, dna: bytes, protein: bytes) -> CodingPair:
    name = f"{record.name}:{feature.name or feature.line}"
    return CodingPair(name, dna[: 3 * len(protein)], protein, feature.transl_table)


def _coding_features(paths: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[GenBankRecord, CodingFeature]]:
    for path in paths:
        for record in read_genbank(path):
            for feature in record.coding:
                yield record, feature


def _difference(found: bytes, stored: bytes, exception: str | None) -> str:
    why = f" (the feature has /{exception})" if exception else ""
    if len(found) != len(stored):
        return f"translating gives {len(found)} residues, stored are {len(stored)}{why}"
    pairs = zip(found, stored, strict=True)
    places = [i for i, (a, b) in enumerate(pairs) if a != b]
    first = places[0]
    return f"{len(places)} residues differ, first {chr(found[first])} for {chr(stored[first])} at {first + 1}{why}"
