"""Sequences over several processes: each once, in input order, the same as one process gives."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.errors import ConfigError, HyenaGLTError, ModelFileError, PatchingError, SystemProblem
from hyena_glt.model import shipped
from hyena_glt.processing import DistributedGenomicProcessor, setup_distributed_processing
from hyena_glt.processing import distributed as module
from hyena_glt.processing.distributed_results import TENSORS, SequenceResult

sequences_lists = st.lists(st.text("ACGTN", max_size=40), max_size=12)


def small_net(seed: int = 0) -> HyenaGLT:
    config = HyenaGLTConfig.preset("tiny", genomic_vocab_size=4, hidden_size=32, local_hidden_size=16)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return HyenaGLT(config, Patcher(patching_mode="static", patch_size=4)).eval()


def some_sequences(count: int = 23) -> list[str]:
    draw = random.Random(1)
    return ["".join(draw.choices("ACGT", k=draw.randint(0, 90))) for _ in range(count)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def net() -> HyenaGLT:
    return small_net()


def processor(net, world=1, rank=0, **options):
    return DistributedGenomicProcessor(net, None, world, rank, device="cpu", **options)


def assert_equal(found: list[SequenceResult], expected: list[SequenceResult]) -> None:
    assert [result.index for result in found] == [result.index for result in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in TENSORS if name in one)


# ---- one process, and ranks one after the other --------------------------------------------------------------------


def test_results_are_those_of_forward_with_patching(net):
    sequences = some_sequences(6)
    for index, result in enumerate(processor(net).distributed_process(sequences, batch_size=4)):
        with torch.inference_mode():
            output = net.forward_with_patching(sequences[index])
        assert result.index == index
        for name in ("last_hidden_state", "byte_hidden_state", "logits"):
            torch.testing.assert_close(result[name], getattr(output, name), rtol=1e-5, atol=1e-5)
        assert torch.equal(result.patch_lengths, output.patch_lengths)
        assert torch.equal(result.boundaries, output.patch_info["boundaries"])
        assert torch.equal(result.patch_info["global_positions"], output.patch_info["global_positions"])
        assert result.compression_ratio == output.compression_ratio


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_sequence_once_for_any_number_of_processes(net, world):
    sequences = some_sequences()
    whole = processor(net).distributed_process(sequences, batch_size=4)
    shares = [processor(net, world, rank).process_share(sequences, batch_size=4) for rank in range(world)]
    assert_equal(sorted((result for share in shares for result in share), key=lambda result: result.index), whole)
    assert all([r.index for r in share] == sorted(r.index for r in share) for share in shares)


@settings(max_examples=15, deadline=None)
@given(sequences_lists, st.integers(1, 5), st.integers(1, 5))
def test_shares_join_to_the_whole(sequences, world, batch_size):
    net = small_net()
    kept = ["last_hidden_state"]
    whole = processor(net).distributed_process(sequences, batch_size, keep=kept)
    shares = [processor(net, world, rank).process_share(sequences, batch_size, keep=kept) for rank in range(world)]
    assert_equal(sorted((r for share in shares for r in share), key=lambda r: r.index), whole)
    assert len(whole) == len(sequences)


def test_fault_of_the_guide_the_net_is_wrapped_for_training(net):
    """The guide wraps the net in DistributedDataParallel and opens an NCCL group, for inference, in the constructor."""
    one = processor(net, world=3, rank=2)
    assert one.model is net
    assert not torch.distributed.is_initialized()
    assert not net.training
    assert not any(result.logits.requires_grad for result in one.process_share(some_sequences(4)))


def test_fault_of_the_guide_processes_are_forked(net, monkeypatch):
    """A fork after CUDA has been used ends in an error of CUDA; the guide's nested worker cannot be spawned either."""

    def refuse(*_):
        raise AssertionError("forked")

    monkeypatch.setattr(os, "fork", refuse)
    started = []

    def start(folder: Path, world: int, threads: int) -> None:
        assert sorted(path.name for path in folder.iterdir()) == ["job.json", "net", "sequences.safetensors"]
        for rank in range(world):
            started.append(rank)
            from hyena_glt.processing.distributed_worker import work

            work(folder, rank)

    monkeypatch.setattr(module, "_run_workers", start)
    found = setup_distributed_processing(some_sequences(7), 3, model=net, batch_size=2, device="cpu", threads=1)
    assert started == [0, 1, 2]
    assert_equal(found, processor(net).distributed_process(some_sequences(7), 2))


def test_one_process_of_setup_runs_right_here(net, monkeypatch):
    monkeypatch.setattr(module, "_run_workers", None)
    found = setup_distributed_processing(some_sequences(5), num_gpus=1, model=net, device="cpu")
    assert_equal(found, processor(net).distributed_process(some_sequences(5)))


