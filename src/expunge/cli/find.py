"""expunge find."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli import _show

HELP = """Find poisoned or mislabelled rows in a classifier's training data.

The suspects are written as a forget set, which `expunge run` takes: find them, look at them, then repair the model.
Detectors: activation_clustering and spectral_signatures for triggers, small_loss for wrong labels; `expunge list
detectors` shows what each looks at. Two of them train networks as the model was, in short.

Examples:

\b
  expunge find poison train.jsonl MODEL --out suspects.jsonl
  expunge find poison DATA MODEL --detector small_loss --set folds=5
  expunge find poison builtin:digits_backdoor/train builtin:digits_backdoor --truth poisoned
"""
SHOWN_ROWS = 10
"""Suspects that the table shows."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("find", help=HELP)(command)


def command(
    what: Annotated[str, typer.Argument(help="poison.")],
    data: Annotated[str, typer.Argument(help="The rows that the model was trained on.")],
    model: Annotated[str, typer.Argument(help="A classifier: a folder or a name.")],
    detector: Annotated[str, typer.Option(help="The detector.")] = "activation_clustering",
    sets: _show.Sets = None,
    truth: Annotated[str | None, typer.Option(help="A field that says of each row whether it is poisoned.")] = None,
    out: Annotated[str | None, typer.Option(help="A new JSONL file for the suspects.")] = None,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.core.request import parse_sets
    from expunge.workflows.find import find

    chosen = {detector: parse_sets(sets or [])}
    found = find(what, data, model, detector=chosen, truth=truth, out=out, seed=seed, reporter=_show.reporter())
    if as_json:
        _show.emit(found)
    else:
        _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    """Print a line per class, the first suspects, and how well the detector did where that is known."""
    from rich.table import Table
    from rich.text import Text

    console = _show.console()
    table = Table(box=None, pad_edge=False)
    for column in ("class", "rows", "suspects", "why"):
        table.add_column(column)
    for one in found["classes"]:
        table.add_row(str(one["label"]), str(one["rows"]), str(one["suspects"]), Text(one["why"]))
    console.print(table)
    suspects = found["suspects"]
    console.print(f"{len(suspects)} of {found['rows']} rows are suspects.", markup=False)
    if suspects:
        first = ", ".join(str(one["row"]) for one in suspects[:SHOWN_ROWS])
        more = ", ..." if len(suspects) > SHOWN_ROWS else ""
        console.print(f"Most suspicious rows: {first}{more}", markup=False)
    for score in found["scores"]:
        name = score["name"].rpartition("_")[2]
        console.print(f"{name} {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]", markup=False)
    if found["out"]:
        console.print(f"Written to {found['out']}: look at them, then forget them with `expunge run`.", markup=False)
