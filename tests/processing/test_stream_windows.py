"""Windows are whole patches, in order, and the same for any chunks."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt import Patcher
from hyena_glt.processing import stream_windows
from hyena_glt.processing.stream_windows import StreamCutter

PATCHER = Patcher(patching_mode="space", delimiter_chars=["G"], max_patch_length=12)
texts = st.text("ACGT", max_size=120)


def windows_of(text, sizes, window_size=24, overlap=8):
    cutter = StreamCutter(PATCHER, window_size, overlap)
    edges = np.cumsum([0, *sizes])
    chunks = [text[first:last] for first, last in zip(edges, [*edges[1:], len(text)], strict=True)]
    return [*(window for chunk in chunks for window in cutter.feed(chunk)), *cutter.finish()]


@settings(deadline=None)
@given(text=texts, sizes=st.lists(st.integers(0, 40), max_size=6), overlap=st.integers(0, 23))
def test_windows_are_whole_patches_and_join_to_the_stream(text, sizes, overlap):
    windows = windows_of(text, sizes, overlap=overlap)
    position, lengths = 0, []
    for window in windows:
        assert window.tokens.size == window.patch_lengths.sum() <= 24
        assert window.start + window.num_context == position
        assert window.num_context == window.patch_lengths[: window.num_context_patches].sum() <= overlap
        assert bytes(window.tokens.astype(np.uint8) - 4).decode() == text[window.start :][: window.tokens.size]
        assert window.known_starts.shape == window.tokens.shape
        position = window.start + window.tokens.size
        lengths += window.patch_lengths[window.num_context_patches :].tolist()
    assert position == len(text)
    assert lengths == PATCHER.patch([text])[0][0].tolist()


@settings(deadline=None)
@given(text=texts, sizes=st.lists(st.integers(0, 40), max_size=6))
def test_windows_do_not_depend_on_the_chunks(text, sizes):
    for one, other in zip(windows_of(text, sizes), windows_of(text, []), strict=True):
        assert one.start == other.start
        assert one.num_context == other.num_context
        assert one.next_starts_patch == other.next_starts_patch
        assert np.array_equal(one.tokens, other.tokens)
        assert np.array_equal(one.known_starts, other.known_starts)


def test_large_chunks_are_taken_in_blocks(monkeypatch):
    text = "ACCGTTAG" * 20
    expected = windows_of(text, [])
    monkeypatch.setattr(stream_windows, "BLOCK", 7)
    for given_as in (text, text.encode(), torch.tensor([byte + 4 for byte in text.encode()])):
        cutter = StreamCutter(PATCHER, 24, 8)
        found = [*cutter.feed(given_as), *cutter.finish()]
        assert [window.start for window in found] == [window.start for window in expected]
        assert cutter.num_tokens == len(text)


def test_what_no_window_needs_is_dropped():
    cutter = StreamCutter(PATCHER, 24, 8)
    for _ in range(200):
        list(cutter.feed("ACCGTTAG" * 10))
        assert cutter._tokens.size <= 24 + 80
        assert cutter._edges.size <= 24 + 80
    assert cutter.num_tokens == 16_000
