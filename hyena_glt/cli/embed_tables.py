"""Tables of vectors as files: Parquet, npz, zarr and TSV, all with the same columns and their provenance inside.

Columns: name, start, end (0-based half-open), patches, and the vector. A table is written in pieces of
`ROWS_AT_A_TIME`; formats that store whole columns read the pieces once for each column.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hyena_glt.cli.embed_shards import replace_folder
from hyena_glt.cli.outputs import STDOUT, read_provenance
from hyena_glt.errors import MissingExtraError, OutputExistsError, SystemProblem, UsageError
from hyena_glt.sequences.atomic import atomic_write, open_output
from hyena_glt.tracks.provenance import Provenance

ROWS_AT_A_TIME = 4096
FORMATS = {"parquet": "parquet", "npz": "npz", "zarr": "zarr", "tsv": "tsv"}
INTEGERS = ("starts", "ends", "patches")
KEY = "hyena_glt"  # of the provenance, in every format


@dataclass(frozen=True, slots=True, eq=False)
class TableRows:
    """Some rows of a table."""

    names: list[str]
    starts: NDArray[np.int64]  # (rows,)
    ends: NDArray[np.int64]  # (rows,)
    patches: NDArray[np.int64]  # (rows,)
    vectors: NDArray[np.float32]  # (rows, hidden)


@dataclass(frozen=True, slots=True, eq=False)
class VectorTable:
    """A table that can be read in pieces, several times."""

    rows: int
    hidden: int
    name_width: int  # characters of the longest name
    pieces: Callable[[], Iterator[TableRows]]  # of `ROWS_AT_A_TIME` rows, the last of fewer
    origin: Provenance
    with_header: bool  # False: the origin without version and command, and no comments in TSV

    @property
    def about(self) -> dict[str, Any]:
        """The provenance inside the table."""
        return self.origin.as_dict() if self.with_header else self.origin.details


def check_output(output: Path, kind: str) -> None:
    """Refuse what could not be written at the end of a long run.

    Raises:
        UsageError: A format that needs a file, on stdout; or a folder that is no table of ours.
        MissingExtraError: zarr is not installed.
    """
    if output == STDOUT and kind in ("npz", "zarr"):
        raise UsageError(f"-O {kind}: this format needs a file name, not stdout; give -o FILE.{kind}")
    if kind == "zarr":
        _zarr()
        if output.exists() and not read_origin(output):
            raise UsageError(f"{output}: is there and is no table of hyena-glt embed; remove it, or give another name")


def read_origin(path: Path) -> dict[str, Any]:
    """The provenance inside a table; empty if it has none."""
    try:
        if path.suffix == ".zarr":
            return json.loads((path / ".zattrs").read_bytes())[KEY]
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return json.loads(str(arrays["provenance"]))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return {}
    return read_provenance(path)


def write_table(output: Path, kind: str, table: VectorTable) -> None:
    """Write a table, whole or not at all.

    Raises:
        SystemProblem: The disk is full, the folder read-only, ...
    """
    writers = {"parquet": _write_parquet, "npz": _write_npz, "zarr": _write_zarr, "tsv": _write_tsv}
    writers[kind](output, table)


def _write_parquet(output: Path, table: VectorTable) -> None:
    fields = [
        ("name", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("patches", pa.int64()),
        ("embedding", pa.list_(pa.float32(), table.hidden)),
    ]
    schema = pa.schema(fields, metadata={KEY: json.dumps(table.about)})
    with atomic_write(output, overwrite=True) as handle, _parquet_writer(handle, schema) as writer:
        for rows in table.pieces():
            vectors = pa.FixedSizeListArray.from_arrays(rows.vectors.ravel(), table.hidden)
            columns: list[Any] = [rows.names, rows.starts, rows.ends, rows.patches, vectors]
            writer.write_table(pa.table(columns, schema=schema))


@contextmanager
def _parquet_writer(handle: IO[bytes], schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer that is closed here, whatever happens: one that cannot be closed would try again when it is deleted."""
    writer = pq.ParquetWriter(handle, schema)
    try:
        yield writer
        writer.close()
    except BaseException:
        with suppress(Exception):
            writer.close()
        writer.is_open = False
        raise


