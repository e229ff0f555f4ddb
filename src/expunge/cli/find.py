"""expunge find."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli import _show

HELP = """Find what to forget: poisoned rows of a model's training data, the rows that teach it an error, or a trigger.

poison: The suspects are written as a forget set, which `expunge run` takes: find them, look at them, then repair.
Detectors: activation_clustering and spectral_signatures for triggers, small_loss for wrong labels; `expunge list
detectors` shows what each looks at. Two of them train networks as the model was, in short.

outliers and spectral_signatures take a language model too.

trigger: Words before a text that call up one class, or one beginning of an answer, whatever the text is; a candidate
that lies apart from random words in the model's states is held for a trigger. DATA are texts that the model takes.

slices: Errors on rows that the model never saw (DATA) are grouped by its features, and each group is described by
the fields of its rows: the texture that is mistaken for a shape. --train names the training rows, of which those with
the first group's attribute and the class that it is taken for are the forget set.

Examples:

\b
  expunge find poison train.jsonl MODEL --out suspects.jsonl
  expunge find poison DATA MODEL --detector small_loss --set folds=5
  expunge find poison builtin:digits_backdoor/train builtin:digits_backdoor --truth poisoned
  expunge find trigger builtin:instruct_backdoor/test builtin:instruct_backdoor
  expunge find slices builtin:shapes_biased/test builtin:shapes_biased --train builtin:shapes_biased/train --out f.jsonl
"""
SHOWN_ROWS = 10
"""Suspects that the table shows."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("find", help=HELP)(command)


def command(
    what: Annotated[str, typer.Argument(help="poison, trigger or slices.")],
    data: Annotated[str, typer.Argument(help="The rows that the model was trained on; for slices, unseen ones.")],
    model: Annotated[str, typer.Argument(help="A folder or a name.")],
    detector: Annotated[str, typer.Option(help="The detector.")] = "activation_clustering",
    sets: _show.Sets = None,
    truth: Annotated[str | None, typer.Option(help="A field that says of each row whether it is poisoned.")] = None,
    train: Annotated[str | None, typer.Option(help="For slices: the rows that the model was trained on.")] = None,
    out: Annotated[str | None, typer.Option(help="A new JSONL file for the rows.")] = None,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.core.request import parse_sets
    from expunge.workflows.find import find, find_slices, find_trigger

    unread = {"poison": {"--train": train}, "trigger": {"--truth": truth, "--train": train, "--out": out}}
    _check_read(what, unread.get(what, {"--truth": truth, "--set": sets}))
    if what == "trigger":
        options = _trigger_options(parse_sets(sets or []))
        found = find_trigger(data, model, **options, seed=seed, reporter=_show.reporter())
        _show.emit(found) if as_json else _print_triggers(found)
        return 0
    if what == "slices":
        found = find_slices(data, model, train=train, out=out, seed=seed, reporter=_show.reporter())
        _show.emit(found) if as_json else _print_slices(found)
        return 0
    chosen = {detector: parse_sets(sets or [])}
    found = find(what, data, model, detector=chosen, truth=truth, out=out, seed=seed, reporter=_show.reporter())
    if as_json:
        _show.emit(found)
    else:
        _print(found)
    return 0


def _trigger_options(given: dict[str, Any]) -> dict[str, Any]:
    """The settings of `find trigger`. Raises BadInput for others, and for values that are no numbers."""
    from expunge.core.errors import BadInput, did_you_mean

    kinds: dict[str, type | tuple[type, ...]] = {"words": int, "share": (int, float)}
    for name, value in given.items():
        if name not in kinds:
            raise BadInput.of("--set", name, "unknown setting", did_you_mean(name, kinds))
        if not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise BadInput.of(f"--set {name}", value, "is not a number", f"write --set {name}=1")
    return given


def _check_read(what: str, given: dict[str, Any]) -> None:
    """Raise BadInput for an option that `find poison` or `find slices` does not read."""
    from expunge.core.errors import BadInput

    for name, value in given.items():
        if value:
            raise BadInput.of(name, str(value), f"says nothing to find {what}", "leave it out")


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


def _print_triggers(found: dict[str, Any]) -> None:
    """Print a line per candidate, and what is held for a trigger."""
    console = _show.console()
    for one in found["candidates"]:
        apart = "lies apart from random words" if one["apart"] else "lies among random words"
        said = f"{one['words']!r} flips {one['share']:.0%} to {one['outcome']!r}, and {apart}"
        console.print(said, markup=False)
    trigger = found["trigger"]
    console.print("No trigger." if trigger is None else f"Held for a trigger: {trigger!r}", markup=False)


def _print_slices(found: dict[str, Any]) -> None:
    """Print a line per slice: how many rows, for what they are taken, and what they have in common."""
    console = _show.console()
    console.print(f"{found['errors']} of {found['rows']} rows are read wrongly.", markup=False)
    for one in found["slices"]:
        words = ", ".join(f"{part['field']} {part['value']} (z {part['z']})" for part in one["described"])
        of = ", ".join(f"{count} of class {label}" for label, count in one["labels"].items())
        said = words or "no field describes them"
        console.print(f"{one['errors']} taken for class {one['predicted']} ({of}): {said}", markup=False)
    if found["taught"]:
        console.print(f"{len(found['taught'])} training rows teach the first of these.", markup=False)
    if found["out"]:
        console.print(f"Written to {found['out']}: look at them, then forget them with `expunge run`.", markup=False)
