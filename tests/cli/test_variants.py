"""`hyena-glt variants`: VCF in, the same VCF with typed scores out."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pysam
import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.cli import variants_run
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.variants.alleles import UnscoredReason
from hyena_glt.variants.scoring import AlleleEffect

CONTIG = generate_random_genomic_sequence(3000, seed=21)
KEYS = ["HGLT_LLR", "HGLT_DIST", "HGLT_DPATCH", "HGLT_DVAR", "HGLT_DCOMP", "HGLT_REASON"]
HEAD = (
    "##fileformat=VCFv4.2\n"
    '##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">\n'
    "##contig=<ID=chr1,length=3000>\n"
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
)


def other(base: str) -> str:
    return "A" if base != "A" else "C"


def line(pos: int, alt: str | None = None, ref: str | None = None, info: str = "DP=7") -> str:
    ref = ref or CONTIG[pos - 1]
    return f"chr1\t{pos}\trs{pos}\t{ref}\t{alt or other(ref[0])}\t50\tPASS\t{info}\n"


SOUND = [
    line(1),
    line(700),
    line(700, CONTIG[699] + "GATTACA", info="."),
    line(701, CONTIG[700], CONTIG[700:705]),
    line(1200, f"{other(CONTIG[1199])},*,<DEL>"),
    line(1300, "."),
    line(3000),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reference, a VCF and a saved net."""
    folder = tmp_path_factory.mktemp("variants")
    (folder / "ref.fa").write_text(f">chr1\n{CONTIG}\n")
    (folder / "calls.vcf").write_text(HEAD + "".join(SOUND))
    torch.manual_seed(0)
    patcher = Patcher(patching_mode="static", patch_size=8)
    HyenaGLT(HyenaGLTConfig.preset("tiny", genomic_vocab_size=4, num_layers=1), patcher).save_pretrained(folder / "net")
    return folder


@pytest.fixture
def scored(cli, folder, tmp_path):
    """`scored(*words, calls=None)` runs the command into OUT.vcf.gz."""

    def run(*words, calls=None, output="out.vcf.gz", **kwargs):
        path = folder / "calls.vcf" if calls is None else calls
        common = ["--model", folder / "net", "--window", 128, "--rc", "none", "-@", 1, "-o", tmp_path / output]
        return cli("variants", folder / "ref.fa", path, *common, *words, **kwargs)

    return run


def records(path) -> list[str]:
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt") as file:
        return [text for text in file if not text.startswith("#")]


def test_scores_are_added_and_nothing_else_changes(scored, tmp_path):
    done = scored("-W", "--tsv", "--json")
    assert done.code == 0, done.err
    assert "scored 6, kept without a score 1, skipped 0, failed 0 of 7 records" in done.err
    for before, after in zip(SOUND, records(tmp_path / "out.vcf.gz"), strict=True):
        was, now = before.rstrip("\n").split("\t"), after.rstrip("\n").split("\t")
        assert now[:7] == was[:7]
        kept = [item for item in now[7].split(";") if not item.startswith("HGLT_")]
        assert kept == ([] if was[7] == "." else [was[7]])
    summary = json.loads(done.out)
    assert (summary["records"], summary["scored"], summary["alleles"]) == (7, 6, 9)
    assert summary["reasons"] == {"no_alt": 1, "spanning_deletion": 1, "symbolic": 1}
    table = [row.split("\t") for row in (tmp_path / "out.vcf.gz.tsv").read_text().splitlines() if row[0] != "#"]
    assert table[0] == ["CHROM", "POS", "ID", "REF", "ALT", *KEYS]
    assert [row[-1] for row in table[5:9]] == [".", "spanning_deletion", "symbolic", "no_alt"]
    assert not (tmp_path / "out.vcf.gz.parts").exists()


def test_htslib_reads_types_and_index(scored, tmp_path):
    assert scored("-W").code == 0
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
        meta = {key: (file.header.info[key].number, file.header.info[key].type) for key in KEYS}
        assert meta == {**dict.fromkeys(KEYS[:5], ("A", "Float")), "HGLT_REASON": ("A", "String")}
        found = list(file.fetch("chr1", 1199, 1200))
        assert [len(found[0].info[key]) for key in KEYS] == [3] * 6
        assert found[0].info["HGLT_LLR"][0] is not None
        assert found[0].info["HGLT_LLR"][1:] == (None, None)
        assert found[0].info["HGLT_REASON"][1:] == ("spanning_deletion", "symbolic")
        assert [record.pos for record in file.fetch("chr1", 698, 702)] == [700, 700, 701]


