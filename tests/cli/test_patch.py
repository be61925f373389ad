"""`hyena-glt patch`: every base once, every option, every way to say that something is wrong."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pyarrow.parquet as pq
import pysam
import pytest

from hyena_glt import Patcher
from hyena_glt.sequences.fasta import read_records


def assert_tiles(rows, lengths):
    """The patches cover every base of every contig exactly once, in order, numbered from 0."""
    assert [row[3] for row in rows] == list(range(len(rows)))
    assert all(0 <= row[4] <= 1000 for row in rows)
    seen = {}
    for contig, patches in itertools.groupby(rows, key=lambda row: row[0]):
        position = 0
        for _, start, end, _, _ in patches:
            assert start == position
            assert end > start
            position = end
        assert contig not in seen
        seen[contig] = position
    assert seen == lengths


def contig_lengths(path, **options):
    return {record.name: len(record.sequence) for record in read_records(path, **options)}


def test_patches_cover_every_base_once(cli, genome, bed, tmp_path):
    out, stats = tmp_path / "p.bed.gz", tmp_path / "stats.json"
    done = cli("patch", genome, "-o", out, "--stats", stats, "-W")
    assert done.code == 0, done.err
    text = gzip.decompress(out.read_bytes()).decode()
    rows, lengths = bed(text), contig_lengths(genome)
    assert_tiles(rows, lengths)
    facts = json.loads(stats.read_text())
    assert facts["bases"] == sum(lengths.values())
    assert facts["patches"] == len(rows)
    assert facts["max_length"] == max(end - start for _, start, end, _, _ in rows)
    assert facts["mean_length"] == facts["bases"] / facts["patches"]
    assert set(facts["entropy_model"]) >= {"name", "order", "bits_per_base"}
    assert [contig["name"] for contig in facts["contigs"]] == list(lengths)
    for key in ("bases", "patches"):
        assert sum(contig[key] for contig in facts["contigs"]) == facts[key]
    needed = {"bases", "patches", "mean_length", "max_length", "threshold", "entropy_model"}
    assert all(needed | {"seconds", "bases_per_second"} <= set(contig) for contig in facts["contigs"])
    with pysam.TabixFile(str(out)) as index:
        assert len(list(index.fetch("sim_chr1", 1000, 1100))) >= 2


def test_runs_of_n_are_patches_of_their_own(cli, genome, bed):
    rows = bed(cli("patch", genome, "-o", "-").out)
    patches = {(contig, start): end for contig, start, end, _, _ in rows}
    found = 0
    for record in read_records(genome):
        ambiguous = np.frombuffer(record.sequence.upper(), np.uint8) == ord("N")
        edges = np.flatnonzero(np.diff(np.concatenate([[False], ambiguous, [False]])))
        for start, end in edges.reshape(-1, 2).tolist():
            assert patches[record.name, start] == end
            found += 1
    assert found >= 2


@pytest.mark.parametrize(
    "options",
    [
        ("--mode", "static", "--patch-size", "8"),
        ("--mode", "static", "--patch-size", "4.5"),
        ("--mode", "byte"),
        ("--threshold", "1.37", "--max-patch-length", "64"),
        ("--threshold", "1.3", "--min-patch-length", "5", "--max-patch-length", "20"),
        ("--threshold", "0.01", "--monotonicity"),
        ("--threshold", "1.3", "--threshold-add", "0.001"),
        ("--target-length", "4", "--order", "4"),
    ],
)
def test_every_rule_tiles_the_genome_and_keeps_its_limits(cli, genome, bed, options):
    done = cli("patch", genome, "-o", "-", *options)
    assert done.code == 0, done.err
    rows = bed(done.out)
    assert_tiles(rows, contig_lengths(genome))
    if "--max-patch-length" in options:
        cap = int(options[options.index("--max-patch-length") + 1])
        assert max(end - start for _, start, end, _, _ in rows) <= cap


def test_space_mode_on_bases_is_questioned(cli, genome):
    assert "cuts after separators" in cli("patch", genome, "--mode", "space", "-o", "-").err


def test_the_command_line_and_the_patcher_agree(cli, genome, bed, tmp_path):
    saved = tmp_path / "patcher.json"
    assert cli("calibrate", genome, "--target-length", "8", "-o", saved).code == 0
    rows = bed(cli("patch", genome, "--patcher", saved, "-o", "-").out)
    patcher = Patcher.load(saved)
    for record in read_records(genome):
        lengths, _ = patcher.patch([record.sequence])
        expected = [end - start for contig, start, end, _, _ in rows if contig == record.name]
        assert lengths[0].tolist() == expected


def test_parquet_holds_the_table_of_the_bed(cli, genome, bed, tmp_path):
    table_path = tmp_path / "p.parquet"
    assert cli("patch", genome, "-o", table_path).code == 0
    table = pq.read_table(table_path)
    rows = bed(cli("patch", genome, "-o", "-").out)
    assert list(zip(table["contig"].to_pylist(), table["start"].to_pylist(), strict=True)) == [r[:2] for r in rows]
    about = json.loads(table.schema.metadata[b"hyena_glt"])
    assert about["command"].startswith("hyena-glt patch")
    assert len(about["input_sha256"]) == 64


def test_entropies_are_written_beside_the_patches(cli, genome, tmp_path):
    track = tmp_path / "e.bedgraph"
    assert cli("patch", genome, "-o", tmp_path / "p.bed", "--entropy-out", track).code == 0
    lines = [line.split("\t") for line in track.read_text().splitlines() if line.startswith("sim_")]
    covered = sum(int(end) - int(start) for _, start, end, _ in lines)
    called = sum(len(r.sequence) - r.sequence.upper().count(b"N") for r in read_records(genome))
    assert covered == called
    assert all(0 <= float(value) <= 1.3863 for *_, value in lines)


def test_threads_and_stdin_change_nothing(cli, genome):
    from_file = cli("patch", genome, "-o", "-", "--no-version").out
    assert cli("patch", genome, "-o", "-", "--no-version", "-@", "1").out == from_file
    assert cli("patch", "-", "-o", "-", "--no-version", stdin=genome.read_bytes()).out == from_file
    packed = gzip.compress(genome.read_bytes())
    assert cli("patch", "-o", "-", "--no-version", "-@", "3", stdin=packed).out == from_file


def test_regions_are_one_based_inclusive(cli, genome, bed, tmp_path):
    rows = bed(cli("patch", genome, "-r", "sim_chr1:101-1,000", "-r", "sim_plasmid:1-50", "-o", "-").out)
    assert (rows[0][1], rows[-1][2]) == (100, 50)
    assert sum(end - start for _, start, end, _, _ in rows) == 950
    listed = tmp_path / "r.bed"
    listed.write_text("sim_chr1\t100\t1000\nsim_plasmid\t0\t50\n")
    assert bed(cli("patch", genome, "-R", listed, "-o", "-").out) == rows
    pysam.faidx(str(genome))
    try:
        indexed = cli("patch", genome, "-r", "sim_chr1:101-1000", "-r", "sim_plasmid:1-50", "-o", "-")
    finally:
        os.unlink(f"{genome}.fai")
    assert bed(indexed.out) == rows
    whole = {row[:3] for row in bed(cli("patch", genome, "-o", "-").out)}
    inside = [row[:3] for row in rows if row[0] == "sim_chr1" and row[1] > 120 and row[2] < 1000]
    assert inside
    assert set(inside) <= whole  # model and threshold are those of the whole genome


def test_a_finished_command_is_not_run_again(cli, genome, tmp_path):
    out = tmp_path / "p.bed"
    words = ("patch", genome, "-o", out)
    assert cli(*words).code == 0
    stamp = out.stat().st_mtime_ns
    again = cli(*words)
    assert again.code == 0
    assert "already done" in again.err
    assert out.stat().st_mtime_ns == stamp
    other = cli(*words, "--target-length", "8")
    assert other.code == 2
    assert other.err == f"error: {out}: exists already; give --force to replace it\n"
    assert cli(*words, "--target-length", "8", "--force").code == 0
    assert out.stat().st_mtime_ns != stamp


@pytest.mark.parametrize("kind", ["--patcher", "-R"])
def test_another_content_of_a_side_file_is_another_output(cli, genome, tmp_path, kind):
    side, out = tmp_path / "side", tmp_path / "p.bed"

    def make(number):
        if kind == "-R":
            side.write_text(f"sim_chr1\t0\t{number}00\n")
        else:
            Patcher(patching_mode="static", patch_size=number).save(side)

    make(8)
    words = ("patch", genome, "-o", out, kind, side)
    assert cli(*words).code == 0
    assert "already done" in cli(*words).err
    make(9)
    other = cli(*words)
    assert (other.code, other.err) == (2, f"error: {out}: exists already; give --force to replace it\n")


def test_a_pipe_is_written_and_not_read(cli, genome, tmp_path):
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    reader.start()
    words = ("patch", genome, "-O", "bed", "--no-version")
    assert cli(*words, "-o", pipe).code == 0
    reader.join(10)
    assert found == [cli(*words, "-o", "-").out.encode()]
    assert cli(*words, "-o", "/dev/null").code == 0


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["--patch-size", "8"], "--patch-size belongs to --mode static", 2),
        (["--threshold", "1", "--target-length", "8"], "exclude each other", 2),
        (["--mode", "byte", "--threshold", "1"], "--threshold belongs to --mode entropy", 2),
        (["-O", "vcf"], "-O: expected one of bed, parquet, tsv, got 'vcf'", 2),
        (["-W"], "-W indexes BED that is written as .bed.gz", 2),
        (["-r", "nowhere:1-10"], "nowhere", 1),
        (["-r", "sim_chr1:1-99999999"], "past the", 1),
        (["-r", "sim_chr1:1-100", "-r", "sim_chr1:50-200"], "overlap", 1),
        (["--mode", "nonsense"], "nonsense", 2),
        (["--no-such-option"], "--no-such-option", 2),
        (["--min-patch-length", "9", "--max-patch-length", "3"], "min_patch_length", 1),
        (["--patcher", "missing.json"], "missing.json", 1),
        (["--entropy-model", "missing.safetensors"], "missing.safetensors: no such file", 1),
    ],
)
def test_wrong_usage_is_one_line(cli, genome, words, message, code):
    done = cli("patch", genome, "-o", "-", *words)
    assert done.code == code
    assert done.out == ""
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: ")


def test_bad_input_leaves_no_file(cli, tmp_path):
    bad = tmp_path / "bad.fa"
    bad.write_text(">chr1\nACGT\nAC-GT\n")
    done = cli("patch", bad, "-o", tmp_path / "p.bed", "--stats", tmp_path / "s.json")
    assert done.code == 1
    assert done.err.startswith(f"error: {bad}:3")
    assert "--degap" in done.err
    assert os.listdir(tmp_path) == ["bad.fa"]
    assert cli("patch", bad, "-o", tmp_path / "p.bed", "--degap").code == 0


def test_all_n_is_one_patch_and_finite_numbers(cli, bed, tmp_path):
    fasta, stats = tmp_path / "n.fa", tmp_path / "s.json"
    fasta.write_text(">gap\n" + "N" * 100 + "\n")
    done = cli("patch", fasta, "-o", "-", "--stats", stats)
    assert done.code == 0
    assert "no letter" in done.err
    assert [row[:5] for row in bed(done.out)] == [("gap", 0, 100, 0, 0)]
    assert json.loads(stats.read_text())["mean_called_length"] == 0.0
    assert cli("report", fasta, "-o", tmp_path / "r.html").code == 0
    assert cli("entropy", fasta, "-o", tmp_path / "e.bw").code == 0


def test_an_input_is_never_written_over(cli, genome):
    done = cli("patch", genome, "-o", genome, "-O", "bed", "--force")
    assert done.code == 2
    assert "named twice" in done.err


def test_a_closed_pipe_ends_quietly(genome):
    command = f"{sys.executable} -m hyena_glt patch {genome} -o - --mode byte | head -n 3; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr


@pytest.mark.parametrize(
    ("name", "alphabet"),
    [
        ("human/hg19_chr20_partial_softmasked.fa.gz", "dna"),
        ("genomes/yeast_chrI.fa.gz", "dna"),
        ("genomes/sarscov2_MN908947.fasta", "dna"),
        ("phylo/sarscov2_ncov_example.fasta.gz", "dna"),
        ("genomes/lambda_NC_001416.1.fa", "dna"),
        ("protein_rna/mmseqs_query_500proteins.fasta.gz", "protein"),
    ],
)
def test_real_genomes_are_covered(cli, data, tmp_path, name, alphabet):
    table_path, stats = tmp_path / "p.parquet", tmp_path / "s.json"
    done = cli("patch", data(name), "--alphabet", alphabet, "-o", table_path, "--stats", stats)
    assert done.code == 0, done.err
    lengths = contig_lengths(data(name), alphabet=alphabet)
    table = pq.read_table(table_path, columns=["contig", "start", "end", "length"])
    per_contig = table.group_by("contig", use_threads=False).aggregate([("length", "sum")])
    assert dict(zip(*(per_contig[c].to_pylist() for c in ("contig", "length_sum")), strict=True)) == lengths
    starts, ends = table["start"].to_numpy(), table["end"].to_numpy()
    assert ((starts[1:] == ends[:-1]) | (starts[1:] == 0)).all()
    facts = json.loads(stats.read_text())
    assert facts["bases"] == sum(lengths.values())


@pytest.mark.parametrize("target", [4, 8, 16, 64])
@pytest.mark.parametrize("cap", [None, 4])
def test_the_mean_length_is_what_was_asked_for(cli, data, tmp_path, target, cap):
    genome = data("genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz")
    words = ["--target-length", target, *(["--max-patch-length", cap * target] if cap else [])]
    stats = tmp_path / "s.json"
    assert cli("patch", genome, "-o", tmp_path / "p.parquet", "--stats", stats, *words).code == 0
    assert json.loads(stats.read_text())["mean_length"] == pytest.approx(target, rel=0.02)
