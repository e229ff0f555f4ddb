"""expunge compare."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Show finished runs side by side.

Example:

\b
  expunge compare runs/npo runs/rmu
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", help=HELP)(command)


def command(
    runs: Annotated[list[str], typer.Argument(help="Folders of finished runs.")],
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.core.errors import printable
    from expunge.workflows.compare import compare, data_note, rows

    found = compare(runs)
    if as_json:
        _show.emit({"rows": rows(found), "data": data_note(found)})
        return 0
    from expunge.report.terminal import comparison_table

    comparison_table(found, _show.console())
    _show.console().print(printable(data_note(found)), markup=False, highlight=False)
    return 0
