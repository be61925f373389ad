"""A memory limit is kept, refused before the run, or met by smaller batches; never printed only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.errors import AlphabetError, ConfigError, PatchingError, SystemProblem
from hyena_glt.processing import GenomicBatchProcessor, MemoryOptimizedProcessor
from hyena_glt.processing.memory_meter import resident_bytes
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

SHAPE = {"hidden_size": 24, "num_layers": 3, "local_hidden_size": 16, "ngram_table_size": 64, "filter_hidden_size": 8}
KEYS = {"batch_index", "results", "memory_peak"}  # of the guide
GIB, MIB = 1 << 30, 1 << 20
TOLERANCE = 1.05  # of the limit, RELIABILITY C2
BOUND = 1e-5  # of the largest value: rounding of float32
MEASURE = """
import json, os, sys
from pathlib import Path
import torch
from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.errors import ConfigError
from hyena_glt.processing import MemoryOptimizedProcessor, memory_meter
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

preset, limit, lengths, keep = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4] == "keep"
torch.set_num_threads(1)
net = HyenaGLT(HyenaGLTConfig.preset(preset), Patcher(patching_mode="static", patch_size=16)).eval()
sequences = [generate_random_genomic_sequence(length, seed=index) for index, length in enumerate(lengths)]
Path("/proc/self/clear_refs").write_text("5")
memory_meter.CLEAR = Path(os.devnull)  # from here on the mark is never reset: it is that of the whole run
before, kept, sizes, refused = memory_meter.resident_bytes(), [], [], ""
try:
    for batch in MemoryOptimizedProcessor(net, None, limit).process_with_memory_management(sequences, 32):
        sizes.append(len(batch["results"]))
        kept += [batch["results"]] if keep else []
except ConfigError as error:
    refused = str(error)
print(json.dumps({"peak": memory_meter.highest_bytes() - before, "sizes": sizes, "refused": refused}))
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return HyenaGLT(HyenaGLTConfig(**SHAPE), Patcher(patching_mode="static", patch_size=8)).eval()


@pytest.fixture(scope="module")
def sequences():
    return [generate_random_genomic_sequence(length, seed=length) for length in (120, 7, 64, 0, 99, 31, 80, 15, 44, 3)]


