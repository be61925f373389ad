"""Seconds and peak memory of a command in a process of its own, as the system reports them.

A process takes over the peak memory of the one that started it, so a launcher of a few MiB stands between.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

LAUNCHER = """
import json, os, sys, time
began = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
facts = [os.waitstatus_to_exitcode(status), time.perf_counter() - began, usage.ru_utime + usage.ru_stime]
with open(int(sys.argv[1]), "w") as target:
    json.dump([*facts, usage.ru_maxrss * 1024], target)
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took."""

    exit_code: int
    wall_s: float
    cpu_s: float
    peak_bytes: int  # resident


def run_measured(words: list[str], *, feed: Callable[[IO[bytes]], None] | None = None, **options: Any) -> Usage:
    """Run a command to its end.

    Args:
        words: The command.
        feed: Writes what the command reads on stdin, in a thread, and closes it.
        options: Of `subprocess.Popen`, such as `stdout`.
    """
    source, target = os.pipe()
    launcher = [sys.executable, "-S", "-E", "-c", LAUNCHER, str(target), *words]
    streams = {**options, "stdin": subprocess.PIPE if feed else options.get("stdin", subprocess.DEVNULL)}
    process = subprocess.Popen(launcher, pass_fds=[target], **streams)
    os.close(target)
    if feed:
        threading.Thread(target=feed, args=(process.stdin,), daemon=True).start()
    with open(source) as facts:
        found = facts.read()
    process.wait()
    if not found:
        raise SystemExit(f"{words[0]}: could not be started")
    return Usage(*json.loads(found))
