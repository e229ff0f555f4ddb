"""expunge audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import _show
from expunge.cli.run import show

HELP = """Evidence for a model that was changed by anyone, with any tool: the model itself is not changed.

Gold is a model retrained without the forget set. `--gold auto`, the default, takes it from the cache, or retrains it
where the training manifest of --before (or of a MODEL that is still as it was trained) allows that and it is cheap.

Examples:

  expunge audit runs/authors/model --forget builtin:authors/forget --holdout builtin:authors/holdout

  expunge audit MODEL --forget f.jsonl --retain r.jsonl --before BASE --gold RETRAINED --out audits/a

  expunge audit MODEL --forget f.jsonl --gold RETRAINED --gold ANOTHER --level deep   # slower attacks too

  expunge audit MODEL --data rows.jsonl --forget '{client: 7}' --level none --clients-send sums   # a federation's
"""


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("audit", help=HELP)(command)


def command(
    model: Annotated[str, typer.Argument(help="The changed model: a folder or a hub name.")],
    forget: Annotated[str, typer.Option(help="What it should have forgotten; or some of --data: '{client: 7}'.")],
    data: Annotated[str | None, typer.Option(help="All rows, of which a selector takes some.")] = None,
    retain: Annotated[str | None, typer.Option(help="A sample of what must stay.")] = None,
    holdout: Annotated[str | None, typer.Option(help="Like forget, never trained on.")] = None,
    neighbours: Annotated[str | None, typer.Option(help="Near neighbours of forget, which must stay.")] = None,
    general: Annotated[str | None, typer.Option(help="General text, which must stay.")] = None,
    probes: Annotated[str | None, typer.Option(help="Your questions: JSONL of question, answer, kind, of.")] = None,
    before: Annotated[str | None, typer.Option(help="The model before the change.")] = None,
    gold: Annotated[list[str], typer.Option(help="Retrained: a folder, two, auto, one or none.")] = ["auto"],  # noqa: B006
    accept: Annotated[list[str], typer.Option(help='An acceptance criterion: --accept "forget.rouge_l=<= 0.4".')] = [],  # noqa: B006
    purpose: Annotated[str, typer.Option(help="suppress or erase.")] = "suppress",
    level: Annotated[str, typer.Option(help="Attacks on the model: none, standard or deep.")] = "standard",
    alignment: Annotated[str, typer.Option(help="standard: also what seven domains' prompts are answered.")] = "none",
    domains: Annotated[list[str] | None, typer.Option(help="Packs of prompts; default: the embedded one.")] = None,
    judge: Annotated[str, typer.Option(help="rules, fitted:FOLDER, hf:NAME or llm:URL#MODEL.")] = "rules",
    turns: Annotated[str, typer.Option(help="last or all: the answers of a conversation that count.")] = "last",
    answer_quantile: Annotated[float, typer.Option(help="Of the true answers' lengths: bounds generated ones.")] = 1.0,
    read_precision: Annotated[str, typer.Option(help="own, or bf16: in which the splits are read.")] = "own",
    held_out_rows: Annotated[int | None, typer.Option(help="Most rows read of each split but forget.")] = None,
    clients_send: Annotated[str, typer.Option(help="A federation's clients send readouts or sums.")] = "readouts",
    redact: Annotated[bool, typer.Option("--redact", help="Keep forget texts out of the report.")] = False,
    out: Annotated[str | None, typer.Option(help="A folder for evidence.json and report.html.")] = None,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from expunge.core.request import parse_sets
    from expunge.workflows.audit import audit

    evidence = audit(
        model,
        forget=forget,
        data=data,
        retain=retain,
        holdout=holdout,
        neighbours=neighbours,
        general=general,
        probes=probes,
        before=before,
        gold=gold[0] if len(gold) == 1 else gold,
        accept=parse_sets(accept, "--accept"),
        purpose=purpose,
        turns=turns,
        clients_send=clients_send,
        redact=redact,
        answer_quantile=answer_quantile,
        read_precision=read_precision,
        held_out_rows="auto" if held_out_rows is None else held_out_rows,
        level=level,
        out=out,
        alignment=alignment,
        domains=domains,
        judge=judge,
        reporter=_show.reporter(),
    )
    show(evidence, Path(out) if out else None, as_json)
    return _show.code(evidence["verdict"]["passed"])
