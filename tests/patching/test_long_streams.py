"""Streams of real sequence, up to ten megabases: what `OnlinePatcher` gives for chunks is what the whole gives.

Scores lie on a grid, so that many equal a threshold exactly, and a part of them is one float32 step above or below it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.patching import OnlinePatcher, Patcher
from hyena_glt.sequences.alphabets import reverse_complement
from hyena_glt.sequences.fasta import read_records
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.tokens.byte_tokenizer import BPE_ID, OFFSET

MEGABASE = 1_000_000
GENOMES = [
    "genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz",
    "genomes/mgenitalium_NC_000908.2.fa.gz",
    "genomes/yeast_chrI.fa.gz",
    "genomes/lambda_NC_001416.1.fa",
    "genomes/human_mtDNA_rCRS.fasta",
    "genomes/sarscov2_MN908947.fasta",
    "human/grch37_chr20_1Mb_z.fa.gz",
    "human/hg38_chr22_32.0-32.3Mb.fa.gz",
]
HUMAN_WITH_GAPS = "human/hg19_chr20_partial_softmasked.fa.gz"  # 1.1 Mb of bases between runs of N
AROUND_THE_BASES = slice(9_990_000, 11_100_000)
LINE = 80  # bases, where text with separators is wanted

GRID = np.float32(1 / 1024)  # nats
RISE = 2 * float(GRID)
LIMITS = {"min_patch_length": 4, "max_patch_length": 64}


@dataclass(frozen=True, eq=False)
class Stream:
    """One sequence in every form that a mode reads, each entry about one token."""

    text: np.ndarray  # (length,) uint8 bases
    lines: np.ndarray  # (length,) uint8, a line feed after every 80 bases
    tokens: np.ndarray  # (length,) int64, with BPE delimiters
    scores: np.ndarray  # (length,) float32 nats, on and around the thresholds
    predictions: np.ndarray  # (length,) bool
    model: MarkovEntropy
    threshold: float  # nats, on the grid of the scores
    model_threshold: float  # nats, one of the values that the model gives

    def head(self, length):
        """The same for the first `length` tokens."""
        parts = {name: getattr(self, name)[:length] for name in ("text", "lines", "tokens", "scores", "predictions")}
        return Stream(**parts, model=self.model, threshold=self.threshold, model_threshold=self.model_threshold)


def make_stream(text):
    """Scores, tokens and predictions for a sequence; seeded."""
    random = np.random.default_rng(11)
    model = MarkovEntropy.fit([text[:MEGABASE].tobytes()], order=8)
    entropies = model.entropies(text.tobytes())
    scores = np.round(entropies / GRID).astype(np.float32) * GRID
    kind = random.integers(0, 10, text.size)
    scores = np.where(kind == 0, np.nextafter(scores, np.float32(9)), scores)
    scores = np.where(kind == 1, np.nextafter(scores, np.float32(-9)), scores)
    lines = text.copy()
    lines[LINE :: LINE + 1] = ord("\n")
    tokens = text.astype(np.int64) + OFFSET
    tokens[random.random(text.size) < 0.1] = BPE_ID
    return Stream(
        text=text,
        lines=lines,
        tokens=tokens,
        scores=scores,
        predictions=random.random(text.size) < 0.1,
        model=model,
        threshold=float(np.round(np.quantile(entropies, 0.9) / GRID) * GRID),
        model_threshold=float(np.quantile(entropies, 0.9, method="nearest")),
    )


@pytest.fixture(scope="module")
def ten_megabases(data):
    """Bacteria, yeast, viruses and human sequence with gaps, and the other strand of a part of E. coli."""
    sequences = [record.sequence for name in GENOMES for record in read_records(data(name))]
    (chromosome,) = (record.sequence for record in read_records(data(HUMAN_WITH_GAPS)))
    sequences += [chromosome[AROUND_THE_BASES], reverse_complement(sequences[0][: 3 * MEGABASE])]
    text = np.frombuffer(b"".join(sequences), np.uint8)
    assert text.size >= 10 * MEGABASE
    return make_stream(text)


@pytest.fixture(scope="module")
def one_megabase(data):
    """The end of M. genitalium, yeast, human sequence, and a gap."""
    sequences = [record.sequence for name in GENOMES[1:3] for record in read_records(data(name))]
    (human,) = (record.sequence for record in read_records(data(GENOMES[-1])))
    text = b"".join([sequences[0][:500_000], b"N" * 1234, *sequences[1:], human])
    return make_stream(np.frombuffer(text[:MEGABASE], np.uint8))


ENTROPY_RULES = {
    "threshold": lambda t: {"threshold": t, **LIMITS},
    "threshold without limits": lambda t: {"threshold": t},
    "monotone": lambda t: {"threshold": RISE, "monotonicity": True, **LIMITS},
    "dual": lambda t: {"threshold": t, "threshold_add": RISE, **LIMITS},
}
PLAIN_MODES = {  # rule -> options, and the form of the sequence that the mode reads
    "static": ({"patching_mode": "static", "patch_size": 4.5}, "text"),
    "static with limits": ({"patching_mode": "static", "patch_size": 7, **LIMITS, "max_patch_length": 5}, "text"),
    "byte": ({"patching_mode": "byte"}, "text"),
    "byte with limits": ({"patching_mode": "byte", **LIMITS}, "text"),
    "space": ({"patching_mode": "space"}, "lines"),
    "space with limits": ({"patching_mode": "space", **LIMITS}, "lines"),
    "delimiters": ({"patching_mode": "space", "delimiter_chars": ["\n", "N"], **LIMITS}, "lines"),
    "bpe": ({"patching_mode": "bpe"}, "tokens"),
    "bpe with limits": ({"patching_mode": "bpe", **LIMITS}, "tokens"),
}
RULES = [
    *(f"{rule}, scores given" for rule in ENTROPY_RULES),
    *(f"{rule}, scores of the model" for rule in ENTROPY_RULES),
    *PLAIN_MODES,
    "bpe_patcher",
    "bpe_patcher with limits",
]


def task(rule, stream):
    """`(patcher, sequence, what is given with it)` of a rule."""
    if rule in PLAIN_MODES:
        options, form = PLAIN_MODES[rule]
        return Patcher(**options), getattr(stream, form), {}
    if rule.startswith("bpe_patcher"):
        limits = LIMITS if "limits" in rule else {}
        return Patcher(patching_mode="bpe_patcher", **limits), stream.text, {"preds": stream.predictions}
    name, _, origin = rule.partition(", scores ")
    if origin == "given":
        return Patcher(**ENTROPY_RULES[name](stream.threshold)), stream.text, {"entropies": stream.scores}
    options = ENTROPY_RULES[name](stream.model_threshold)
    return Patcher(entropy_model=stream.model, **options), stream.text, {}


def chunk_edges(length, size):
    """Edges of chunks of one size, or of random sizes, 0 and 1 among them."""
    if size != "random":
        return [*range(0, length, size), length]
    random = np.random.default_rng(length)
    edges = np.cumsum(random.choice([0, 1, 2, 7, 63, 64, 65, 1000, 16_384, 50_000], length // 1000))
    return [0, *edges[edges < length].tolist(), length]


def assert_chunks_give_the_whole(rule, stream, size):
    patcher, sequence, given = task(rule, stream)
    whole = torch.from_numpy(sequence.copy()) if sequence.dtype == np.int64 else sequence
    expected = patcher.patch([whole], **{name: values[None] for name, values in given.items()})[0][0]
    online, parts = OnlinePatcher(patcher), []
    for first, stop in pairwise(chunk_edges(sequence.size, size)):
        parts.append(online.feed(sequence[first:stop], **{name: values[first:stop] for name, values in given.items()}))
    parts.append(online.finish())
    assert int(expected.sum()) == sequence.size
    assert expected.numel() > sequence.size // 100  # the rule finds something to cut at
    assert torch.equal(torch.cat(parts), expected)


def test_scores_lie_on_the_threshold_and_one_step_beside_it(one_megabase):
    threshold, scores = np.float32(one_megabase.threshold), one_megabase.scores
    assert float(threshold) == one_megabase.threshold
    for value in (threshold, np.nextafter(threshold, np.float32(9)), np.nextafter(threshold, np.float32(-9))):
        assert (scores == value).sum() > 100
    rises, steps = np.diff(scores), np.diff(np.round(scores / GRID)) * GRID == RISE
    assert min((rises[steps] == RISE).sum(), (rises[steps] > RISE).sum(), (rises[steps] < RISE).sum()) > 100
    assert (one_megabase.model.entropies(one_megabase.text.tobytes()) == one_megabase.model_threshold).sum() > 1


@pytest.mark.parametrize("size", [4096, "random"])
@pytest.mark.parametrize("rule", RULES)
def test_a_megabase_in_chunks(one_megabase, rule, size):
    assert_chunks_give_the_whole(rule, one_megabase, size)


@pytest.mark.parametrize("rule", RULES)
def test_the_first_bases_one_by_one(one_megabase, rule):
    assert_chunks_give_the_whole(rule, one_megabase.head(1_000), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "size"), [(20_000, 1), (300_000, 7), (MEGABASE, 64), (None, 4096), (None, "random")], ids=str
)
@pytest.mark.parametrize("rule", RULES)
def test_ten_megabases_in_chunks(ten_megabases, rule, length, size):
    assert_chunks_give_the_whole(rule, ten_megabases.head(length), size)


@pytest.mark.slow
@pytest.mark.parametrize("size", [7, 64])
@pytest.mark.parametrize("rule", ["threshold, scores of the model", "threshold, scores given"])
def test_ten_megabases_in_small_chunks(ten_megabases, rule, size):
    assert_chunks_give_the_whole(rule, ten_megabases, size)


CHUNK = 1 << 16  # tokens


def peak_of_stream(rule, stream, num_chunks):
    """Highest number of bytes that numpy and Python held while a stream ran, above what was there before."""
    patcher, sequence, given = task(rule, stream)
    online = OnlinePatcher(patcher)
    tracemalloc.start()
    try:
        for _ in range(num_chunks):
            online.feed(sequence, **given)
        online.finish()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rule", RULES)
def test_memory_does_not_grow_with_the_stream(rule):
    bases = generate_random_genomic_sequence(CHUNK, seed=3).encode()
    chunk = make_stream(np.frombuffer(bases, np.uint8))
    peak_of_stream(rule, chunk, 2)  # tables and compiled loops
    short = peak_of_stream(rule, chunk, 4)
    long = peak_of_stream(rule, chunk, 64)
    assert long < 1.05 * short + CHUNK  # 4 Mb kept at one byte per token would be 60 times CHUNK


PEAK_OF_A_PROCESS = """
import resource, sys
import numpy as np
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.patching import OnlinePatcher, Patcher
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

bases = np.frombuffer(generate_random_genomic_sequence(1 << 20, seed=3).encode(), np.uint8)
online = OnlinePatcher(Patcher(entropy_model=MarkovEntropy.fit([bases.tobytes()], order=8), threshold=1.38))
patches = 0
for _ in range(int(sys.argv[1])):
    patches += online.feed(bases).numel()
patches += online.finish().numel()
print("[%d, %d]" % (patches, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


@pytest.mark.slow
def test_the_memory_of_a_process_does_not_grow_with_the_stream():
    patches, peaks = [], []
    for megabases in (4, 100):
        words = [sys.executable, "-c", PEAK_OF_A_PROCESS, str(megabases)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        patches.append(found[0])
        peaks.append(found[1] * 1024)
    assert patches[1] > 20 * patches[0]
    assert peaks[1] - peaks[0] < 48 << 20  # 96 more megabases are 800 MB of tokens
