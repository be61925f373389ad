"""Patches of a whole corpus, on both strands, cut to windows and kept on the disk."""

from __future__ import annotations

import logging
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies import MarkovEntropy, MixEntropy, TrackEntropy
from hyena_glt.errors import AlphabetError, ConfigError, RegionError, SystemProblem
from hyena_glt.patching import Patcher
from hyena_glt.sequences import reverse_complement
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.training import Corpus, PatchedCorpus
from hyena_glt.training import patched_corpus as module
from hyena_glt.training.patched_corpus import StaticPatches, cache_key

# Space mode says so where it finds nothing to split at.
pytestmark = pytest.mark.filterwarnings("ignore::hyena_glt.patching.PatchingWarning")

quick = settings(deadline=None, max_examples=40)
MODEL = MarkovEntropy.fit([generate_random_genomic_sequence(4_000, seed=4)], order=3)
ONLINE = [
    {"threshold": 1.38, "entropy_model": MODEL},
    {"threshold": 1.38, "entropy_model": MODEL, "min_patch_length": 3, "max_patch_length": 7},
    {"threshold": 0.001, "monotonicity": True, "entropy_model": MODEL, "max_patch_length": 9},
    {"threshold": 1.3, "entropy_model": MixEntropy(), "max_patch_length": 12},
    {"patching_mode": "static", "patch_size": 4.5},
    {"patching_mode": "byte"},
    {"patching_mode": "space", "delimiter_chars": ["A", "N"], "min_patch_length": 2},
]
IDS = ["threshold", "limits", "monotone", "mix", "static", "byte", "space", "top-k", "auto"]
WHOLE = [
    {"threshold": None, "patch_size": 4, "entropy_model": MODEL},
    {"threshold": 1.3, "max_patch_length": 8},
]
genomes = st.lists(
    st.lists(st.one_of(st.text("ACGT", min_size=1, max_size=40), st.text("NR", max_size=5)), min_size=1, max_size=4)
    .map("".join)
    .filter(bool),
    min_size=1,
    max_size=3,
)


def corpus_of(sequences):
    return Corpus.from_sequences({f"c{index}": sequence for index, sequence in enumerate(sequences)})


@cache
def demo_corpus():
    texts = [generate_random_genomic_sequence(length, seed=length) for length in (700, 90, 1301)]
    return corpus_of([texts[0][:200] + "N" * 40 + texts[0][200:], texts[1], texts[2][:640] + "RN" + texts[2][640:]])


def whole_starts(patcher, text):
    """Start and known masks of `patch_with_starts` on a whole sequence."""
    rows = patcher.patch_with_starts([text])
    lengths = rows.patch_lengths[0].numpy()
    starts = np.zeros(len(text), np.bool_)
    starts[lengths.cumsum() - lengths] = True
    return starts, rows.known_starts[0].numpy()


def expected_lengths(starts):
    places = np.flatnonzero(np.concatenate([[True], starts[1:]]))
    return np.diff(places, append=starts.size).tolist()


def row_of(lengths):
    return lengths[lengths > 0].tolist()


@pytest.mark.parametrize("fields", ONLINE + WHOLE, ids=IDS)
@quick
@given(genome=genomes, data=st.data())
def test_windows_have_the_patches_of_their_contig(fields, genome, data):
    corpus, patcher = corpus_of(genome), Patcher(**fields)
    patched = PatchedCorpus.from_patcher(corpus, patcher)
    assert patched.is_causal == patcher.is_causal
    windows, is_reversed, starts, known = [], [], [], []
    for _ in range(data.draw(st.integers(1, 5))):
        contig = data.draw(st.integers(0, len(genome) - 1))
        length = len(genome[contig])
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, length)] * 2)))
        strand = data.draw(st.booleans())
        text = reverse_complement(genome[contig]) if strand else genome[contig]
        first, last = (length - end, length - start) if strand else (start, end)
        all_starts, all_known = whole_starts(patcher, text)
        windows.append([contig, start, end])
        is_reversed.append(strand)
        starts.append(all_starts[first:last])
        known.append(all_known[first:last])
    cut = patched.cut(np.array(windows, np.int64), np.array(is_reversed))
    assert cut.patch_lengths.dtype == torch.int64
    assert cut.patch_lengths.sum(1).tolist() == [end - start for _, start, end in windows]
    for row, expected in enumerate(starts):
        assert row_of(cut.patch_lengths[row]) == (expected_lengths(expected) if expected.size else [])
        if cut.known_starts is None:
            assert known[row].all()
        else:
            assert cut.known_starts[row, : expected.size].tolist() == known[row].tolist()
            assert bool(cut.known_starts[row, expected.size :].all())


