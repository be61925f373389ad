"""`hyena-glt distances`: metrics, files, resuming, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hyena_glt.evolution.comparison import genome_distances
from hyena_glt.evolution.genome import Genome
from hyena_glt.evolution.matrix_files import read_distances


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Five genomes in one FASTA file, and one file each."""
    folder = tmp_path_factory.mktemp("family")
    generator = np.random.default_rng(0)
    root = generator.integers(0, 4, 900)
    texts = {}
    for name in "abcde":
        codes = root.copy()
        places = generator.choice(900, 30, replace=False)
        codes[places] = (codes[places] + 1) % 4
        texts[name] = "".join("ACGT"[code] for code in codes)
        (folder / f"{name}.fa").write_text(f">one\n{texts[name][:500]}\n>two\n{texts[name][500:]}\n")
    (folder / "all.fa").write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    return folder, texts


@pytest.mark.parametrize("metric", ["compression", "kmer"])
def test_records_of_one_file_to_phylip(cli, family, tmp_path, metric):
    folder, texts = family
    done = cli("distances", folder / "all.fa", "--metric", metric, "-o", tmp_path / "d.phy")
    assert done.code == 0, done.err
    found = read_distances(tmp_path / "d.phy")
    expected = genome_distances([Genome.of(name, text) for name, text in texts.items()], metric)
    assert found.names == expected.names
    assert np.array_equal(found.values, expected.values)
    provenance = json.loads((tmp_path / "d.phy.json").read_text())["provenance"]
    assert provenance["metric"] == metric
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.phy", "d.phy.json"]


def test_files_are_genomes_and_stdout_is_a_table(cli, family):
    folder, _ = family
    done = cli("distances", *(folder / f"{name}.fa" for name in "abc"), "--metric", "kmer", "-k", 9)
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if not line.startswith("##")]
    assert lines[0] == "name\ta\tb\tc"
    assert "##hyena_glt_k=9" in done.out


def test_a_net_from_a_folder(cli, family, tmp_path):
    from hyena_glt import HyenaGLT, HyenaGLTConfig

    config = HyenaGLTConfig.preset("tiny", causal=False, genomic_vocab_size=4, alphabet="dna")
    HyenaGLT(config).save_pretrained(tmp_path / "net")
    for metric in ("representation", "wasserstein", "combined"):
        path = tmp_path / f"{metric}.tsv"
        done = cli("distances", family[0] / "all.fa", "--metric", metric, "--model", tmp_path / "net", "-o", path)
        assert done.code == 0, done.err
        assert read_distances(path).values.max() > 0
        assert "##hyena_glt_weights=" in path.read_text()


def test_other_weights_are_another_output(cli, family, tmp_path):
    from hyena_glt import HyenaGLT, HyenaGLTConfig

    words = ("distances", family[0] / "all.fa", "--metric", "representation", "--model", tmp_path / "net")
    for replaced in (False, True):
        net = HyenaGLT(HyenaGLTConfig.preset("tiny", causal=False, genomic_vocab_size=4, alphabet="dna"))
        net.save_pretrained(tmp_path / "net")
        done = cli(*words, "-o", tmp_path / "d.tsv")
        assert (done.code, "exists already" in done.err) == (2 if replaced else 0, replaced)
    assert cli(*words, "-o", "/dev/null", "-O", "tsv").code == 0


def test_a_file_of_the_sidecars_name_is_not_replaced(cli, family, tmp_path):
    sidecar = tmp_path / "d.phy.json"
    sidecar.write_text("{}")
    words = ("distances", family[0] / "all.fa", "--metric", "kmer", "-o", tmp_path / "d.phy")
    refused = cli(*words)
    assert (refused.code, refused.err) == (2, f"error: {sidecar}: exists already; give --force to replace it\n")
    assert sidecar.read_text() == "{}"
    assert cli(*words, "--force").code == 0


def test_done_is_done_and_other_output_is_refused(cli, family, tmp_path):
    words = ("distances", family[0] / "all.fa", "--metric", "kmer", "-o", tmp_path / "d.phy")
    plot = ("--plot", tmp_path / "h.png")
    assert cli(*words, *plot).code == 0
    assert "already done" in cli(*words, *plot).err
    other = cli(*words, "-k", 9)
    assert other.code == 2
    assert "--force" in other.err
    assert cli(*words, "-k", 9, "--force").code == 0


