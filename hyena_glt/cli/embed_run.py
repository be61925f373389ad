"""A genome through the net, and its vectors into a Parquet table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hyena_glt.cli.plan import PatchPlan
from hyena_glt.cli.runtime import note, progress
from hyena_glt.cli.source import GenomeSource
from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import DataError, SystemProblem
from hyena_glt.model import HyenaGLT
from hyena_glt.patching.genome import PatchedBlock, patch_blocks
from hyena_glt.processing.embedding import Embedding, Window, cut_windows, embed_windows, mean_embedding
from hyena_glt.sequences.atomic import atomic_write
from hyena_glt.tracks.provenance import Provenance

VOCABULARY = {"dna": 4, "rna": 4, "protein": 20, "bytes": 256}
ROWS_AT_A_TIME = 4096


def load_net(
    folder: Path | None, size: str, alphabet: str, seed: int, device: str, threads: int
) -> tuple[HyenaGLT, str]:
    """The net in evaluation mode, and what its weights are.

    Raises:
        SystemProblem: CUDA is asked for and not there.
        ModelFileError: The folder holds no sound model.
    """
    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemProblem(f"--device {device}: no CUDA device is usable here; give --device cpu")
    if folder is not None:
        net = HyenaGLT.from_pretrained(folder)
        return net.to(device).eval(), f"weights of {folder}"
    note("the weights are random (--untrained): the vectors tell sequences apart but know no biology")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = HyenaGLTConfig.preset(size, causal=False, genomic_vocab_size=VOCABULARY[alphabet], alphabet=alphabet)
        net = HyenaGLT(config)
    return net.to(device).eval(), f"untrained {size} net, seed {seed}"


class EmbedRun:
    """Embeds every record of a genome.

    Args:
        net: The model.
        plan: How the genome is patched; no patch is longer than a window.
        window: Bases per window.
        batch_size: Windows per forward.
        per_record: One row per record; else one per window.
    """

    def __init__(self, net: HyenaGLT, plan: PatchPlan, *, window: int, batch_size: int, per_record: bool) -> None:
        cap = min(plan.args.max_patch_length or window, window)
        self.net, self.plan = net, replace(plan, args=plan.args.model_copy(update={"max_patch_length": cap}))
        self.window, self.batch_size, self.per_record = window, batch_size, per_record

    def write(self, source: GenomeSource, output: Path, origin: Provenance) -> int:
        """Write the table; returns its number of rows.

        Raises:
            DataError: No record holds a letter.
        """
        schema = _schema(self.net.config.hidden_size, origin)
        rows = 0
        with atomic_write(output, overwrite=True) as handle, pq.ParquetWriter(handle, schema) as writer:
            for batch in _batches(self._embeddings(source), ROWS_AT_A_TIME):
                writer.write_table(_table(batch, schema))
                rows += len(batch)
            if not rows:
                raise DataError("no letter in the input, so nothing to embed", path=source.name)
        return rows

    def _embeddings(self, source: GenomeSource) -> Iterator[Embedding]:
        embedded = embed_windows(self.net, self._windows(source), self.batch_size)
        if not self.per_record:
            yield from embedded
            return
        for _, parts in groupby(embedded, key=self._record_of):
            yield mean_embedding(list(parts))

    def _record_of(self, part: Embedding) -> tuple[str, int]:
        """Records are told apart by name and, where regions of one contig were asked for, by region."""
        starts = self._region_starts[part.name]
        return part.name, int(np.searchsorted(starts, part.start, side="right"))

    def _windows(self, source: GenomeSource) -> Iterator[Window]:
        self._region_starts: dict[str, list[int]] = {}
        survey, plan = self.plan.survey, self.plan
        parts: list[PatchedBlock] = []
        with progress("embedding", survey.symbols if survey else None) as advance:
            for patched in patch_blocks(source.blocks(), source.alphabet, plan.model, plan.args, entropies=False):
                parts.append(patched)
                if not patched.block.last:
                    continue
                first = parts[0].block
                self._region_starts.setdefault(first.name, []).append(first.start)
                if all(part.ambiguous.all() for part in parts):
                    note(f"{first.name}: holds no letter, left out")
                for window in self._record_windows(parts):
                    yield window
                    advance(len(window.sequence))
                parts = []

    def _record_windows(self, parts: list[PatchedBlock]) -> Iterator[Window]:
        first = parts[0].block
        return cut_windows(
            first.name,
            first.start,
            b"".join(part.block.sequence for part in parts),
            np.concatenate([part.lengths for part in parts]),
            np.concatenate([part.forced_starts for part in parts]),
            np.concatenate([part.ambiguous for part in parts]),
            self.window,
        )


def _schema(hidden: int, origin: Provenance) -> pa.Schema:
    fields = [
        ("name", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("patches", pa.int64()),
        ("embedding", pa.list_(pa.float32(), hidden)),
    ]
    return pa.schema(fields, metadata={"hyena_glt": json.dumps(origin.as_dict())})


def _table(batch: list[Embedding], schema: pa.Schema) -> pa.Table:
    vectors = np.stack([row.vector for row in batch])
    columns: list[Any] = [
        [row.name for row in batch],
        [row.start for row in batch],
        [row.end for row in batch],
        [row.patches for row in batch],
        pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]),
    ]
    return pa.table(columns, schema=schema)


def _batches(rows: Iterator[Embedding], size: int) -> Iterator[list[Embedding]]:
    batch: list[Embedding] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
