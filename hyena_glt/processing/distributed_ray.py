"""Shards of genomes on a Ray cluster: a pool of actors, each with the net, one shard at a time.

Ray carries shard numbers alone; results go through the folder, under the same rules as without Ray. Nothing is sent
outside: usage statistics and dashboard are off, and without `RAY_ADDRESS` the cluster is this machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyena_glt import errors
from hyena_glt.errors import ConfigError, HyenaGLTError, SystemProblem
from hyena_glt.processing.distributed_plan import GenomeFile, Plan
from hyena_glt.processing.distributed_shards import EmbedOptions

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # the second one warns
LOCAL_ADDRESS = "127.0.0.1"


def make_on_ray(
    folder: Path,
    genomes: Sequence[GenomeFile],
    options: EmbedOptions,
    numbers: Sequence[int],
    workers: int | None = None,
) -> int:
    """Make the shards that are not finished; their number.

    Args:
        folder: Of the results, with net and plan; every machine of the cluster sees it, and the genomes.
        genomes: The collection.
        options: How it is read and embedded.
        numbers: Shards.
        workers: Actors; None: one for each core, or GPU, of the cluster.

    Raises:
        SystemProblem: Ray is not installed, or an actor is lost for good.
        HyenaGLTError: What the first shard that failed has met.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers: expected at least 1, got {workers}")
    with _environment(QUIET), _cluster(workers) as ray:
        needs = {"num_gpus": 1} if options.device == "cuda" else {"num_cpus": 1}
        room = int(ray.cluster_resources().get("GPU" if options.device == "cuda" else "CPU", 1))
        pool = min(workers or room, room, len(numbers))
        arguments = (str(folder.resolve()), [(g.name, str(g.path.resolve()), g.size) for g in genomes], options)
        rows = ray.data.from_items(_largest_first(folder, numbers), override_num_blocks=len(numbers)).map_batches(
            RayShardWorker,
            fn_constructor_args=arguments,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=max(pool, 1)),
            **needs,
        )
        try:
            found = rows.take_all()
        except ray.exceptions.RayError as error:
            raise SystemProblem(f"ray: {_first_line(error)}; run the same again to go on") from error
    _raise_first(found)
    done = [int(row["shard"]) for row in found]
    if sorted(done) != sorted(numbers):
        raise SystemProblem(f"ray: expected {len(numbers)} shards, each once, got {len(done)}; run the same again")
    return sum(int(row["made"]) for row in found)


class RayShardWorker:
    """One actor: it holds the net and makes the shards it is given.

    Args:
        folder: Of the results.
        genomes: Name, path and size of each genome.
        options: How they are read and embedded.
    """

    def __init__(self, folder: str, genomes: list[tuple[str, str, int]], options: EmbedOptions) -> None:
        from hyena_glt.processing.distributed_genomes import open_maker

        torch.set_num_threads(options.threads)
        files = [GenomeFile(name, Path(path), size) for name, path, size in genomes]
        self._maker = open_maker(Path(folder), files, options, torch.device(options.device))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Make the shards of a batch; an error of ours goes back as text, so that its message stays one line."""
        made, problems = [], []
        for number in batch["shard"].tolist():
            problem, is_made = "", False
            try:
                is_made = self._maker.ensure(number)
            except HyenaGLTError as error:
                problem = f"{type(error).__name__}\t{error}"
            made.append(is_made)
            problems.append(problem)
        return {"shard": batch["shard"], "made": np.array(made), "problem": np.array(problems, dtype=object)}


def _largest_first(folder: Path, numbers: Sequence[int]) -> list[dict[str, int]]:
    plan = Plan.read(folder)
    sizes = {number: plan.shards[number].size if plan else 0 for number in numbers}
    return [{"shard": number} for number in sorted(numbers, key=lambda number: (-sizes[number], number))]


def _raise_first(found: list[dict[str, Any]]) -> None:
    failed = sorted((int(row["shard"]), row["problem"]) for row in found if row["problem"])
    if failed:
        name, _, text = failed[0][1].partition("\t")
        kind = getattr(errors, name, SystemProblem)
        raise kind(text)


@contextmanager
def _cluster(workers: int | None) -> Iterator[Any]:
    """Ray, connected; what is started here ends here."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise SystemProblem("engine='ray' needs Ray; install it with: pip install 'hyena-glt[ray]'") from None
    is_own = not ray.is_initialized()
    try:
        if is_own:
            options: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": LOCAL_ADDRESS}
            if os.environ.get("RAY_ADDRESS"):
                options = {"address": os.environ["RAY_ADDRESS"]}
            elif workers is not None:
                options |= {"num_cpus": workers}
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        yield ray
    except (ConnectionError, ValueError) as error:
        raise SystemProblem(f"ray: {_first_line(error)}") from error
    finally:
        if is_own and ray.is_initialized():
            ray.shutdown()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables of this process, and of those it starts, within a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
