"""Files in memory, and their division into what is learned from and what is held out."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hyena_glt.errors import AlphabetError, ConfigError, DataError, RegionError, SequenceFormatError
from hyena_glt.sequences import reverse_complement
from hyena_glt.training import Corpus, Regions, split_corpus
from hyena_glt.training.corpus import contig_slices, draw_keys

quick = settings(deadline=None, max_examples=60)
texts = st.lists(st.one_of(st.text("ACGT", min_size=1, max_size=40), st.text("NRY", max_size=9)), max_size=4)
genomes = st.lists(texts.map("".join).filter(bool), min_size=1, max_size=5)


def corpus_of(sequences, **options):
    return Corpus.from_sequences({f"c{index}": sequence for index, sequence in enumerate(sequences)}, **options)


def marked(regions):
    """How often each base of the corpus is in a region, `(bases,)`."""
    marks = np.zeros(regions.corpus.num_bases, np.int64)
    for contig, start, end in regions.spans.tolist():
        first = int(regions.corpus.starts[contig])
        marks[first + start : first + end] += 1
    return marks


def test_contigs_of_all_files_stand_in_order(tmp_path):
    (tmp_path / "a.fa").write_text(">one x\nACG\nTN\n>two\nGG\n")
    with gzip.open(tmp_path / "b.fa.gz", "wt") as handle:
        handle.write(">one\nTTT\n")
    corpus = Corpus.from_fasta([tmp_path / "a.fa", tmp_path / "b.fa.gz"])
    assert corpus.contigs.names == ("one", "two", "one")
    assert corpus.contigs.lengths.tolist() == [5, 2, 3]
    assert [contig.file for contig in corpus.contigs] == [str(tmp_path / n) for n in ("a.fa", "a.fa", "b.fa.gz")]
    assert [corpus.sequence(index).tobytes() for index in range(3)] == [b"ACGTN", b"GG", b"TTT"]
    assert corpus.symbols.dtype == np.uint8
    assert not corpus.symbols.flags.writeable
    assert corpus.contigs[-1].name == "one"
    assert [contig.length for contig in corpus.contigs[1:]] == [2, 3]


def test_soft_mask_is_upper_case_unless_it_is_kept(tmp_path):
    (tmp_path / "a.fa").write_text(">a\nacgTn\n")
    assert Corpus.from_fasta([tmp_path / "a.fa"]).symbols.tobytes() == b"ACGTN"
    assert Corpus.from_fasta([tmp_path / "a.fa"], keep_case=True).symbols.tobytes() == b"acgTn"
    assert Corpus.from_fasta([tmp_path / "a.fa"], "bytes").symbols.tobytes() == b"acgTn"


def test_the_hash_tells_names_sequences_and_borders_apart_but_not_file_names(tmp_path):
    texts = [">a\nACGT\n", ">b\nACGT\n", ">a\nACGA\n", ">a\nAC\n>b\nGT\n", ">a\nACG\n>b\nT\n", ">a\nacgt\n"]
    hashes = []
    for index, text in enumerate(texts):
        (tmp_path / f"{index}.fa").write_text(text)
        hashes.append(Corpus.from_fasta([tmp_path / f"{index}.fa"]).sha256)
    assert len(set(hashes[:5])) == 5
    assert hashes[5] == hashes[0]
    assert Corpus.from_sequences({"a": "ACGT"}).sha256 == hashes[0]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda folder: Corpus.from_fasta([]), ConfigError, "at least one"),
        (lambda folder: Corpus.from_fasta([folder / "a.fa", folder / "." / "a.fa"]), ConfigError, "twice"),
        (lambda folder: Corpus.from_fasta([folder / "none.fa"]), DataError, "none.fa"),
        (lambda folder: Corpus.from_fasta([folder / "bad.fa"]), SequenceFormatError, "bad.fa"),
        (lambda folder: Corpus.from_fasta([folder / "protein.fa"]), AlphabetError, "dna"),
        (lambda folder: Corpus.from_sequences({}), DataError, "none"),
        (lambda folder: Corpus.from_sequences({"a": ""}), DataError, "empty"),
        (lambda folder: Corpus.from_sequences({"a": "AC-"}), AlphabetError, "gap"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path, call, error, words):
    (tmp_path / "a.fa").write_text(">a\nACGT\n")
    (tmp_path / "bad.fa").write_text("ACGT\n")
    (tmp_path / "protein.fa").write_text(">p\nMKLP\n")
    with pytest.raises(error, match=words):
        call(tmp_path)


def test_places_outside_a_contig_are_refused():
    corpus = corpus_of(["ACGT", "GG"])
    for place in [(2, 0, 1), (0, 3, 2), (0, -1, 2), (0, 0, 5)]:
        with pytest.raises(RegionError):
            corpus.sequence(*place)
    with pytest.raises(AlphabetError, match="no complement"):
        Corpus.from_sequences({"p": "MKLP"}, "protein").sequence(0, reverse=True)


@quick
@given(genomes, st.integers(1, 30))
def test_slices_of_both_strands_join_to_the_strand(genome, size):
    corpus = corpus_of(genome)
    for contig, text in enumerate(genome):
        for reverse in (False, True):
            joined = b"".join(part.tobytes() for part in contig_slices(corpus, contig, size, reverse=reverse))
            assert joined.decode() == (reverse_complement(text) if reverse else text)


@quick
@given(genomes, st.data())
def test_ambiguity_symbols_are_counted(genome, data):
    corpus = corpus_of(genome)
    is_ambiguous = ~np.isin(corpus.symbols, np.frombuffer(b"ACGT", np.uint8))
    runs = np.zeros(corpus.num_bases, np.int64)
    for start, end in corpus.ambiguous_runs.tolist():
        assert start < end
        assert not ((corpus.starts > start) & (corpus.starts < end)).any()
        runs[start:end] += 1
    assert (runs == is_ambiguous).all()
    places = data.draw(st.lists(st.tuples(*[st.integers(0, corpus.num_bases)] * 2), min_size=1, max_size=8))
    starts, ends = np.sort(np.array(places, np.int64), axis=1).T
    expected = [int(is_ambiguous[start:end].sum()) for start, end in zip(starts, ends, strict=True)]
    assert corpus.count_ambiguous(starts, ends).tolist() == expected


@quick
@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=6),
    st.floats(0, 0.95),
    st.integers(1, 900),
    st.integers(0, 300),
    st.integers(0, 1 << 70),
    st.sets(st.integers(0, 5)),
)
def test_no_base_is_in_both_halves_or_near_the_other_one(lengths, share, block, gap, seed, named):
    corpus = corpus_of(["ACGTTGCA" * (length // 8) + "A" * (length % 8) for length in lengths])
    names = [f"c{index}" for index in named if index < len(lengths)]
    problem = ""
    try:
        train, held_out = split_corpus(
            corpus, held_out_contigs=names, held_out_share=share, block=block, gap=gap, seed=seed
        )
    except DataError as error:
        problem = str(error)
    if problem:
        assert "nothing is left" in problem
        return
    learned, kept = marked(train), marked(held_out)
    assert learned.max() == 1
    assert kept.max(initial=0) <= 1
    assert not (learned & kept).any()
    by_name = np.repeat(np.isin(np.array(corpus.contigs.names), names), lengths)
    assert kept[by_name].all()
    assert not learned[by_name].any()
    contig = np.repeat(np.arange(len(lengths)), lengths)
    near = np.zeros(corpus.num_bases, np.bool_)
    for place in np.flatnonzero(kept.astype(bool) & ~by_name):
        near[max(place - gap, 0) : place + gap + 1] |= contig[max(place - gap, 0) : place + gap + 1] == contig[place]
    assert (learned.astype(bool) == ~near & ~by_name).all()
    others = int((~by_name).sum())
    if share:
        assert abs(kept[~by_name].sum() - max(1, share * others)) <= 1


@quick
@given(st.lists(st.integers(1, 2000), min_size=2, max_size=6), st.floats(0.05, 0.5), st.integers(0, 99))
def test_the_same_seed_gives_the_same_split(lengths, share, seed):
    corpus = corpus_of(["ACGT" * length for length in lengths])
    options = {"held_out_share": share, "block": 500, "gap": 0, "seed": seed}
    first, again = (split_corpus(corpus, **options) for _ in range(2))
    assert first[1].spans.tolist() == again[1].spans.tolist()
    assert first[0].num_bases + first[1].num_bases == corpus.num_bases


def test_another_seed_gives_other_blocks_and_blocks_are_spread():
    corpus = corpus_of(["ACGT" * 25_000])
    spans = [split_corpus(corpus, held_out_share=0.2, block=1000, gap=10, seed=s)[1].spans.tolist() for s in range(3)]
    assert len({str(each) for each in spans}) == 3
    for each in spans:
        assert len(each) == 20
        assert [start // 5000 for _, start, _ in each] == list(range(20))


def test_blocks_do_not_lie_in_long_runs_of_n():
    corpus = corpus_of(["N" * 90_000 + "ACGT" * 2500 + "N" * 90_000])
    for seed in range(5):
        _, held_out = split_corpus(corpus, held_out_share=0.3, block=1000, gap=0, seed=seed)
        assert held_out.num_bases == 3000
        assert held_out.spans[:, 1].min() >= 90_000
        assert held_out.spans[:, 2].max() <= 100_000


def test_short_contigs_are_held_out_whole_by_one_block():
    corpus = corpus_of(["ACGTA"] * 400)
    train, held_out = split_corpus(corpus, held_out_share=0.25, block=1 << 20, gap=8192)
    assert held_out.num_bases == 500
    assert set(train.spans[:, 0]).isdisjoint(held_out.spans[:, 0])


def test_nothing_held_out_is_an_empty_half():
    corpus = corpus_of(["ACGT", "GG"])
    train, held_out = split_corpus(corpus, seed=1)
    assert train.spans.tolist() == Regions.whole(corpus).spans.tolist() == [[0, 0, 4], [1, 0, 2]]
    assert (len(held_out), held_out.num_bases) == (0, 0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"held_out_contigs": ["c9"]}, ConfigError, "'c9'"),
        ({"held_out_contigs": "c0"}, ConfigError, "list"),
        ({"held_out_share": 1.0}, ConfigError, "held_out_share"),
        ({"held_out_share": float("nan")}, ConfigError, "held_out_share"),
        ({"block": 0}, ConfigError, "block"),
        ({"gap": -1}, ConfigError, "gap"),
        ({"seed": -1}, ConfigError, "seed"),
        ({"held_out_contigs": ["c0", "c1"]}, DataError, "nothing is left"),
        ({"held_out_contigs": ["c1"], "held_out_share": 0.5}, DataError, "nothing is left"),
    ],
)
def test_a_split_that_cannot_be_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        split_corpus(corpus_of(["ACGT" * 10, "GG"]), **options)


@quick
@given(st.integers(0, 1 << 80), st.integers(0, 1 << 40), st.lists(st.integers(0, 1 << 60), min_size=2, unique=True))
def test_draws_depend_on_each_item_alone(seed, salt, items):
    together = draw_keys(seed, salt, np.array(items))
    assert together.tolist() == [int(draw_keys(seed, salt, np.array([item]))[0]) for item in items]
    assert len(set(together.tolist())) == len(items)  # the hash is one to one
    assume(seed < 1 << 64)
    assert draw_keys(seed + 1, salt, np.array(items)).tolist() != together.tolist()


def test_draws_are_even():
    draws = draw_keys(7, 1, np.arange(100_000))
    bits = np.unpackbits(draws.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert abs(bits - 0.5).max() < 6 * 0.5 / np.sqrt(100_000)


def test_real_genome_is_read_and_split(data):
    path = data("genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz")
    corpus = Corpus.from_fasta([path])
    assert corpus.num_bases == 4_641_652
    train, held_out = split_corpus(corpus, held_out_share=0.1, block=1 << 17, seed=3)
    assert held_out.num_bases == 464_165
    assert train.num_bases == corpus.num_bases - 464_165 - 2 * 8192 * len(held_out)
