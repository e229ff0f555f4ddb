"""expunge foresee."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Predict which domains a request puts at risk.

The prediction is made before any training. It combines the entanglement of each domain with the forget set and a few probe steps of training,
which are undone.

Examples:

\b
  expunge foresee request.yaml
  expunge foresee request.yaml --against runs/a      # score the prediction against a run
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("foresee", help=HELP)(command)


def command(
    request: Annotated[str, typer.Argument(help="The request, a YAML or JSON file.")],
    against: Annotated[
        str | None, typer.Option(help="A finished run; the ranking is scored against its drift.")
    ] = None,
    sets: _show.Sets = None,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.core.request import Request, parse_sets
    from expunge.workflows.foresee import foresee

    found = foresee(Request.read(request, parse_sets(sets or ())), against=against, reporter=_show.reporter())
    if as_json:
        _show.emit(found.to_json())
        return 0
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("domain", "risk", "entanglement", "spill", *(("fell",) if found.happened is not None else ())):
        table.add_column(column)
    for row in found.to_json()["rows"]:
        mark = " *" if row["at_risk"] else ""
        spill = "-" if row["spill"] is None else f"{row['spill']:.2f}"
        fell = [f"{row['fell']:+.2f}" if row["fell"] is not None else "-"] if found.happened is not None else []
        table.add_row(Text(row["domain"]), f"{row['risk']:.2f}{mark}", f"{row['entanglement']:.2f}", spill, *fell)
    console = _show.console()
    console.print(table)
    console.print("* at risk: contain: auto would include it.", markup=False)
    if found.happened is not None:
        score = "undefined: too few domains, or all fell alike"
        if found.score is not None:
            score = (
                f"{found.score.value:.2f} (95 % interval {found.score.low:.2f} to {found.score.high:.2f}, over domains)"
            )
        console.print(f"Rank correlation with the drift of that run: {score}.", markup=False)
    return 0
