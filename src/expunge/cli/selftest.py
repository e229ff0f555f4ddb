"""expunge selftest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from expunge.cli import _show

if TYPE_CHECKING:
    from expunge.workflows.selftest import Selftest

HELP = """Judge models of known truth: untouched, destroyed, over-forgotten and disguised models must fail, a retrained
one must not.

Without a model on two embedded worlds, whose models are trained on first use: that takes minutes. With a model the
controls are made from it, in memory; nothing of it is changed. Two --gold folders: the second is the retrained model
that must not fail. Without --gold the model is retrained from its manifest.

Exit code 1: a control came out wrong, and no verdict of this version on such data can be relied on.

Examples:

  expunge selftest

  expunge selftest MODEL --forget f.jsonl --retain r.jsonl --holdout h.jsonl --gold RETRAINED

  expunge selftest MODEL --forget f.jsonl --holdout h.jsonl --gold RETRAINED --gold RETRAINED_AGAIN --json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("selftest", help=HELP)(command)


def command(
    model: Annotated[str | None, typer.Argument(help="A model before any change: a folder or a hub name.")] = None,
    forget: Annotated[str | None, typer.Option(help="What it would have to forget.")] = None,
    retain: Annotated[str | None, typer.Option(help="A sample of what must stay.")] = None,
    holdout: Annotated[str | None, typer.Option(help="Like forget, never trained on.")] = None,
    gold: Annotated[list[str], typer.Option(help="A model retrained without the forget set; may be given twice.")] = [],  # noqa: B006
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.workflows.selftest import selftest

    found = selftest(model, forget=forget, retain=retain, holdout=holdout, gold=gold, reporter=_show.reporter())
    if as_json:
        _show.emit(found.to_json())
    else:
        _print(found)
    return _show.code(found.passed)


def _print(found: Selftest) -> None:
    """Print a row per control, and a sentence. Reasons are in the JSON; here those of what needs one to be read."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("", "control", "expected", "outcome", "decided by"):
        table.add_column(title, overflow="fold")
    setting = ""
    for result in found.results:
        if result.setting != setting:
            setting = result.setting
            table.add_row("", Text(setting, style="bold"))
        sign, style = {True: ("ok", "green"), False: ("WRONG", "bold red"), None: ("-", "dim")}[result.right]
        control = Text(result.control.name).append(f"\n{result.control.what}", style="dim")
        decided = Text(result.line)
        if result.why and (not result.line or not result.right):
            decided.append(f"\n{result.why}" if result.line else result.why, style="dim")
        table.add_row(Text(sign, style=style), control, result.control.expected, Text(result.outcome), decided)
    console = _show.console()
    console.print(table)
    wrong = [f"{result.control.name} ({result.setting})" for result in found.results if result.right is False]
    missing = sum(result.right is None for result in found.results)
    right = len(found.results) - len(wrong) - missing
    counts = f"{right} of {len(found.results)} controls came out right" + (f", {missing} not run" if missing else "")
    console.print(f"{counts}, in {found.seconds:.0f} s." + (f" Wrong: {', '.join(wrong)}." if wrong else ""))
