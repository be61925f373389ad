"""One process needs no group; ranks, variables and devices that do not fit are named."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.errors import ConfigError, SystemProblem
from hyena_glt.processing.distributed_group import ProcessGroup, environment_rank, rank_device


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_one_process_needs_no_group():
    with ProcessGroup.from_environment() as group:
        assert (group.rank, group.world, group.is_main) == (0, 1, True)
        assert group.together(lambda: 3) == 3
        assert group.maximum(torch.tensor([1, 2])).tolist() == [1, 2]
        assert group.gather_bytes(b"abc") == [b"abc"]
        assert not torch.distributed.is_initialized()
        with pytest.raises(KeyError):
            group.together(lambda: {}["x"])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE: expected a whole number, got None"),
        ({"WORLD_SIZE": "2"}, "RANK: expected a whole number, got None"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK: expected a whole number, got 'x'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank: expected a whole number from 0 to 1, got 2"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "world_size"),
    ],
)
def test_variables_that_do_not_fit_are_named(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        environment_rank()


def test_processes_that_never_come_end_the_wait(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    with pytest.raises(SystemProblem, match="rank 0 of 2: another process has ended or does not answer"):
        ProcessGroup(0, 2, timeout_s=1)
    assert not torch.distributed.is_initialized()


def test_every_process_has_the_cpu_or_a_device_of_its_own(monkeypatch):
    assert {rank_device("cpu", rank, 4) for rank in range(4)} == {torch.device("cpu")}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [rank_device("auto", rank, 2).index for rank in range(2)] == [0, 1]
    assert rank_device("cuda:1", 0, 1).index == 1
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert rank_device("cuda", 5, 8).index == 1
    with pytest.raises(ConfigError, match="expected auto, cpu or cuda with 2 processes, got 'cuda:1'"):
        rank_device("cuda:1", 0, 2)
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(SystemProblem, match="expected a CUDA device for process 2, found 2"):
        rank_device("cuda", 2, 4)