def test_blocks_change_nothing(monkeypatch):
    corpus = demo_corpus()
    for fields in ONLINE:
        patcher = Patcher(**fields)
        hashes = []
        for size in (1 << 18, 64, 5):
            monkeypatch.setattr(module, "FED_AT_ONCE", size)
            hashes.append(PatchedCorpus.from_patcher(corpus, patcher).sha256)
        assert len(set(hashes)) == 1, fields


def test_a_patcher_that_decides_online_never_gets_a_whole_contig(monkeypatch):
    monkeypatch.setattr(Patcher, "patch_with_starts", None)
    for fields in ONLINE:
        assert PatchedCorpus.from_patcher(demo_corpus(), Patcher(**fields)).num_strands == 2


def test_contigs_and_strands_stand_apart():
    corpus = demo_corpus()
    patcher = Patcher(**ONLINE[1])
    patched = PatchedCorpus.from_patcher(corpus, patcher)
    num_patches = 0
    for contig in range(len(corpus.contigs)):
        for strand in (False, True):
            text = corpus.sequence(contig, reverse=strand).tobytes()
            expected = row_of(patcher.patch([text])[0][0])
            assert patched.patch_lengths(contig, reverse=strand).tolist() == expected
            num_patches += len(expected)
    assert patched.mean_length == 2 * corpus.num_bases / num_patches


def test_the_edges_of_n_are_starts_that_the_base_before_does_not_know():
    corpus = corpus_of(["ACGTACGTACNNNNNACGTACGT"])
    patched = PatchedCorpus.from_patcher(corpus, Patcher(threshold=9.0, entropy_model=MODEL))
    cut = patched.cut(np.array([[0, 5, 23], [0, 0, 10]]), np.array([False, True]))
    assert row_of(cut.patch_lengths[0]) == [5, 5, 8]
    assert (~cut.known_starts[0]).nonzero().flatten().tolist() == [5, 10]
    assert bool(cut.known_starts[1, 1:].all())


@quick
@given(genomes, st.integers(0, 1 << 40))
def test_shuffled_patches_are_the_same_lengths_in_another_order(genome, seed):
    corpus = corpus_of(genome)
    patched = PatchedCorpus.from_patcher(corpus, Patcher(**ONLINE[1]))
    mixed = patched.shuffled(seed, corpus)
    assert mixed.sha256 == patched.shuffled(seed, corpus).sha256
    for contig in range(len(genome)):
        for strand in (False, True):
            lengths = [each.patch_lengths(contig, reverse=strand).tolist() for each in (patched, mixed)]
            assert sorted(lengths[0]) == sorted(lengths[1])


def test_shuffling_leaves_runs_of_n_where_they_are():
    text = generate_random_genomic_sequence(500, seed=1)
    corpus = corpus_of([text[:200] + "N" * 3000 + text[200:] + "N" * 40])
    options = {**ONLINE[1], "max_patch_length": None}
    patched = PatchedCorpus.from_patcher(corpus, Patcher(**options))
    for reverse in (False, True):
        before = patched.patch_lengths(0, reverse=reverse).tolist()
        mixed = patched.shuffled(0, corpus)
        after = mixed.patch_lengths(0, reverse=reverse).tolist()
        assert before != after
        assert before.index(3000) == after.index(3000)
        assert before.index(40) == after.index(40)
        window = np.array([[0, 0, 3540]])
        known = mixed.cut(window, np.array([reverse])).known_starts
        edges = [40, 340, 3340] if reverse else [200, 3200, 3500]
        assert (~known[0]).nonzero().flatten().tolist() == edges


def test_shuffling_depends_on_seed_contig_and_strand():
    text = generate_random_genomic_sequence(2000, seed=1)
    half = text + reverse_complement(text)  # its own reverse complement
    corpus = corpus_of([half, half])
    patched = PatchedCorpus.from_patcher(corpus, Patcher(**ONLINE[1]))
    orders = [
        patched.shuffled(seed, corpus).patch_lengths(contig, reverse=strand).tolist()
        for seed in (0, 1)
        for contig in (0, 1)
        for strand in (False, True)
    ]
    assert len({str(order) for order in orders}) == len(orders)