def test_an_interrupted_run_goes_on(cli, family, tmp_path, monkeypatch):
    from hyena_glt.evolution.kmers import SharedWords

    whole = SharedWords.row

    def stops(self, index):
        if index == 3:
            raise KeyboardInterrupt
        return whole(self, index)

    words = ("distances", family[0] / "all.fa", "--metric", "kmer", "-@", 1, "-o", tmp_path / "d.phy")
    monkeypatch.setattr(SharedWords, "row", stops)
    done = cli(*words)
    assert done.code == 130
    assert "3 finished rows are kept" in done.err
    assert not (tmp_path / "d.phy").exists()
    monkeypatch.setattr(SharedWords, "row", whole)
    other = cli(*words, "-k", 9)
    assert other.code == 2
    assert "whose k was 11, now 9" in other.err
    damaged = next((tmp_path / "d.phy.parts").glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = cli(*words)
    assert again.code == 0, again.err
    assert "3 finished rows found" in again.err
    assert "made again" in again.err
    assert not (tmp_path / "d.phy.parts").exists()
    assert cli(*words[:-1], tmp_path / "e.phy").code == 0
    assert (tmp_path / "d.phy").read_bytes() == (tmp_path / "e.phy").read_bytes()


def test_an_interrupted_run_of_a_net_goes_on(cli, family, tmp_path, monkeypatch):
    from hyena_glt.evolution import net_profiles

    whole, made = net_profiles.profile_genome, []

    def stops(model, patcher, genome, **options):
        if genome.name == "d":
            raise KeyboardInterrupt
        return whole(model, patcher, genome, **options)

    def counts(model, patcher, genome, **options):
        made.append(genome.name)
        return whole(model, patcher, genome, **options)

    options = ("--metric", "combined", "--untrained", "-@", 1)
    words = ("distances", family[0] / "all.fa", *options, "-o", tmp_path / "d.phy")
    monkeypatch.setattr(net_profiles, "profile_genome", stops)
    done = cli(*words)
    assert done.code == 130
    assert "3 finished profiles are kept" in done.err
    assert not (tmp_path / "d.phy").exists()
    monkeypatch.setattr(net_profiles, "profile_genome", counts)
    other = cli(*words, "--seed", 1)
    assert other.code == 2
    assert "whose weights was" in other.err
    again = cli(*words)
    assert again.code == 0, again.err
    assert "3 finished profiles found" in again.err
    assert made == ["d", "e"]
    assert not (tmp_path / "d.phy.parts").exists()
    assert cli(*words[:-1], tmp_path / "e.phy").code == 0
    assert (tmp_path / "d.phy").read_bytes() == (tmp_path / "e.phy").read_bytes()


@pytest.mark.parametrize("metric", ["compression", "kmer"])
def test_copies_of_a_genome_and_several_threads(cli, family, tmp_path, metric):
    _, texts = family
    path = tmp_path / "copies.fa"
    path.write_text("".join(f">{name}{i}\n{texts[name]}\n" for i in range(3) for name in "ab"))
    for threads in (1, 4):
        words = ("distances", path, "--metric", metric, "-@", threads, "--no-version")
        done = cli(*words, "-o", tmp_path / f"{threads}.tsv")
        assert done.code == 0, done.err
    written = (tmp_path / "1.tsv").read_bytes()
    assert written == (tmp_path / "4.tsv").read_bytes()
    assert b"-0.0" not in written


def test_a_record_without_letters_is_named_with_its_file(cli, tmp_path):
    path, fine = tmp_path / "n.fa", tmp_path / "fine.fa"
    path.write_text(">a\nACGTACGTACGTACGT\n>b\nNNNN\n>c\nACGTACGTACGTACGA\n")
    fine.write_text(">x\nACGTACGTACGTACGT\n")
    expected = f"error: {path} (b): expected a letter of alphabet dna, got none; leave it out"
    for words in ([path], [fine, path, "--per", "record"]):
        done = cli("distances", *words)
        assert done.code == 1
        assert expected in done.err
    piped = cli("distances", "-", stdin=path.read_bytes())
    assert "error: <stdin> (b): expected" in piped.err
    fine.write_text(">x\nACGTACGTACGTACGT\n>y\nACG\n")
    short = cli("distances", fine, "--metric", "kmer")
    assert f"error: {fine} (y): no word of k = 11 letters" in short.err


def test_genomes_that_no_threshold_cuts_for_a_net(cli, tmp_path):
    path, patcher = tmp_path / "a.fa", tmp_path / "p.json"
    path.write_text(f">a\n{'ACGT' * 100}\n>b\n{'ACGT' * 100}\n")
    words = ("distances", path, "--metric", "wasserstein", "--untrained")
    done = cli(*words)
    assert done.code == 1
    assert f"error: {path}: --metric wasserstein: no threshold" in done.err
    assert "--patcher FILE" in done.err
    assert "target_mean_length" not in done.err
    assert cli("calibrate", path, "--target-length", 4, "-o", patcher).code == 0
    advised = cli(*words, "--patcher", patcher)
    assert advised.code == 0, advised.err


def test_gaps_are_refused_or_counted(cli, tmp_path):
    path = tmp_path / "a.fa"
    path.write_text(">a\nACGT--ACGTACGTT\n>b\nACGTAC.GTACGTAA\n")
    refused = cli("distances", path, "--metric", "kmer", "-k", 3)
    assert refused.code == 1
    assert "--degap" in refused.err
    done = cli("distances", path, "--metric", "kmer", "-k", 3, "--degap")
    assert done.code == 0, done.err
    assert "3 gaps removed" in done.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-k", "5"], 2, "-k: only --metric kmer"),
        (["--metric", "kmer", "--order", "5"], 2, "--order: only --metric compression"),
        (["--untrained"], 2, "asks no net"),
        (["-o", "d.xlsx"], 2, "the suffix tells no format"),
        (["-o", "d.png"], 2, "the figure goes to --plot"),
        (["-o", "d.svg", "-O", "tsv"], 2, "the figure goes to --plot"),
        (["--strict-names"], 2, "only PHYLIP"),
        (["--metric", "kmer", "-k", "40"], 1, "k: expected 1 to 31"),
    ],
)
def test_what_is_refused(cli, family, words, code, message):
    done = cli("distances", family[0] / "all.fa", *words)
    assert done.code == code
    assert message in done.err


def test_two_files_of_one_name_and_one_genome(cli, family, tmp_path):
    (tmp_path / "a.fasta").write_text(">x\nACGT\n")
    twice = cli("distances", family[0] / "a.fa", tmp_path / "a.fasta")
    assert twice.code == 2
    assert "of the name a" in twice.err
    alone = cli("distances", tmp_path / "a.fasta")
    assert alone.code == 1
    assert "two genomes or more" in alone.err
