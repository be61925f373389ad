"""Reading ahead changes neither the items nor the errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hyena_glt.cli import runtime
from hyena_glt.cli.runtime import prefetched, progress, progress_by_share


@pytest.mark.parametrize("threads", [1, 2])
def test_items_arrive_in_order(threads):
    assert list(prefetched(range(100), threads)) == list(range(100))


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_arrives_after_the_items_before_it(threads):
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("later")

    items = prefetched(broken(), threads)
    assert next(items) == 1
    with pytest.raises(ValueError, match="later"):
        next(items)


def test_a_reader_that_stops_stops_the_thread():
    before = threading.active_count()
    items = prefetched(iter(int, 1), 2)
    next(items)
    items.close()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(timeout=2)
    assert threading.active_count() <= before


def test_progress_is_silent_without_a_terminal(capsys):
    with progress("working", 10) as advance:
        advance(5)
    assert capsys.readouterr() == ("", "")


def test_shares_become_steps_that_add_up(monkeypatch):
    steps = []

    @contextmanager
    def recorded(step, total, unit):
        steps.append((step, total, unit))
        yield steps.append

    monkeypatch.setattr(runtime, "progress", recorded)
    with progress_by_share("training", 7, "steps") as show:
        for share in (0.0, 0.2, 0.2, 0.55, 1.0):
            show(share, 1.25)
    assert steps[0] == ("training", 7, "steps")
    assert steps[1:] == [0, 1, 0, 3, 3]