def test_the_header_says_where_it_came_from_unless_told_not_to(scored, tmp_path):
    assert scored().code == 0
    with gzip.open(tmp_path / "out.vcf.gz", "rt") as file:
        header = [text for text in file if text.startswith("##")]
    assert header[0] == "##fileformat=VCFv4.2\n"
    assert any(text.startswith("##hyena_gltCommand=hyena-glt variants") for text in header)
    assert any(text.startswith("##hyena_glt_weights=net, sha256 ") for text in header)
    assert scored("--no-version", output="bare.vcf").code == 0
    assert "hyena_glt" not in (tmp_path / "bare.vcf").read_text().replace("HGLT", "")


def test_a_finished_command_is_not_run_again(scored, tmp_path, folder):
    assert scored().code == 0
    again = scored()
    assert (again.code, "already done" in again.err) == (0, True)
    other_run = scored("--window", 64)
    assert (other_run.code, "--force" in other_run.err) == (2, True)
    assert scored("--window", 64, "--force").code == 0


def test_a_finished_run_with_a_score_that_is_not_finite_stays_an_error(scored, tmp_path, folder, monkeypatch):
    score = variants_run.VariantScorer.score_records

    def failing(self, shard):
        effects = score(self, shard)
        effects[1] = [AlleleEffect(reason=UnscoredReason.NOT_FINITE)]
        effects[4][0] = AlleleEffect(reason=UnscoredReason.NOT_FINITE)
        return effects

    monkeypatch.setattr(variants_run.VariantScorer, "score_records", failing)
    problem = f"error: {folder / 'calls.vcf'}: 2 records have no finite score (not_finite)\n"
    done = scored()
    assert (done.code, done.err.endswith(problem), "failed 2 of 7" in done.err) == (1, True, True)
    again = scored()
    assert (again.code, again.err.endswith(problem), "already done" in again.err) == (1, True, True)
    assert sum("not_finite" in text for text in records(tmp_path / "out.vcf.gz")) == 2


def test_batch_size_changes_no_byte(scored, tmp_path):
    for size in (1, 32):
        assert scored("--no-version", "--batch-size", size, output=f"{size}.vcf").code == 0
    assert (tmp_path / "1.vcf").read_bytes() == (tmp_path / "32.vcf").read_bytes()


def test_the_name_of_an_output_says_what_it_is(scored, tmp_path):
    unknown = scored(output="out.txt")
    assert (unknown.code, "the suffix tells no format; give -O" in unknown.err) == (2, True)
    assert scored("-O", "vcf", output="out.txt").code == 0
    assert len(records(tmp_path / "out.txt")) == len(SOUND)
    assert "BCF is not written" in scored(output="out.bcf").err


def test_stdin_and_stdout(cli, folder, scored, tmp_path):
    text = (folder / "calls.vcf").read_bytes()
    assert scored("--no-version").code == 0
    words = ["--model", folder / "net", "--window", 128, "--rc", "none", "-@", 1, "--no-version"]
    piped = cli("variants", folder / "ref.fa", *words, stdin=gzip.compress(text))
    assert piped.code == 0, piped.err
    assert piped.out == gzip.decompress((tmp_path / "out.vcf.gz").read_bytes()).decode()
    assert scored("--no-version", calls="-", output="piped.vcf", stdin=text).code == 0
    assert (tmp_path / "piped.vcf").read_text() == piped.out
    broken = scored(calls="-", output="b.vcf", stdin=text + b"chr1\n")
    assert (broken.code, "<stdin>:12: expected 8 columns" in broken.err) == (1, True)


