"""expunge repair."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Repair a model that somebody's unlearning or fine-tuning harmed, or say that it cannot be repaired.

The harmed model is judged first. While something that must stay is lost, more of the change from the original
(--before) is taken back, in several ways one after another: interpolation (wise_ft), Safe LoRA, LoX and RESTA, the last
three where the model that the original was trained from is known (--start, or its manifest). The first model that meets
every line is kept, else the nearest. Without --accept nine tenths of utility must be left, and at most half of the
forget answers.

Examples:

\b
  expunge repair HARMED --before ORIGINAL --forget f.jsonl --retain r.jsonl
  expunge repair HARMED --before ORIGINAL --forget f.jsonl --retain r.jsonl --accept "forget.rouge_l=<= 0.3"
  expunge repair HARMED --before ORIGINAL --refusals cybersecurity --alignment standard   # drift by domain
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("repair", help=HELP)(command)


def command(
    model: Annotated[str, typer.Argument(help="The harmed model: a folder or a hub name.")],
    before: Annotated[str, typer.Option(help="The original, before the change.")],
    forget: Annotated[str | None, typer.Option(help="What must stay forgotten.")] = None,
    refusals: Annotated[
        str | None, typer.Option(help="In place of --forget: the domain whose refusals must stay forgotten.")
    ] = None,
    retain: Annotated[str | None, typer.Option(help="A sample of what must stay.")] = None,
    neighbours: Annotated[str | None, typer.Option(help="Near neighbours of forget, which must stay.")] = None,
    general: Annotated[str | None, typer.Option(help="General text, which must stay.")] = None,
    holdout: Annotated[str | None, typer.Option(help="Like forget, never trained on.")] = None,
    start: Annotated[str | None, typer.Option(help="The model that the original was trained from.")] = None,
    way: Annotated[list[str] | None, typer.Option(help="A way of repair; may be repeated. Default: all.")] = None,
    accept: Annotated[list[str], typer.Option(help='An acceptance criterion: --accept "forget.rouge_l=<= 0.4".')] = [],  # noqa: B006
    purpose: Annotated[str, typer.Option(help="suppress or erase.")] = "suppress",
    gold: Annotated[str, typer.Option(help="The gold model to compare with: auto, one, none or a folder.")] = "none",
    audit: Annotated[str, typer.Option(help="Attacks on each model: none, standard or deep.")] = "none",
    alignment: Annotated[str, typer.Option(help="standard: also what seven domains' prompts are answered.")] = "none",
    domains: Annotated[list[str] | None, typer.Option(help="Packs of prompts; default: the embedded one.")] = None,
    judge: Annotated[str, typer.Option(help="rules, fitted:FOLDER, hf:NAME or llm:URL#MODEL.")] = "rules",
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    redact: Annotated[bool, typer.Option("--redact", help="Keep forget texts out of the report.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted repair.")] = False,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Run code that comes with the model.")] = False,
    out: Annotated[str, typer.Option(help="A new folder for the model and its evidence.")] = "runs/repair",
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command. Exit code 1: no way of repair meets every line."""
    from expunge.cli.run import show
    from expunge.core.request import parse_sets
    from expunge.workflows.repair import repair

    done = repair(
        model,
        before=before,
        forget=_forget(forget, refusals),
        start=start,
        ways=way,
        resume=resume,
        reporter=_show.reporter(),
        retain=retain,
        neighbours=neighbours,
        general=general,
        holdout=holdout,
        accept=parse_sets(accept, "--accept"),
        purpose=purpose,
        gold=gold,
        audit=audit,
        alignment=alignment,
        domains=domains,
        judge=judge,
        seed=seed,
        redact=redact or None,
        trust_code=trust_code,
        out=out,
    )
    show(done.evidence, done.out, as_json)
    return _show.code(done.passed)


def _forget(forget: str | None, refusals: str | None) -> str | dict[str, str]:
    """The request's `forget`, of the two options that may give it. Raises BadInput."""
    from expunge.core.errors import BadInput

    if forget is None and refusals is not None:
        return {"refusals": refusals}
    if forget is None or refusals is not None:
        why = "is missing" if forget is None else "is given beside --refusals"
        raise BadInput.of("--forget", forget or "", why, "give what must stay forgotten: --forget or --refusals")
    return forget
