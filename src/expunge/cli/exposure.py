"""expunge exposure."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Compare models that unlearned with models that were retrained: evidence over many of each.

KLoM, epsilon and U-LiRA for every example, with the noise floor of two sets of retrained models; with a holdout also
the examples that membership attacks find, over attacks and models. Nothing is trained or changed.

Examples:

  expunge exposure --unlearned 'runs/npo-*/model' --gold 'golds/*' --forget f.jsonl --holdout h.jsonl

  expunge exposure --unlearned 'u/*' --gold 'g/*' --floor 'g2/*' --forget f.jsonl --out exposure/npo

  expunge exposure --unlearned 'u/*' --gold 'g/*' --forget f.jsonl --holdout h.jsonl --course 'checkpoints/*'
"""
MODELS = "A model folder, or a pattern in quotes; may be repeated."


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("exposure", help=HELP)(command)


def command(
    forget: Annotated[
        str, typer.Option(help="What the models should have forgotten; or some of --data: '{client: 7}'.")
    ],
    unlearned: Annotated[list[str], typer.Option(help=f"Models that unlearned, each with a seed of its own. {MODELS}")],
    gold: Annotated[
        list[str], typer.Option(help="Models retrained without the forget set, each with a seed of its own.")
    ],
    floor: Annotated[
        list[str], typer.Option(help="A second set of retrained models; default: the golds are halved.")
    ] = [],  # noqa: B006
    before: Annotated[list[str], typer.Option(help="Models before the change: what doing nothing gives.")] = [],  # noqa: B006
    data: Annotated[str | None, typer.Option(help="All rows, of which a selector takes some.")] = None,
    retain: Annotated[str | None, typer.Option(help="A sample of what must stay.")] = None,
    holdout: Annotated[str | None, typer.Option(help="Like forget, never trained on.")] = None,
    course: Annotated[
        list[str], typer.Option(help="Checkpoints of one training, in order: who was exposed when.")
    ] = [],  # noqa: B006
    redact: Annotated[bool, typer.Option("--redact", help="Keep forget texts out of the evidence.")] = False,
    seed: Annotated[int, typer.Option(help="Of halving and sampling.")] = 0,
    out: Annotated[str | None, typer.Option(help="A folder for evidence.json and report.html.")] = None,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from pathlib import Path

    from expunge.workflows.exposure import exposure

    evidence = exposure(
        unlearned=unlearned,
        gold=gold,
        forget=forget,
        floor=floor,
        before=before,
        data=data,
        retain=retain,
        holdout=holdout,
        course=course,
        redact=redact,
        seed=seed,
        out=out,
        reporter=_show.reporter(),
    )
    if as_json:
        _show.emit(evidence)
        return 0
    from expunge.report.exposure import print_exposure

    print_exposure(evidence, _show.console(), Path(out) if out else None)
    return 0
