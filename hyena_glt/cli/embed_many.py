"""Many genomes through the net, on one process or several, into a folder of Parquet shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hyena_glt.cli.nets import open_net, usable_device
from hyena_glt.cli.outputs import command_line, same_file
from hyena_glt.cli.runtime import note
from hyena_glt.errors import UsageError
from hyena_glt.patching import Patcher
from hyena_glt.processing.distributed_genomes import Engine, process_genomes
from hyena_glt.tracks.provenance import Provenance


def embed_many(
    genomes: Sequence[Path],
    output: Path,
    engine: Engine,
    *,
    model: Path | None,
    untrained: bool,
    size: str,
    seed: int,
    patcher: Path | None,
    alphabet: str,
    degap: bool,
    per_record: bool,
    window: int,
    batch_size: int,
    device: str,
    threads: int,
    with_header: bool,
    force: bool,
) -> None:
    """Embed every record of all genomes; `process_genomes` resumes and says what it did.

    Raises:
        UsageError: Stdin among the genomes, or an output that looks like one file.
    """
    if Path("-") in [*genomes, output]:
        raise UsageError("several genomes are read from files into a folder: leave out -")
    if output.suffix in (".parquet", ".npz", ".zarr", ".tsv"):
        raise UsageError(f"-o {output}: several genomes go into a folder of Parquet shards; give a name without suffix")
    same_file([*genomes, patcher, output])
    usable_device(device)
    cutter = None if patcher is None else Patcher.load(patcher)
    net, weights = open_net(
        model,
        untrained=untrained,
        size=size,
        causal=False,
        alphabet=alphabet,
        seed=seed,
        device="cpu",  # every process puts the net on a device of its own
        threads=threads,
        patcher=cutter,
    )
    table = process_genomes(
        [str(path) for path in genomes],
        net,
        output=output,
        engine=engine,
        alphabet=alphabet,
        degap=degap,
        per_record=per_record,
        window=window,
        batch_size=batch_size,
        device=device,
        threads=threads,
        force=force,
        provenance=Provenance(command_line(), {"weights": weights}) if with_header else None,
        note=note,
    )
    if os.environ.get("RANK", "0") == "0":
        note(f"{weights}: {table.rows:,} vectors of {net.config.hidden_size} numbers in {output}")