def test_a_patcher_that_is_given_takes_the_place_of_the_nets_own(net):
    given = Patcher(patching_mode="static", patch_size=2)
    (found,) = setup_distributed_processing("ACGTACG", 1, model=net, patcher=given, device="cpu")
    assert found.patch_lengths.tolist() == [[2, 2, 2, 1]]
    (found,) = DistributedGenomicProcessor(net, given, 1, 0, device="cpu").distributed_process(["ACGTACG"])
    assert found.patch_lengths.tolist() == [[2, 2, 2, 1]]
    assert net.external_patcher.args.patch_size == 4


def test_what_is_kept_can_be_chosen(net):
    (found,) = processor(net).distributed_process(["ACGT"], keep=["last_hidden_state"])
    assert list(found) == ["index", "last_hidden_state", "patch_lengths", "boundaries"]
    with pytest.raises(AttributeError, match="no 'logits'; it has index"):
        _ = found.logits
    with pytest.raises(ConfigError, match=r"keep: expected names among .*, got 'loss'"):
        processor(net).distributed_process(["ACGT"], keep=["loss"])


@pytest.mark.parametrize(
    ("work", "kind", "message"),
    [
        (lambda net: processor(net, 2, 2), ConfigError, "rank: expected a whole number from 0 to 1, got 2"),
        (lambda net: processor(net, 0, 0), ConfigError, "world_size: expected .* at least 1, got 0"),
        (lambda net: processor(net).distributed_process([1]), PatchingError, "sequence: expected str, bytes"),
        (lambda net: processor(net).distributed_process(["A"], 0), ConfigError, "batch_size|num_shards"),
        (lambda net: DistributedGenomicProcessor(net, None, 1, 0, device="tpu9"), ConfigError, "device"),
        (lambda net: setup_distributed_processing(["A"], 0, model=net), ConfigError, "world_size"),
        (
            lambda net: setup_distributed_processing(["A"], 2, model=net, patcher=object(), device="cpu"),
            ConfigError,
            "can be saved",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(net, work, kind, message):
    with pytest.raises(kind, match=message):
        work(net)


def test_several_processes_need_a_place_to_meet(net, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(ConfigError, match="MASTER_ADDR, MASTER_PORT not set, so 2 processes cannot meet"):
        processor(net, 2, 0).distributed_process(["ACGT"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_that_is_not_there_is_a_problem_of_the_system(net):
    with pytest.raises(SystemProblem, match="expected a CUDA device"):
        setup_distributed_processing(["ACGT"], 4, model=net, device="cuda")


def test_without_a_net_the_shipped_one_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "SHIPPED_FOLDER", tmp_path / "absent")
    with pytest.raises(ModelFileError, match="absent"):
        setup_distributed_processing(["ACGT"], 1, device="cpu")


# ---- processes -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_new_processes_give_what_one_gives(net):
    sequences = some_sequences()
    found = setup_distributed_processing(sequences, 2, model=net, batch_size=4, device="cpu", threads=1)
    assert_equal(found, processor(net).distributed_process(sequences, 4))


@pytest.mark.slow
def test_a_process_that_fails_is_named(net):
    with pytest.raises(SystemProblem, match=r"process [01] of 2 ended with code 1: error: .*not in the dna alphabet"):
        setup_distributed_processing(["ACGT", "AC*T"], 2, model=net, batch_size=1, device="cpu")


@pytest.mark.slow
def test_two_processes_of_torchrun_gather_on_rank_0(net, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    whole = processor(net).distributed_process(some_sequences(), 4)
    facts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert facts[0]["indices"] == list(range(23))
    assert sorted(facts[1]["indices"]) == facts[1]["indices"] != []
    for fact in facts:
        sums = [float(whole[index].logits.double().sum()) for index in fact["indices"]]
        assert fact["sums"] == sums
        assert "expected the same sequences and options on every process" in fact["different"]
    assert "expected" in facts[1]["failed"]
    assert "rank 1 has failed" in facts[0]["failed"]
    assert "does not answer" in facts[0]["lost"]


def torchrun_rank(folder: Path) -> None:
    """What each process of the test above does."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    with processor(small_net(), world, rank, timeout_s=60) as own:
        results = own.distributed_process(some_sequences(), 4)
        facts = {"indices": [r.index for r in results], "sums": [float(r.logits.double().sum()) for r in results]}
        facts["different"] = message_of(lambda: own.distributed_process(["ACGT" * (1 + rank)]))
        if rank == 1:
            own.patcher = object()  # no patcher at all
        facts["failed"] = message_of(lambda: own.distributed_process(some_sequences(4), 1))
        if rank == 0:
            facts["lost"] = message_of(lambda: own.distributed_process(["ACGT"]))
        (folder / f"{rank}.json").write_text(json.dumps(facts))
        if rank == 1:
            os._exit(0)


def message_of(work) -> str:
    try:
        work()
    except HyenaGLTError as problem:
        return str(problem)
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    torchrun_rank(Path(sys.argv[1]))