def _write_tsv(output: Path, table: VectorTable) -> None:
    with open_output(output, overwrite=True) as handle:
        handle.write(table.origin.as_comments() if table.with_header else b"")
        numbers = (f"v{index}" for index in range(table.hidden))
        handle.write("\t".join(["name", "start", "end", "patches", *numbers]).encode() + b"\n")
        for rows in table.pieces():
            columns: list[Any] = [pa.array(rows.names, pa.string())]
            columns += [pc.cast(pa.array(values), pa.string()) for values in (rows.starts, rows.ends, rows.patches)]
            columns += [pc.cast(pa.array(column), pa.string()) for column in np.ascontiguousarray(rows.vectors.T)]
            lines = pc.binary_join_element_wise(*columns, "\t").to_pylist()
            handle.write("".join(f"{line}\n" for line in lines).encode())


def _write_npz(output: Path, table: VectorTable) -> None:
    """One array after the other into a zip archive that is stored, not compressed, and bears no date."""
    with atomic_write(output, overwrite=True) as handle, zipfile.ZipFile(handle, "w") as archive:
        _add_array(archive, "names", f"<U{table.name_width}", (table.rows,), _column(table, "names"))
        for name in INTEGERS:
            _add_array(archive, name, "<i8", (table.rows,), _column(table, name))
        _add_array(archive, "vectors", "<f4", (table.rows, table.hidden), _column(table, "vectors"))
        origin = np.array(json.dumps(table.about))
        _add_array(archive, "provenance", origin.dtype.str, (), iter([origin]))


def _column(table: VectorTable, name: str) -> Iterator[Any]:
    return (getattr(rows, name) for rows in table.pieces())


def _add_array(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...], parts: Iterator[Any]) -> None:
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for part in parts:
            member.write(np.asarray(part, dtype=dtype).tobytes())


def _write_zarr(output: Path, table: VectorTable) -> None:
    """A group of chunked arrays, format 2, which every version of zarr reads; uncompressed."""
    zarr = _zarr()
    with _folder_beside(output) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=2)
        group.attrs[KEY] = table.about
        kinds = {"names": f"<U{table.name_width}", **dict.fromkeys(INTEGERS, "<i8")}
        options: dict[str, Any] = {"compressors": None}
        arrays = {
            name: group.create_array(name, shape=(table.rows,), chunks=(ROWS_AT_A_TIME,), dtype=dtype, **options)
            for name, dtype in kinds.items()
        }
        shape, chunks = (table.rows, table.hidden), (ROWS_AT_A_TIME, table.hidden)
        arrays["vectors"] = group.create_array("vectors", shape=shape, chunks=chunks, dtype="<f4", **options)
        done = 0
        for rows in table.pieces():
            for name, array in arrays.items():
                array[done : done + len(rows.names)] = np.asarray(getattr(rows, name), dtype=kinds.get(name))
            done += len(rows.names)


@contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """A temporary folder that gets its name when the block ends well.

    The caller holds the lock of `OUT.parts`, so temporary folders of the same target are what killed processes left.
    """
    target = Path(os.path.realpath(output))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _clear_killed(target)
        yield temporary
        replace_folder(temporary, target)
    except OSError as problem:
        if isinstance(problem, SystemProblem | OutputExistsError):
            raise
        raise SystemProblem(f"{output}: cannot write: {problem.strerror or problem}") from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _clear_killed(target: Path) -> None:
    pattern = re.compile(re.escape(f".{target.name}.") + r"\d{1,10}\.(tmp|old)")
    for entry in os.scandir(target.parent):
        if pattern.fullmatch(entry.name):
            shutil.rmtree(entry.path, ignore_errors=True)


def _zarr() -> Any:
    try:
        import zarr
    except ImportError:
        raise MissingExtraError("zarr tables need zarr; install it with: pip install 'hyena-glt[zarr]'") from None
    return zarr
