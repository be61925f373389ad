"""Many sequences through one net on several processes, each with its own device, results in input order.

sequences -> batches of similar length -> one share per process -> forward, no gradients -> rank 0, input order

The net is not wrapped: inference needs no gradients to be averaged. Batches are made before they are dealt out, so
each is the same for any number of processes, and so are the results: bit by bit with as many threads per process.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import safetensors.torch
import torch
from torch import Tensor

from hyena_glt.errors import ConfigError, SystemProblem
from hyena_glt.model.batching import encode_each, split_rows
from hyena_glt.model.inputs import check_tokens
from hyena_glt.model.sources import Piece, pad_rows, patch_rows
from hyena_glt.processing.distributed_group import TIMEOUT_S, ProcessGroup, check_rank, rank_device
from hyena_glt.processing.distributed_results import (
    SequenceResult,
    check_kept,
    pack_results,
    packed_tokens,
    result_of,
    unpack_results,
)
from hyena_glt.processing.sharding import balanced_shards, batches_of_similar_length
from hyena_glt.sequences.atomic import atomic_write, make_folder
from hyena_glt.tokens.byte_tokenizer import PAD_ID

if TYPE_CHECKING:
    from hyena_glt.model import HyenaGLT

NET_FOLDER, TOKENS_FILE, JOB_FILE = "net", "sequences.safetensors", "job.json"
LOOK_EVERY_S = 0.05
WORKER = "hyena_glt.processing.distributed_worker"


class DistributedGenomicProcessor:
    """One of several processes that run the same net over the same sequences, each over its share.

    With several processes, start them with `torchrun`, or let `setup_distributed_processing` do so. The group is
    joined when results are gathered first; one process needs none.

    Args:
        model: The net; it is moved to the device of this process and put into evaluation mode.
        patcher: Cuts the sequences; None: the net's own.
        world_size: Processes.
        rank: This process, from 0 on.
        device: `auto` (CUDA where there is one), `cpu` or `cuda`; each process of a machine gets a CUDA device of its
            own, by `LOCAL_RANK` or `rank`.
        timeout_s: Seconds that one process waits for the others.

    Raises:
        ConfigError: A rank out of range, or no patcher.
        SystemProblem: Fewer CUDA devices than processes.

    Example:
        >>> from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
        >>> net = HyenaGLT(HyenaGLTConfig.preset("tiny"), Patcher(patching_mode="static", patch_size=4))
        >>> processor = DistributedGenomicProcessor(net, None, world_size=1, rank=0, device="cpu")
        >>> [result.patch_lengths.tolist() for result in processor.distributed_process(["ACGTAC", "ACG"])]
        [[[4, 2]], [[3]]]
    """

    def __init__(
        self,
        model: HyenaGLT,
        patcher: Any | None,
        world_size: int,
        rank: int,
        *,
        device: str = "auto",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.rank, self.world_size = check_rank(rank, world_size)
        self.device = rank_device(device, self.rank, self.world_size)
        self.model = model.to(self.device).eval()
        self.patcher = model.patcher() if patcher is None else patcher
        self._timeout_s = timeout_s
        self._group: ProcessGroup | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the process group, if this object made one."""
        if self._group is not None:
            self._group.close()
            self._group = None

    def distributed_process(
        self, sequences: Piece | Sequence[Piece], batch_size: int = 32, *, keep: Iterable[str] | None = None
    ) -> list[SequenceResult]:
        """Run the sequences, each on one process; every process calls this with the same sequences.

        Args:
            sequences: Texts, bytes or 1-D byte tokens.
            batch_size: Sequences of a forward; those of similar length go together.
            keep: Tensors that are kept, of `distributed_results.TENSORS`; None: all. Logits and byte states take
                most of the memory on rank 0.

        Returns:
            On rank 0 a result for each sequence, in input order, on the CPU; on another rank those of its share.

        Raises:
            ConfigError: The processes have different sequences, or an unknown name in `keep`.
            PatchingError: Something that is no sequence.
            SystemProblem: Another process has failed or does not answer.
        """
        rows, kept = encode_each(sequences), check_kept(keep)
        if self.world_size == 1:
            return self._process_rows(rows, batch_size, kept)
        if self._group is None:
            self._group = ProcessGroup(self.rank, self.world_size, timeout_s=self._timeout_s)
        group = self._group
        _check_same(group, rows, batch_size, kept)
        own = group.together(lambda: self._process_rows(rows, batch_size, kept))
        packed = group.gather_bytes(pack_results(own))
        return _by_index(result for part in packed for result in unpack_results(part)) if group.is_main else own

    def process_share(
        self, sequences: Piece | Sequence[Piece], batch_size: int = 32, *, keep: Iterable[str] | None = None
    ) -> list[SequenceResult]:
        """The results of this process's share alone, in input order; no group is needed.

        Args:
            sequences, batch_size, keep: As in `distributed_process`.
        """
        return self._process_rows(encode_each(sequences), batch_size, check_kept(keep))

    @torch.inference_mode()
    def _process_rows(self, rows: list[Tensor], batch_size: int, kept: tuple[str, ...]) -> list[SequenceResult]:
        lengths = [len(row) for row in rows]
        batches = batches_of_similar_length(lengths, batch_size)
        padded = [len(batch) * lengths[int(batch[-1])] for batch in batches]
        results = []
        for number in balanced_shards(padded, self.world_size)[self.rank].tolist():
            indices = batches[number].tolist()
            results += self._process_batch([rows[index] for index in indices], indices, kept)
        return _by_index(results)

    def _process_batch(self, rows: list[Tensor], indices: list[int], kept: tuple[str, ...]) -> list[SequenceResult]:
        tokens = pad_rows(rows, PAD_ID)
        check_tokens(tokens)
        output = self.model._run(patch_rows(self.patcher, tokens), 0)
        return [result_of(row, index, kept) for index, row in zip(indices, split_rows(output), strict=True)]


