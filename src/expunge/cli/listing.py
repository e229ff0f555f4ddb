"""expunge list."""

from __future__ import annotations

import textwrap
from typing import Annotated, Any

import typer

from expunge.cli import _show

HELP = """List the methods, metrics, attacks, recipes, families of models, out-of-distribution scores, detectors,
protections of pictures or strategies of federations.

Methods are the values of `method:` in a request. Those that do not follow their paper in full are marked: (simplified)
without some of its steps, (variant) with a step of another kind. With a name, show its card in full: the paper, what it
leaves out, the needs, the options with their bounds.

Examples:

\b
  expunge list methods
  expunge list methods npo
  expunge list metrics --json
"""
WHAT = ("methods", "metrics", "attacks", "recipes", "models", "ood", "detectors", "protections", "strategies")
MOST_LINES = 2
"""Lines of a summary in the table."""
LEAST_WIDTH = 24
"""Columns of a summary, even on a narrow terminal."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list", help=HELP)(command)


def command(
    what: Annotated[
        str,
        typer.Argument(help=f"{', '.join(WHAT[:-1])} or {WHAT[-1]}."),
    ] = "methods",
    name: Annotated[str | None, typer.Argument(help="One of them, shown in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.cli._catalogue import catalogue_of
    from expunge.core.errors import BadInput, did_you_mean

    if what not in WHAT:
        raise BadInput.of("list", what, "unknown list", did_you_mean(what, WHAT))
    found = catalogue_of(what, name)
    if as_json:
        _show.emit(found)
    elif name is None:
        _table(found)
    else:
        _card(found)
    return 0


def _table(rows: list[dict[str, Any]]) -> None:
    """Print name, kind, summary and what is not faithful, at most MOST_LINES lines each; only a summary is cut."""
    console = _show.console()
    widths = [max(len(row[column]) for row in rows) for column in ("name", "kind")]
    room = max(LEAST_WIDTH, console.width - sum(widths) - 4)
    margin = " " * (sum(widths) + 4)
    for row in rows:
        head = f"{row['name']:<{widths[0]}}  {row['kind']:<{widths[1]}}  "
        text = f"[{row['adversary']}] {row['summary']}" if row.get("adversary") else row["summary"]
        mark = f" ({row['fidelity']})" if row.get("leaves_out") else ""
        lines = _wrap(text, mark, room)
        console.print(head + f"\n{margin}".join(lines), soft_wrap=True)


def _wrap(text: str, mark: str, room: int) -> list[str]:
    """The text and then the mark, in MOST_LINES lines at most: words go from the text's end."""
    words, dots = text.split(), ""
    while len(lines := textwrap.wrap(" ".join(words) + dots + mark, room)) > MOST_LINES:
        words, dots = words[:-1], " ..."
    return lines


def _card(found: dict[str, Any]) -> None:
    """Print one card in full, one line per fact."""
    from expunge.core.card_words import fidelity_of, pairs, shown_of

    options = [
        f"{one['name']}: {one['default']} ({one['type']}){' ' if one['where'] else ''}{one['where']}"
        for one in found["options"]
    ]
    facts = {
        "kind": found["kind"],
        "title": found["title"] if found["title"] != found["summary"] else "",
        "source": ", ".join(filter(None, (found["source"], found["equation"]))),
        "fidelity": fidelity_of(found),
        "families": ", ".join(found["families"]),
        "needs": ", ".join(found["needs"]),
        "adversary": found.get("adversary", ""),
        "better": found.get("better", ""),
        "unit": found.get("unit", ""),
        "options": "\n".join(options),
        "recipe": "\n".join(pairs(found["recipe"])),
        "means": found["means"],
        "shown": shown_of(found),
    }
    console = _show.console()
    console.print(f"{found['name']}: {found['summary']}", soft_wrap=True)
    width = max(map(len, facts)) + 2
    for label, fact in facts.items():
        for number, line in enumerate(fact.splitlines()):
            parts = textwrap.wrap(line, max(LEAST_WIDTH, console.width - width)) or [""]
            head = label if number == 0 else ""
            console.print(f"{head:<{width}}" + f"\n{' ' * width}".join(parts), soft_wrap=True)
