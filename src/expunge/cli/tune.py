"""expunge tune."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Search what a request leaves open, under its own bar.

Tried are the learning rate, the number of epochs, and the bounded numbers of the method (beta, alpha,
...) that the request does not give. The best trial meets every line of `accept:` and comes nearest to
gold's forget NLL (the holdout's, without gold). Its complete request is written to best.yaml. The first
trial is the recipe as it stands; done again, the search goes on where it stopped.

Examples:

  expunge tune request.yaml --trials 30

  expunge tune request.yaml --trials 60 --set method=simnpo --out runs/simnpo-tune
"""


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("tune", help=HELP)(command)


def command(
    request: Annotated[str, typer.Argument(help="The request, a YAML or JSON file.")],
    trials: Annotated[int, typer.Option(help="How many settings to try, earlier ones of this folder included.")] = 30,
    out: Annotated[
        str | None, typer.Option(help="The folder of trials and best.yaml; default: the request's out and -tune.")
    ] = None,
    sets: Annotated[list[str], typer.Option("--set", help="A field to set, key=value; may be repeated.")] = [],  # noqa: B006
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb. Exit code 1: no trial met the bar."""
    from expunge.core.request import parse_sets
    from expunge.pipeline.plan import read_request
    from expunge.workflows.tune import tune

    tuned = tune(
        read_request(request, parse_sets(sets), resume=True), trials=trials, out=out, reporter=_show.reporter()
    )
    if as_json:
        _show.emit(tuned.to_json())
        return _show.code(tuned.passed)
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("trial", *(axis.name for axis in tuned.space), "forget_nll", "bar"):
        table.add_column(column)
    order = sorted(tuned.trials, key=lambda one: (one["state"] != "done", one["value"] or 0.0, one["trial"]))
    for one in order:
        nll = one["scores"].get("forget_nll")
        bar = (
            one["state"]
            if one["state"] != "done"
            else "misses " + "; ".join(one["failing"])
            if one["failing"]
            else "met"
        )
        table.add_row(
            str(one["trial"]),
            *(f"{one['values'][axis.name]:.3g}" for axis in tuned.space),
            "" if nll is None else f"{nll:.3f}",
            Text(f"{bar}: {one['why']}" if one["why"] else bar),
        )
    console = _show.console()
    console.print(table)
    console.print(f"Target: the {tuned.target_of}'s forget NLL level of {tuned.target:.3f} nats.", markup=False)
    if tuned.best is None:
        console.print("Every trial failed: there is no best.", markup=False)
    else:
        met = "meets the bar" if tuned.passed else "misses the bar, as all do"
        chosen = "".join(f" --set {name}={shlex.quote(json.dumps(value))}" for name, value in tuned.settings.items())
        how = str(tuned.out / "best.yaml") if tuned.whole else f"{request}{chosen}"
        console.print(f"Trial {tuned.best['trial']} {met}: expunge run {how}", markup=False, soft_wrap=True)
    return _show.code(tuned.passed)
