"""`hyena-glt demo`: the whole chain on a genome that is made up on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note


def demo(
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything the demo writes.")] = Path(
        "demo"
    ),
    length: Annotated[int, typer.Option("--length", min=20_000, help="Bases of the simulated genome.")] = 200_000,
    seed: opt.Seed = 7,
    force: opt.Force = False,
) -> None:
    """Simulate a genome, patch it, embed it and write the report.

    The genome has genes with codon structure, repeats, low complexity and runs of N, so every panel of the report
    has something to show.
    """
    from hyena_glt.cli.calibrate import calibrate
    from hyena_glt.cli.embed import Rows, embed
    from hyena_glt.cli.patch import patch
    from hyena_glt.cli.report import report
    from hyena_glt.sequences.simulate import simulate_genome

    folder.mkdir(parents=True, exist_ok=True)
    patcher, vectors = folder / "patcher.json", folder / "windows.parquet"
    note(f"simulating {length:,} bases with seed {seed}")
    genome, genes = simulate_genome(seed=seed, length=length).write_genome(folder, overwrite=force)
    calibrate([genome], patcher, target_length=16, force=force)
    patch(
        genome,
        folder / "patches.bed.gz",
        patcher=patcher,
        stats=folder / "stats.json",
        entropy_out=folder / "entropy.bw",
        write_index=True,
        force=force,
    )
    embed([genome], vectors, per=Rows.window, window=2048, force=force)
    report(
        genome,
        folder / "report.html",
        gff=genes,
        embeddings=vectors,
        title="Simulated genome",
        patcher=patcher,
        force=force,
    )
    note(f"open {folder / 'report.html'} in a browser; {folder / 'patches.bed.gz'} opens in IGV with {genome}")
