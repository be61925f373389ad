"""A processor in a folder: a folder for each net, the alignment's weights, and a manifest of hashes, written last."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field

from hyena_glt.checks import build_config, parse_json
from hyena_glt.config import HyenaGLTConfig, PositiveWhole
from hyena_glt.errors import ConfigError, ModelFileError
from hyena_glt.model import HyenaGLT
from hyena_glt.model.weights import MANIFEST_FILE, check_finite, load_weights
from hyena_glt.multimodal.rows import MODALITIES
from hyena_glt.sequences.atomic import atomic_write, make_folder, sha256_file

if TYPE_CHECKING:
    from hyena_glt.multimodal.processor import MultiModalGenomicProcessor

Processor = TypeVar("Processor", bound="MultiModalGenomicProcessor")
OPTIONS_FILE = "processor.json"
ALIGNMENT_FILE = "alignment.safetensors"
FORMAT = "hyena-glt-multimodal"
FORMAT_VERSION = 1


class SavedOptions(BaseModel):
    """What `processor.json` holds."""

    model_config = ConfigDict(extra="forbid")

    base_config: HyenaGLTConfig = Field(description="shape that the nets were made from")
    modalities: list[str] = Field(min_length=1, description="some of dna, rna, protein")
    shared_size: PositiveWhole = Field(description="width of the shared space")
    num_heads: PositiveWhole = Field(description="heads of the attention between modalities")


def save_processor(processor: MultiModalGenomicProcessor, folder: str | os.PathLike[str]) -> None:
    """Write a processor; the manifest last, so that an interrupted save is recognised.

    Raises:
        ModelFileError: A weight is NaN or infinite.
        SystemProblem: The folder cannot be written.
    """
    target = make_folder(folder)
    tensors = {name: value.detach().cpu().contiguous() for name, value in processor.alignment.state_dict().items()}
    check_finite(tensors, path=target / ALIGNMENT_FILE)
    (target / MANIFEST_FILE).unlink(missing_ok=True)
    for name, net in processor.processors.items():
        net.save_pretrained(target / name)
    options = SavedOptions(
        base_config=processor.base_config,
        modalities=list(processor.modalities),
        shared_size=processor.shared_size,
        num_heads=processor.num_heads,
    )
    _write(target / OPTIONS_FILE, options.model_dump_json(indent=2).encode() + b"\n")
    _write(target / ALIGNMENT_FILE, safetensors.torch.save(tensors, metadata={"format": "pt"}))
    names = [OPTIONS_FILE, ALIGNMENT_FILE, *(f"{name}/{MANIFEST_FILE}" for name in processor.modalities)]
    files = {name: sha256_file(target / name) for name in names}
    manifest = {"format": FORMAT, "version": FORMAT_VERSION, "files": files}
    _write(target / MANIFEST_FILE, (json.dumps(manifest, indent=2) + "\n").encode())


def load_processor(processor_class: type[Processor], folder: str | os.PathLike[str]) -> Processor:
    """Read a processor that `save_processor` wrote, in evaluation mode.

    Raises:
        ModelFileError: A file is missing, damaged, of another version, or does not fit the others.
    """
    source = Path(folder)
    files = _manifest_files(source)
    _check_hash(source, OPTIONS_FILE, files)
    options = _options(source / OPTIONS_FILE)
    for name in (ALIGNMENT_FILE, *(f"{name}/{MANIFEST_FILE}" for name in options.modalities)):
        _check_hash(source, name, files)
    nets = {name: HyenaGLT.from_pretrained(source / name) for name in options.modalities}
    try:
        processor = processor_class(
            options.base_config,
            patchers={name: net.external_patcher for name, net in nets.items()},
            modalities=options.modalities,
            shared_size=options.shared_size,
            num_heads=options.num_heads,
        )
        processor.processors = nets
        load_weights(processor.alignment, source / ALIGNMENT_FILE)
    except ConfigError as error:
        raise ModelFileError(str(error), path=source / OPTIONS_FILE) from None
    return processor.eval()


def _options(path: Path) -> SavedOptions:
    try:
        options = build_config(SavedOptions, parse_json(path.read_bytes(), path=path))
    except ConfigError as error:
        raise ModelFileError(str(error), path=path) from None
    if unknown := set(options.modalities) - set(MODALITIES):
        raise ModelFileError(f"modalities: expected some of {', '.join(MODALITIES)}, got {min(unknown)!r}", path=path)
    return options


def _manifest_files(source: Path) -> dict[str, object]:
    path = source / MANIFEST_FILE
    if not path.is_file():
        raise ModelFileError("no manifest.json: not a saved processor, or its saving was interrupted", path=source)
    manifest = parse_json(path.read_bytes(), path=path)
    if manifest.get("format") != FORMAT or manifest.get("version") != FORMAT_VERSION:
        found = f"{manifest.get('format')!r} {manifest.get('version')!r}"
        raise ModelFileError(f"expected format {FORMAT!r} {FORMAT_VERSION}, got {found}", path=path)
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise ModelFileError("files: expected the hashes of the files", path=path)
    return files


def _check_hash(source: Path, name: str, files: dict[str, object]) -> None:
    path = source / name
    if name not in files:
        raise ModelFileError(f"files: expected the hash of {name}", path=source / MANIFEST_FILE)
    if not path.is_file():
        raise ModelFileError("missing, though the manifest names it", path=path)
    if sha256_file(path) != files[name]:
        raise ModelFileError("its sha256 differs from the manifest's; the file is damaged or was edited", path=path)


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path, overwrite=True) as handle:
        handle.write(data)