def test_regions_choose_records(scored, tmp_path):
    assert scored("-r", "chr1:704-1,200", output="r.vcf").code == 0
    assert [text.split("\t")[1] for text in records(tmp_path / "r.vcf")] == ["701", "1200"]
    (tmp_path / "r.bed").write_text("chr1\t0\t1\nchr1\t2999\t3000\n")
    assert scored("-R", tmp_path / "r.bed", output="b.vcf").code == 0
    assert [text.split("\t")[1] for text in records(tmp_path / "b.vcf")] == ["1", "3000"]
    assert scored("-r", "chr1:704-800", "-r", "chr1:705-1,200", output="o.vcf").code == 0
    assert records(tmp_path / "o.vcf") == records(tmp_path / "r.vcf")
    wrong = scored("-r", "1:5-10", output="w.vcf")
    assert (wrong.code, "no contig named '1'" in wrong.err) == (1, True)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (line(900, ref=other(CONTIG[899]), alt="G"), "but the reference has"),
        (line(900).replace("chr1", "1"), "names are never guessed"),
        ("chr1\tx\t.\tA\tC\t.\t.\t.\n", "POS: expected a whole number"),
    ],
)
def test_a_bad_record_stops_the_run_or_is_listed(scored, tmp_path, bad, words):
    path = tmp_path / "bad.vcf"
    path.write_text(HEAD + "".join([*SOUND[:3], bad, *SOUND[3:]]))
    stopped = scored(calls=path)
    assert stopped.code == 1
    assert f"{path}:8 (" in stopped.err
    assert words in stopped.err
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bad.vcf"]
    skipped = scored("--on-bad-record", "skip", calls=path)
    assert skipped.code == 0, skipped.err
    assert "scored 6, kept without a score 1, skipped 1, failed 0 of 8 records" in skipped.err
    table = tmp_path / "out.vcf.gz.skipped.tsv"
    listed = [row for row in table.read_text().splitlines() if not row.startswith("##")]
    assert listed[0] == "line\treason"
    assert [row.split("\t")[0] for row in listed[1:]] == ["8"]
    assert len(records(tmp_path / "out.vcf.gz")) == 7
    before = table.read_bytes()
    assert "already done" in scored("--on-bad-record", "skip", calls=path).err
    table.unlink()  # as a run that was killed between the names of its files leaves it
    assert scored("--on-bad-record", "skip", calls=path).code == 0
    assert table.read_bytes() == before
    (tmp_path / "out.vcf.gz").unlink()
    table.write_text("of somebody else\n")
    refused = scored("--on-bad-record", "skip", calls=path)
    assert (refused.code, refused.err) == (2, f"error: {table}: exists already; give --force to replace it\n")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([line(700), *[line(900).replace("chr1", "2")] * 2], "over half of the records were skipped"),
        ([line(700, "<DEL>"), line(800, "*")], "no record was scored"),
    ],
)
def test_a_run_that_says_little_is_an_error(scored, tmp_path, lines, words):
    path = tmp_path / "few.vcf"
    path.write_text(HEAD + "".join(lines))
    done = scored("--on-bad-record", "skip", calls=path)
    assert (done.code, words in done.err) == (1, True)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["few.vcf"]


def test_strict_names_the_allele(scored, tmp_path):
    done = scored("--strict")
    assert done.code == 1
    assert "(chr1:1200): ALT '*' cannot be scored: spanning_deletion" in done.err
    assert not list(tmp_path.iterdir())


def test_an_unsorted_file_is_scored_but_not_indexed(scored, tmp_path):
    path = tmp_path / "unsorted.vcf"
    path.write_text(HEAD + line(900) + line(800))
    assert scored(calls=path).code == 0
    assert [text.split("\t")[1] for text in records(tmp_path / "out.vcf.gz")] == ["900", "800"]
    refused = scored("-W", calls=path, output="indexed.vcf.gz")
    assert (refused.code, "out of order" in refused.err) == (1, True)


@pytest.mark.parametrize(
    "words", [("-W",), ("--untrained",), ("--window", 8), ("--rc", "both")], ids=lambda words: words[0]
)
def test_wrong_usage_is_one_line(scored, words):
    done = scored(*words, output="x.vcf")
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1)


def test_stdout_takes_no_table(cli, folder):
    assert cli("variants", folder / "ref.fa", folder / "calls.vcf", "--tsv").code == 2


def test_finished_shards_are_taken_up_and_damaged_ones_are_not(scored, tmp_path, monkeypatch):
    monkeypatch.setattr(variants_run, "MOST_RECORDS", 2)
    assert scored("--no-version", output="whole.vcf").code == 0
    score, calls = variants_run.VariantScorer.score_records, []

    def interrupted(self, shard):
        calls.append(len(shard))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return score(self, shard)

    monkeypatch.setattr(variants_run.VariantScorer, "score_records", interrupted)
    assert scored("--no-version", output="cut.vcf").code == 130
    parts = tmp_path / "cut.vcf.parts"
    assert sorted(item.name[:9] for item in parts.glob("*-*.json")) == [f"0000000{i}-" for i in range(3)]
    other_run = scored("--no-version", "--window", 64, output="cut.vcf")
    assert (other_run.code, "whose window was" in other_run.err) == (2, True)
    damaged = next(parts.glob("00000001-*.json"))
    damaged.write_text(damaged.read_text() + " ")
    calls.clear()
    calls += [0] * 10
    assert scored("--no-version", output="cut.vcf").code == 0
    assert calls[10:] == [2, 1]  # the damaged shard and the last one
    assert (tmp_path / "cut.vcf").read_bytes() == (tmp_path / "whole.vcf").read_bytes()
    assert not parts.exists()


