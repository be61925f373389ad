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


@pytest.fixture(scope="session")
def scoring_net():
    """`scoring_net(patcher=None, seed=0, **changes)`: a DNA net of a few thousand weights, in evaluation mode."""
    import torch

    from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher

    def build(patcher=None, seed: int = 0, **changes):
        torch.manual_seed(seed)
        fields = {
            "genomic_vocab_size": 4,
            "hidden_size": 24,
            "num_layers": 3,
            "local_hidden_size": 16,
            "ngram_sizes": (2, 4),
            "ngram_table_size": 64,
            "filter_hidden_size": 8,
            "medium_filter_length": 24,
        }
        net = HyenaGLT(
            HyenaGLTConfig(**{**fields, **changes}), patcher or Patcher(patching_mode="static", patch_size=6)
        )
        with torch.no_grad():
            for weight in net.parameters():
                weight.mul_(1.5)
        return net.eval()

    return build


@pytest.fixture(scope="session")
def entropy_patcher():
    """A causal patcher with a fitted model: boundaries move where the sequence changes."""
    from hyena_glt.patching import calibrate
    from hyena_glt.sequences.simulate import generate_random_genomic_sequence

    sequence = generate_random_genomic_sequence(20_000, seed=3)
    return calibrate([sequence], target_mean_length=6, max_patch_length=24).build()
