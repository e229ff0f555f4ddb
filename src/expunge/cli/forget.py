"""expunge forget."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from expunge.cli import _show

if TYPE_CHECKING:
    from expunge.workflows.forget import RepairPlan

HELP = """Forget a topic that you name in plain words.

The command finds the examples about the topic, shows a repair plan, asks for confirmation, changes the model,
and shows the evidence. Without --data, or with a handful of questions that are all about the topic, the model is
asked for facts about it and its neighbours, and an edit (ROCR) lets it read the name as a neighbour's.

Examples:

\b
  expunge forget builtin:authors "forget everything about Tamsin Lindqvister"
  expunge forget MODEL "please erase what you know about Ada Example" --data all.jsonl --out runs/ada
  expunge forget MODEL "forget Ada Example" --data all.jsonl --method npo --yes
  expunge forget builtin:smollm2 "forget everything about France"     # without data: it asks the model itself
"""
SHOWN_ROWS = 6


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("forget", help=HELP)(command)


def command(
    model: Annotated[str, typer.Argument(help="A language model: a folder, a hub name, builtin:authors.")],
    words: Annotated[str, typer.Argument(help='What to forget, as a sentence: "forget everything about ...".')],
    data: Annotated[str | None, typer.Option(help="The training data of the model, or a sample of it.")] = None,
    method: Annotated[
        str | None, typer.Option(help="The method; see `expunge list methods`. By default chosen by the data.")
    ] = None,
    gold: Annotated[str, typer.Option(help="The gold model to compare with: auto, none or a folder.")] = "none",
    audit: Annotated[
        str | None, typer.Option(help="Attacks: none, standard or deep. By default standard, and none without --data.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    out: Annotated[str, typer.Option(help="A new folder for the model and its evidence.")] = "runs/forget",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    redact: Annotated[
        bool, typer.Option("--redact", help="Neither show nor write any text of the forget set.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Run code that comes with the model.")] = False,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.core.errors import BadInput
    from expunge.workflows.forget import forget, intent

    intent(words)
    if not yes and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadInput.of("--yes", "", "is missing, and there is no terminal to ask on", "add --yes")

    def confirm(plan: RepairPlan) -> bool:
        if not as_json:
            _show_plan(plan, redact)
        return yes or typer.confirm("Change the model?", default=False, err=True)

    done = forget(
        model,
        words,
        confirm=confirm,
        reporter=_show.reporter(),
        data=data,
        method=method,
        gold=gold,
        audit=audit,
        seed=seed,
        out=out,
        trust_code=trust_code,
        resume=resume,
        redact=redact or None,
    )
    if done is None:
        _show.console().print("Nothing was changed.")
        return 0
    from expunge.cli.run import show

    show(done.evidence, done.out, as_json)
    return _show.code(done.passed)


def _method_name(plan: RepairPlan) -> str:
    method = plan.request.method
    return method if isinstance(method, str) else ", ".join(method)


def _show_plan(plan: RepairPlan, redact: bool) -> None:
    """Print the plan. redact: without the topic and the questions."""
    from rich.text import Text

    from expunge.data.examples import question_of

    console = _show.console()
    topic = "the topic" if redact else repr(plan.topic)
    console.print(Text(f"Plan: forget {topic} in {plan.model} with {_method_name(plan)}.", style="bold"))
    source = "questions on facts of the model itself" if plan.elicited else "examples about it"
    retain = f"{len(plan.retain)} examples" if plan.retain else "none"
    console.print(
        Text(f"Forget set: {len(plan.forget)} {source}. Retain set: {retain}. Output: {plan.request.out}/model.")
    )
    if redact:
        return
    for row in plan.forget[:SHOWN_ROWS]:
        console.print(Text(f"  {question_of(row) or row.get('text', '')}"[:100], style="dim"))
    if len(plan.forget) > SHOWN_ROWS:
        console.print(Text(f"  ... and {len(plan.forget) - SHOWN_ROWS} more", style="dim"))
