"""The forms of an ALT allele (VCF 4.1 to 4.5), and which of them can be scored as a sequence.

VCF knows the bases A, C, G, T and N only, in either case: IUPAC codes are refused in REF and ALT alike, so that no
code is ever taken for one base. An ALT with N is legal, but no one sequence, and so is not scored.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hyena_glt.errors import VariantFormatError
from hyena_glt.sequences.quoting import quoted

if TYPE_CHECKING:
    from hyena_glt.variants.vcf_records import VcfRecord

BASES = re.compile(rb"[ACGTNacgtn]+")
IUPAC_BASES = re.compile(rb"[ACGTUNRYSWKMBDHVacgtunryswkmbdhv]+")
SYMBOLIC = re.compile(rb"[ACGTNacgtn]*<(?P<name>[!-+\--;=?-~]+)>")  # bases before it: an inserted assembly contig
MATE = rb"(?P<contig>[^\s<>\[\],]+|<[!-+\--;=?-~]+>):(?P<pos>\d{1,18})"
BREAKEND = re.compile(
    rb"(?P<left>[ACGTNacgtn.]+)?(?P<bracket>[\[\]])" + MATE + rb"(?P=bracket)(?P<right>[ACGTNacgtn.]+)?"
)
SINGLE_BREAKEND = re.compile(rb"\.[ACGTNacgtn]+|[ACGTNacgtn]+\.")
UNSPECIFIED = ("*", "NON_REF")
TELOMERE = 0  # POS of the telomere before the first base


class UnscoredReason(StrEnum):
    """Why an allele stays in the file without a score."""

    NO_ALT = "no_alt"  # ALT is `.`
    SPANNING_DELETION = "spanning_deletion"  # `*`
    SYMBOLIC = "symbolic"  # `<DEL>` and the like
    UNSPECIFIED = "unspecified"  # `<*>`, `<NON_REF>`
    BREAKEND = "breakend"
    AMBIGUOUS_BASE = "ambiguous_base"  # N in ALT
    TELOMERE = "telomere"  # POS is 0
    NO_LETTER = "no_letter"  # the window holds no A, C, G or T to be scored: runs of N, or no base around
    NOT_FINITE = "not_finite"  # the net gave NaN or infinity


@dataclass(frozen=True, slots=True)
class Allele(ABC):
    """One ALT allele as the file writes it."""

    text: bytes

    @property
    @abstractmethod
    def reason(self) -> UnscoredReason | None:
        """Why it cannot be scored; None where it can."""


@dataclass(frozen=True, slots=True)
class SequenceAllele(Allele):
    """Bases that take the place of REF: SNV, MNV, insertion, deletion or a mixture; scored unless N is among them."""

    @property
    def reason(self) -> UnscoredReason | None:
        """`AMBIGUOUS_BASE` where N is among the bases."""
        return UnscoredReason.AMBIGUOUS_BASE if b"N" in self.text.upper() else None


@dataclass(frozen=True, slots=True)
class MissingAllele(Allele):
    """`.`: the record says that there is no alternative."""

    @property
    def reason(self) -> UnscoredReason:
        """Always `NO_ALT`."""
        return UnscoredReason.NO_ALT


@dataclass(frozen=True, slots=True)
class SpanningDeletion(Allele):
    """`*`: the base is absent because of a deletion that another record describes."""

    @property
    def reason(self) -> UnscoredReason:
        """Always `SPANNING_DELETION`."""
        return UnscoredReason.SPANNING_DELETION


@dataclass(frozen=True, slots=True)
class SymbolicAllele(Allele):
    """`<DEL>`, `<INS:ME:ALU>`, `<*>`, `<NON_REF>`, or `C<ctg1>`: a name, no sequence."""

    name: str  # without the angle brackets

    @property
    def reason(self) -> UnscoredReason:
        """`UNSPECIFIED` for `<*>` and `<NON_REF>`, else `SYMBOLIC`."""
        return UnscoredReason.UNSPECIFIED if self.name in UNSPECIFIED else UnscoredReason.SYMBOLIC


@dataclass(frozen=True, slots=True)
class Breakend(Allele):
    """`T[chr2:5[` and its three turns, or a single breakend such as `.A` or `A.`."""

    mate_contig: str | None  # None for a single breakend
    mate_pos: int | None  # 1-based

    @property
    def reason(self) -> UnscoredReason:
        """Always `BREAKEND`."""
        return UnscoredReason.BREAKEND


def parse_allele(text: bytes) -> Allele:
    """Tell the form of one ALT allele.

    Raises:
        VariantFormatError: It has none of the forms of the specification.

    Example:
        >>> parse_allele(b"<DUP:TANDEM>").name
        'DUP:TANDEM'
    """
    if BASES.fullmatch(text):
        return SequenceAllele(text)
    if text == b"*":
        return SpanningDeletion(text)
    if text == b".":
        return MissingAllele(text)
    if match := SYMBOLIC.fullmatch(text):
        return SymbolicAllele(text, match["name"].decode())
    if match := BREAKEND.fullmatch(text):
        if (match["left"] is None) == (match["right"] is None):
            raise VariantFormatError(f"ALT: a breakend needs bases at one side of its brackets, got {quoted(text)}")
        return Breakend(text, match["contig"].decode(errors="backslashreplace"), int(match["pos"]))
    if SINGLE_BREAKEND.fullmatch(text):
        return Breakend(text, None, None)
    raise VariantFormatError(_refusal(text))


def alleles_of(record: VcfRecord) -> tuple[Allele, ...]:
    """Give the ALT alleles of a record in file order; one `MissingAllele` where ALT is `.`."""
    return tuple(map(parse_allele, record.alts or (b".",)))


def unscored_reason(record: VcfRecord, allele: Allele) -> UnscoredReason | None:
    """Say why an allele of this record cannot be scored, None where it can.

    An allele equal to REF can: its score is that of no change.
    """
    return UnscoredReason.TELOMERE if record.pos == TELOMERE else allele.reason


def bases_refusal(column: str, text: bytes) -> str:
    """Say what is wrong with bases that are not all of A, C, G, T, N."""
    if IUPAC_BASES.fullmatch(text):
        return (
            f"{column}: VCF allows the bases A, C, G, T, N, got {quoted(text)}; "
            "write an IUPAC code as N or as one of its bases"
        )
    return f"{column}: expected the bases A, C, G, T, N, got {quoted(text)}"


def _refusal(text: bytes) -> str:
    if not text:
        return "ALT: an allele between commas is empty; write '.' where there is none"
    if IUPAC_BASES.fullmatch(text):
        return bases_refusal("ALT", text)
    return f"ALT: expected bases (A, C, G, T, N), '*', '.', '<ID>' or a breakend, got {quoted(text)}"
