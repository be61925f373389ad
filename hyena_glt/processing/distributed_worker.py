"""A process that `setup_distributed_processing` starts, as `python -m` with a folder and a rank.

It reads net, sequences and options from the folder and leaves its results there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torch

from hyena_glt.checks import parse_json
from hyena_glt.errors import HyenaGLTError
from hyena_glt.model import HyenaGLT
from hyena_glt.processing.distributed import (
    JOB_FILE,
    NET_FOLDER,
    TOKENS_FILE,
    DistributedGenomicProcessor,
    results_file,
)
from hyena_glt.processing.distributed_results import pack_results, unpacked_tokens
from hyena_glt.sequences.atomic import atomic_write


def work(folder: Path, rank: int) -> None:
    """Do the share of one process."""
    job = parse_json((folder / JOB_FILE).read_bytes(), path=folder / JOB_FILE)
    torch.set_num_threads(job["threads"])
    net = HyenaGLT.from_pretrained(folder / NET_FOLDER)
    rows = unpacked_tokens(safetensors.torch.load_file(folder / TOKENS_FILE))
    processor = DistributedGenomicProcessor(net, None, job["world_size"], rank, device=job["device"])
    results = processor.process_share(rows, job["batch_size"], keep=job["keep"])
    with atomic_write(results_file(folder, rank)) as handle:
        handle.write(pack_results(results))


if __name__ == "__main__":
    try:
        work(Path(sys.argv[1]), int(sys.argv[2]))
    except HyenaGLTError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