def test_a_net_without_a_patcher_gets_one_fitted_on_the_reference(scored, tmp_path, folder):
    net = HyenaGLT(HyenaGLTConfig.preset("tiny", genomic_vocab_size=4, num_layers=1))
    net.save_pretrained(tmp_path / "bare")
    done = scored("--model", tmp_path / "bare")
    assert done.code == 0, done.err
    assert "the net has no patcher; one is fitted on the reference" in done.err


def test_a_net_that_is_not_causal_is_refused(scored, tmp_path):
    config = HyenaGLTConfig.preset("tiny", genomic_vocab_size=4, num_layers=1, causal=False)
    HyenaGLT(config, Patcher(patching_mode="static", patch_size=8)).save_pretrained(tmp_path / "both")
    done = scored("--model", tmp_path / "both")
    assert (done.code, "expected a causal net" in done.err) == (1, True)


@pytest.mark.slow
def test_kill_and_rerun_give_the_same_bytes(folder, tmp_path):
    calls = tmp_path / "many.vcf"
    calls.write_text(HEAD + "".join(line(pos) for pos in range(1, 2801)))
    words = [sys.executable, "-m", "hyena_glt", "variants", folder / "ref.fa", calls, "--model", folder / "net"]
    words += ["--window", "128", "--no-version", "-@", "1", "-o"]
    subprocess.run([*words, tmp_path / "whole.vcf.gz"], check=True, capture_output=True)
    killed = subprocess.Popen([*words, tmp_path / "cut.vcf.gz"], stderr=subprocess.DEVNULL)
    while not list((tmp_path / "cut.vcf.gz.parts").glob("00000001-*.json")) and killed.poll() is None:
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "cut.vcf.gz").exists()
    subprocess.run([*words, tmp_path / "cut.vcf.gz"], check=True, capture_output=True)
    assert (tmp_path / "cut.vcf.gz").read_bytes() == (tmp_path / "whole.vcf.gz").read_bytes()
    assert not [item.name for item in tmp_path.iterdir() if item.name.endswith((".tmp", ".parts"))]


REAL = [
    ("variants/norm.fa", "variants/norm.vcf", "20:1-301", 10),
    ("variants/EMN908947.fa", "variants/sarscov2_simple.vcf", None, 1),
    (
        "variants/BRCA1_GRCh37_chr17_41100001-41300000.fa.gz",
        "variants/clinvar2018_BRCA1_GRCh37_region.vcf.gz",
        None,
        1041,
    ),
    ("human/grch37_chr20_1Mb_z.fa.gz", "variants/1kgp_chr20_1Mb_z.vcf.gz", "z:1-50,000", 1000),
    ("human/hg19_chr20_partial_softmasked.fa.gz", "variants/giab_HG001_hg19_chr20_100kb.vcf.gz", None, 221),
]


@pytest.mark.slow
@pytest.mark.parametrize(("reference", "calls", "region", "least"), REAL, ids=[row[1][9:20] for row in REAL])
def test_real_files(cli, data, folder, tmp_path, reference, calls, region, least):
    genome = shutil.copy(data(reference), tmp_path)
    chosen = [] if region is None else ["-r", region]
    words = [
        "--model",
        folder / "net",
        "--window",
        64,
        "--rc",
        "none",
        "-@",
        1,
        "-W",
        "--on-bad-record",
        "skip",
        *chosen,
    ]
    done = cli("variants", genome, data(calls), "-o", tmp_path / "out.vcf.gz", *words)
    assert done.code == 0, done.err
    before = {tuple(text.split("\t")[:5]): text.rstrip("\n").split("\t") for text in records(data(calls))}
    after = [text.rstrip("\n").split("\t") for text in records(tmp_path / "out.vcf.gz")]
    assert len(after) >= least
    for columns in after:
        was = before[tuple(columns[:5])]
        kept = ";".join(item for item in columns[7].split(";") if not item.startswith("HGLT_"))
        assert [*columns[:7], kept or ".", *columns[8:]] == was
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
        assert sum(1 for record in file.fetch(after[0][0])) == sum(row[0] == after[0][0] for row in after)


def test_contig_names_are_not_guessed(cli, data, folder, tmp_path):
    genome = shutil.copy(data("genomes/human_mtDNA_rCRS.fasta"), tmp_path)
    calls = data("variants/1kgp_HG00097_mtDNA.vcf.gz")
    done = cli("variants", genome, calls, "-o", tmp_path / "m.vcf", "--model", folder / "net", "--window", 64)
    assert done.code == 1
    assert "(MT:3): unknown contig 'MT'" in done.err
    assert "the reference begins with 'rCRS'" in done.err
    assert not (tmp_path / "m.vcf").exists()
