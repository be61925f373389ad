"""Every exception the package raises on purpose.

    HyenaGLTError                     exit code 1
    ├── DataError                     (ValueError)  a file or a sequence is wrong: path, line and record are named
    │   ├── SequenceFormatError       FASTA or FASTQ that breaks its format
    │   ├── AlphabetError             a symbol that the declared alphabet does not have
    │   ├── RegionError               a region that is malformed, unknown or past the end of its contig
    │   ├── AnnotationError           GFF, BED or track text that breaks its format
    │   ├── VariantFormatError        VCF or BCF that breaks its format
    │   └── ModelFileError            a saved model, patcher or configuration that cannot be trusted
    ├── PatchingError                 (ValueError)  inputs of a patching step have the wrong shape, type or value
    ├── ConfigError                   (ValueError)  options that are unknown, contradict each other or are out of range
    ├── UsageError                    (ValueError)  the command line asks for something it cannot mean; exit code 2
    │   └── OutputExistsError         (FileExistsError)  an output is there already and --force was not given
    ├── SystemProblem                 (OSError)  disk, permission, device; exit code 3
    └── MissingExtraError             (ImportError)  an optional dependency is not installed; exit code 3

Messages say, in this order: name, expected, got, place, way out.
"""

from __future__ import annotations

import os


class HyenaGLTError(Exception):
    """Base of every exception that Hyena-GLT raises on purpose."""

    exit_code = 1


class DataError(HyenaGLTError, ValueError):
    """Input data is wrong.

    Args:
        message: What is wrong and what to do about it.
        path: File the data came from; `-` is shown as `<stdin>`.
        line: 1-based line number in that file.
        record: Name of the record (contig, read, feature).
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        line: int | None = None,
        record: str | None = None,
    ) -> None:
        self.message, self.line, self.record = message, line, record
        self.path = None if path is None else os.fspath(path)
        super().__init__(self._text())

    def _text(self) -> str:
        place = "<stdin>" if self.path == "-" else (self.path or "")
        if self.line is not None:
            place = f"{place}:{self.line}" if place else f"line {self.line}"
        if self.record is not None:
            place = f"{place} ({self.record})" if place else self.record
        return f"{place}: {self.message}" if place else self.message


class SequenceFormatError(DataError):
    """FASTA or FASTQ text breaks its format."""


class AlphabetError(DataError):
    """A sequence holds a symbol that its declared alphabet does not have."""


class RegionError(DataError):
    """A region string or interval is malformed, unknown or past the end of its contig."""


class AnnotationError(DataError):
    """GFF, BED or track text breaks its format."""


class VariantFormatError(DataError):
    """A VCF or BCF file breaks its format."""


class ModelFileError(DataError):
    """A saved model, patcher or configuration is damaged, unknown or of another version."""


class PatchingError(HyenaGLTError, ValueError):
    """Inputs of a patching step have the wrong shape, type or value."""


class ConfigError(HyenaGLTError, ValueError):
    """Options are unknown, contradict each other or are out of range."""


class UsageError(HyenaGLTError, ValueError):
    """The command line asks for something it cannot mean."""

    exit_code = 2


class OutputExistsError(UsageError, FileExistsError):
    """An output exists already and overwriting was not asked for."""


class SystemProblem(HyenaGLTError, OSError):
    """Disk, permission, device or installation stands in the way."""

    exit_code = 3


class MissingExtraError(HyenaGLTError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 3
