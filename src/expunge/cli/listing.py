"""expunge list."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import _show

HELP = """What there is: methods (all that may stand under `method:`), metrics, attacks, recipes.

Examples:

  expunge list methods

  expunge list metrics --json
"""
WHAT = ("methods", "metrics", "attacks", "recipes")


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("list", help=HELP)(command)


def command(
    what: Annotated[str, typer.Argument(help="methods, metrics, attacks or recipes.")] = "methods",
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from expunge.core.errors import BadInput, did_you_mean
    from expunge.workflows.list import catalogue

    if what not in WHAT:
        raise BadInput.of("list", what, "is no list that we have", did_you_mean(what, WHAT))
    found = catalogue(what)
    if as_json:
        _show.emit(found)
        return 0
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("name", "kind", "source", "summary"):
        # A name is what the reader came for: it is never cut.
        widest = max(len(row[column]) for row in found) if column in ("name", "kind") else None
        table.add_column(column, no_wrap=column != "summary", min_width=widest)
    for row in found:
        table.add_row(*(Text(row[name]) for name in ("name", "kind", "source", "summary")))
    _show.console().print(table)
    return 0
