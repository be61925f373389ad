"""A collection of genomes through a net, on one process or many, into Parquet shards that a later run can trust.

    OUTPUT/
        net/                    the net and its patcher, from which every process reads them
        plan.json               model, options, genomes, and how they are cut into shards
        shard-000000.parquet    one row per record or window: genome, record, name, start, end, patches, embedding
        shard-000000.json       sha256 of the shard and of the genomes in it, written after it
        manifest.json           all of these together, written last

A run that was ended at any moment goes on by the same call: finished shards are known by their hashes, the others are
made anew, and the bytes are those of the run that was never disturbed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from hyena_glt.__about__ import __version__
from hyena_glt.errors import ConfigError, DataError, ModelFileError, OutputExistsError, UsageError
from hyena_glt.model import HyenaGLT
from hyena_glt.model.weights import config_json
from hyena_glt.processing.distributed import NET_FOLDER, save_whole, with_patcher
from hyena_glt.processing.distributed_group import ProcessGroup, environment_rank, rank_device
from hyena_glt.processing.distributed_plan import (
    PLAN_FILE,
    GenomeFile,
    Paths,
    Plan,
    differences,
    list_genomes,
    plan_shards,
)
from hyena_glt.processing.distributed_shards import EmbedOptions, ShardMaker, capped_patcher, read_note, shard_file
from hyena_glt.processing.sharding import balanced_shards
from hyena_glt.sequences.alphabets import get_alphabet
from hyena_glt.sequences.atomic import atomic_write, make_folder
from hyena_glt.tracks.provenance import Provenance

if TYPE_CHECKING:
    import pyarrow as pa

Engine = Literal["local", "torchrun", "ray"]
Note = Callable[[str], None]
MANIFEST_FILE = "manifest.json"
MANIFEST_FORMAT = "hyena-glt/genomes-manifest/1"
SHARD_BASES = 1 << 26
SHOWN_DIFFERENCES = 3


@dataclass(frozen=True, slots=True)
class GenomeTable:
    """Finished results."""

    folder: Path
    shards: tuple[Path, ...]  # Parquet files in input order
    rows: int
    num_made: int  # shards made by this call, on all processes; the others were finished before

    def read(self) -> pa.Table:
        """All rows in input order."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        return pa.concat_tables([pq.ParquetFile(path).read() for path in self.shards])


def process_genomes(
    paths: Paths,
    model: HyenaGLT | str | os.PathLike[str] | None = None,
    *,
    output: str | os.PathLike[str],
    engine: Engine = "local",
    patcher: Any | None = None,
    alphabet: str = "dna",
    degap: bool = False,
    per_record: bool = True,
    window: int = 8192,
    batch_size: int = 8,
    shard_bases: int = SHARD_BASES,
    device: str = "auto",
    threads: int = 1,
    workers: int | None = None,
    force: bool = False,
    provenance: Provenance | None = None,
    note: Note = lambda text: None,
) -> GenomeTable:
    """Embed every record of many genomes: the mean of the trunk's patch states.

    The bytes of the results do not depend on the engine or on the number of processes. The same call goes on where
    an earlier one was ended, and does nothing where it was finished. Records without a letter (all N) have no row.

    Args:
        paths: A folder of FASTA or FASTQ files, a table with a column `path` (and perhaps `genome`), a file, or a
            list of such; a genome is one file.
        model: The net, or a folder written by `save_pretrained`; None: the net that ships with the package.
        output: Folder of the results; with several machines one that all of them see.
        engine: `local`: this process. `torchrun`: the processes that `torchrun` started, each of which makes this
            call. `ray`: the cluster at `RAY_ADDRESS`, else one on this machine alone; needs the extra `ray`.
        patcher: One that can be saved, in place of the net's own.
        alphabet, degap: How the genomes are read.
        per_record: One row per record; else one per window.
        window: Bases that go through the net together, cut at patch starts.
        batch_size: Windows per forward.
        shard_bases: Bases of a shard, about: what is lost at most when a process is killed. A record is never cut.
        device: `auto` (CUDA where there is one), `cpu` or `cuda`; each process of a machine has its own.
        threads: Of torch in each process. Other numbers round otherwise in the last bit, so it belongs to the run.
        workers: Processes of the engine `ray`; None: one for each core, or GPU, of the cluster.
        force: Begin anew, whatever is there.
        provenance: Kept in the manifest.
        note: Told what a person should know, on rank 0.

    Returns:
        Where the results are, on every process.

    Raises:
        UsageError: An unknown engine, or `local` under `torchrun`.
        ConfigError: The folder holds a run of another model, other options or genomes (the first differences are
            named), an option out of range, or a net without a patcher.
        OutputExistsError: Shards are there, but no plan of them.
        DataError: A genome that is malformed, or no letter in any of them.
        SystemProblem: The folder cannot be written, another process has failed, or ray is not installed.

    Example:
        >>> from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
        >>> net = HyenaGLT(HyenaGLTConfig.preset("tiny"), Patcher(patching_mode="static", patch_size=8))
        >>> table = process_genomes("genomes/", net, output="vectors")  # doctest: +SKIP
        >>> table.read().column_names  # doctest: +SKIP
        ['genome', 'record', 'name', 'start', 'end', 'patches', 'embedding']
    """
    _check_engine(engine)
    options = EmbedOptions(
        alphabet=get_alphabet(alphabet).name,
        degap=degap,
        per_record=per_record,
        window=window,
        batch_size=batch_size,
        device=rank_device(device, *environment_rank()).type,
        threads=threads,
    )
    folder = Path(output)
    with ProcessGroup.from_environment() if engine == "torchrun" else ProcessGroup() as group:
        genomes = group.together(partial(list_genomes, paths))
        group.together(lambda: _set_up(group, folder, genomes, model, patcher, options, shard_bases, force))
        plan = group.together(partial(_planned, folder))
        tell = note if group.is_main else _silent
        tell(f"{len(genomes):,} genomes in {len(plan.shards):,} shards")
        if engine == "ray":
            from hyena_glt.processing.distributed_ray import make_on_ray

            made = make_on_ray(folder, genomes, options, range(len(plan.shards)), workers)
        else:
            made = _make_by_ranks(group, folder, plan, genomes, options, device, tell)
        group.together(lambda: _finish(folder, plan, provenance) if group.is_main else None)
        rows = group.together(lambda: sum(read_note(folder, n)["rows"] for n in range(len(plan.shards))))
    shards = tuple(shard_file(folder, number) for number in range(len(plan.shards)))
    tell(f"{rows:,} rows; {made:,} shards made, {len(shards) - made:,} were finished before")
    return GenomeTable(folder, shards, rows, made)


