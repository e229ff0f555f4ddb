"""expunge demo."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Train a small model, make it forget, and open the report.

The request forgets a tenth of the model's fictitious authors. The model (about 1 M parameters) and its gold model are
trained on first use and cached: the second demo takes seconds. A run of your own trains a second gold model as well, by
which margins are set (`gold: auto`); the demo saves that time (`gold: one`).

Examples:

\b
  expunge demo
  expunge demo --method rmu --no-open
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", help=HELP)(command)


def command(
    method: Annotated[str, typer.Option(help="The method; see `expunge list methods`.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the report.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.cli.run import show
    from expunge.workflows.demo import demo

    done = demo(method=method, seed=seed, reporter=_show.reporter())
    show(done.evidence, done.out, as_json)
    if not (no_open or as_json) and sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
        typer.launch(str(done.out / "report.html"))
    return _show.code(done.passed)
