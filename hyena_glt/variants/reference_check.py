"""REF against the reference, by one rule: two letters agree if some base is in both.

- Case does not count (soft mask); U is T.
- An IUPAC code of the reference agrees with each base that it stands for, as the specification writes such positions.
- N on either side is unknown and agrees with everything: structural callers write REF as N.
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from hyena_glt.errors import DataError, RegionError
from hyena_glt.sequences.intervals import Interval
from hyena_glt.sequences.quoting import quoted
from hyena_glt.variants.edits import Fetch
from hyena_glt.variants.reference import Genome
from hyena_glt.variants.vcf_records import VcfRecord

SHOWN_CONTIGS = 3  # in the message about an unknown one
CODES = {
    "A": "A", "C": "C", "G": "G", "T": "T", "U": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT",
    "M": "AC", "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip


def bases_agree(one: bytes, other: bytes) -> bool:
    """Tell whether two sequences are of equal length and agree letter by letter."""
    if len(one) != len(other):
        return False
    sets = BASE_SETS[np.frombuffer(one, np.uint8)] & BASE_SETS[np.frombuffer(other, np.uint8)]
    return bool(sets.all())


def check_reference(record: VcfRecord, genome: Genome, path: str) -> None:
    """Refuse a record whose REF is not what the reference has at its place.

    Telomeres (POS 0 and one past the end) lie beside the contig and are not compared.

    Args:
        record: As read.
        genome: The reference.
        path: File of the record, for the message.

    Raises:
        DataError: Unknown contig, REF past its end, or another sequence there.
    """
    start, end = record.pos - 1, record.pos - 1 + len(record.ref)
    try:
        length = genome.length(record.chrom)
    except RegionError as error:
        names = ", ".join(quoted(name) for name in islice(genome.lengths, SHOWN_CONTIGS))
        words = (
            f"{error.message} (the reference begins with {names}); names are never guessed: rename them in the VCF "
            "(bcftools annotate --rename-chrs)"
        )
        raise DataError(words, path=path, line=record.line, record=record.place) from None
    try:
        if start in (-1, length):
            return
        if end > length:
            raise RegionError(f"REF ends at {end:,}, past the end of the contig, which has {length:,} bases")
        found = genome.fetch(Interval(record.chrom, start, end))
    except RegionError as error:
        raise _mismatch(error.message, record, path) from None
    if not bases_agree(record.ref, found):
        raise _mismatch(f"REF is {quoted(record.ref)} but the reference has {quoted(found)}", record, path)


def fetcher(genome: Genome, contig: str) -> Fetch:
    """Give the bases of one contig to the functions of `edits`."""
    return lambda start, end: genome.fetch(Interval(contig, start, end))


def _mismatch(words: str, record: VcfRecord, path: str) -> DataError:
    return DataError(f"{words}; is this the right assembly?", path=path, line=record.line, record=record.place)


def _base_sets() -> np.ndarray:
    sets = np.zeros(256, np.uint8)
    for letter, bases in CODES.items():
        sets[ord(letter)] = sets[ord(letter.lower())] = sum(1 << "ACGT".index(base) for base in bases)
    return sets


BASE_SETS = _base_sets()  # (256,) uint8: byte -> bit set of A, C, G, T
