"""Checks that run the net again: what must not change an output, and what must.

output of one sequence -> the same sequence perturbed, in a batch, with padding -> CheckResult by name
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hyena_glt.diagnostics.consistency import CheckResult, Patching
from hyena_glt.errors import ConfigError
from hyena_glt.model import HyenaGLT, HyenaGLTOutput, LearnedPatcher
from hyena_glt.model.sources import pad_rows, patch_rows
from hyena_glt.sequences.alphabets import get_alphabet
from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID

NUM_PERTURBED = 8  # positions that are changed, one at a time
TOKENS_AT_ONCE = 1 << 16  # of a batch of perturbed rows
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 5e-2}  # of the largest value: rounding of products and FFTs
EXTRA_PADDING = 5
AMBIGUOUS_SYMBOL = {"dna": "N", "rna": "N", "protein": "X"}


@dataclass(frozen=True, slots=True, eq=False)
class Rerun:
    """A net, its patcher and the output that is to come out again.

    `output` is of `patching`, whose patches are the patcher's own; the net is in evaluation mode.
    """

    net: HyenaGLT
    patcher: Any
    patching: Patching
    output: HyenaGLTOutput
    offset: int = 0

    @property
    def tolerance(self) -> float:
        """By how much of the largest value results may differ."""
        return TOLERANCE[self.net.config.mixed_precision]


@torch.no_grad()
def run_rows(net: HyenaGLT, patcher: Any, tokens: Tensor, offset: int = 0, debug_mode: bool = False) -> HyenaGLTOutput:
    """Cut rows and run them, as `forward_with_patching` does with the net's own patcher.

    Args:
        net: The net.
        patcher: Has the interface of a `Patcher`; its patches do not overlap.
        tokens: `(batch, length)` int64, PAD tails.
        offset: Global position of the first tokens.
        debug_mode: Describe each stage.
    """
    if isinstance(patcher, LearnedPatcher):
        return net(tokens, global_position_offset=offset, debug_mode=debug_mode)
    patched = patch_rows(patcher, tokens)
    return net(
        patched.tokens,
        patched.patch_lengths,
        patched.known_starts,
        patched.next_starts_patch,
        global_position_offset=offset,
        debug_mode=debug_mode,
    )


def check_patcher(patcher: Any, patching: Patching) -> CheckResult:
    """The patcher gives these patches for this sequence."""
    name = "patcher_consistency"
    _, starts = patcher.patch_with_boundaries(patching.tokens)
    same = torch.equal(torch.as_tensor(starts).cpu(), patching.boundaries)
    return CheckResult(name, same, f"the patcher gives {len(starts)} patches, {'these' if same else 'but others'}")


def check_next_token(patcher: Any, patching: Patching) -> CheckResult:
    """With `include_next_token` the row is one token longer, and nothing else about its patches changes."""
    name, length = "next_token_consistency", len(patching.tokens)
    if not length or patching.overlaps:
        return CheckResult(name, None, "no token, or patches that overlap")
    try:
        longer = patcher.patch(patching.tokens[None], include_next_token=True)[0][0].cpu()
    except (ConfigError, TypeError):
        return CheckResult(name, None, "the patcher has no include_next_token")
    longer = longer[longer > 0]
    if int(longer.sum()) != length + 1:
        return CheckResult(name, False, f"patches sum to {int(longer.sum())}, expected {length} tokens and the next")
    starts = longer.cumsum(0) - longer
    same = torch.equal(starts[starts < length], patching.boundaries)
    own = "a patch of its own" if int(starts[-1]) == length else "part of the last patch"
    text = f"{length} tokens and the next, which is {own}" if same else "other starts than without the next token"
    return CheckResult(name, same, text)


def check_same_again(rerun: Rerun) -> CheckResult:
    """The sequence run again gives the output again."""
    again = run_rows(rerun.net, rerun.patcher, rerun.patching.tokens[None], rerun.offset)
    return _compared("reproducibility", rerun, again, "in a second run")


def check_batch(rerun: Rerun) -> CheckResult:
    """In a batch with a longer and a shorter row the sequence gets the same patches and states."""
    tokens = rerun.patching.tokens
    others = [torch.cat([tokens.flip(0), tokens[: len(tokens) // 2 + 1]]), tokens[: (len(tokens) + 1) // 2]]
    batch = run_rows(rerun.net, rerun.patcher, pad_rows([tokens, *others], PAD_ID), rerun.offset)
    return _compared("batch_consistency", rerun, batch.row(0), "in a batch of three")


def check_padding(rerun: Rerun) -> CheckResult:
    """With padding behind it the sequence gets the same patches and states, and padding holds zeros."""
    name, tokens = "padding_invariance", rerun.patching.tokens
    padded = torch.cat([tokens, tokens.new_full((EXTRA_PADDING,), PAD_ID)])
    output = run_rows(rerun.net, rerun.patcher, padded[None], rerun.offset)
    if bool(output.byte_hidden_state[:, len(tokens) :].any()):
        return CheckResult(name, False, "the byte states of padding are not 0")
    return _compared(name, rerun, output.row(0), f"with {EXTRA_PADDING} tokens of padding")


def check_causality(rerun: Rerun) -> CheckResult:
    """A token that is changed, and the sequence patched anew, moves nothing before it: no start, no state, no logit."""
    name, length = "causality", len(rerun.patching.tokens)
    if not rerun.net.config.causal:
        return CheckResult(name, None, "the net sees both sides (causal=False)")
    if length < 2:
        return CheckResult(name, None, "there is nothing before a token")
    positions, rows = perturbed_rows(rerun.patching.tokens, rerun.net.config.alphabet_name)
    note = "" if getattr(rerun.patcher, "is_causal", True) else "; the patcher says that it is not causal"
    largest = 0.0
    for at, changed in _rerun_each(rerun, positions, rows):
        if not torch.equal(changed.positions.patch_ids[0, :at], rerun.output.positions.patch_ids[0, :at]):
            return CheckResult(name, False, f"a change at {at} moves a patch start before it{note}")
        moved, part = _largest_change(rerun, changed, slice(0, at))
        if moved > rerun.tolerance:
            return CheckResult(
                name, False, f"a change at {at} moves {part} before it by {moved:.1e} of the largest value{note}"
            )
        largest = max(largest, moved)
    text = f"changes at {len(positions)} positions move nothing before them but rounding, {largest:.1e}"
    return CheckResult(name, True, f"{text} of the largest value")


def check_sensitivity(rerun: Rerun) -> CheckResult:
    """A token that is changed moves something at its place: an output that ignores its input is no output."""
    name = "input_sensitivity"
    if not len(rerun.patching.tokens):
        return CheckResult(name, None, "no token")
    positions, rows = perturbed_rows(rerun.patching.tokens, rerun.net.config.alphabet_name, first=0)
    smallest = min(
        _largest_change(rerun, changed, slice(at, at + 1))[0] for at, changed in _rerun_each(rerun, positions, rows)
    )
    text = f"changes at {len(positions)} positions move their own states by at least {smallest:.1e}"
    return CheckResult(name, smallest > 0, f"{text} of the largest value")


def perturbed_rows(tokens: Tensor, alphabet: str, first: int = 1) -> tuple[list[int], list[Tensor]]:
    """Evenly spaced positions, and the row with another symbol at each; every second one is an ambiguity symbol.

    Args:
        tokens: `(length,)` int64 byte tokens.
        alphabet: Whose symbols may stand there.
        first: The first position that may be changed.
    """
    count = min(NUM_PERTURBED, len(tokens) - first)
    places = torch.linspace(first, len(tokens) - 1, max(count, 0)).round().long()
    letters = get_alphabet(alphabet).letters if alphabet != "bytes" else "ACGT"
    unknown = AMBIGUOUS_SYMBOL.get(alphabet, "N")
    positions, rows = places.unique().tolist(), []
    for index, at in enumerate(positions):
        wanted = [*unknown * (index % 2), *letters]
        other = next(ord(symbol) + OFFSET for symbol in wanted if not _same_symbol(symbol, int(tokens[at])))
        row = tokens.clone()
        row[at] = other
        rows.append(row)
    return positions, rows


def _same_symbol(symbol: str, token: int) -> bool:
    """Whether a token is this letter in either case; T and U are one."""
    letter = chr(token - OFFSET).upper().replace("U", "T") if OFFSET <= token < OFFSET + 128 else ""
    return letter == symbol.replace("U", "T")


def _rerun_each(rerun: Rerun, positions: list[int], rows: list[Tensor]) -> Iterator[tuple[int, HyenaGLTOutput]]:
    """Each changed position with the output of its row, a few rows at a time."""
    step = max(TOKENS_AT_ONCE // len(rerun.patching.tokens), 1)
    for start in range(0, len(rows), step):
        part = torch.stack(rows[start : start + step])
        output = run_rows(rerun.net, rerun.patcher, part, rerun.offset)
        for index, at in enumerate(positions[start : start + step]):
            yield at, output.row(index)


def _compared(name: str, rerun: Rerun, other: HyenaGLTOutput, where: str) -> CheckResult:
    """Whether another run of the sequence gave the same patches, and the same values up to rounding."""
    if other.patch_lengths.tolist() != rerun.output.patch_lengths.tolist():
        return CheckResult(name, False, f"{where} the sequence gets other patches")
    states = _change(rerun.output.last_hidden_state, other.last_hidden_state)
    moved, part = max(_largest_change(rerun, other, slice(None)), (states, "last_hidden_state"))
    text = f"{where} the largest difference is {moved:.1e} of the largest value ({part})"
    return CheckResult(name, moved <= rerun.tolerance, text)


def _largest_change(rerun: Rerun, other: HyenaGLTOutput, tokens: slice) -> tuple[float, str]:
    """How far byte states and logits of some tokens are from the output's, of the largest value; and which of both."""
    parts = ("byte_hidden_state", "logits")
    return max((_change(getattr(rerun.output, part), getattr(other, part), tokens), part) for part in parts)


def _change(values: Tensor, others: Tensor, tokens: slice = slice(None)) -> float:
    """Largest difference over the largest value; infinite for other shapes or values that are not finite."""
    if values.shape != others.shape:
        return float("inf")
    if not values.numel():
        return 0.0
    difference = (values[:, tokens].detach().float() - others[:, tokens].float()).abs().max()
    largest = values.detach().float().abs().max().clamp_min(1e-30)
    share = float(difference / largest)
    return share if share == share else float("inf")
