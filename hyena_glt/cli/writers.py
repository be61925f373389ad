"""Writers opened by format, under the rule that a file gets its name only when it is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hyena_glt.cli.outputs import write_json
from hyena_glt.cli.runtime import prefetched, progress
from hyena_glt.cli.source import GenomeSource
from hyena_glt.errors import SystemProblem
from hyena_glt.patching.genome import score_blocks
from hyena_glt.patching.survey import GenomeSurvey
from hyena_glt.sequences.atomic import atomic_path, atomic_write, open_output
from hyena_glt.tracks.patches import BedWriter, ParquetWriter, PatchBatch, PatchWriter, TsvWriter
from hyena_glt.tracks.provenance import Provenance
from hyena_glt.tracks.values import BedGraphWriter, BigWigWriter, ValueBatch, ValueWriter

# suffix -> format
PATCH_FORMATS = {"bed": "bed", "tsv": "tsv", "parquet": "parquet"}
VALUE_FORMATS = {"bedgraph": "bedgraph", "bdg": "bedgraph", "bw": "bigwig", "bigwig": "bigwig"}


@contextmanager
def open_patch_writer(
    path: Path, kind: str, header: Provenance | None, *, flush: bool = False
) -> Iterator[PatchWriter]:
    """A writer of patches to a file or stdout; with `flush`, what it writes is not held back."""
    makers: dict[str, Callable[[IO[bytes], Provenance | None], PatchWriter]] = {
        "bed": BedWriter,
        "tsv": TsvWriter,
        "parquet": ParquetWriter,
    }
    with open_output(path, overwrite=True) as handle:
        writer = makers[kind](handle, header)
        try:
            yield _Flushing(writer, handle) if flush else writer
        except BaseException:
            if isinstance(writer, ParquetWriter):
                writer.abandon()
            raise
        writer.close()


class _Flushing:
    """A writer whose every batch goes out at once."""

    def __init__(self, writer: PatchWriter, handle: IO[bytes]) -> None:
        self._writer, self._handle = writer, handle

    def write(self, batch: PatchBatch) -> None:
        """Append the patches of a batch."""
        self._writer.write(batch)
        self._handle.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


@contextmanager
def open_value_writer(
    path: Path, kind: str, header: Provenance | None, origin: Provenance, contig_lengths: Mapping[str, int]
) -> Iterator[ValueWriter]:
    """A writer of per-base values; a bigWig gets `PATH.chrom.sizes` and `PATH.json` (its provenance) beside it."""
    if kind == "bedgraph":
        with open_output(path, overwrite=True) as handle:
            yield BedGraphWriter(handle, header)
        return
    with atomic_path(path, overwrite=True) as temporary:
        writer = BigWigWriter(str(temporary), contig_lengths)
        yield writer
        writer.close()
    with atomic_write(f"{path}.chrom.sizes", "w", overwrite=True) as handle:
        handle.writelines(f"{name}\t{length}\n" for name, length in contig_lengths.items())
    if header is not None:
        write_json(path.with_name(f"{path.name}.json"), {"provenance": origin.as_dict()})


def write_entropies(
    source: GenomeSource,
    survey: GenomeSurvey,
    output: tuple[Path, str],
    origin: Provenance,
    threads: int,
    *,
    with_header: bool,
) -> None:
    """Score a genome with the survey's model, block by block, into a file of per-base values."""
    header = origin if with_header else None
    assert survey.model is not None
    with (
        open_value_writer(*output, header, origin, survey.contig_lengths) as writer,
        progress("scoring", survey.symbols) as advance,
    ):
        for scored in score_blocks(prefetched(source.blocks(), threads), source.alphabet, survey.model, reuse=True):
            block = scored.block
            writer.write(ValueBatch(block.name, block.start, scored.scores.entropies, scored.ambiguous))
            advance(len(block.sequence))


def write_tabix_index(path: Path) -> None:
    """Write `PATH.tbi` beside a BGZF BED file.

    Raises:
        SystemProblem: htslib could not write it.
    """
    import pysam

    try:
        pysam.tabix_index(str(path), preset="bed", force=True, keep_original=True)
    except OSError as problem:
        raise SystemProblem(f"{path}.tbi: cannot write: {problem}") from problem
