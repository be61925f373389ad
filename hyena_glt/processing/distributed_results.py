"""What a net says of one sequence, as a plain dict of tensors that travels between processes as safetensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from hyena_glt.errors import ConfigError
from hyena_glt.model.outputs import HyenaGLTOutput

TENSORS = (
    "last_hidden_state",  # (1, num_patches, hidden)
    "byte_hidden_state",  # (1, length, local)
    "logits",  # (1, length, vocab)
    "patch_lengths",  # (1, num_patches) int64
    "boundaries",  # (num_patches,) int64, 0-based start of each patch
    "global_positions",  # (1, length) int64
    "relative_positions",  # (1, length) float32
)
ALWAYS = ("patch_lengths", "boundaries")
IN_PATCH_INFO = ("patch_lengths", "boundaries", "global_positions", "relative_positions")


class SequenceResult(dict[str, Any]):
    """The tensors of `TENSORS` that were kept, on the CPU, and `index`, the sequence's place in the input.

    Entries can be read as attributes too, as those of the `HyenaGLTOutput` of `forward_with_patching`.
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"SequenceResult has no {name!r}; it has {', '.join(self)}")

    @property
    def compression_ratio(self) -> float:
        """Tokens divided by patches; 0.0 for an empty sequence."""
        lengths = self["patch_lengths"]
        return int(lengths.sum()) / lengths.numel() if lengths.numel() else 0.0

    @property
    def patch_info(self) -> dict[str, Tensor]:
        """Patch lengths, boundaries and the positions that were kept, by name."""
        return {name: self[name] for name in IN_PATCH_INFO if name in self}


def check_kept(keep: Iterable[str] | None) -> tuple[str, ...]:
    """The tensors that are kept: all for None; patch lengths and boundaries always.

    Raises:
        ConfigError: An unknown name.
    """
    wanted = set(TENSORS if keep is None else keep)
    if unknown := sorted(wanted - set(TENSORS)):
        raise ConfigError(f"keep: expected names among {', '.join(TENSORS)}, got {unknown[0]!r}")
    return tuple(name for name in TENSORS if name in wanted or name in ALWAYS)


def result_of(output: HyenaGLTOutput, index: int, kept: Sequence[str]) -> SequenceResult:
    """The result of one sequence from its output, `(1, ...)` without padding."""
    found: dict[str, Tensor] = {
        "last_hidden_state": output.last_hidden_state,
        "byte_hidden_state": output.byte_hidden_state,
        "logits": output.logits,
        "patch_lengths": output.patch_lengths,
        "boundaries": output.boundaries[0],
        "global_positions": output.positions.global_positions,
        "relative_positions": output.positions.relative_positions,
    }
    return SequenceResult(index=index, **{name: found[name].cpu() for name in kept})


def pack_results(results: Iterable[SequenceResult]) -> bytes:
    """Results as one safetensors file."""
    tensors = {
        f"{result['index']}.{name}": value.contiguous().clone()
        for result in results
        for name, value in result.items()
        if isinstance(value, Tensor)
    }
    return safetensors.torch.save(tensors)


def unpack_results(packed: bytes) -> list[SequenceResult]:
    """What `pack_results` packed, by index."""
    found: dict[int, SequenceResult] = {}
    for key, tensor in safetensors.torch.load(packed).items():
        index, _, name = key.partition(".")
        found.setdefault(int(index), SequenceResult(index=int(index)))[name] = tensor
    return [_in_order(found[index]) for index in sorted(found)]


def _in_order(result: SequenceResult) -> SequenceResult:
    return SequenceResult(index=result["index"], **{name: result[name] for name in TENSORS if name in result})


def packed_tokens(rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """Byte tokens of many sequences in two tensors: `tokens` int16 one after the other, and `ends` int64."""
    tokens = torch.cat(list(rows)) if rows else torch.zeros(0, dtype=torch.int64)
    ends = torch.tensor([len(row) for row in rows], dtype=torch.int64).cumsum(0)
    return {"tokens": tokens.to(torch.int16), "ends": ends}


def unpacked_tokens(packed: dict[str, Tensor]) -> list[Tensor]:
    """What `packed_tokens` packed: `(length,)` int64 each."""
    sizes = packed["ends"].diff(prepend=packed["ends"].new_zeros(1))
    return list(packed["tokens"].long().split(sizes.tolist())) if sizes.numel() else []
