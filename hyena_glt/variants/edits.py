"""Variants as edits of the reference: trimmed, left-aligned, and back as VCF writes them.

An edit is a function of two haplotypes only, the reference and the one with the variant: whatever way a file spells
a variant, its normalised edit is the same. That is the leftmost one: the longest common suffix goes first (through
the reference where one side is empty, which is the left shift), then the longest common prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hyena_glt.variants.vcf_records import VcfRecord

Fetch = Callable[[int, int], bytes]  # bases [start, end) of one contig, 0-based half-open, either case

FIRST_BLOCK = 128  # bases looked at to the left; doubled each time an indel moves through all of them
LARGEST_BLOCK = 1 << 20


class Edit(NamedTuple):
    """The bases `[start, start + len(ref))` of a contig give way to `alt`; either may be empty."""

    start: int  # 0-based
    ref: bytes  # upper case
    alt: bytes  # upper case

    @property
    def end(self) -> int:
        """0-based half-open end on the reference."""
        return self.start + len(self.ref)

    @property
    def kind(self) -> str:
        """`none`, `insertion`, `deletion`, `snv`, `mnv` (equal lengths) or `delins`; of a trimmed edit."""
        if not self.ref:
            return "insertion" if self.alt else "none"
        if not self.alt:
            return "deletion"
        if len(self.ref) != len(self.alt):
            return "delins"
        return "snv" if len(self.ref) == 1 else "mnv"


def edit_of(record: VcfRecord, index: int) -> Edit:
    """The edit that a record's `index`-th ALT spells, as spelled.

    The ALT has to be a sequence and POS 1 or more.
    """
    return Edit(record.pos - 1, _folded(record.ref), _folded(record.alts[index]))


def trimmed(edit: Edit) -> Edit:
    """Take off what REF and ALT have in common: the longest suffix, then the longest prefix.

    Example:
        >>> trimmed(Edit(10, b"CAAG", b"CAG"))
        Edit(start=11, ref=b'A', alt=b'')
    """
    start, ref, alt = edit
    if suffix := _common_prefix(ref[::-1], alt[::-1]):
        ref, alt = ref[:-suffix], alt[:-suffix]
    prefix = _common_prefix(ref, alt)
    return Edit(start + prefix, ref[prefix:], alt[prefix:])


def left_aligned(edit: Edit, fetch: Fetch) -> Edit:
    """Move a trimmed insertion or deletion as far left as the reference allows; other edits stay.

    Args:
        edit: Trimmed.
        fetch: Bases of the contig; called for blocks left of the edit only.
    """
    start, ref, alt = edit
    moving = ref or alt
    if bool(ref) == bool(alt):
        return edit
    block = FIRST_BLOCK
    while start:
        left = _folded(fetch(max(0, start - block), start))
        shift = _common_prefix((left + moving)[::-1][len(moving) :], (left + moving)[::-1])
        moving = (left + moving)[len(left) - shift :][: len(moving)]
        start -= shift
        if shift < len(left):
            break
        block = min(2 * block, LARGEST_BLOCK)
    return Edit(start, moving, b"") if ref else Edit(start, b"", moving)


def normalised(edit: Edit, fetch: Fetch) -> Edit:
    """The one edit that stands for every spelling of a variant: trimmed, with the reference's own bases, left-aligned.

    Lower case counts as upper case and U as T. Where REF and the reference differ (N or an IUPAC code, see
    `check_reference`) the reference's letter is taken.

    Args:
        edit: As a record spells it.
        fetch: Bases of its contig.
    """
    start, ref, alt = trimmed(Edit(edit.start, _folded(edit.ref), _folded(edit.alt)))
    own = _folded(fetch(start, start + len(ref))) if ref else b""
    return left_aligned(trimmed(Edit(start, own, alt)), fetch)


def as_vcf(edit: Edit, fetch: Fetch) -> tuple[int, bytes, bytes]:
    """Write an edit as VCF does: POS (1-based), REF and ALT, both with at least one base.

    A side that is empty gets the base before the edit, or, at the start of a contig, the one after it.
    """
    start, ref, alt = edit
    if ref and alt:
        return start + 1, ref, alt
    if start:
        anchor = _folded(fetch(start - 1, start))
        return start, anchor + ref, anchor + alt
    anchor = _folded(fetch(edit.end, edit.end + 1))
    return 1, ref + anchor, alt + anchor


def applied(sequence: bytes, edit: Edit) -> bytes:
    """The contig with the edit made."""
    return sequence[: edit.start] + edit.alt + sequence[edit.end :]


def _folded(bases: bytes) -> bytes:
    return bases.upper().replace(b"U", b"T")


def _common_prefix(one: bytes, other: bytes) -> int:
    """Number of bytes that two texts share from their start."""
    size = min(len(one), len(other))
    differs = np.frombuffer(one, np.uint8, size) != np.frombuffer(other, np.uint8, size)
    first = int(differs.argmax()) if size else 0
    return first if size and differs[first] else size