@quick
@given(st.floats(1, 20), st.lists(st.integers(0, 60), min_size=1, max_size=5))
def test_static_patches_equal_those_of_the_patcher(size, lengths):
    cut = StaticPatches(size).cut(np.array(lengths)).patch_lengths
    expected = Patcher(patching_mode="static", patch_size=size).patch(["A" * length for length in lengths])[0]
    assert cut.dtype == torch.int64
    assert cut.tolist() == expected.tolist()


@pytest.mark.parametrize("size", [0.5, 0, -1, float("nan"), float("inf")])
def test_a_static_size_out_of_range_is_refused(size):
    with pytest.raises(ConfigError, match="at least 1"):
        StaticPatches(size)


def test_windows_outside_are_refused():
    patched = PatchedCorpus.from_patcher(corpus_of(["ACGT", "GG"]), Patcher(**ONLINE[4]))
    for window in [[2, 0, 1], [-1, 0, 1], [0, 0, 5], [0, -1, 2], [0, 3, 2], [1, 0, 3]]:
        with pytest.raises(RegionError):
            patched.cut(np.array([window]), np.array([False]))


def test_one_strand_alone_has_no_other():
    corpus = corpus_of(["ACGTACGT"])
    patched = PatchedCorpus.from_patcher(corpus, Patcher(**ONLINE[0]), reverse_complement=False)
    assert patched.num_strands == 1
    with pytest.raises(ConfigError, match="forward strand"):
        patched.cut(np.array([[0, 0, 4]]), np.array([True]))


def test_a_track_is_bound_to_each_contig_and_has_one_strand(tmp_path):
    (tmp_path / "score.bedgraph").write_text("c0\t3\t5\t0.9\nc0\t8\t9\t0.7\nc1\t4\t6\t0.8\n")
    corpus, track = corpus_of(["ACGTTGCA" * 2, "GGTTGCAC"]), TrackEntropy(tmp_path / "score.bedgraph")
    patcher = Patcher(patching_mode="track", entropy_model=track, threshold=0.5)
    patched = PatchedCorpus.from_patcher(corpus, patcher, reverse_complement=False)
    assert patched.is_causal
    for contig, name in enumerate(("c0", "c1")):
        bound = Patcher(patching_mode="track", entropy_model=track.contig(name), threshold=0.5)
        text = corpus.sequence(contig).tobytes()
        assert patched.patch_lengths(contig).tolist() == row_of(bound.patch([text])[0][0])
    assert patched.patch_lengths(0).tolist() == [1, 3, 1, 4, 7]
    with pytest.raises(ConfigError, match="forward strand"):
        PatchedCorpus.from_patcher(corpus, patcher)


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(ConfigError, match="overlap"):
        PatchedCorpus.from_patcher(demo_corpus(), Patcher(patching_mode="static", patch_size=4, overlap=2))
    with pytest.raises(AlphabetError, match="no complement"):
        PatchedCorpus.from_patcher(Corpus.from_sequences({"p": "MKLP"}, "protein"), Patcher(patching_mode="byte"))