def open_maker(folder: Path, genomes: Sequence[GenomeFile], options: EmbedOptions, place: torch.device) -> ShardMaker:
    """What makes shards in this process, from the plan and the net in the folder.

    Raises:
        ModelFileError: Either is damaged.
    """
    net = HyenaGLT.from_pretrained(folder / NET_FOLDER).to(place).eval()
    return ShardMaker(net, folder, _planned(folder), genomes, options)


def _make_by_ranks(
    group: ProcessGroup,
    folder: Path,
    plan: Plan,
    genomes: Sequence[GenomeFile],
    options: EmbedOptions,
    device: str,
    note: Note,
) -> int:
    """Each rank checks its share of the shards, then makes its share of those that are not finished; their number."""
    checker = ShardMaker(None, folder, plan, genomes, options)
    sizes = [shard.size for shard in plan.shards]
    is_whole = torch.zeros(len(sizes), dtype=torch.int64)

    def check() -> None:
        for number in balanced_shards(sizes, group.world)[group.rank].tolist():
            is_whole[number] = int(checker.is_whole(number))

    group.together(check)
    missing = torch.nonzero(group.maximum(is_whole) == 0).flatten().tolist()

    def make() -> None:
        own = balanced_shards([sizes[number] for number in missing], group.world)[group.rank].tolist()
        if not own:
            return
        maker = open_maker(folder, genomes, options, rank_device(device, group.rank, group.world))
        with _limited_threads(options.threads):
            for done, place in enumerate(own, 1):
                maker.make(missing[place])
                note(f"shard {missing[place]:,}: {done:,} of {len(own):,} of this process")

    group.together(make)
    return len(missing)