def setup_distributed_processing(
    sequences: Piece | Sequence[Piece],
    num_gpus: int = 4,
    *,
    model: HyenaGLT | None = None,
    patcher: Any | None = None,
    batch_size: int = 32,
    keep: Iterable[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> list[SequenceResult]:
    """Run sequences on several devices of this machine, one new process each, and collect the results.

    Each process is a fresh interpreter (never a fork, which breaks CUDA): net, patcher, sequences and results
    go through safetensors and JSON files in a temporary folder. One process runs right here.

    Args:
        sequences: Texts, bytes or 1-D byte tokens.
        num_gpus: Processes; each gets a CUDA device, or on a machine without any, a share of the cores.
        model: The net; None: the one that ships with the package.
        patcher: One that can be saved, in place of the net's own.
        batch_size, keep: As in `DistributedGenomicProcessor.distributed_process`.
        device: `auto`, `cpu` or `cuda`.
        threads: Of torch in each process; None: those of this process, shared out.

    Returns:
        A result for each sequence, in input order, on the CPU.

    Raises:
        ConfigError: A number out of range, no patcher, or one that cannot be saved.
        SystemProblem: Fewer CUDA devices than processes, or a process that failed; its last line is named.
    """
    rows, kept = encode_each(sequences), check_kept(keep)
    _, world = check_rank(0, num_gpus)
    for rank in range(world):
        rank_device(device, rank, world)
    net = with_patcher(_shipped() if model is None else model, patcher)
    if world == 1:
        return DistributedGenomicProcessor(net, None, 1, 0, device=device).distributed_process(
            rows, batch_size, keep=kept
        )
    if threads is None:
        threads = max(torch.get_num_threads() // world, 1)
    job = {"world_size": world, "batch_size": batch_size, "keep": kept, "device": device, "threads": threads}
    with TemporaryDirectory(prefix="hyena-glt-") as name:
        folder = make_folder(name)
        save_whole(net, folder / NET_FOLDER)
        _write(folder / TOKENS_FILE, safetensors.torch.save(packed_tokens(rows)))
        _write(folder / JOB_FILE, json.dumps(job).encode())
        _run_workers(folder, world, threads)
        parts = [unpack_results(results_file(folder, rank).read_bytes()) for rank in range(world)]
    return _by_index(result for part in parts for result in part)


def with_patcher(net: HyenaGLT, patcher: Any | None) -> HyenaGLT:
    """The same net, weights shared, with another patcher; the net given keeps its own."""
    if patcher is None:
        return net
    twin = copy.copy(net)
    twin.__dict__["external_patcher"] = patcher
    return twin


def save_whole(net: HyenaGLT, folder: Path) -> None:
    """Save a net so that another process cuts as this one does.

    Raises:
        ConfigError: A patcher that cannot be saved.
    """
    patcher = net.external_patcher
    if patcher is not None and not hasattr(patcher, "save"):
        raise ConfigError(f"patcher: expected one that can be saved for other processes, got {type(patcher).__name__}")
    net.save_pretrained(folder)


def results_file(folder: Path, rank: int) -> Path:
    """Where a worker leaves its results."""
    return folder / f"results-{rank}.safetensors"


def _run_workers(folder: Path, world: int, threads: int) -> None:
    """Start the processes and wait for them; the first that fails ends all.

    Raises:
        SystemProblem: One has failed.
    """
    paths = [path for path in sys.path if path]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths)}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        environment.pop(name, None)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(world):
            with open(_log_file(folder, rank), "wb") as log:
                words = [sys.executable, "-m", WORKER, str(folder), str(rank)]
                processes.append(subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stderr=log))
        codes: list[int | None] = [None] * world
        while None in codes:
            time.sleep(LOOK_EVERY_S)
            codes = [process.poll() for process in processes]
            for rank, code in enumerate(codes):
                if code:
                    raise SystemProblem(_how_it_ended(folder, rank, world, code))
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _how_it_ended(folder: Path, rank: int, world: int, code: int) -> str:
    lines = _log_file(folder, rank).read_text(errors="replace").strip().splitlines()
    reason = lines[-1].strip()[:200] if lines else "it said nothing"
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"process {rank} of {world} {how}: {reason}; nothing was kept"


def _log_file(folder: Path, rank: int) -> Path:
    return folder / f"stderr-{rank}.txt"


def _check_same(group: ProcessGroup, rows: list[Tensor], batch_size: int, kept: tuple[str, ...]) -> None:
    """Refuse processes that were given different work, before any of them computes."""
    packed = packed_tokens(rows)
    digest = hashlib.sha256(repr((batch_size, kept)).encode())
    for tensor in packed.values():
        digest.update(tensor.numpy().tobytes())
    own = torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8).long()
    if not torch.equal(group.maximum(own), -group.maximum(-own)):
        raise ConfigError(
            f"rank {group.rank} of {group.world}: expected the same sequences and options on every process; "
            "give each process all of them"
        )


def _by_index(results: Iterable[SequenceResult]) -> list[SequenceResult]:
    return sorted(results, key=lambda result: result["index"])


def _shipped() -> HyenaGLT:
    from hyena_glt.model.shipped import shipped_net

    return shipped_net()


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path, overwrite=True) as handle:
        handle.write(content)
