"""expunge run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli import _show

HELP = """Carry out a forget request: change the model, measure, judge, report.

Examples:

  expunge run request.yaml

  expunge run request.yaml --plan            # check everything, change nothing

  expunge run request.yaml --resume          # go on after an interruption

  expunge run request.yaml --set method=rmu --set budget.epochs=3 --set out=runs/rmu
"""


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("run", help=HELP)(command)


def command(
    request: Annotated[str, typer.Argument(help="The request, a YAML or JSON file.")],
    plan: Annotated[bool, typer.Option("--plan", help="Check the request and print what would be done.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    sets: Annotated[list[str], typer.Option("--set", help="A field to set, key=value; may be repeated.")] = [],  # noqa: B006
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from expunge.core.request import parse_sets
    from expunge.pipeline.plan import read_request

    parsed = read_request(request, parse_sets(sets), resume=resume)
    if plan:
        return _plan(parsed, resume, as_json)
    from expunge.workflows.run import run

    done = run(parsed, resume=resume, reporter=_show.reporter())
    from expunge.core import processes

    if processes.main():
        show(done.evidence, done.out, as_json)
    return _show.code(done.passed)


def show(evidence: dict[str, Any], out: Any, as_json: bool) -> None:
    """Evidence for people, or as JSON."""
    if as_json:
        _show.emit(evidence)
        return
    from expunge.report.terminal import print_evidence

    print_evidence(evidence, _show.console(), out)


def _plan(request: Any, resume: bool, as_json: bool) -> int:
    from pathlib import Path

    from expunge.pipeline import run_folder
    from expunge.pipeline.plan import plan

    if resume:
        run_folder.same(request, Path(request.out))
    made = plan(request, resume=resume)
    if as_json:
        _show.emit(made.to_json())
        return 0
    from rich.table import Table
    from rich.text import Text

    from expunge.pipeline.resources import size

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    guess = made.estimate
    quiet = made.composed.objective is None and made.composed.kind != "exact"  # nothing is trained by steps of ours
    rows = [
        ("model", str(made.builtin or made.source)),
        ("method", f"{made.composed.name}: {_words(made.composed.described)}"),
        ("data", ", ".join(f"{name} {len(rows)}" for name, rows in made.splits.items())),
        *(
            []
            if quiet
            else [
                ("training", f"{made.steps} steps on about {made.tokens:,} tokens, batches of {made.batch}"),
                ("learning rate", made.learning_rate),
            ]
        ),
        ("stop", str(made.budget.stop) + (f"; retain floor {made.budget.floor:.0%}" if made.budget.floor else "")),
        ("gold", made.gold_work),
        ("moving", f"{guess.trainable:,} of {guess.parameters:,} parameters"),
        (
            "memory",
            f"about {size(guess.peak)} at the peak: {guess.sentence}; fits in "
            f"{size(made.budget.memory * 1e9 if made.budget.memory else guess.available)}",
        ),
        ("time", f"about {guess.seconds:.0f} s of training (a rough guess)"),
        *([("audit", made.audit)] if made.audit else []),
        *([("alignment", made.aligned.sentence)] if made.aligned else []),
        *[("accept", f"{rule.key} {rule.text}") for rule in made.rules],
        *[("note", note) for note in made.notes],
    ]
    for name, text in rows:
        table.add_row(name, Text(text))
    _show.console().print(table)
    return 0


def _words(described: Any) -> str:
    if not isinstance(described, dict):
        return str(described)
    return ", ".join(_part(name, value) for name, value in described.items() if value is not None)


def _part(name: str, value: Any) -> str:
    """`forget npo (beta 0.1)` of {"forget": {"npo": {"beta": 0.1}}}."""
    if not isinstance(value, dict):
        return f"{name} {value}"
    if len(value) == 1 and isinstance(next(iter(value.values())), dict):
        ((chosen, options),) = value.items()
        return f"{name} {chosen} ({_words(options)})" if _words(options) else f"{name} {chosen}"
    return f"{name} ({_words(value)})" if _words(value) else name
