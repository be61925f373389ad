"""One sentence that says what the figures say."""

from __future__ import annotations

import pytest

from hyena_glt.diagnostics.mode_comparison import ModeRow
from hyena_glt.diagnostics.verdict import verdict


def row(mode, cpu_s, task="forward", length=8192, peak=100, patch=1.0):
    return ModeRow(task, length, mode, None, patch, cpu_s, cpu_s, peak, 1.0, 3)


ROWS = [row("byte", 10.0, peak=400), row("four", 4.0, patch=4.1), row("sixteen", 1.0, patch=16.2)]
TRAINING = [row("byte", 30.0, "training step"), row("sixteen", 2.0, "training step")]


def test_random_weights_say_nothing_of_predictions():
    text = verdict([*ROWS, *TRAINING], None, "sixteen")
    assert text.startswith("Does it pay for me? In speed, yes: at 8,192 bases, patches of 16.2 bases")
    assert "10.0 times as fast as byte mode (CPU seconds) in 0.25 of its memory" in text
    assert ", and a training step 15.0 times as fast; " in text
    assert "random weights cannot tell" in text


def test_what_is_not_faster_does_not_pay():
    assert "No:" in verdict([row("byte", 1.0), row("sixteen", 1.0)], None, "sixteen")
    bits = {"byte": 1.9, "sixteen": 1.8}
    assert "? No:" in verdict([row("byte", 1.0), row("sixteen", 1.0)], bits, "sixteen")


@pytest.mark.parametrize(
    ("bits", "answer", "words"),
    [
        ({"byte": 1.95, "four": 1.90, "sixteen": 1.92}, "Yes", "patches of 16.2 bases"),
        ({"byte": 1.95, "four": 1.955, "sixteen": 1.99}, "Yes", "patches of 4.1 bases"),
        ({"byte": 1.80, "four": 1.90, "sixteen": 1.99}, "Only if speed matters more than predictions", "0.100 bits"),
    ],
)
def test_bits_choose_the_mode(bits, answer, words):
    text = verdict(ROWS, bits, "sixteen")
    assert text.startswith(f"Does it pay for me? {answer}: ")
    assert words in text


def test_the_longest_length_compared_counts():
    rows = [*ROWS, row("byte", 50.0, length=32768), row("sixteen", 2.0, length=32768, patch=16.0)]
    assert "at 32,768 bases" in verdict(rows, None, "sixteen")
    left_out = ModeRow("forward", 131072, "byte", None, left_out="too long")
    alone = row("sixteen", 9.0, length=131072)
    assert "at 32,768 bases" in verdict([*rows, left_out, alone], None, "sixteen")


def test_without_byte_mode_nothing_can_be_said():
    left_out = ModeRow("forward", 8192, "byte", None, left_out="too long")
    assert "cannot be said" in verdict([left_out, row("sixteen", 1.0)], None, "sixteen")
