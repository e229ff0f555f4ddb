"""expunge mark."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli import _show

HELP = """Mark data, so that training on them can be detected later.

Mark data before you publish them. taggants: a share of the questions gets a false answer. traps: texts of random words
are inserted among the rows. Each mark has a secret twin from the same distribution: a model that finds the marks more
likely than their twins was trained on them (`expunge provenance`). The folder holds published.jsonl, to publish, and
marks.json, to keep.

--unlearnable protects pictures with labels instead: what is trained on published.jsonl hardly reads clean pictures.
`expunge list protections` shows the schemes; training against one of them brings most of that back.

Examples:

\b
  expunge mark data.jsonl --out marked
  expunge mark data.jsonl --out marked --kind traps --count 50 --length 12 --repeat 10
  expunge mark pictures.jsonl --out protected --unlearnable class_noise --set radius=0.2
"""

KIND = "taggants"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("mark", help=HELP)(command)


def command(
    data: Annotated[str, typer.Argument(help="The rows to mark: questions with answers, or texts.")],
    out: Annotated[str, typer.Option(help="A new folder for published.jsonl and marks.json.")],
    kind: Annotated[str, typer.Option(help="taggants or traps.")] = KIND,
    share: Annotated[
        float | None, typer.Option(help="Taggants: the share of rows with a false answer; default: 0.1.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Traps: their number; default: 50.")] = None,
    length: Annotated[int | None, typer.Option(help="Traps: words of each; default: 12.")] = None,
    repeat: Annotated[
        int | None,
        typer.Option(help="Traps: copies of each; default: 1. Large models learn what they see often."),
    ] = None,
    secret: Annotated[
        int | None,
        typer.Option(
            help="The seed of all draws, to reproduce them; default: random. Whoever guesses it knows the marks."
        ),
    ] = None,
    unlearnable: Annotated[
        str | None, typer.Option(help="Protect pictures: class_noise, class_filters or clusters.")
    ] = None,
    sets: _show.Sets = None,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.workflows.mark import mark

    given = {"--share": share, "--count": count, "--length": length, "--repeat": repeat}
    if unlearnable is not None:
        return _protect(data, out, unlearnable, sets, secret, given | {"--kind": kind != KIND and kind}, as_json)
    _check_unread({"--set": sets}, "marks of texts")
    done = mark(data, out=out, kind=kind, share=share, count=count, length=length, repeat=repeat, secret=secret)
    if as_json:
        _show.emit(done)
    else:
        _print(done, kind)
    return 0


def _print(done: dict[str, Any], kind: str) -> None:
    """Print what was marked, where it lies, and what to keep."""
    console = _show.console()
    false = " Their answers are false: do not mark data that people rely on." if kind == "taggants" else ""
    for line in (
        f"{done['marks']} {kind} in {done['rows']} rows.{false}",
        f"Publish: {done['published']}",
        f"Keep secret: {done['keep']} (SHA-256 {done['sha256']}).",
        "Without it nothing can be tested. Deposit its digest with a timestamping service now: that proves later that "
        "the marks were drawn before any model was trained on them.",
    ):
        console.print(line, markup=False, soft_wrap=True)


def _check_unread(given: dict[str, Any], what: str) -> None:
    """Raises BadInput for an option that says nothing to these."""
    from expunge.core.errors import BadInput

    for name, value in given.items():
        if value:
            raise BadInput.of(name, str(value), f"says nothing to {what}", "leave it out")


def _protect(
    data: str,
    out: str,
    scheme: str,
    sets: list[str] | None,
    secret: int | None,
    unread: dict[str, Any],
    as_json: bool,
) -> int:
    """Protect pictures, and print the figures."""
    from expunge.core.request import parse_sets
    from expunge.workflows.protect import protect

    _check_unread(unread, "protected pictures")
    done = protect(data, out=out, scheme={scheme: parse_sets(sets or [])}, secret=secret)
    if as_json:
        _show.emit(done)
        return 0
    console = _show.console()
    for line in (
        f"{done['rows']} pictures protected by {done['scheme']}: a pixel changed by {done['mean_change']} in the mean "
        f"and {done['largest_change']} at most, of 1.",
        f"Publish: {done['published']}",
        "Keep the clean pictures: whoever has a share of them, or trains against the scheme, learns from both.",
    ):
        console.print(line, markup=False, soft_wrap=True)
    return 0
