"""expunge provenance."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli import _show

HELP = """Test whether a model was trained on data, and whether that still shows after unlearning.

With --marks: the marks that `expunge mark` set before the data were given away. With --data: tests without marks, as
far as they apply (guided completion, the order of options; with --holdout Min-K%, dataset inference and the blind
baseline). A small p says that the data were learnt; a large one does not say that they were not used.

Examples:

  expunge provenance MODEL --marks marked

  expunge provenance runs/a/model --marks marked --before BASE --gold RETRAINED

  expunge provenance MODEL --data benchmark.jsonl --name tofu --holdout unseen.jsonl
"""
TITLES = {
    "marks": "marks",
    "marks_lead": "lead of the marks (nats per token)",
    "guided_completion": "guided completion",
    "option_order": "order of options",
    "min_k_auc": "Min-K% (AUC)",
    "dataset_inference": "dataset inference",
    "blind_auc": "blind baseline (AUC)",
}
ROLES = {"before": "before", "after": "model", "gold": "gold"}


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("provenance", help=HELP)(command)


def command(
    model: Annotated[str, typer.Argument(help="The model in question: a folder or a hub name.")],
    marks: Annotated[str | None, typer.Option(help="The folder that `expunge mark` wrote.")] = None,
    data: Annotated[str | None, typer.Option(help="Rows that it may have been trained on.")] = None,
    holdout: Annotated[str | None, typer.Option(help="Rows like --data, never trained on.")] = None,
    name: Annotated[str | None, typer.Option(help="What the data set is called, for guided completion.")] = None,
    split: Annotated[str, typer.Option(help="Which split of it --data are, for guided completion.")] = "train",
    before: Annotated[str | None, typer.Option(help="The model before unlearning.")] = None,
    gold: Annotated[str | None, typer.Option(help="A model that was trained without the data.")] = None,
    seed: Annotated[int, typer.Option(help="Of sampling and of the orders drawn.")] = 0,
    out: Annotated[str | None, typer.Option(help="A folder for evidence.json.")] = None,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from expunge.workflows.provenance import provenance

    evidence = provenance(
        model,
        marks=marks,
        data=data,
        holdout=holdout,
        name=name,
        split=split,
        before=before,
        gold=gold,
        seed=seed,
        out=out,
        reporter=_show.reporter(),
    )
    if as_json:
        _show.emit(evidence)
    else:
        _print(evidence, out)
    return 0


def _print(evidence: dict[str, Any], out: str | None) -> None:
    """The figures, what could not be had and why, and what may be concluded."""
    from rich.table import Table
    from rich.text import Text

    cells: dict[str, dict[str, dict[str, Any]]] = {}
    reasons: dict[str, list[str]] = {}
    for score in evidence["scores"]:
        title = TITLES[score["name"].removeprefix("privacy_")]
        if score["status"] == "measured":
            cells.setdefault(title, {})[score["subject"]] = score
        elif title not in reasons.setdefault(score["why"], []):
            reasons[score["why"]].append(title)
    models = {score["subject"] for score in evidence["scores"]}
    given = [role for role in ROLES if role in models]
    table = Table(box=None, pad_edge=False)
    for column in ("test", *(ROLES[role] for role in given), "n"):
        table.add_column(column)
    for title, found in cells.items():
        count = next(iter(found.values()))["n"]
        table.add_row(title, *(Text(_figure(found.get(role))) for role in given), str(count))
    console = _show.console()
    if cells:
        console.print(table)
    remarks = dict.fromkeys(
        f"{title}: {score['why']}." for title, found in cells.items() for score in found.values() if score["why"]
    )
    for line in [*evidence["conclusions"], *remarks]:
        console.print(Text(line), soft_wrap=True)
    for why, titles in reasons.items():
        console.print(Text(f"not measured: {why} ({', '.join(titles)})", style="dim"), soft_wrap=True)
    for line in evidence["notes"]:
        console.print(Text(line, style="dim"), soft_wrap=True)
    if out:
        console.print(f"Written to {out}", markup=False)


def _figure(score: dict[str, Any] | None) -> str:
    if score is None:
        return "-"
    if score["unit"] == "p-value":
        return f"p = {score['value']:.4f}"
    if score["low"] is None:
        return f"{score['value']:.2f} [n = {score['n']}]"
    return f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"
