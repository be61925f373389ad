"""One plain sentence: does patching pay on this file, this machine and this net?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hyena_glt.diagnostics.mode_comparison import ModeRow

QUESTION = "Does it pay for me?"
BYTE = "byte"
WORTH = 1.1  # times faster from which it counts as faster
SMALL_LOSS = 0.01  # bits per base that count as equal


def verdict(rows: Sequence[ModeRow], bits: Mapping[str, float] | None, usual: str) -> str:
    """Answer from the longest sequence at which a mode was compared with byte mode.

    With bits per base, the mode is the fastest whose bits are at most 0.01 above byte mode's, or the one with the
    fewest bits where none is; without, it is the usual one, and nothing is said about the predictions.

    Args:
        rows: Of `compare_modes`.
        bits: Mode -> bits per base of the same weights; None: the weights are random.
        usual: Mode that speaks for all without bits.
    """
    pairs = compared(rows, "forward")
    if not pairs:
        return f"{QUESTION} That cannot be said: byte mode was left out at every length; give shorter --lengths."
    length = max(patched.length for patched, _ in pairs)
    here = [(patched, byte) for patched, byte in pairs if patched.length == length]
    chosen, byte = _chosen(here, bits, usual)
    speed = times_faster(chosen, byte)
    train = next(
        (p for p in compared(rows, "training step") if p[0].mode == chosen.mode and p[0].length == length), None
    )
    text = f"at {length:,} bases, {_named(chosen)} run a forward {speed:.1f} times as fast as byte mode (CPU seconds)"
    if chosen.peak_bytes is not None and byte.peak_bytes:
        text += f" in {chosen.peak_bytes / byte.peak_bytes:.2f} of its memory"
    if train:
        text += f", and a training step {times_faster(*train):.1f} times as fast"
    if bits is None:
        answer = "In speed, yes" if speed >= WORTH else "No"
        return f"{QUESTION} {answer}: {text}; what it does to predictions, random weights cannot tell."
    loss = bits[chosen.mode] - bits[BYTE]
    words = f"{abs(loss):.3f} bits per base {'more' if loss > 0 else 'fewer'} than in byte mode with the same weights"
    answer = "No" if speed < WORTH else "Yes" if loss <= SMALL_LOSS else "Only if speed matters more than predictions"
    return f"{QUESTION} {answer}: {text}, with {words}."


def compared(rows: Sequence[ModeRow], task: str) -> list[tuple[ModeRow, ModeRow]]:
    """Each patched row with the byte mode's at the same length, where both were measured."""
    byte = {row.length: row for row in rows if row.task == task and row.mode == BYTE and row.cpu_s}
    patched = [row for row in rows if row.task == task and row.mode != BYTE and row.cpu_s]
    return [(row, byte[row.length]) for row in patched if row.length in byte]


def times_faster(row: ModeRow, byte: ModeRow) -> float:
    """CPU seconds of byte mode over those of the row; a busy machine stretches wall seconds more."""
    return (byte.cpu_s or 0.0) / (row.cpu_s or 1e-9)


def _chosen(
    pairs: Sequence[tuple[ModeRow, ModeRow]], bits: Mapping[str, float] | None, usual: str
) -> tuple[ModeRow, ModeRow]:
    if bits is None:
        return next((pair for pair in pairs if pair[0].mode == usual), pairs[0])
    good = [pair for pair in pairs if bits[pair[0].mode] <= bits[BYTE] + SMALL_LOSS]
    if good:
        return max(good, key=lambda pair: times_faster(*pair))
    return min(pairs, key=lambda pair: bits[pair[0].mode])


def _named(row: ModeRow) -> str:
    if row.mean_patch_length is None:
        return row.mode
    return f"patches of {row.mean_patch_length:.1f} bases"
