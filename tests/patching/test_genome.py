"""Genomes in blocks against whole sequences, and what a survey keeps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies.context_tables import HIGHEST_SURPRISE
from hyena_glt.entropies.markov import MarkovEntropy
from hyena_glt.errors import ConfigError
from hyena_glt.patching import Patcher, PatcherArgs
from hyena_glt.patching.block_decisions import scan_rule
from hyena_glt.patching.genome import _patch_means, patch_blocks
from hyena_glt.sequences.alphabets import BYTES, DNA
from hyena_glt.sequences.records import Block
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

MODEL = MarkovEntropy.fit([generate_random_genomic_sequence(4_000, seed=4)], order=3)
RULES = [
    {"threshold": 1.385},
    {"threshold": 1.385, "max_patch_length": 7},
    {"threshold": 1.385, "min_patch_length": 3, "max_patch_length": 9},
    {"threshold": 0.001, "monotonicity": True},
    {"threshold": 1.38, "threshold_add": 0.0005},
    {"patching_mode": "static", "patch_size": 4.5},
    {"patching_mode": "byte"},
    {"patching_mode": "space"},
    {"patching_mode": "space", "delimiter_chars": ["A", "N"]},
]
dna = st.text(alphabet="ACGTN", min_size=1, max_size=120).map(str.encode)


def blocks_of(sequence: bytes, cuts: list[int], start: int = 0) -> list[Block]:
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(sequence)}), len(sequence)]
    pairs = list(itertools.pairwise(places))
    return [Block("c", "", start + a, sequence[a:b], (a, b) == pairs[-1], 1) for a, b in pairs]


@pytest.mark.filterwarnings("ignore::hyena_glt.patching.PatchingWarning")
@pytest.mark.parametrize("fields", RULES, ids=str)
@settings(max_examples=60, deadline=None)
@given(sequence=dna, cuts=st.lists(st.integers(1, 119), max_size=6))
def test_blocks_of_any_size_give_the_patches_of_the_patcher(fields, sequence, cuts):
    args = PatcherArgs(**fields, entropy_model=MODEL)
    patched = list(patch_blocks(blocks_of(sequence, cuts, start=50), DNA, MODEL, args))
    lengths = np.concatenate([part.lengths for part in patched])
    assert lengths.sum() == len(sequence)
    if sequence.startswith(b"NN"):
        return  # the patcher keeps BLT's convention there: token 1 starts a patch
    if args.uses_scores or b"N" not in sequence:  # in other modes the patcher has no source, so nobody tells it of N
        assert lengths.tolist() == Patcher(args).patch([sequence])[0][0].tolist()
    starts = [part.patch_start for part in patched]
    ends = np.cumsum([part.lengths.sum() for part in patched])
    assert starts == [50, *(50 + ends[:-1])]


@settings(max_examples=60, deadline=None)
@given(run=st.integers(0, 60), sequence=dna, cuts=st.lists(st.integers(1, 179), max_size=6))
def test_mean_surprises_are_those_of_the_bases(run, sequence, cuts):
    args = PatcherArgs(threshold=1.385, max_patch_length=11)
    sequence = b"N" * run + sequence  # a run may be longer than the cap and than a block
    patched = list(patch_blocks(blocks_of(sequence, cuts), DNA, MODEL, args))
    seen = np.cumsum([len(part.block.sequence) for part in patched])
    cut = np.cumsum([part.lengths.sum() for part in patched])
    assert ((seen - cut >= 0) & (seen - cut <= 11)).all()  # each patch comes with the block that completes it
    lengths = np.concatenate([part.lengths for part in patched])
    means = np.concatenate([part.mean_surprises for part in patched])
    edges = np.cumsum(lengths)[:-1]
    expected = [float(part.mean(dtype=np.float64)) for part in np.split(MODEL.surprises(sequence), edges)]
    assert means == pytest.approx(expected)


def test_mean_surprises_of_long_patches_survive_sums_that_wrap_around():
    rng = np.random.default_rng(5)
    surprises = rng.integers(0, HIGHEST_SURPRISE, 700_000, endpoint=True)
    sums = np.concatenate([[0], np.cumsum(surprises)])
    assert sums[-1] > 2 << 32
    lengths = np.array([1, 16, 300_000, 131_072, 131_073])
    means, open_patch, ambiguous = np.empty(lengths.size), np.zeros(3), np.zeros(surprises.size, np.bool_)
    assert _patch_means((sums % (1 << 32)).astype(np.uint32), 0.5, ambiguous, lengths, open_patch, means) == 0
    parts = np.split(surprises, np.cumsum(lengths))
    assert means == pytest.approx([part.mean() / 2 for part in parts[:-1]], rel=1e-12)
    assert open_patch.tolist() == [parts[-1].sum(), parts[-1].size, 0]


@settings(max_examples=60, deadline=None)
@given(sequence=dna)
def test_runs_of_n_are_patches_of_their_own_under_every_rule(sequence):
    ambiguous = np.frombuffer(sequence, np.uint8) == ord("N")
    for fields in RULES:
        (patched,) = patch_blocks(blocks_of(sequence, []), DNA, MODEL, PatcherArgs(**fields))
        ends = np.cumsum(patched.lengths)
        for start, end in zip(ends - patched.lengths, ends, strict=True):
            assert ambiguous[start:end].all() or not ambiguous[start:end].any()


@settings(max_examples=60, deadline=None)
@given(
    run=st.integers(1, 30),
    rest=st.text(alphabet="ACGT", max_size=30).map(str.encode),
    cuts=st.lists(st.integers(1, 59), max_size=4),
    cap=st.sampled_from([None, 4]),
)
def test_a_run_of_n_at_the_beginning_is_one_patch(run, rest, cuts, cap):
    args = PatcherArgs(threshold=1.385, max_patch_length=cap)
    sequence = b"N" * run + rest
    lengths = np.concatenate([p.lengths for p in patch_blocks(blocks_of(sequence, cuts), DNA, MODEL, args)]).tolist()
    expected = [run] if cap is None else [cap] * (run // cap) + [run % cap] * (run % cap > 0)
    assert lengths[: len(expected)] == expected
    assert sum(lengths) == len(sequence)
    shorter = Patcher(args.model_copy(update={"entropy_model": MODEL})).patch([b"N" + rest])[0][0].tolist()
    assert lengths[len(expected) :] == shorter[1:]


def test_contigs_do_not_touch_each_other():
    args = PatcherArgs(threshold=1.385)
    one, two = blocks_of(b"ACGTTGCA" * 9, [5]), blocks_of(b"GGGTTTAC" * 7, [11])
    together = [part.lengths.tolist() for part in patch_blocks(one + two, DNA, MODEL, args)]
    apart = [p.lengths.tolist() for blocks in (one, two) for p in patch_blocks(blocks, DNA, MODEL, args)]
    assert together == apart


@pytest.mark.parametrize(
    "fields",
    [
        {"threshold": None},
        {"patching_mode": "bpe"},
        {"patching_mode": "static", "patch_size": 8, "overlap": 2},
    ],
)
def test_rules_that_need_more_than_the_past_are_refused(fields):
    with pytest.raises(ConfigError, match=r"stream|scan|whole sequence"):
        scan_rule(PatcherArgs(**fields))


@settings(max_examples=40, deadline=None)
@given(sequence=dna, cuts=st.lists(st.integers(1, 119), max_size=6), cap=st.sampled_from([None, 2, 5]))
def test_patches_of_n_are_counted(sequence, cuts, cap):
    args = PatcherArgs(threshold=1.385, max_patch_length=cap)
    patched = list(patch_blocks(blocks_of(sequence, cuts), DNA, MODEL, args))
    lengths = np.concatenate([part.lengths for part in patched])
    starts = np.cumsum(lengths) - lengths
    expected = sum(sequence[start : start + 1] == b"N" for start in starts.tolist())
    assert sum(part.ambiguous_patches for part in patched) == expected


def test_bytes_alphabet_has_no_forced_starts():
    model = MarkovEntropy.fit([bytes(range(256)) * 4], alphabet="bytes")
    (patched,) = patch_blocks(blocks_of(b"\xff\xfe\x00N-.", []), BYTES, model, PatcherArgs(threshold=99.0))
    assert patched.lengths.tolist() == [1, 5]
    assert not patched.ambiguous.any()
