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
from hyena_glt.cli.evolution_rows import kept_profiles, kept_rows
from hyena_glt.cli.outputs import already_done, read_provenance, write_json
from hyena_glt.cli.parts import clear_leavings
from hyena_glt.cli.runtime import note, progress
from hyena_glt.cli.source import GenomeSource
from hyena_glt.errors import ConfigError, DataError, OutputExistsError, UsageError
from hyena_glt.evolution.comparison import SEQUENCE_METRICS, Comparison, compare_genomes, make_metric
from hyena_glt.evolution.genome import Genome
from hyena_glt.evolution.matrix import DistanceMatrix
from hyena_glt.evolution.matrix_files import write_phylip, write_tsv
from hyena_glt.sequences.alphabets import GAPS
from hyena_glt.sequences.atomic import is_stream, sha256_file
from hyena_glt.sequences.fasta import read_blocks
from hyena_glt.sequences.records import Block
from hyena_glt.tracks.provenance import Provenance

PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".webp", ".bmp", ".eps", ".ps")
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


def refuse_picture(output: Path, what: str) -> None:
    """Refuse to write text under the name of a picture.

    Raises:
        UsageError: A name that ends with a picture's suffix.
    """
    if output.suffix.lower() in PICTURES:
        raise UsageError(f"-o {output}: this is a picture's name, and -o takes {what}; the figure goes to --plot")


def load_genomes(source: GenomeSource, per: str | None) -> list[Genome]:
    """The genomes of all files, in their order; `source` has to leave gaps alone.

    Raises:
        UsageError: Two files of one name, so that their genomes would share it.
        DataError: Bad input, a record without letters, or a name twice.
    """
    paths = (source.path, *source.others)
    if per == "record" or (per is None and not source.others):
        records = [(*record, path) for path in paths for record in _records_of(path, source)]
    else:
        records = [
            (_stem(path), [part for _, parts in _records_of(path, source) for part in parts], path) for path in paths
        ]
        twice = [name for name, count in Counter(name for name, *_ in records).items() if count > 1]
        if twice:
            raise UsageError(f"two files make a genome of the name {twice[0]}; rename one")
    shown = {path: str(path) if source.others else source.name for path in paths}
    genomes = [Genome.of(name, contigs, source.alphabet, path=shown[path]) for name, contigs, path in records]
    del records
    return genomes


def _records_of(path: Path, source: GenomeSource) -> list[tuple[str, list[bytes]]]:
    """The records of one of the files; `source` itself reads a single one, which may be a copy of stdin."""
    if not source.others:
        return _records(source.all_blocks())
    return _records(read_blocks(path, alphabet=source.alphabet, degap=source.degap))


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
    """Compare the genomes as the options say; finished rows, or profiles by a net, are kept until the block ends, which
    writes the output.

    Yields:
        The comparison, and what stands in the provenance.
    """
    if options.degap:
        note(f"{count_gaps([source.path, *source.others]):,} gaps removed")
    about: dict[str, Any] = {"metric": options.metric, "genomes": len(genomes), "degap": options.degap}
    if options.metric not in SEQUENCE_METRICS:
        with _comparison_by_net(genomes, options, about, source, (output, force)) as found:
            yield found
        return
    metric = make_metric(genomes, options.metric, k=options.k, order=options.order, blocks=options.blocks)
    about |= metric.describe()
    with kept_rows(output, _run_of(genomes, options, about), force) as store:
        with progress("comparing", len(genomes), unit="genomes") as advance:
            compared = compare_genomes(genomes, metric, threads=options.threads, store=store, advance=advance)
        yield compared, about


def _run_of(genomes: list[Genome], options: CompareOptions, about: dict[str, Any]) -> dict[str, Any]:
    """What finished work belongs to."""
    everything = hashlib.sha256(" ".join(genome.sha256 for genome in genomes).encode()).hexdigest()
    return {**about, "blocks": options.blocks, "genomes_sha256": everything, "hyena_glt_version": __version__}


@contextmanager
def _comparison_by_net(
    genomes: list[Genome],
    options: CompareOptions,
    about: dict[str, Any],
    source: GenomeSource,
    target: tuple[Path, bool],
) -> Iterator[tuple[Comparison, dict[str, Any]]]:
    from hyena_glt.cli.nets import open_net
    from hyena_glt.evolution.net_profiles import compare_with_net
    from hyena_glt.patching.saved import load_patcher

    net = options.net
    saved = None if net.patcher is None else load_patcher(net.patcher).build()
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
    cutter = _patcher_of(model, genomes, options.metric, source) if saved is None else saved
    about = {**about, "weights": label, "window": net.window}
    run = {**_run_of(genomes, options, about), **_net_hashes(net), "device": model.device.type}
    with kept_profiles(target[0], run, target[1]) as store:
        with progress("running the net", len(genomes), unit="genomes") as advance:
            sizes: dict[str, Any] = {"blocks": options.blocks, "window": net.window}
            compared = compare_with_net(genomes, model, cutter, options.metric, **sizes, store=store, advance=advance)
        yield compared, about


def _net_hashes(net: NetOptions) -> dict[str, str | None]:
    """Hashes of the manifest of the net, which holds those of its files, and of the patcher."""
    from hyena_glt.model.shipped import SHIPPED_FOLDER
    from hyena_glt.model.weights import MANIFEST_FILE

    manifest = None if net.untrained else (net.folder or SHIPPED_FOLDER) / MANIFEST_FILE
    files = {"net_sha256": manifest, "patcher_sha256": net.patcher}
    return {key: None if path is None else sha256_file(path) for key, path in files.items()}


def _patcher_of(model: Any, genomes: list[Genome], metric: str, source: GenomeSource) -> Any:
    from hyena_glt.evolution.net_profiles import TARGET_LENGTH, patcher_for

    try:
        return patcher_for(model, genomes)
    except ConfigError:
        raise DataError(
            f"--metric {metric}: no threshold cuts these genomes into patches of about {TARGET_LENGTH} letters; give "
            "--patcher FILE, saved by hyena-glt calibrate from other genomes or with a --target-length that they reach",
            path=source.name,
        ) from None


def write_with_sidecar(path: Path, origin: Provenance | None, write: Callable[[], None]) -> None:
    """Write a file that has no place for its provenance, and that into `PATH.json`; None leaves it out.

    A new file comes after its provenance and a replaced one before it: killed in between, the same command goes on.
    """
    sidecar = _sidecar(path)
    if origin is None or is_stream(path):
        write()
        if not is_stream(path):
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


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def is_finished(
    output: Path, plot: Path | None, provenance: Callable[[], Provenance], force: bool, *, has_sidecar: bool
) -> bool:
    """Whether output and figure are there from this command; a figure is drawn after its output.

    Args:
        output: Distances or a tree.
        plot: The figure, if one is asked for.
        provenance: What the output would say of itself.
        force: Replace whatever is there.
        has_sidecar: Whether the provenance is written beside the output.

    Raises:
        OutputExistsError: One of them is there from elsewhere, and `force` is not set.
    """
    done = already_done([output], provenance, force)
    sidecar = _sidecar(output)
    if has_sidecar and not force and sidecar.exists() and not provenance().is_same(read_provenance(sidecar)):
        raise OutputExistsError(f"{sidecar}: exists already; give --force to replace it")
    if done and (plot is None or plot.exists()):
        clear_leavings(output)
        return True
    if plot is not None and plot.exists() and not force:
        raise OutputExistsError(f"{plot}: exists already; give --force to replace it")
    return False
