"""One line of a VCF body -> `VcfRecord`: checked column by column, the bytes of the line kept.

What the columns hold beyond the specification's grammar (declared types and counts of INFO and FORMAT values,
genotypes) is passed through and not judged; `docs/variants.md`, "What is refused", lists what is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from hyena_glt.errors import VariantFormatError
from hyena_glt.sequences.quoting import quoted, shown
from hyena_glt.variants.alleles import BASES, bases_refusal, parse_allele
from hyena_glt.variants.vcf_header import CONTROL_BYTES, VcfHeader, first_repeated

NUM_FIXED = 8
CONTIG_OLD = re.compile(rb"[!-+\--9;=?-~]+|<[!-;=?-~]+>")  # 4.1, 4.2: visible, no ':' ',' '<' '>'
CONTIG_NEW = re.compile(rb"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*|<[!-;=?-~]+>")
POSITION = re.compile(rb"\d{1,18}")
NUMBER = re.compile(rb"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|inf|infinity|nan)", re.IGNORECASE)
WHITESPACE = re.compile(rb"\s")
QUOTED_TEXT = re.compile(rb'"[^"]*"')
INFO_FIELD = re.compile(rb'(?:"[^"]*+"|[^;"]++|")*+')  # possessive: no stack, whatever the length
MAX_INFO_FIELDS, MAX_ALLELES, MAX_FORMAT_KEYS = 100_000, 65_535, 10_000  # beyond them a line is a bomb
SPACES_ALLOWED = KEYS_UNIQUE = (4, 3)  # from this version on


class VcfRecord(NamedTuple):
    """One record; `raw` is the line as it came, the rest is what its first five columns mean."""

    raw: bytes  # with its line end
    chrom: str
    pos: int  # 1-based; 0 is the telomere before the first base
    ref: bytes  # case kept
    alts: tuple[bytes, ...]  # case kept; empty where ALT is `.`
    line: int  # 1-based line of the file

    @property
    def place(self) -> str:
        """`CHROM:POS`, printable, for messages."""
        return f"{shown(self.chrom)}:{self.pos}"


def parse_record(raw: bytes, line: int, header: VcfHeader, path: str) -> VcfRecord:
    """Check one line and take it apart.

    Args:
        raw: The line with its line end.
        line: Its 1-based number.
        header: Gives the version and the number of columns.
        path: For messages.

    Raises:
        VariantFormatError: The line breaks the format; names file, line, CHROM:POS and what to do.
    """
    columns: list[bytes] = []
    try:
        body = without_line_end(raw)
        columns = body.split(b"\t", NUM_FIXED)
        _check_shape(body, columns, header)
        chrom, pos, identifier, ref, alt, quality, filters, info, *genotypes = columns
        _check_contig(chrom, header.version)
        if not POSITION.fullmatch(pos):
            raise VariantFormatError(f"POS: expected a whole number (bases count from 1), got {quoted(pos)}")
        _check_list("ID", identifier)
        if not BASES.fullmatch(ref):
            raise VariantFormatError(_ref_refusal(ref))
        alts = _alts(alt)
        _check_quality(quality)
        _check_list("FILTER", filters)
        if filters != b"." and b";.;" in b";" + filters + b";":
            raise VariantFormatError(f"FILTER: '.' stands beside other filters in {quoted(filters)}; remove it")
        _check_info(info, header.version)
        if genotypes:
            _check_genotypes(genotypes[0], header.version)
    except VariantFormatError as fault:
        raise VariantFormatError(fault.message, path=path, line=line, record=_place(columns)) from None
    return VcfRecord(raw, chrom.decode("ascii"), int(pos), ref, alts, line)


def without_line_end(raw: bytes) -> bytes:
    """The line without LF or CRLF."""
    return raw.removesuffix(b"\n").removesuffix(b"\r")


def split_info(info: bytes) -> list[bytes]:
    """Split an INFO column at the semicolons outside double quotes; a quote that is not closed is a byte like others.

    Example:
        >>> split_info(b'A=1;B="x;y"')
        [b'A=1', b'B="x;y"']
    """
    if b'"' not in info:
        return info.split(b";")
    fields, at = [], 0
    while True:
        match = INFO_FIELD.match(info, at)
        assert match is not None  # the pattern takes the empty text too
        fields.append(match[0])
        if match.end() == len(info):
            return fields
        at = match.end() + 1


def _check_shape(body: bytes, columns: list[bytes], header: VcfHeader) -> None:
    if not body.strip():
        raise VariantFormatError("blank line among the records; remove it")
    if body.startswith(b"#"):
        raise VariantFormatError("header line among the records; move it above the #CHROM line")
    if b"\r" in body:
        raise VariantFormatError("carriage return inside the line (old Mac line ends?)")
    if len(body.translate(None, CONTROL_BYTES)) != len(body):
        raise VariantFormatError("control character in the line; is the file damaged?")
    found = body.count(b"\t") + 1
    if found != header.num_columns:
        hint = "; separate them by tabs, not by spaces" if len(body.split(None, NUM_FIXED)) >= NUM_FIXED > found else ""
        raise VariantFormatError(f"expected {header.num_columns} columns as in the header, got {found}{hint}")
    if not all(columns) or b"\t\t" in columns[-1] or columns[-1].startswith(b"\t") or body.endswith(b"\t"):
        raise VariantFormatError("an empty column; write '.' for a missing value")


def _check_contig(chrom: bytes, version: tuple[int, int]) -> None:
    if (CONTIG_OLD if version < (4, 3) else CONTIG_NEW).fullmatch(chrom):
        return
    hint = "VCF allows ':' in a name from 4.3 on" if version < (4, 3) and b":" in chrom else "rename the contig"
    raise VariantFormatError(f"CHROM: expected a contig name, got {quoted(chrom)}; {hint}")


def _check_list(column: str, text: bytes) -> None:
    if WHITESPACE.search(text):
        raise VariantFormatError(f"{column}: whitespace in {quoted(text)}; columns are separated by tabs")
    if b";;" in text or text.startswith(b";") or text.endswith(b";"):
        raise VariantFormatError(f"{column}: an empty part between semicolons in {quoted(text)}")


def _ref_refusal(ref: bytes) -> str:
    if ref == b".":
        return "REF is missing; write the reference's bases, or N"
    if b"," in ref:
        return f"REF: expected one allele, got {quoted(ref)}; alternatives belong into ALT"
    return bases_refusal("REF", ref)


def _alts(text: bytes) -> tuple[bytes, ...]:
    if text == b".":
        return ()
    _check_count("ALT: alleles", text.count(b",") + 1, MAX_ALLELES)
    alts = tuple(text.split(b","))
    for alt in alts:
        if not BASES.fullmatch(alt):
            parse_allele(alt)
    if b"." in alts:
        raise VariantFormatError(f"ALT: '.' stands beside other alleles in {quoted(text)}; remove it")
    return alts


def _check_quality(text: bytes) -> None:
    if text == b".":
        return
    if not NUMBER.fullmatch(text):
        raise VariantFormatError(f"QUAL: expected a number, or '.' where it is unknown, got {quoted(text)}")
    if float(text) < 0:
        raise VariantFormatError(f"QUAL: expected a number >= 0, got {quoted(text)}; write '.' where it is unknown")


def _check_info(info: bytes, version: tuple[int, int]) -> None:
    if info == b".":
        return
    _check_count("INFO: fields", info.count(b";") + 1, MAX_INFO_FIELDS)
    fields = split_info(info)
    if not all(fields):
        raise VariantFormatError("INFO: an empty field between semicolons or at an end; remove the extra ';'")
    if any(field.startswith(b"=") for field in fields):
        raise VariantFormatError("INFO: a value without a key")
    if version < SPACES_ALLOWED:
        if b" " in info and b" " in QUOTED_TEXT.sub(b"", info):
            raise VariantFormatError("INFO: a space outside quotes, which VCF allows from 4.3 on; write '_' or '%20'")
        return
    keys = [field.partition(b"=")[0] for field in fields]
    if any(b" " in key for key in keys):
        raise VariantFormatError("INFO: a space in a key")
    if (twice := first_repeated(keys)) is not None:
        raise VariantFormatError(f"INFO: the key {quoted(twice)} stands twice")


def _check_genotypes(text: bytes, version: tuple[int, int]) -> None:
    layout, *samples = text.split(b"\t")
    if layout == b".":
        return
    _check_count("FORMAT: keys", layout.count(b":") + 1, MAX_FORMAT_KEYS)
    keys = layout.split(b":")
    if not all(keys) or WHITESPACE.search(layout):
        raise VariantFormatError(f"FORMAT: expected keys between colons, got {quoted(layout)}")
    if b"GT" in keys[1:]:
        raise VariantFormatError(f"FORMAT: GT has to come first, got {quoted(layout)}")
    if version >= KEYS_UNIQUE and len(set(keys)) != len(keys):
        raise VariantFormatError(f"FORMAT: a key stands twice in {quoted(layout)}")
    for index, sample in enumerate(samples):
        if sample.count(b":") >= len(keys):
            raise VariantFormatError(
                f"sample {index + 1}: expected at most {len(keys)} values (FORMAT {quoted(layout)}), "
                f"got {sample.count(b':') + 1}"
            )


def _check_count(what: str, count: int, most: int) -> None:
    if count > most:
        raise VariantFormatError(f"{what}: expected at most {most:,}, got {count:,}")


def _place(columns: list[bytes]) -> str | None:
    """`CHROM:POS` of a line that may be broken anywhere."""
    if len(columns) < 2 or not columns[0]:
        return None
    return f"{shown(columns[0], 30)}:{shown(columns[1], 20)}"
