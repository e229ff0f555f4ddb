"""expunge forget."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from expunge.cli import _show

if TYPE_CHECKING:
    from expunge.workflows.forget import RepairPlan

HELP = """Forget a topic that you name in plain words.

Finds the examples that speak of it, shows a repair plan, asks, and then changes the model in closed form
(STAMP); the evidence comes at the end. Without --data the model is asked about the topic, and its own
answers are what is forgotten.

Examples:

  expunge forget builtin:authors "forget everything about Tamsin Lindqvister"

  expunge forget MODEL "please erase what you know of Ada Example" --data all.jsonl --out runs/ada

  expunge forget MODEL "forget Ada Example" --data all.jsonl --method npo --yes
"""
SHOWN = 6


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("forget", help=HELP)(command)


def command(
    model: Annotated[str, typer.Argument(help="A language model: a folder, a hub name, builtin:authors.")],
    words: Annotated[str, typer.Argument(help='What to forget, as a sentence: "forget everything about ...".')],
    data: Annotated[str | None, typer.Option(help="What the model learned from, or a sample of it.")] = None,
    method: Annotated[str, typer.Option(help="What to forget with; see `expunge list methods`.")] = "stamp",
    gold: Annotated[str, typer.Option(help="auto, none or a folder: the model to compare with.")] = "none",
    seed: Annotated[int, typer.Option(help="Fixes everything.")] = 0,
    out: Annotated[str, typer.Option(help="A new folder for model and evidence.")] = "runs/forget",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    redact: Annotated[
        bool, typer.Option("--redact", help="Keep what is forgotten out of all that is shown and written.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Run code that comes with the model.")] = False,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from expunge.core.errors import BadInput
    from expunge.workflows.forget import forget, intent

    intent(words)
    if not yes and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadInput.of("--yes", "", "is missing, and there is nobody to ask", "add --yes")

    def confirm(plan: RepairPlan) -> bool:
        if not as_json:
            _shown(plan, redact)
        return yes or typer.confirm("Change the model?", default=False, err=True)

    done = forget(
        model,
        words,
        confirm=confirm,
        reporter=_show.reporter(),
        data=data,
        method=method,
        gold=gold,
        seed=seed,
        out=out,
        redact=redact,
        resume=resume,
        trust_code=trust_code,
    )
    if done is None:
        _show.console().print("Nothing was changed.")
        return 0
    from expunge.cli.run import show

    show(done.evidence, done.out, as_json)
    return _show.code(done.passed)


def _shown(plan: RepairPlan, redact: bool) -> None:
    """The plan. redact: without the topic and the questions."""
    from rich.text import Text

    from expunge.data.examples import question_of

    console = _show.console()
    topic = "the topic" if redact else repr(plan.topic)
    console.print(Text(f"Repair plan: forget {topic} in {plan.model} with {plan.request.method}.", style="bold"))
    whose = "what the model itself says" if plan.elicited else "examples that speak of it"
    kept = f", {len(plan.retain)} others are kept" if plan.retain else ", and nothing says what to keep"
    console.print(
        Text(f"Forget set: {len(plan.forget)} {whose}{kept}. The changed model goes to {plan.request.out}/model.")
    )
    if redact:
        return
    for row in plan.forget[:SHOWN]:
        console.print(Text(f"  {question_of(row) or row.get('text', '')}"[:100], style="dim"))
    if len(plan.forget) > SHOWN:
        console.print(Text(f"  ... and {len(plan.forget) - SHOWN} more", style="dim"))
