"""Exit codes and messages of the program as a whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from hyena_glt.cli.main import report_problem
from hyena_glt.cli.runtime import MESSAGE_WIDTH, Terminated, one_line
from hyena_glt.errors import DataError, MissingExtraError, SystemProblem, UsageError


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (DataError("bad", path="a.fa", line=3, record="chr1"), 1, "error: a.fa:3 (chr1): bad\n"),
        (UsageError("no"), 2, "error: no\n"),
        (SystemProblem("disk full"), 3, "error: disk full\n"),
        (MissingExtraError("install it"), 3, "error: install it\n"),
        (MemoryError(), 3, "error: out of memory; use a machine with more, or a smaller input\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (Terminated(), 143, "error: terminated\n"),
        (OSError(28, "No space left on device", "x.bed"), 3, "error: x.bed: No space left on device\n"),
    ],
)
def test_each_error_has_its_exit_code(problem, code, said, capsys):
    assert report_problem(problem, debug=False) == code
    assert capsys.readouterr().err == said


def test_one_of_several_processes_says_which_it_is(monkeypatch, capsys):
    for world, rank, said in (("1", "0", "error: no\n"), ("4", "2", "error: rank 2: no\n")):
        monkeypatch.setenv("WORLD_SIZE", world)
        monkeypatch.setenv("RANK", rank)
        assert report_problem(UsageError("no"), debug=False) == 2
        assert capsys.readouterr().err == said


def test_ctrl_c_is_one_line(cli, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hyena_glt.cli.doctor.version_line", interrupt)
    done = cli("--version")
    assert (done.code, done.err) == (130, "error: interrupted\n")


def test_an_unexpected_error_asks_for_a_report_and_shows_no_traceback(capsys):
    assert report_problem(KeyError("x"), debug=False) == 1
    text = capsys.readouterr().err
    assert "internal error (KeyError" in text
    assert "Traceback" not in text
    report_problem(KeyError("x"), debug=True)
    assert "KeyError" in capsys.readouterr().err


def test_messages_stay_on_one_line_of_bounded_width():
    text = one_line("a\nb\x1b[31m\u2028" + "x" * 1000 + "\udcff")
    assert "\n" not in text
    assert "\x1b" not in text
    assert "\u2028" not in text
    assert len(text) == MESSAGE_WIDTH
    assert one_line("\udcff").isascii()


def test_no_command_shows_the_commands(cli):
    done = cli()
    assert "patch" in done.out + done.err
    done = cli("--version")
    assert done.code == 0
    assert done.out.startswith("hyena-glt ")
    assert "torch" in done.out


def test_every_command_has_help_with_examples(cli):
    for command in ("patch", "calibrate", "entropy", "embed", "report"):
        done = cli(command, "--help")
        assert done.code == 0
        assert f"hyena-glt {command}" in done.out, command


def test_a_missing_file_is_bad_data(cli):
    done = cli("patch", "no-such-file.fa", "-o", "-")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: no-such-file.fa: no such file")


def test_sigterm_ends_with_143_and_leaves_no_file(tmp_path):
    command = [sys.executable, "-m", "hyena_glt", "patch", "-", "-o", str(tmp_path / "p.bed"), "--mode", "byte"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b">a\n" + b"ACGT\n" * 50_000)
    process.stdin.flush()
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert process.stderr.read() == b"error: terminated\n"
    process.stdin.close()
    process.stderr.close()
    assert list(tmp_path.iterdir()) == []
