"""`hyena-glt patch` with every source of starts and every way to set the threshold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.patching import Patcher, PatcherArgs
from hyena_glt.sequences.fasta import read_records


def lengths_by_contig(rows):
    found = {}
    for contig, start, end, _, _ in rows:
        found.setdefault(contig, []).append(end - start)
    return found


def test_mix_needs_no_model_file_and_gets_a_cap(cli, genome, bed, tmp_path):
    stats = tmp_path / "s.json"
    done = cli("patch", genome, "--entropy-model", "mix", "--stats", stats)
    assert done.code == 0, done.err
    assert "patches are cut at 1,024" in done.err
    facts = json.loads(stats.read_text())
    assert facts["entropy_model"]["name"] == "mix"
    assert 1.0 < facts["entropy_model"]["bits_per_base"] < 2.1
    assert facts["mean_called_length"] == pytest.approx(16, rel=0.02)
    assert sum(map(sum, lengths_by_contig(bed(done.out)).values())) == 40_000


def test_a_track_takes_the_place_of_the_entropies(cli, genome, tmp_path):
    track = tmp_path / "e.bw"
    assert cli("entropy", genome, "-o", track).code == 0
    by_model = cli("patch", genome, "--no-version")
    by_track = cli("patch", genome, "--mode", "track", "--track", track, "--no-version")
    assert by_track.code == 0, by_track.err
    places = [["\t".join(line.split("\t")[:3]) for line in text.splitlines()] for text in (by_model.out, by_track.out)]
    assert places[0] == places[1]


def test_gaps_of_a_track_have_a_rule(cli, genome, tmp_path):
    track = tmp_path / "t.bedgraph"
    track.write_text("sim_chr1\t0\t10\t1\n")
    done = cli("patch", genome, "--mode", "track", "--track", track, "--missing", "error")
    assert done.code == 1
    assert "t.bedgraph" in done.err


def test_a_tokenizer_cuts_where_its_tokens_begin(cli, genome, bed, tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    made = cli("train-bpe", genome, "--vocab-size", 64, "-o", tokenizer)
    assert made.code == 0, made.err
    done = cli("patch", genome, "--mode", "bpe", "--tokenizer", tokenizer)
    assert done.code == 0, done.err
    found = lengths_by_contig(bed(done.out))
    patcher = Patcher(patching_mode="bpe", model_name=str(tokenizer))
    for record in read_records(genome):
        assert sum(found[record.name]) == len(record.sequence)
        if b"N" not in record.sequence.upper():
            assert found[record.name] == patcher.patch([record.sequence])[0][0].tolist()


def test_a_threshold_of_its_own_for_each_contig(cli, genome, tmp_path):
    patcher = tmp_path / "patcher.json"
    assert cli("calibrate", genome, "-o", patcher, "--per-contig", "--target-length", 8).code == 0
    stats = tmp_path / "s.json"
    done = cli(
        "patch", genome, "--patcher", tmp_path / "patcher.contigs.json", "-o", tmp_path / "p.bed", "--stats", stats
    )
    assert done.code == 0, done.err
    assert "contigs have their own" in done.err
    large = max(json.loads(stats.read_text())["contigs"], key=lambda contig: contig["bases"])
    assert large["mean_called_length"] == pytest.approx(8, rel=0.02)


def test_a_threshold_that_follows_keeps_the_mean(cli, tmp_path):
    rng = np.random.default_rng(0)
    halves = ["".join(rng.choice(list("ACGT"), 60_000, p=p)) for p in ([0.25] * 4, [0.4, 0.1, 0.1, 0.4])]
    model = MarkovEntropy.fit(halves, order=3)
    model.save(tmp_path / "m.safetensors")
    fasta = tmp_path / "two.fa"
    fasta.write_text(f">a\n{''.join(halves)}\n")
    words = ["patch", fasta, "--entropy-model", tmp_path / "m.safetensors", "-O", "bed"]
    fixed, following = (cli(*words, *more).out for more in ((), ("--half-life", 2000)))
    for text, near in ((fixed, False), (following, True)):
        starts = np.array([int(line.split("\t")[1]) for line in text.splitlines() if line.startswith("a\t")])
        second = 60_000 / np.count_nonzero(starts >= 60_000)
        assert bool(abs(second / 16 - 1) < 0.1) is near


def test_boundaries_against_annotation(cli, genome, tmp_path):
    gff, stats = genome.with_name("genome.gff3"), tmp_path / "s.json"
    done = cli("patch", genome, "-o", tmp_path / "p.bed", "--annotate", gff, "--stats", stats)
    assert done.code == 0, done.err
    assert "boundaries at codon_phase_0" in done.err
    rows = {row["site"]: row for row in json.loads(stats.read_text())["enrichment"]["rows"]}
    assert rows["gene_start"]["observed"] >= 0
    refused = cli("patch", genome, "-o", tmp_path / "q.bed", "--annotate", gff, "-r", "sim_chr1:1-100")
    assert refused.code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "bpe"], "--mode bpe and --tokenizer FILE go together"),
        (["--tokenizer", "t.json"], "--mode bpe and --tokenizer FILE go together"),
        (["--mode", "track"], "--mode track and --track FILE go together"),
        (["--missing", "zero"], "give --track FILE"),
        (["--half-life", 100, "--threshold", 1.3], "--half-life lets a calibrated threshold follow"),
        (["--entropy-model", "mix", "--order", 3], "was fitted before"),
        (["--mode", "static", "--target-length", 9], "belongs to --mode entropy or track"),
    ],
)
def test_options_that_do_not_go_together(cli, genome, words, message):
    done = cli("patch", genome, *words)
    assert done.code == 2
    assert message in done.err


def test_a_model_may_be_fitted_on_a_share(cli, genome, tmp_path):
    stats = tmp_path / "s.json"
    done = cli("patch", genome, "-o", tmp_path / "p.bed", "--fit-share", 0.5, "--stats", stats)
    assert done.code == 0, done.err
    assert json.loads(stats.read_text())["entropy_model"]["symbols"] < 40_000


def test_a_patcher_of_a_tokenizer_is_no_stream(cli, genome):
    done = cli("stream", genome, "--mode", "bpe")
    assert done.code == 2


def test_args_of_static_mode_have_no_threshold():
    assert PatcherArgs(patching_mode="static", patch_size=4).uses_scores is False
