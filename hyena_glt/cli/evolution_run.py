"""Genomes as `distances` and `tree` read them, and their comparison: rows kept, progress shown."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyena_glt.__about__ import __version__
from hyena_glt.cli.evolution_rows import kept_rows
from hyena_glt.cli.outputs import STDOUT, already_done, write_json
from hyena_glt.cli.parts import clear_leavings
from hyena_glt.cli.runtime import note, progress
from hyena_glt.cli.source import GenomeSource
from hyena_glt.errors import OutputExistsError, UsageError
from hyena_glt.evolution.comparison import SEQUENCE_METRICS, Comparison, compare_genomes, make_metric
from hyena_glt.evolution.genome import Genome
from hyena_glt.evolution.matrix import DistanceMatrix
from hyena_glt.evolution.matrix_files import write_phylip, write_tsv
from hyena_glt.sequences.alphabets import GAPS
from hyena_glt.sequences.fasta import read_blocks
from hyena_glt.sequences.records import Block
from hyena_glt.tracks.provenance import Provenance

SUFFIXES = (".gz", ".bgz", ".fa", ".fna", ".fasta", ".fas", ".ffn", ".faa", ".fq", ".fastq")


@dataclass(frozen=True, slots=True)
class NetOptions:
    """The net of a metric that needs one."""

    folder: Path | None = None
    untrained: bool = False
    size: str = "tiny"
    seed: int = 0
    device: str = "auto"
    patcher: Path | None = None
    window: int = 8192

    @property
    def is_set(self) -> bool:
        """Whether something was said of a net."""
        return self.folder is not None or self.untrained or self.patcher is not None


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What the command line says of a comparison."""

    metric: str
    k: int | None
    order: int | None
    per: str | None
    degap: bool
    blocks: int
    threads: int
    net: NetOptions

    def check(self) -> None:
        """Refuse options of another metric.

        Raises:
            UsageError: One that this metric does not have.
        """
        if self.k is not None and self.metric != "kmer":
            raise UsageError(f"-k: only --metric kmer has words, not {self.metric}")
        if self.order is not None and self.metric != "compression":
            raise UsageError(f"--order: only --metric compression has contexts, not {self.metric}")
        if self.net.is_set and self.metric in SEQUENCE_METRICS:
            raise UsageError(f"--model, --untrained, --patcher: --metric {self.metric} asks no net; leave them out")


def load_genomes(source: GenomeSource, per: str | None) -> list[Genome]:
    """The genomes of all files, in their order; `source` has to leave gaps alone.

    Raises:
        UsageError: Two files of one name, so that their genomes would share it.
        DataError: Bad input, a record without letters, or a name twice.
    """
    paths = (source.path, *source.others)
    if per == "record" or (per is None and len(paths) == 1):
        records = _records(source.all_blocks())
    else:
        records = [(_stem(path), _contigs(path, source)) for path in paths]
        twice = [name for name, count in Counter(name for name, _ in records).items() if count > 1]
        if twice:
            raise UsageError(f"two files make a genome of the name {twice[0]}; rename one")
    genomes = [Genome.of(name, contigs, source.alphabet) for name, contigs in records]
    del records
    return genomes


def _records(blocks: Any) -> list[tuple[str, list[bytes]]]:
    found: list[tuple[str, list[bytes]]] = []
    parts: list[bytes] = []
    block: Block
    for block in blocks:
        parts.append(block.sequence)
        if block.last:
            found.append((block.name, [b"".join(parts)]))
            parts = []
    return found


def _contigs(path: Path, source: GenomeSource) -> list[bytes]:
    blocks = read_blocks(path, alphabet=source.alphabet, degap=source.degap)
    return [contig for _, contigs in _records(blocks) for contig in contigs]


def _stem(path: Path) -> str:
    name = path.name
    while Path(name).suffix in SUFFIXES and Path(name).stem:
        name = Path(name).stem
    return name


