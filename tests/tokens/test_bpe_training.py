"""A trained tokenizer folds, cuts at N, leaves nothing out, and is the same every time."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.patching import Patcher
from hyena_glt.sequences.fasta import read_blocks, read_records
from hyena_glt.sequences.records import Block
from hyena_glt.tokens import ByteTokenizer
from hyena_glt.tokens.bpe_training import UNKNOWN, PieceSampler, base_symbols, train_bpe

RANDOM = np.random.default_rng(11)
MOTIFS = ["GATTACA", "TATAAT", "GGGCC", "CAG"]
GENOME = "".join(MOTIFS[i] for i in RANDOM.integers(0, 4, 800))

at_leisure = settings(deadline=None, max_examples=50)  # the first call of a library may take long


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe([GENOME], vocab_size=64)


@pytest.fixture(scope="module")
def patcher(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    tokenizer.save(str(path))
    return Patcher(patching_mode="bpe", model_name=str(path))


@at_leisure
@given(st.text("ACGTacgtNnRyUu-* é>", max_size=80))
def test_the_pieces_of_a_patcher_join_to_the_input(patcher, text):
    pieces, _ = patcher.patch_with_boundaries(text)
    assert "".join(pieces) == text
    assert int(patcher.patch(text)[0].sum()) == len(text.encode())


@at_leisure
@given(st.text("ACGTNRY", max_size=80))
def test_upper_case_text_comes_back_from_its_ids(tokenizer, text):
    encoded = tokenizer.encode(text)
    assert "".join(encoded.tokens) == text == tokenizer.decode(encoded.ids)


@at_leisure
@given(st.text("ACGTN", max_size=80))
def test_soft_mask_and_u_change_nothing(tokenizer, text):
    ids = tokenizer.encode(text).ids
    assert tokenizer.encode(text.lower()).ids == ids
    assert tokenizer.encode(text.replace("T", "U")).ids == ids


def test_ambiguous_symbols_are_single_tokens_and_never_merge(tokenizer):
    assert tokenizer.encode("GATTACANNNNGATTACArGATTACA").tokens == [
        "GATTACA",
        *"NNNN",
        "GATTACA",
        "R",
        "GATTACA",
    ]
    with_n = train_bpe(["GATTACANNNN" * 50, "n" * 500], vocab_size=64)
    assert [entry for entry in with_n.get_vocab() if "N" in entry] == ["N"]
    assert tokenizer.encode("G>A").tokens == ["G", UNKNOWN, "A"]


def test_the_first_merges_are_the_most_frequent_pairs():
    tokenizer = train_bpe([GENOME], vocab_size=17, piece_length=len(GENOME))
    (merge,) = json.loads(tokenizer.to_str())["model"]["merges"]
    pairs = Counter(GENOME[i : i + 2] for i in range(len(GENOME) - 1))
    assert pairs["".join(merge)] == max(pairs.values())


def test_the_size_is_what_was_asked_for_or_what_repeats():
    assert train_bpe([GENOME], vocab_size=40).get_vocab_size() == 40
    assert train_bpe(["ACGT"], vocab_size=40).get_vocab_size() == 16
    assert train_bpe(["ACGTACGT"], vocab_size=40, min_frequency=1).get_vocab_size() > 16


@at_leisure
@given(st.lists(st.integers(0, 600), max_size=5), st.integers(2, 70))
def test_blocks_of_any_size_give_the_same_pieces(cuts, piece_length):
    text = (GENOME[:200] + "NN" + GENOME[200:260].lower() + "RACG" + GENOME[260:500]).encode()
    whole = PieceSampler(piece_length=piece_length)
    whole.feed([text, b"ACGT"])
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    blocks = [Block("c", "", a, text[a:b], b == len(text), 1) for a, b in itertools.pairwise(edges)]
    cut = PieceSampler(piece_length=piece_length)
    cut.feed([*blocks, Block("d", "", 0, b"ACGT", True, 9)])
    assert cut.pieces() == whole.pieces()
    runs = text.decode().upper().replace("R", "N").split("N")
    assert "".join(whole.pieces()) == "".join(runs) + "ACGT"
    assert max(map(len, whole.pieces())) <= piece_length
    assert cut.symbols == len(text) + 4


def test_a_large_input_is_sampled_evenly_and_by_the_seed():
    def sample(seed):
        sampler = PieceSampler(piece_length=4, max_symbols=400, seed=seed)
        sampler.feed(text[start : start + 100] for start in range(0, len(text), 100))
        return sampler.pieces()

    text = "".join(f"{letter * 4}" for letter in "ACGT" for _ in range(500))
    pieces = sample(1)
    assert len(pieces) == 100
    assert sample(1) == pieces != sample(2)
    assert all(10 <= count <= 40 for count in Counter(pieces).values())  # 25 expected, 4 standard deviations are 17


def test_every_kind_of_sequence_gives_the_same():
    expected = train_bpe(GENOME, vocab_size=30).to_str()
    data = GENOME.encode()
    for sequence in (data, bytearray(data), np.frombuffer(data, np.uint8), ByteTokenizer().encode(GENOME)):
        assert train_bpe([sequence], vocab_size=30).to_str() == expected
    padded = torch.cat([torch.tensor([1]), ByteTokenizer().encode(GENOME), torch.tensor([-1])])
    assert train_bpe([padded], vocab_size=30).to_str() == expected
    with pytest.raises(DataError, match="sequence: expected str, bytes"):
        train_bpe([3], vocab_size=30)


SCRIPT = """
import numpy as np
from hyena_glt.tokens.bpe_training import train_bpe
genome = "".join(np.random.default_rng(3).choice(list("ACGT"), 20000))
print(train_bpe([genome], vocab_size=200, piece_length=50).to_str())
"""


def test_other_processes_and_thread_counts_give_the_same():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "3")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(("alphabet", "text"), [("rna", "ACGUacguNt"), ("protein", "MKVLAAGIVX*mkb")])
def test_other_alphabets(alphabet, text):
    tokenizer = train_bpe([text * 40], vocab_size=60, alphabet=alphabet)
    encoded = tokenizer.encode(text)
    assert UNKNOWN not in encoded.tokens
    folded = text.upper().replace("T", "U") if alphabet == "rna" else text.upper()
    assert "".join(encoded.tokens) == folded
    assert any(len(token) > 3 for token in encoded.tokens)
    assert encoded.offsets[-1][1] == len(text)


def test_bytes_are_learned_as_they_are(tmp_path):
    text = "né à Étretat, acgt ACGT; "
    tokenizer = train_bpe([text.encode() * 30 + b"\xff\xfe"], vocab_size=280, alphabet="bytes", piece_length=99)
    assert tokenizer.get_vocab_size() == 280
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    patcher = Patcher(patching_mode="bpe", model_name=str(tmp_path))
    assert "".join(patcher.patch_with_boundaries(text)[0]) == text


def test_multibyte_characters_survive_any_blocks():
    text = ("éà" * 40).encode()
    blocks = [Block("c", "", i, text[i : i + 7], i + 7 >= len(text), 1) for i in range(0, len(text), 7)]
    sampler = PieceSampler("bytes", piece_length=9)
    sampler.feed(blocks)
    assert "".join(sampler.pieces()) == text.decode()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vocab_size": 15}, "vocab_size: expected at least 16 for dna, got 15"),
        ({"min_frequency": 0}, "min_frequency: expected 1 or more"),
        ({"piece_length": 1}, "piece_length: expected 2 symbols or more"),
        ({"max_symbols": 100}, "max_symbols: expected at least one piece of 256"),
    ],
)
def test_sizes_out_of_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        train_bpe([GENOME], **options)


@pytest.mark.parametrize("sequences", [[], [""], ["NNNN"], "nn-"])
def test_nothing_to_train_on_is_said(sequences):
    with pytest.raises(DataError, match="no letter of alphabet dna"):
        train_bpe(sequences, vocab_size=30)


def test_long_runs_of_n_cost_nothing(data):
    sampler = PieceSampler()
    sampler.feed(read_blocks(data("human/hg19_chr20_partial_softmasked.fa.gz")))
    assert sampler.symbols == 63_025_520
    assert sum(map(len, sampler.pieces())) == 63_025_520 - 61_925_520


def test_base_symbols_are_the_alphabet():
    from hyena_glt.sequences.alphabets import DNA, PROTEIN, RNA

    assert "".join(base_symbols(DNA)) == "ACGTRYSWKMBDHVN"
    assert "".join(base_symbols(RNA)) == "ACGURYSWKMBDHVN"
    assert "".join(base_symbols(PROTEIN)) == "ACDEFGHIKLMNPQRSTVWYXBZJUO*"


def test_held_out_sequence_takes_fewer_tokens_with_more_entries(data):
    record = next(read_records(data("genomes/mgenitalium_NC_000908.2.fa.gz")))
    train, held = record.sequence[:450_000], record.sequence[450_000:].decode()
    tokens = [len(train_bpe([train], vocab_size=size).encode(held).ids) for size in (64, 512)]
    assert len(held) / tokens[0] > 2
    assert tokens[1] < tokens[0]
