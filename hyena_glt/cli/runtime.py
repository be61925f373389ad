"""What every command shares with the terminal: notes, warnings, progress and signals. stdout is left for data."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Full, Queue
from typing import Any, Generic, NoReturn, TypeVar

Item = TypeVar("Item")
MESSAGE_WIDTH = 300
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(BaseException):
    """SIGTERM arrived; raised in the main thread, so that every `with` block cleans up."""


def note(text: str) -> None:
    """One line for a person, on stderr."""
    print(f"hyena-glt: {one_line(text)}", file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """The text on one line of at most `MESSAGE_WIDTH` characters, control characters escaped."""
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    clean = clean.encode("utf-8", "backslashreplace").decode()
    return clean if len(clean) <= MESSAGE_WIDTH else clean[: MESSAGE_WIDTH - 3] + "..."


def show_warnings_as_notes() -> None:
    """Print Python warnings of this package as one line, without their source line."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"warning: {one_line(str(message))}", file=sys.stderr, flush=True)

    warnings.showwarning = show


def raise_on_sigterm() -> None:
    """Let SIGTERM unwind the program as Ctrl-C does."""

    def stop(*_: Any) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Note SIGTERM and SIGINT within the block instead of dying by them; a second signal ends the program at once.

    Yields:
        The signals so far: none or one.
    """
    received: list[int] = []

    def take(number: int, _frame: Any) -> None:
        if received:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated
        received.append(number)

    before = {number: signal.signal(number, take) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ended_by(received: list[int]) -> BaseException | None:
    """What ends the program after the signals of `stop_on_signal`; None where none has come."""
    if not received:
        return None
    return KeyboardInterrupt() if received[0] == signal.SIGINT else Terminated()


@contextmanager
def progress(step: str, total: int | None = None, unit: str = "bases") -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr while the block runs; silent where stderr is no terminal.

    Args:
        step: What is being done.
        total: Expected amount, if known.
        unit: What `advance` counts.

    Yields:
        `advance(amount)`.
    """
    if not sys.stderr.isatty():
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} " + unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(step, total=total)
        yield lambda amount: bar.advance(task, amount)


@contextmanager
def progress_by_share(step: str, total: float, unit: str) -> Iterator[Callable[[float, float], None]]:
    """A progress bar for work that says which share of it is done, as a training does.

    Args:
        step: What is being done.
        total: All of it, in `unit`.
        unit: What the bar counts.

    Yields:
        `show(share, loss)`; the share is in [0, 1] and never falls, the loss is not shown.
    """
    reached = 0
    with progress(step, total=round(total), unit=unit) as advance:

        def show(share: float, _loss: float) -> None:
            nonlocal reached
            now = round(share * total)
            advance(now - reached)
            reached = now

        yield show


def prefetched(items: Iterable[Item], threads: int, depth: int = 4) -> Iterator[Item]:
    """The same items, produced ahead in a background thread if there is more than one thread to use."""
    if threads < 2:
        yield from items
        return
    queue: Queue[tuple[bool, Any]] = Queue(depth)
    stopped = threading.Event()
    worker = threading.Thread(target=_produce, args=(items, queue, stopped), daemon=True)
    worker.start()
    try:
        while True:
            is_item, value = queue.get()
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        stopped.set()


class Background(Generic[Item]):
    """A call whose result is asked for later: it runs meanwhile if there is more than one thread to use."""

    def __init__(self, call: Callable[[], Item], threads: int) -> None:
        self._call = call
        self._future: Future[Item] = Future()
        self._begun = threads > 1
        if self._begun:
            threading.Thread(target=self._run, daemon=True).start()

    def result(self) -> Item:
        """What the call gave, or the exception that it raised."""
        if not self._begun:
            self._begun = True
            self._run()
        return self._future.result()

    def _run(self) -> None:
        try:
            self._future.set_result(self._call())
        except BaseException as problem:
            self._future.set_exception(problem)


def _produce(items: Iterable[Any], queue: Queue[tuple[bool, Any]], stopped: threading.Event) -> None:
    """Fill the queue; the last entry is `(False, None)`, or `(False, the exception)`."""
    ending: BaseException | None = None
    try:
        for item in items:
            if not _put(queue, (True, item), stopped):
                return
    except BaseException as problem:
        ending = problem
    _put(queue, (False, ending), stopped)


def _put(queue: Queue[Any], entry: tuple[bool, Any], stopped: threading.Event) -> bool:
    """Wait for room in the queue; False if nobody reads any more."""
    while not stopped.is_set():
        try:
            queue.put(entry, timeout=0.1)
        except Full:
            continue
        return True
    return False
