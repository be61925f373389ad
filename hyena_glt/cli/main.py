"""`hyena-glt`: the commands, and what becomes of every error.

Exit codes: 0 done, 1 bad data, 2 wrong usage, 3 environment (disk, permission, missing extra), 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from hyena_glt.cli import (
    bench,
    calibrate,
    demo,
    distances,
    doctor,
    embed,
    entropy,
    evaluate,
    finetune,
    generate,
    patch,
    pretrain,
    profile,
    report,
    stream,
    train_bpe,
    train_bpe_patcher,
    train_entropy,
    tree,
    variants,
)
from hyena_glt.cli.runtime import Terminated, one_line, raise_on_sigterm, show_warnings_as_notes
from hyena_glt.errors import HyenaGLTError

# Typer carries its own copy of click; the base classes of its public exceptions are the same in every version.
UsageProblem, CommandProblem = typer.BadParameter.__mro__[1:3]

GARBAGE_THRESHOLD = 200_000  # new objects between two looks for garbage; Python's 700 cost a tenth of the start
INTERRUPTED = 130
EPILOG = (
    "Input and output: - is stdin or stdout, compressed input is recognised by its content, .gz output is BGZF. "
    "Regions chr1:1-1000 are 1-based inclusive; BED, bedGraph and the Python API are 0-based half-open."
)

app = typer.Typer(
    name="hyena-glt",
    help="Cut genomes into dynamic patches, score every base, embed and report, at byte resolution and patch cost.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    patch.patch,
    stream.stream,
    calibrate.calibrate,
    entropy.entropy,
    embed.embed,
    generate.generate,
    report.report,
    train_bpe.train_bpe,
    train_bpe_patcher.train_bpe_patcher,
    train_entropy.train_entropy,
    pretrain.pretrain,
    finetune.finetune,
    evaluate.evaluate,
    variants.variants,
    distances.distances,
    tree.tree,
    bench.bench,
    profile.profile,
    doctor.doctor,
    demo.demo,
):
    app.command()(command)


def show_version(wanted: bool) -> None:
    """Print versions and the accelerator, and stop."""
    if wanted:
        print(doctor.version_line())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show versions and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options that stand before the command; --debug may stand anywhere."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: Words after the program's name; None takes them from the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    show_warnings_as_notes()
    raise_on_sigterm()
    try:
        code = app(args=[word for word in words if word != "--debug"], standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # typer makes this number of a KeyboardInterrupt
            return report_problem(KeyboardInterrupt(), debug)
        return code if isinstance(code, int) else 0
    except BaseException as problem:
        return report_problem(problem, debug)


def report_problem(problem: BaseException, debug: bool) -> int:
    """Say in one line on stderr what went wrong; the exit code."""
    if debug and not isinstance(problem, BrokenPipeError | KeyboardInterrupt | SystemExit | typer.Exit):
        traceback.print_exception(problem)
    if isinstance(problem, SystemExit) and isinstance(problem.__context__, BrokenPipeError):
        problem = problem.__context__  # click turns a broken pipe into exit code 1
    match problem:
        case BrokenPipeError():
            _close_stdout()
            return 0
        case KeyboardInterrupt() | typer.Abort():
            return _said("interrupted", INTERRUPTED)
        case Terminated():
            return _said("terminated", 143)
        case SystemExit():
            return problem.code if isinstance(problem.code, int) else 1
        case typer.Exit():
            return problem.exit_code
        case HyenaGLTError():
            return _said(str(problem), problem.exit_code)
        case MemoryError():
            return _said("out of memory; use a machine with more, or a smaller input", 3)
        case _ if isinstance(problem, UsageProblem):
            return _said(f"{problem.format_message()}; see hyena-glt --help", 2)  # type: ignore[attr-defined]
        case _ if isinstance(problem, CommandProblem):
            return _said(problem.format_message(), 1)  # type: ignore[attr-defined]
        case OSError():
            return _said(f"{problem.filename or 'input/output'}: {problem.strerror or problem}", 3)
        case _:
            kind = type(problem).__name__
            return _said(f"internal error ({kind}: {problem}); please report it with the output of --debug", 1)


def _said(text: str, code: int) -> int:
    with suppress(BrokenPipeError):
        print(f"error: {one_line(_rank() + text)}", file=sys.stderr, flush=True)
    return code


def _rank() -> str:
    """Which of several processes of `torchrun` speaks."""
    return f"rank {os.environ['RANK']}: " if os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ else ""


def _close_stdout() -> None:
    """Point stdout at nothing, so that the interpreter does not complain when it flushes at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def run() -> None:
    """The console script."""
    gc.set_threshold(GARBAGE_THRESHOLD)  # imports make many objects and no garbage
    code = main()
    gc.freeze()  # nothing of what is left has to be looked through for garbage
    sys.exit(code)


if __name__ == "__main__":
    run()
