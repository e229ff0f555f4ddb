"""expunge list."""

from __future__ import annotations

import textwrap
from typing import Annotated, Any

import typer

from expunge.cli import _show

HELP = """List what may be used: methods (all that may stand under `method:`), metrics, attacks, recipes,
and the families of models.

With a name, show all that its card says: the paper, the needs, the options with their bounds.

Examples:

  expunge list methods

  expunge list methods npo

  expunge list metrics --json
"""
WHAT = ("methods", "metrics", "attacks", "recipes", "models")
LINES = 2
"""Of a name in the table, at most."""
NARROWEST = 24
"""Columns that the summaries keep on a terminal too narrow for them."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("list", help=HELP)(command)


def command(
    what: Annotated[str, typer.Argument(help="methods, metrics, attacks, recipes or models.")] = "methods",
    name: Annotated[str | None, typer.Argument(help="One of them, to be shown in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the verb."""
    from expunge.core.errors import BadInput, did_you_mean
    from expunge.workflows.list import catalogue, details

    if what not in WHAT:
        raise BadInput.of("list", what, "is no list that we have", did_you_mean(what, WHAT))
    found: Any = catalogue(what) if name is None else details(what, name)
    if as_json:
        _show.emit(found)
    elif name is None:
        _table(found)
    else:
        _card(found)
    return 0


def _table(rows: list[dict[str, Any]]) -> None:
    """Print name, kind and summary, at most LINES lines each: a name is never cut, a long summary is."""
    console = _show.console()
    widths = [max(len(row[column]) for row in rows) for column in ("name", "kind")]
    room = max(NARROWEST, console.width - sum(widths) - 4)
    margin = " " * (sum(widths) + 4)
    for row in rows:
        head = f"{row['name']:<{widths[0]}}  {row['kind']:<{widths[1]}}  "
        lines = textwrap.wrap(row["summary"], room, max_lines=LINES, placeholder=" ...")
        console.print(head + f"\n{margin}".join(lines), soft_wrap=True)


def _card(found: dict[str, Any]) -> None:
    """Print one card in full, a line for each fact that it has."""
    from expunge.workflows.list import pairs

    options = [
        f"{one['name']}: {one['default']} ({one['type']}){' ' if one['where'] else ''}{one['where']}"
        for one in found["options"]
    ]
    facts = {
        "kind": found["kind"],
        "title": found["title"] if found["title"] != found["summary"] else "",
        "source": ", ".join(filter(None, (found["source"], found["equation"]))),
        "families": ", ".join(found["families"]),
        "needs": ", ".join(found["needs"]),
        "better": found.get("better", ""),
        "unit": found.get("unit", ""),
        "options": "\n".join(options),
        "recipe": "\n".join(pairs(found["recipe"])),
        "means": found["means"],
    }
    console = _show.console()
    console.print(f"{found['name']}: {found['summary']}", soft_wrap=True)
    width = max(map(len, facts)) + 2
    for label, fact in facts.items():
        for number, line in enumerate(fact.splitlines()):
            said = textwrap.wrap(line, max(NARROWEST, console.width - width)) or [""]
            head = label if number == 0 else ""
            console.print(f"{head:<{width}}" + f"\n{' ' * width}".join(said), soft_wrap=True)
