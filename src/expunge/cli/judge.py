"""expunge judge."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Judge which answers refuse, and how well judges agree.

Each row has an answer (completion, answer, response or output) and may have id, model, prompt, and a human verdict
under `human`.

Examples:

\b
  expunge judge answers.jsonl
  expunge judge answers.jsonl --judge llm:http://localhost:8000/v1#MODEL --against rules
  expunge judge one.jsonl two.jsonl --fit judges/mine      # fit to the human verdicts, cross-validated by model
  expunge judge answers.jsonl --judge fitted:judges/mine --json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("judge", help=HELP)(command)


def command(
    answers: Annotated[list[str], typer.Argument(help="The answers, JSONL or JSON; several files are read as one.")],
    judge: Annotated[str, typer.Option(help="rules, fitted:FOLDER, hf:NAME or llm:URL#MODEL.")] = "rules",
    against: Annotated[str | None, typer.Option(help="A second judge to compare with.")] = None,
    fit: Annotated[
        str | None, typer.Option(help="Fit a judge to the human verdicts and save it to this new folder.")
    ] = None,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.alignment import answers as judging

    done = judging.fit(answers, fit) if fit else judging.judge(answers, judge, against)
    if as_json:
        _show.emit(done.to_json())
        return 0
    from rich.table import Table
    from rich.text import Text

    found = done.to_json()
    console = _show.console()
    folds = f", {found['folds']}" if "folds" in found else ""
    console.print(f"{done.judge}: {found['refused']:.1%} of {len(found['rows'])} answers refuse{folds}.", markup=False)
    groups = {"all": found["agreement"], **found.get("models", {})}
    if any(groups.values()):
        table = Table(box=None, pad_edge=False)
        for column in ("answers", "compared with", "kappa", "95 %", "n"):
            table.add_column(column)
        for name, others in groups.items():
            for other, figures in others.items():
                value, interval = "not measured", figures.get("why", "")
                if figures["kappa"] is not None:
                    value, interval = f"{figures['kappa']:.3f}", f"{figures['low']:.3f} to {figures['high']:.3f}"
                table.add_row(Text(name), Text(other), value, interval, str(figures["n"]))
        console.print(table)
    if fit:
        console.print(
            f"Written to {fit}. The saved judge was fitted to all answers; the figures above are held out.",
            markup=False,
        )
    return 0
