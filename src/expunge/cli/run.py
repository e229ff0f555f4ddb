"""expunge run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.cli import _show

if TYPE_CHECKING:
    from expunge.pipeline.plan import Plan

HELP = """Carry out a request: change the model, measure and judge.

Examples:

\b
  expunge run request.yaml
  expunge run request.yaml --plan            # check everything, change nothing
  expunge run request.yaml --resume          # continue after an interruption
  expunge run request.yaml --set method=rmu --set budget.epochs=3 --set out=runs/rmu
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", help=HELP)(command)


def command(
    request: Annotated[str, typer.Argument(help="The request, a YAML or JSON file.")],
    plan: Annotated[bool, typer.Option("--plan", help="Check the request and print the plan; change nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    sets: _show.Sets = None,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.core.request import parse_sets
    from expunge.pipeline.plan import read_request

    parsed = read_request(request, parse_sets(sets or ()), resume=resume)
    if plan:
        return _plan(parsed, resume, as_json)
    from expunge.workflows.run import run

    done = run(parsed, resume=resume, reporter=_show.reporter())
    from expunge.core import processes

    if processes.main():
        show(done.evidence, done.out, as_json)
    return _show.code(done.passed)


def show(evidence: dict[str, Any], out: Any, as_json: bool) -> None:
    """Print the evidence as text or as JSON."""
    if as_json:
        _show.emit(evidence)
        return
    from expunge.report.terminal import print_evidence

    print_evidence(evidence, _show.console(), out)


def _plan(request: Any, resume: bool, as_json: bool) -> int:
    """Check the request and print its plan."""
    from expunge.pipeline import run_folder
    from expunge.pipeline.plan import plan

    if resume:
        run_folder.same(request, Path(request.out))
    planned = plan(request, resume=resume)
    if as_json:
        _show.emit(planned.to_json())
        return 0
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in _plan_rows(planned):
        table.add_row(name, Text(text))
    _show.console().print(table)
    return 0


def _plan_rows(planned: Plan) -> list[tuple[str, str]]:
    """(name, text) of every line of a plan."""
    from expunge.pipeline.resources import size

    composed, budget, guess = planned.composed, planned.budget, planned.estimate
    rows = [
        ("model", str(planned.builtin or planned.source)),
        ("method", f"{composed.name}: {_words(composed.described)}"),
        *([("choice", planned.choice)] if planned.ladder else []),
        ("data", ", ".join(f"{name} {len(rows)}" for name, rows in planned.splits.items())),
    ]
    if composed.kind == "exact" and composed.method.steps is None:
        rows += [("training", "as the model was trained, once it is built")]
    elif composed.objective is not None or composed.kind == "exact":  # otherwise nothing is trained in steps of ours
        tokens = f"about {planned.tokens:,} tokens, batches of {planned.batch}"
        tokens += f"; {composed.ahead:,} of the tokens are beside these steps" if composed.ahead else ""
        rows += [
            ("training", f"{planned.steps} steps on {tokens}"),
            ("learning rate", planned.learning_rate),
        ]
    limit = size(budget.memory * 1e9 if budget.memory else guess.available)
    rows += [
        ("stop", str(budget.stop) + (f"; retain floor {budget.floor:.0%}" if budget.floor else "")),
        ("gold", planned.gold_work),
        *([("second gold", _second_gold(planned))] if planned.gold else []),
        ("trainable", f"{guess.trainable:,} of {guess.parameters:,} parameters"),
        ("memory", f"about {size(guess.peak)} at the peak: {guess.sentence}; fits in {limit}"),
        ("time", f"about {guess.seconds:.0f} s of training (a rough estimate)"),
    ]
    more = (("reading", planned.reading), ("answers", planned.answers), ("audit", planned.audit))
    rows += [(name, text) for name, text in more if text]
    if planned.aligned:
        rows.append(("alignment", planned.aligned.sentence))
    rows += [("accept", f"{rule.key} {rule.text}") for rule in planned.rules]
    return rows + [("note", note) for note in planned.notes]


def _second_gold(planned: Plan) -> str:
    """The source of a second gold model, or why there is none."""
    if not planned.second_gold:
        return f"none: {planned.second_gold_work}"
    return planned.second_gold_work if planned.second_gold == "train" else planned.second_gold


def _words(described: Any) -> str:
    if not isinstance(described, dict):
        return str(described)
    return ", ".join(_part(name, value) for name, value in described.items() if value is not None)


def _part(name: str, value: Any) -> str:
    """`forget npo (beta 0.1)` of {"forget": {"npo": {"beta": 0.1}}}."""
    if not isinstance(value, dict):
        return f"{name} {value}"
    if len(value) == 1 and isinstance(next(iter(value.values())), dict):
        ((part, options),) = value.items()
        return f"{name} {part} ({_words(options)})" if _words(options) else f"{name} {part}"
    return f"{name} ({_words(value)})" if _words(value) else name