def measured(preset, limit, lengths, keep="drop"):
    """Peak above the start of a fresh process, sizes of the batches, and the refusal if there was one."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process cannot be reset here")
    command = [sys.executable, "-c", MEASURE, preset, str(limit), json.dumps(lengths), keep]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def results_of(batches):
    return [output for batch in batches for output in batch["results"]]


def failing_above(net, monkeypatch, rows, error):
    """Make the net run out of memory with more rows than this; the sizes that were tried."""
    tried, run = [], net._run

    def limited(patched, offset):
        tried.append(len(patched.tokens))
        if len(patched.tokens) > rows:
            raise error
        return run(patched, offset)

    monkeypatch.setattr(net, "_run", limited)
    return tried


def test_every_key_of_the_guide_is_there(net, sequences):
    batches = list(MemoryOptimizedProcessor(net, net.external_patcher).process_with_memory_management(sequences, 4))
    assert all(set(batch) >= KEYS for batch in batches)
    assert [batch["batch_index"] for batch in batches] == [0, 1, 2]
    assert [len(batch["results"]) for batch in batches] == [4, 4, 2]
    assert all(isinstance(batch["memory_peak"], int) for batch in batches)
    assert MemoryOptimizedProcessor(net, memory_limit_gb=0.5).memory_limit == GIB // 2


@pytest.mark.parametrize("batch_size", [1, 3, 10, None])
def test_results_are_in_input_order_and_those_of_the_batch_processor(net, sequences, batch_size):
    expected = GenomicBatchProcessor(net, batch_size=1).process_genomic_batch(sequences)["outputs"]
    processor = MemoryOptimizedProcessor(net, None, 2)
    found = results_of(processor.process_with_memory_management(iter(sequences), batch_size))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.patch_lengths, other.patch_lengths)
        assert one.logits.shape == other.logits.shape
        assert torch.allclose(one.logits, other.logits, rtol=0, atol=BOUND * float(expected[0].logits.abs().max()))


def test_a_limit_is_kept():
    found = measured("tiny", 0.25, [4096] * 20)
    assert found["refused"] == ""
    assert sum(found["sizes"]) == 20
    assert found["peak"] <= TOLERANCE * 0.25 * GIB
    assert 1 < found["sizes"][0] < 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_limit_is_kept_on_cuda():
    device = torch.device("cuda", 0)
    net = HyenaGLT(HyenaGLTConfig.preset("tiny"), Patcher(patching_mode="static", patch_size=16)).eval().to(device)
    long = [generate_random_genomic_sequence(4096, seed=seed) for seed in range(20)]
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    sizes = [len(b["results"]) for b in MemoryOptimizedProcessor(net, None, 0.25).process_with_memory_management(long)]
    assert sum(sizes) == 20
    assert torch.cuda.max_memory_allocated(device) - before <= TOLERANCE * 0.25 * GIB


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "limit", "lengths"),
    [
        ("small", 0.25, [8192] * 6),
        ("small", 1, [16384] * 24),
        ("small", 0.5, [20000, 100, 100, 100, 5000, 5000, 20000, 100]),
        ("base", 0.5, [8192] * 8),
        ("base", 1, [65536, 65536, 100]),
    ],
)
def test_any_limit_is_kept(preset, limit, lengths):
    found = measured(preset, limit, lengths)
    assert found["refused"] == ""
    assert sum(found["sizes"]) == len(lengths)
    assert found["peak"] <= TOLERANCE * limit * GIB


@pytest.mark.slow
def test_results_that_the_caller_keeps_count_and_end_in_a_refusal():
    found = measured("small", 0.5, [8192] * 60, "keep")
    assert "let go of earlier results" in found["refused"]
    assert 0 < sum(found["sizes"]) < 60
    assert found["peak"] <= TOLERANCE * 0.5 * GIB


def test_a_limit_that_one_sequence_cannot_keep_is_refused_before_the_run(net, monkeypatch):
    processor = MemoryOptimizedProcessor(net, None, 0.5)
    processor.estimate_optimal_batch_size(["ACGT"])
    monkeypatch.setattr(net, "_run", lambda *_: pytest.fail("the net was run"))
    with pytest.raises(ConfigError, match=r"memory_limit_gb: expected at least .* of 2,000,000 bases"):
        processor.process_with_memory_management(["ACGT", "A" * 2_000_000])
    with pytest.raises(ConfigError, match="memory_limit_gb"):
        processor.estimate_optimal_batch_size(["A" * 2_000_000])


def test_a_sequence_of_an_iterator_is_refused_at_its_turn(net):
    batches = MemoryOptimizedProcessor(net, None, 0.5).process_with_memory_management(iter(["ACGT", "A" * 2_000_000]))
    assert len(next(batches)["results"]) == 1
    with pytest.raises(ConfigError, match="2,000,000 bases"):
        next(batches)


def test_a_larger_limit_allows_larger_batches(net):
    sequences = [generate_random_genomic_sequence(30_000)] * 3
    sizes = [
        MemoryOptimizedProcessor(net, None, limit).estimate_optimal_batch_size(sequences) for limit in (0.2, 0.4, 4)
    ]
    assert 1 <= sizes[0] < sizes[1] <= sizes[2] == 32
    assert MemoryOptimizedProcessor(net).estimate_optimal_batch_size([]) == 32


def test_finer_patches_need_smaller_batches():
    torch.manual_seed(0)
    net = HyenaGLT(HyenaGLTConfig(**{**SHAPE, "hidden_size": 192, "num_layers": 2})).eval()
    sizes = [
        MemoryOptimizedProcessor(
            net, Patcher(patching_mode="static", patch_size=size), 0.4
        ).estimate_optimal_batch_size(["ACGT" * 4000])
        for size in (1, 16)
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 123 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_halves_the_batch_and_keeps_the_size(net, sequences, monkeypatch, error):
    processor = MemoryOptimizedProcessor(net, None, 2)
    expected = results_of(processor.process_with_memory_management(sequences, 2))
    tried = failing_above(net, monkeypatch, 2, error)
    batches = list(processor.process_with_memory_management(sequences, 8))
    assert tried == [8, 4, 2, 2, 2, 2, 2]
    assert processor.safe_batch_size == 2
    assert [len(batch["results"]) for batch in batches] == [2] * 5
    for one, other in zip(results_of(batches), expected, strict=True):
        assert torch.equal(one.logits, other.logits)  # equal to the run at the small batch
    tried.clear()
    list(processor.process_with_memory_management(sequences, 8))
    assert tried == [2] * 5  # the size is kept


def test_out_of_memory_with_one_sequence_is_one_clear_error(net, sequences, monkeypatch):
    processor = MemoryOptimizedProcessor(net, None, 2)
    processor.estimate_optimal_batch_size(sequences)
    tried = failing_above(net, monkeypatch, 0, MemoryError("no\nmemory"))
    with pytest.raises(SystemProblem, match="memory: expected enough for one sequence, got 'no memory'"):
        list(processor.process_with_memory_management(sequences, 4))
    assert tried == [4, 2, 1]


def test_a_patcher_that_runs_out_of_memory_gets_fewer_sequences_as_well(net, sequences):
    tried = []

    class Hungry:
        is_causal = True

        def patch_with_starts(self, tokens):
            tried.append(len(tokens))
            if len(tokens) > 3:
                raise MemoryError
            return net.external_patcher.patch_with_starts(tokens)

    processor = MemoryOptimizedProcessor(net, Hungry(), 2)
    assert len(results_of(processor.process_with_memory_management(iter(sequences), 6))) == len(sequences)
    assert tried == [6, 3, 3, 3, 1]


def test_other_errors_are_not_tried_again(sequences, monkeypatch):
    torch.manual_seed(0)
    net = HyenaGLT(HyenaGLTConfig(**SHAPE, genomic_vocab_size=4), Patcher(patching_mode="static", patch_size=8)).eval()
    processor = MemoryOptimizedProcessor(net, None, 2)
    processor.estimate_optimal_batch_size(["ACGT"])
    tried = failing_above(net, monkeypatch, 8, MemoryError())
    with pytest.raises(AlphabetError):
        list(processor.process_with_memory_management(["ACGT", "AC!T"], 2))
    assert tried == [2]
    assert processor.safe_batch_size is None
    with pytest.raises(PatchingError):
        list(processor.process_with_memory_management(iter(["ACGT", 5])))


def test_many_short_sequences_take_no_more_memory_than_some(net):
    processor = MemoryOptimizedProcessor(net, None, 1)

    def growth() -> int:
        stream = (generate_random_genomic_sequence(30 + index % 7, seed=index) for index in range(1_600))
        for batch in processor.process_with_memory_management(stream):
            if batch["batch_index"] == 10:
                warm = resident_bytes()
        assert batch["batch_index"] == 49
        return resident_bytes() - warm

    assert min(growth() for _ in range(3)) < 4 * MIB  # what is kept would be kept each time; other tests' heap is not


def test_the_net_is_left_as_it_was(net, sequences):
    net.train()
    try:
        list(MemoryOptimizedProcessor(net).process_with_memory_management(sequences))
        assert net.training
        assert not net.gradient_checkpointing
    finally:
        net.eval()


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(net, limit):
    with pytest.raises(ConfigError, match="memory_limit_gb"):
        MemoryOptimizedProcessor(net, None, limit)


def test_a_limit_below_what_the_net_loads_is_refused(net):
    with pytest.raises(ConfigError, match="memory_limit_gb"):
        MemoryOptimizedProcessor(net, None, 1e-6).process_with_memory_management(["ACGT" * 100])
    with pytest.raises(ConfigError, match="batch_size"):
        MemoryOptimizedProcessor(net).process_with_memory_management(["ACGT"], 0)


def test_no_sequences_give_no_batches(net):
    assert list(MemoryOptimizedProcessor(net).process_with_memory_management([])) == []