def test_the_cache_gives_the_same_patches_without_cutting(tmp_path, monkeypatch):
    corpus, patcher = demo_corpus(), Patcher(**ONLINE[1])
    plain = PatchedCorpus.from_patcher(corpus, patcher)
    made = PatchedCorpus.from_patcher(corpus, patcher, cache_folder=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{cache_key(corpus, patcher, True)}.safetensors"]
    monkeypatch.setattr(module, "_patch_corpus", None)
    found = PatchedCorpus.from_patcher(corpus, Patcher(**ONLINE[1]), cache_folder=tmp_path / "cache")
    assert plain.sha256 == made.sha256 == found.sha256
    assert found.is_causal is True
    assert [places.tolist() for places in found.forced] == [places.tolist() for places in plain.forced]


@pytest.mark.slow
def test_processes_share_the_folder(tmp_path):
    code = (
        "import sys; from hyena_glt.patching import Patcher; from hyena_glt.training import Corpus, PatchedCorpus\n"
        "corpus = Corpus.from_sequences({'a': 'ACGTTGCA' * 50_000})\n"
        "patcher = Patcher(patching_mode='static', patch_size=4.5)\n"
        "print(PatchedCorpus.from_patcher(corpus, patcher, cache_folder=sys.argv[1]).sha256)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert len({out for out, _ in said}) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_keys_tell_apart_what_decides_and_nothing_else(tmp_path):
    corpus = demo_corpus()
    other_model = MarkovEntropy.fit([generate_random_genomic_sequence(4_000, seed=5)], order=3)
    MODEL.save(tmp_path / "model.safetensors")
    base = {"threshold": 1.38, "entropy_model": MODEL, "max_patch_length": 8}
    key = cache_key(corpus, Patcher(**base), True)
    assert key == cache_key(corpus, Patcher(**base, log_time=True), True)
    assert key == cache_key(corpus, Patcher(**{**base, "entropy_model": tmp_path / "model.safetensors"}), True)
    others = [
        cache_key(corpus, Patcher(**base), False),
        cache_key(corpus_of(["ACGT"]), Patcher(**base), True),
        *[
            cache_key(corpus, Patcher(**{**base, **change}), True)
            for change in (
                {"threshold": 1.37},
                {"max_patch_length": 9},
                {"min_patch_length": 2},
                {"entropy_model": other_model},
                {"entropy_model": "auto"},
                {"monotonicity": True},
            )
        ],
        cache_key(corpus, Patcher(patching_mode="static", max_patch_length=8), True),
        cache_key(corpus, Patcher(patching_mode="static", max_patch_length=8, patch_size=4.5), True),
    ]
    assert len({key, *others}) == len(others) + 1


def test_a_model_without_a_hash_has_no_cache(tmp_path):
    def network(tokens):
        return torch.zeros(*tokens.shape, 260)

    with pytest.raises(ConfigError, match="hash"):
        PatchedCorpus.from_patcher(
            demo_corpus(), Patcher(threshold=1.0, entropy_model=network), cache_folder=tmp_path / "cache"
        )


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other", "text"])
def test_a_damaged_file_is_cut_again_and_said(tmp_path, caplog, damage):
    corpus, patcher = demo_corpus(), Patcher(**ONLINE[1])
    made = PatchedCorpus.from_patcher(corpus, patcher, cache_folder=tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-9] ^= 1
    elif damage == "other":
        other = PatchedCorpus.from_patcher(corpus_of(["ACGT" * 9]), patcher, cache_folder=tmp_path / "other")
        assert other.sha256 != made.sha256
        content = next((tmp_path / "other").iterdir()).read_bytes()
    else:
        content = {"cut": content[:-20], "empty": b"", "text": b"{}" * 40}[damage]
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        again = PatchedCorpus.from_patcher(corpus, patcher, cache_folder=tmp_path)
    assert again.sha256 == made.sha256
    assert "damaged" in caplog.text
    caplog.clear()
    assert PatchedCorpus.from_patcher(corpus, patcher, cache_folder=tmp_path).sha256 == made.sha256
    assert not caplog.text


def test_a_disk_that_refuses_costs_the_file_and_not_the_work(tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise SystemProblem("disk: cannot write: No space left on device")

    monkeypatch.setattr(module, "atomic_write", refuse)
    with caplog.at_level(logging.WARNING):
        patched = PatchedCorpus.from_patcher(demo_corpus(), Patcher(**ONLINE[1]), cache_folder=tmp_path)
    assert patched.num_strands == 2
    assert "No space left" in caplog.text


def test_real_genome_with_n_and_both_strands(data):
    corpus = Corpus.from_fasta([data("genomes/human_mtDNA_rCRS.fasta"), data("genomes/lambda_NC_001416.1.fa")])
    patcher = Patcher(threshold=1.3, entropy_model=MarkovEntropy.fit([corpus.symbols.tobytes()]), max_patch_length=64)
    patched = PatchedCorpus.from_patcher(corpus, patcher)
    for contig in range(2):
        for strand in (False, True):
            text = corpus.sequence(contig, reverse=strand).tobytes()
            assert patched.patch_lengths(contig, reverse=strand).tolist() == row_of(patcher.patch([text])[0][0])
