"""The `expunge` command.

Exit codes: 0 passed or no acceptance criteria, 1 verdict failed, 2 bad input, 70 internal error, 130 interrupted.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
import traceback
import warnings
from typing import Annotated

import typer
import typer.core

from expunge import __version__, cli

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# A thread of OpenMP that waits gives its core up soon: beside another program, spinning took up to ten times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

typer.core.HAS_RICH = False  # otherwise some versions write `\[required]` in plain-text help
GRACE = 5.0
"""Seconds that a further process waits before it prints an error: where the first one ends with the same, the launcher
ends all the others within them."""
SHARED = ("run", "audit", "train")
"""Commands that several processes carry out together."""
app = typer.Typer(
    name="expunge",
    help="Make a trained model forget, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"expunge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Make a trained model forget, and prove it."""


def _register() -> None:
    from expunge.cli import (
        audit,
        bench,
        compare,
        demo,
        exposure,
        find,
        foresee,
        forget,
        judge,
        listing,
        mark,
        neighbours,
        provenance,
        purge,
        repair,
        run,
        selftest,
        train,
        tune,
        verify,
    )

    for verb in (
        demo,
        run,
        forget,
        train,
        audit,
        exposure,
        bench,
        compare,
        listing,
        verify,
        purge,
        neighbours,
        tune,
        judge,
        foresee,
        mark,
        provenance,
        selftest,
        repair,
        find,
    ):
        verb.register(app)


_register()


def run(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    from expunge.core.variables import allow_env

    warnings.filterwarnings("ignore", category=FutureWarning)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without a character shows its escape
            stream.reconfigure(errors="backslashreplace")
    _quiet_libraries()
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if _follows():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    try:
        _check_processes(arguments)
        with allow_env():  # --env holds for this command alone
            result = app(arguments, standalone_mode=False, prog_name="expunge")
        if result == 130:  # the parser's code for Ctrl-C
            _say("Interrupted.")
        return int(result or 0)
    except typer.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _say("Interrupted.")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report(error, arguments)


def _check_processes(arguments: list[str]) -> None:
    """Raises BadInput for a command that several processes cannot share."""
    from expunge.core.errors import BadInput

    verb = next((word for word in arguments if not word.startswith("-")), "")
    count = os.environ.get("WORLD_SIZE", "1")
    if "RANK" in os.environ and count.isdecimal() and int(count) > 1 and verb and verb not in SHARED:
        raise BadInput.of(
            "processes", count, f"were started, and `expunge {verb}` runs in one", "start it without a launcher"
        )


def _report(error: Exception, arguments: list[str]) -> int:
    """Print the error and return the exit code."""
    from expunge.cli._faults import sentence
    from expunge.core.errors import ExpungeError

    if _follows():
        time.sleep(GRACE)
    if isinstance(error, ExpungeError):
        for line in getattr(error, "faults", None) or [str(error)]:
            _say(line)
        return error.exit_code
    if cli.was_interrupted():
        _say("Interrupted.")
        return 130
    if hasattr(error, "format_message"):  # the parser's own message about the command line
        message = " ".join(error.format_message().split())
        message = re.sub(r"( Did you mean [^?]+\?)\1+", r"\1", message)  # typer and click both add it
        _say(f"{message}{'' if message.endswith(('.', '?')) else '.'} See `expunge --help`.")
        return 2
    if line := sentence(error, arguments):
        _say(line)
        return 2
    return _internal(error)


def _follows() -> bool:
    """Whether a launcher started this process beside a first one, which prints what all have to say."""
    return os.environ.get("RANK", "0") not in ("", "0")


def _say(line: str) -> None:
    from expunge.core.errors import as_written, printable

    print(f"expunge: {printable(as_written(line))}", file=sys.stderr)


def _internal(error: Exception) -> int:
    from expunge.core.errors import as_written

    first = (str(error).strip().splitlines() or [""])[0]
    try:
        handle, path = tempfile.mkstemp(prefix="expunge-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(as_written(traceback.format_exc()))
        where = f"traceback in {path}"
    except OSError as failure:
        where = f"the traceback could not be written: {failure.strerror}"
    _say(f"internal error: {type(error).__name__}: {first} ({where})")
    return 70


def _quiet_libraries() -> None:
    import logging

    for name in ("transformers", "datasets", "accelerate", "peft", "torch"):
        logging.getLogger(name).setLevel(logging.CRITICAL if name == "datasets" else logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