@contextmanager
def _limited_threads(threads: int) -> Iterator[None]:
    """Torch's threads within a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_engine(engine: str) -> None:
    if engine not in get_args(Engine):
        raise UsageError(f"engine: expected one of {', '.join(get_args(Engine))}, got {engine!r}")
    if engine != "torchrun" and (world := environment_rank()[1]) > 1:
        raise UsageError(f"engine: {engine!r} in {world} processes of torchrun would do everything {world} times")


def _set_up(
    group: ProcessGroup,
    folder: Path,
    genomes: Sequence[GenomeFile],
    model: HyenaGLT | str | os.PathLike[str] | None,
    patcher: Any | None,
    options: EmbedOptions,
    shard_bases: int,
    force: bool,
) -> None:
    """On rank 0, write net and plan, or see that those that are there are of this run."""
    if not group.is_main:
        return
    net = with_patcher(_net_of(model), patcher)
    capped_patcher(net, options.window)
    identity = {
        "hyena_glt_version": __version__,
        "model_sha256": net_sha256(net),
        "options": options.as_dict(),
        "shard_bases": shard_bases,
        "genomes": [{"genome": g.name, "file": g.path.name, "bytes": g.size} for g in genomes],
    }
    make_folder(folder)
    if force:
        _clear(folder)
    known = Plan.read(folder)
    if known is None:
        if there := sorted(path.name for path in folder.iterdir() if _is_own(path) and path.name != NET_FOLDER):
            raise OutputExistsError(
                f"{folder / there[0]}: exists already, of no plan; give another folder, or force (--force)"
            )
        save_whole(net, folder / NET_FOLDER)
        shards = plan_shards(genomes, shard_bases, alphabet=options.alphabet, degap=options.degap)
        Plan(identity, shards).write(folder)
        return
    if changed := list(differences(known.identity, identity)):
        more = f" and {len(changed) - SHOWN_DIFFERENCES} more" if len(changed) > SHOWN_DIFFERENCES else ""
        raise ConfigError(
            f"{folder / PLAN_FILE}: the run was begun with another model, options or genomes: "
            f"{'; '.join(changed[:SHOWN_DIFFERENCES])}{more}; give another folder, or force (--force) to begin anew"
        )
    try:
        HyenaGLT.from_pretrained(folder / NET_FOLDER)
    except ModelFileError:
        save_whole(net, folder / NET_FOLDER)


def net_sha256(net: HyenaGLT) -> str:
    """Hash of everything that decides what a net says: configuration, weights, patcher.

    Raises:
        ConfigError: A patcher that cannot be saved.
    """
    digest = hashlib.sha256(config_json(net.config).encode())
    for name, tensor in sorted(net.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
    with TemporaryDirectory(prefix="hyena-glt-") as folder:
        net.external_patcher.save(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                digest.update(f"{path.name}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _finish(folder: Path, plan: Plan, provenance: Provenance | None) -> None:
    """Write the manifest from the notes of all shards, unless it is there already."""
    notes = [read_note(folder, number) for number in range(len(plan.shards))]
    if not sum(note["rows"] for note in notes):
        raise DataError("no letter in any genome, so nothing to embed", path=folder)
    hashes = {name: digest for note in notes for name, digest in note["genomes"].items()}
    facts = {key: value for key, value in plan.identity.items() if key != "genomes"}
    content = {
        "format": MANIFEST_FORMAT,
        **facts,
        "rows": sum(note["rows"] for note in notes),
        "shards": [
            {"file": shard_file(folder, number).name, "sha256": note["sha256"], "rows": note["rows"]}
            for number, note in enumerate(notes)
        ],
        "genomes": [{**genome, "sha256": hashes[genome["genome"]]} for genome in plan.identity["genomes"]],
    }
    if provenance is not None:
        content["provenance"] = provenance.as_dict()
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    path = folder / MANIFEST_FILE
    if not path.is_file() or path.read_text() != text:
        with atomic_write(path, "w", overwrite=True) as handle:
            handle.write(text)


def _planned(folder: Path) -> Plan:
    plan = Plan.read(folder)
    if plan is None:
        raise ModelFileError(
            "no plan of this run; with several machines the folder has to be one that all see", path=folder / PLAN_FILE
        )
    return plan


def _net_of(model: HyenaGLT | str | os.PathLike[str] | None) -> HyenaGLT:
    if model is None:
        from hyena_glt.model.shipped import shipped_net

        return shipped_net()
    return HyenaGLT.from_pretrained(model) if isinstance(model, str | os.PathLike) else model


def _is_own(path: Path) -> bool:
    """Whether a file or folder is one that a run writes."""
    is_shard = path.name.startswith("shard-") and path.suffix in (".parquet", ".json")
    return is_shard or path.name in (PLAN_FILE, MANIFEST_FILE, NET_FOLDER)


def _clear(folder: Path) -> None:
    """Remove what an earlier run has written, its plan and manifest first."""
    own = [path for path in folder.iterdir() if _is_own(path)]
    for path in sorted(own, key=lambda path: path.name not in (PLAN_FILE, MANIFEST_FILE)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _silent(text: str) -> None:
    """Say nothing: on all ranks but the first."""
