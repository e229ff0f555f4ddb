"""expunge tune."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from expunge.cli import _show

if TYPE_CHECKING:
    from expunge.workflows.tune import Tuned

HELP = """Search the settings that a request leaves open.

The search respects the request's acceptance criteria. It covers the learning rate, the number of epochs, and the
bounded options of the method (beta, alpha, ...) that the request does not set. The best trial meets every line of
`accept:` and comes nearest to gold's forget NLL (without gold, the holdout's). Its complete request is written to
best.yaml. The first trial is the plain recipe. Where the request leaves the method to `auto`, the numbers of the method
that it starts with are searched. Run the same command again to continue an interrupted search.

Examples:

\b
  expunge tune request.yaml --trials 30
  expunge tune request.yaml --trials 60 --set method=simnpo --out runs/simnpo-tune
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tune", help=HELP)(command)


def command(
    request: Annotated[str, typer.Argument(help="The request, a YAML or JSON file.")],
    trials: Annotated[int, typer.Option(help="Number of trials, including earlier ones in this folder.")] = 30,
    out: Annotated[
        str | None, typer.Option(help="The folder for trials and best.yaml; default: the request's out plus -tune.")
    ] = None,
    sets: _show.Sets = None,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command. Exit code 1: no trial met the acceptance criteria."""
    from expunge.core.request import parse_sets
    from expunge.pipeline.plan import read_request
    from expunge.workflows.tune import tune

    tuned = tune(
        read_request(request, parse_sets(sets or ()), resume=True), trials=trials, out=out, reporter=_show.reporter()
    )
    if as_json:
        _show.emit(tuned.to_json())
        return _show.code(tuned.passed)
    console = _show.console()
    chosen = f", chosen by auto: {tuned.choice}" if tuned.choice else ""
    numbers = ", ".join(axis.name for axis in tuned.space)
    console.print(f"Method: {tuned.method}{chosen}. Searched: {numbers}.", markup=False, soft_wrap=True)
    _print_trials(tuned)
    console.print(f"Target: the {tuned.target_of}'s forget NLL, {tuned.target:.3f} nats per token.", markup=False)
    if tuned.best is None:
        console.print("Every trial failed, so there is no best one.", markup=False)
    else:
        met = "meets the criteria" if tuned.passed else "misses the criteria, like all others"
        sets_best = "".join(f" --set {name}={shlex.quote(json.dumps(value))}" for name, value in tuned.settings.items())
        how = str(tuned.out / "best.yaml") if tuned.whole else f"{request}{sets_best}"
        console.print(f"Trial {tuned.best['trial']} {met}: expunge run {how}", markup=False, soft_wrap=True)
    return _show.code(tuned.passed)


def _print_trials(tuned: Tuned) -> None:
    """Print one line per trial, finished ones first, nearest to the target first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("trial", *(axis.name for axis in tuned.space), "forget_nll", "criteria"):
        table.add_column(column)
    for one in sorted(tuned.trials, key=lambda one: (one["state"] != "done", one["value"] or 0.0, one["trial"])):
        nll = one["scores"].get("forget_nll")
        state = one["state"]
        if state == "done":
            state = "misses " + "; ".join(one["failing"]) if one["failing"] else "met"
        table.add_row(
            str(one["trial"]),
            *(f"{one['values'][axis.name]:.3g}" for axis in tuned.space),
            "" if nll is None else f"{nll:.3f}",
            Text(f"{state}: {one['why']}" if one["why"] else state),
        )
    _show.console().print(table)