def count_gaps(paths: Sequence[Path]) -> int:
    """Alignment gaps in the sequences of FASTA files that are known to be sound."""
    return sum(
        len(block.sequence) - len(block.sequence.translate(None, GAPS))
        for path in paths
        for block in read_blocks(path, alphabet="bytes")
    )


@contextmanager
def comparison(
    genomes: list[Genome], options: CompareOptions, source: GenomeSource, output: Path, force: bool
) -> Iterator[tuple[Comparison, dict[str, Any]]]:
    """Compare the genomes as the options say; finished rows are kept until the block, which writes the output, ends.

    Yields:
        The comparison, and what stands in the provenance.
    """
    if options.degap:
        note(f"{count_gaps([source.path, *source.others]):,} gaps removed")
    about: dict[str, Any] = {"metric": options.metric, "genomes": len(genomes), "degap": options.degap}
    if options.metric not in SEQUENCE_METRICS:
        yield _compare_by_net(genomes, options, about)
        return
    metric = make_metric(genomes, options.metric, k=options.k, order=options.order, blocks=options.blocks)
    about |= metric.describe()
    everything = hashlib.sha256(" ".join(genome.sha256 for genome in genomes).encode()).hexdigest()
    run = {**about, "blocks": options.blocks, "genomes_sha256": everything, "hyena_glt_version": __version__}
    with kept_rows(output, run, force) as store:
        with progress("comparing", len(genomes), unit="genomes") as advance:
            compared = compare_genomes(genomes, metric, threads=options.threads, store=store, advance=advance)
        yield compared, about


def _compare_by_net(
    genomes: list[Genome], options: CompareOptions, about: dict[str, Any]
) -> tuple[Comparison, dict[str, Any]]:
    from hyena_glt.cli.nets import open_net
    from hyena_glt.evolution.net_profiles import compare_with_net
    from hyena_glt.patching.saved import load_patcher

    net = options.net
    cutter = None if net.patcher is None else load_patcher(net.patcher).build()
    model, label = open_net(
        net.folder,
        untrained=net.untrained,
        size=net.size,
        causal=False,
        alphabet=genomes[0].alphabet.name,
        seed=net.seed,
        device=net.device,
        threads=options.threads,
    )
    with progress("running the net", len(genomes), unit="genomes") as advance:
        compared = compare_with_net(
            genomes, model, cutter, options.metric, blocks=options.blocks, window=net.window, advance=advance
        )
    return compared, {**about, "weights": label, "window": net.window}


def write_with_sidecar(path: Path, origin: Provenance | None, write: Callable[[], None]) -> None:
    """Write a file that has no place for its provenance, and that into `PATH.json`; None leaves it out.

    A new file comes after its provenance and a replaced one before it: killed in between, the same command goes on.
    """
    sidecar = path.with_name(f"{path.name}.json")
    if origin is None or path == STDOUT:
        write()
        if path != STDOUT:
            sidecar.unlink(missing_ok=True)
        return
    is_new = not path.exists()
    if not is_new:
        write()
    write_json(sidecar, {"provenance": origin.as_dict()})
    if is_new:
        write()


def write_matrix(path: Path, kind: str, matrix: DistanceMatrix, origin: Provenance | None, *, strict: bool) -> None:
    """Write distances as PHYLIP, with their provenance beside, or as TSV, with it inside."""
    if kind == "tsv":
        comments = b"" if origin is None else origin.as_comments()
        write_tsv(path, matrix, comments=comments, overwrite=True)
    else:
        write_with_sidecar(path, origin, lambda: write_phylip(path, matrix, strict=strict, overwrite=True))


def is_finished(output: Path, plot: Path | None, provenance: Callable[[], Provenance], force: bool) -> bool:
    """Whether output and figure are there from this command; a figure is drawn after its output.

    Raises:
        OutputExistsError: One of them is there from elsewhere, and `force` is not set.
    """
    done = already_done([output], provenance, force)
    if done and (plot is None or plot.exists()):
        clear_leavings(output)
        return True
    if plot is not None and plot.exists() and not force:
        raise OutputExistsError(f"{plot}: exists already; give --force to replace it")
    return False
