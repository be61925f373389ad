"""A small sound VCF in which single things are broken."""

from __future__ import annotations

import pytest

HEAD = b"##fileformat=VCFv4.2\n"
CHROM = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
RECORD = b"1\t5\trs1\tA\tT,<DEL>\t9.5\tPASS\tAC=1,2;DB\tGT:DP\t0|1:7\t.\n"
VCF = (
    HEAD
    + b'##INFO=<ID=AC,Number=A,Type=Integer,Description="Counts, \\"each\\" of them">\n'
    + b"##contig=<ID=1,length=100>\n"
    + CHROM
    + b"\tFORMAT\ts1\ts2\n"
    + RECORD
    + b"2\t0\t.\tACGTNacgtn\t.\t.\t.\t.\tGT\t0/0\t1/1\n"
)


@pytest.fixture
def vcf():
    """The bytes of the sound file: 4 header lines, 2 records, 2 samples."""
    return VCF


@pytest.fixture
def save(tmp_path):
    """`save(text)` writes a file and gives its path."""

    def write(text: bytes, name: str = "x.vcf"):
        path = tmp_path / name
        path.write_bytes(text)
        return path

    return write
