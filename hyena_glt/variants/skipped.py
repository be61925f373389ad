"""What becomes of bad records: the run stops, or each goes to `OUT.skipped.tsv` with its reason and is counted."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

from hyena_glt.errors import DataError
from hyena_glt.sequences.atomic import atomic_write
from hyena_glt.sequences.quoting import shown

HEADER = "line\treason\n"
MAX_REASON = 300  # characters


class SkippedRecords:
    """Collects bad records as they come (`--on-bad-record skip`); a context manager.

    The table gets its name when the block ends well, and is there even if no record was skipped; one header line.

    Args:
        path: Table to write (`OUT.skipped.tsv`), or None to count only.
        overwrite: Replace an existing table.
        comments: `##key=value` lines for its head.

    Raises:
        OutputExistsError: The table is there already.
        SystemProblem: It cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False, comments: str = ""
    ) -> None:
        self._path, self._overwrite, self._comments = path, overwrite, comments
        self._table: IO[Any] | None = None
        self._stack = ExitStack()
        self.num_skipped = 0

    def __enter__(self) -> SkippedRecords:
        if self._path is not None:
            self._table = self._stack.enter_context(atomic_write(self._path, "w", overwrite=self._overwrite))
            self._table.write(self._comments + HEADER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table = None
        self._stack.__exit__(kind, error, trace)

    def add(self, error: DataError) -> None:
        """Write and count one record by the error that names it."""
        self.num_skipped += 1
        if self._table is not None:
            place = f"({error.record}) " if error.record else ""
            self._table.write(f"{error.line}\t{shown(place + error.message, MAX_REASON)}\n")


@dataclass(frozen=True, slots=True)
class RecordTally:
    """How many records came to what; every record of the input is counted once."""

    num_scored: int  # at least one allele has a score
    num_kept: int  # written without a score, each allele with its reason
    num_skipped: int  # left out: bad records
    num_failed: int  # written without a score because scoring failed

    @property
    def num_records(self) -> int:
        """All of them."""
        return self.num_scored + self.num_kept + self.num_skipped + self.num_failed

    def __str__(self) -> str:
        return (
            f"scored {self.num_scored:,}, kept without a score {self.num_kept:,}, "
            f"skipped {self.num_skipped:,}, failed {self.num_failed:,} of {self.num_records:,} records"
        )

    def check(self, path: str) -> None:
        """Refuse a run that says little about its input: over half skipped, or none scored though there were records.

        Raises:
            DataError: Either of them.
        """
        if 2 * self.num_skipped > self.num_records:
            raise DataError(f"over half of the records were skipped ({self}); is this the right file?", path=path)
        if self.num_records and not self.num_scored:
            raise DataError(f"no record was scored ({self})", path=path)
