"""expunge neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from expunge.cli import _show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from expunge.core.card import Example
    from expunge.workflows.neighbours import Neighbour

HELP = """Find other rows that hold the knowledge to be forgotten.

A model relearns whatever remains in its training data. For each row of the forget set, the command finds the
corpus rows with the same text (exact), nearly the same text (near: MinHash), a shared rare name (entity), or
similar content (similar: TF-IDF, or a model's hidden states).

Examples:

\b
  expunge neighbours --forget f.jsonl --corpus r.jsonl
  expunge neighbours --forget f.jsonl --corpus r.jsonl --model BASE --out more.jsonl
"""
SHOWN_ROWS = 50


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("neighbours", help=HELP)(command)


def command(
    forget: Annotated[str, typer.Option(help="The forget set.")],
    corpus: Annotated[str, typer.Option(help="The rest of the training data.")],
    model: Annotated[str | None, typer.Option(help="A language model whose hidden states measure similarity.")] = None,
    near: Annotated[float, typer.Option(help="Least Jaccard similarity of a near duplicate.")] = 0.5,
    similar: Annotated[float | None, typer.Option(help="Least cosine; default: 0.4, with a model 0.7.")] = None,
    top: Annotated[int, typer.Option(help="Most neighbours by cosine per forget row.")] = 5,
    out: Annotated[str | None, typer.Option(help="A new JSONL file for the corpus rows found.")] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Show row numbers and scores, but no text and no name.")
    ] = False,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.workflows.neighbours import Thresholds, counts, rows, search

    found, read = search(
        forget,
        corpus,
        model=model,
        thresholds=Thresholds(near, similar, top),
        out=out,
        redact=redact,
        reporter=_show.reporter(),
    )
    corpus_rows = len({one.corpus for one in found})
    if as_json:
        _show.emit({"rows": rows(found), "counts": counts(found), "corpus_rows": corpus_rows})
        return 0
    if found:
        _print_table(found[:SHOWN_ROWS], read, redact)
    shown = f"; {SHOWN_ROWS} are shown" if len(found) > SHOWN_ROWS else ""
    kinds = ", ".join(f"{n} {why}" for why, n in counts(found).items()) or "none"
    console = _show.console()
    console.print(f"{len(found)} neighbours ({kinds}) in {corpus_rows} corpus rows{shown}.", markup=False)
    if out:
        console.print(f"Written to {out}: check it, then add it to the forget set.", markup=False)
    return 0


def _print_table(found: list[Neighbour], corpus: Sequence[Example], redact: bool) -> None:
    """Print one line per neighbour. redact: without texts."""
    from rich.table import Table
    from rich.text import Text

    from expunge.data.texts import text_of

    table = Table(box=None, pad_edge=False, expand=True)
    for column in ("forget", "corpus", "score", "why"):
        table.add_column(column, no_wrap=True)
    if not redact:
        table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    for one in found:
        why = f"{one.why}: {one.shared}" if one.shared and one.why == "entity" else one.why
        text = [] if redact else [Text(" ".join(text_of(corpus[one.corpus - 1]).split())[:300])]
        table.add_row(str(one.forget), str(one.corpus), f"{one.score:.2f}", Text(why), *text)
    _show.console().print(table)
