"""VCF out: every byte of header and records as it came, with INFO keys added.

Only the INFO column of a record that gets values is touched, and in it only our keys.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

from hyena_glt.errors import ConfigError, DataError, UsageError
from hyena_glt.sequences.atomic import atomic_path, open_output
from hyena_glt.tracks.provenance import Provenance
from hyena_glt.variants.vcf_header import InfoField, VcfHeader
from hyena_glt.variants.vcf_records import VcfRecord, split_info

Value = float | int | str | None
Values = Mapping[str, Sequence[Value] | Value]

MISSING = b"."
INFO_COLUMN = 7
ESCAPES = str.maketrans({c: f"%{ord(c):02X}" for c in '%:;=," \t\r\n'})
COMPRESSED = (".gz", ".bgz")
TBI_LIMIT = 1 << 29  # bases of a contig that a .tbi reaches
CSI_LIMIT = 1 << 31


class VcfWriter:
    """Writes a header at once and records as they come to an open binary handle, which stays open.

    Args:
        handle: Where the bytes go.
        header: Of the input.
        fields: INFO keys that are declared and filled.
        provenance: Written behind the first line; None leaves it out.
    """

    def __init__(
        self,
        handle: IO[bytes],
        header: VcfHeader,
        fields: Sequence[InfoField] = (),
        provenance: Provenance | None = None,
    ) -> None:
        self._handle = handle
        self._fields = tuple(fields)
        self._keys = {field.id.encode() for field in fields}
        if len(self._keys) != len(self._fields):
            raise ConfigError("INFO keys: one is given twice")
        handle.write(b"".join(header.with_fields(fields, provenance).lines))

    def write(self, record: VcfRecord, values: Values | None = None) -> None:
        """Write a record, as it came, or with its values in INFO behind what is there.

        Args:
            record: As read.
            values: INFO key -> one value per ALT (`Number=A`; none or one for ALT `.`), a list of that count, or the
                value for `Number=1`. None is missing (`.`), as is a key that is not given; text is percent-encoded
                where VCF needs it.

        Raises:
            ConfigError: Values of an undeclared key, or not as many as declared.
            DataError: A value that is not finite.
        """
        if values is None:
            self._handle.write(record.raw)
            return
        if unknown := set(values) - {field.id for field in self._fields}:
            raise ConfigError(f"INFO keys: {', '.join(sorted(unknown))}: not declared in the header")
        columns = record.raw.split(b"\t", INFO_COLUMN + 1)
        info, end = _cut_line_end(columns[INFO_COLUMN])
        kept = [] if info == MISSING else [f for f in split_info(info) if f.partition(b"=")[0] not in self._keys]
        ours = [field.id.encode() + b"=" + self._text(field, record, values.get(field.id)) for field in self._fields]
        columns[INFO_COLUMN] = (b";".join(kept + ours) or MISSING) + end
        self._handle.write(b"\t".join(columns))

    def _text(self, field: InfoField, record: VcfRecord, values: Sequence[Value] | Value) -> bytes:
        count = len(record.alts) if field.number == "A" else int(field.number)
        if values is None:
            return b",".join([MISSING] * count) or MISSING
        several = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
        says_why = field.number == "A" and not count and len(several) == 1  # a value of ALT `.` itself
        if len(several) != count and not says_why:
            raise ConfigError(f"{field.id} at {record.place}: expected {count} values, got {len(several)}")
        return b",".join(_value(field, record, value) for value in several) or MISSING


@contextmanager
def open_vcf_writer(
    path: str | os.PathLike[str],
    header: VcfHeader,
    fields: Sequence[InfoField] = (),
    provenance: Provenance | None = None,
    *,
    overwrite: bool = False,
) -> Iterator[VcfWriter]:
    """Open a VCF output: whole under its name or not at all; `.gz` and `.bgz` are written as BGZF.

    Args:
        path: Target, or `-` for standard output (plain text).
        header: Of the input.
        fields: As for `VcfWriter`.
        provenance: As for `VcfWriter`.
        overwrite: Replace an existing file.

    Raises:
        UsageError: A `.bcf` name.
        OutputExistsError: The file is there already.
        SystemProblem: It cannot be written.
    """
    if os.fspath(path).endswith(".bcf"):
        raise UsageError(f"{os.fspath(path)}: BCF is not written; write .vcf.gz and convert it (bcftools view -Ob)")
    with open_output(path, overwrite=overwrite) as handle:
        yield VcfWriter(handle, header, fields, provenance)


def index_vcf(path: str | os.PathLike[str], *, max_end: int, overwrite: bool = False) -> str | None:
    """Make the tabix index of a finished, sorted BGZF file: `.tbi`, or `.csi` where a contig is too long for it.

    Args:
        path: The file; its order is the caller's word (`VcfReader.is_sorted`).
        max_end: Largest 1-based end of a record (`VcfReader.max_end`).
        overwrite: Replace an existing index.

    Returns:
        Name of the index; None where there can be none: not BGZF, or positions beyond 2^31.

    Raises:
        DataError: htslib cannot index the file (it is not sorted).
        OutputExistsError: The index is there already.
        SystemProblem: It cannot be written.
    """
    name = os.fspath(path)
    if not name.endswith(COMPRESSED) or max_end >= CSI_LIMIT:
        return None
    import pysam

    csi = max_end >= TBI_LIMIT
    index = f"{name}.csi" if csi else f"{name}.tbi"
    with atomic_path(index, overwrite=overwrite) as temporary:
        verbosity = pysam.set_verbosity(0)
        try:
            pysam.tabix_index(name, preset="vcf", force=True, csi=csi, index=os.fspath(temporary))
        except OSError as error:
            raise DataError(f"cannot be indexed: {error}; is it sorted?", path=name) from None
        finally:
            pysam.set_verbosity(verbosity)
    return index


def _cut_line_end(text: bytes) -> tuple[bytes, bytes]:
    body = text.removesuffix(b"\n").removesuffix(b"\r")
    return body, text[len(body) :]


def _value(field: InfoField, record: VcfRecord, value: Value) -> bytes:
    if value is None:
        return MISSING
    if isinstance(value, str):
        return (value.translate(ESCAPES) or ".").encode()
    if not math.isfinite(value):
        raise DataError(f"{field.id}: expected a finite number, got {value}", record=record.place)
    return (str(int(value)) if field.type == "Integer" else f"{value:.6g}").encode()
