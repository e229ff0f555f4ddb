"""expunge neighbours."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Find what else holds the knowledge that is to be forgotten.

What stays in the training data is learned from there. For each row of the forget set, corpus rows are
found that say the same (exact), nearly the same (near: MinHash), share a rare name (entity), or are
alike (similar: TF-IDF, or the embedding of a model).

Examples:

  expunge neighbours --forget f.jsonl --corpus r.jsonl

  expunge neighbours --forget f.jsonl --corpus r.jsonl --model BASE --out more.jsonl
"""
SHOWN = 50


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("neighbours", help=HELP)(command)


def command(
    forget: Annotated[str, typer.Option(help="What is to be forgotten.")],
    corpus: Annotated[str, typer.Option(help="Where else to look: the rest of the training data.")],
    model: Annotated[str | None, typer.Option(help="A language model whose hidden states say what is alike.")] = None,
    near: Annotated[float, typer.Option(help="Least Jaccard similarity of a near duplicate.")] = 0.5,
    similar: Annotated[float | None, typer.Option(help="Least cosine; default: 0.4, with a model 0.7.")] = None,
    top: Annotated[int, typer.Option(help="Neighbours by cosine of each forget row, at most.")] = 5,
    out: Annotated[str | None, typer.Option(help="A new JSONL file for the corpus rows found.")] = None,
    redact: Annotated[bool, typer.Option("--redact", help="Show row numbers and scores, no text and no name.")] = False,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from expunge.workflows.neighbours import counts, neighbours, rows

    found = neighbours(
        forget,
        corpus,
        model=model,
        near=near,
        similar=similar,
        top=top,
        out=out,
        redact=redact,
        reporter=_show.reporter(),
    )
    if as_json:
        _show.emit({"rows": rows(found), "counts": counts(found), "corpus_rows": len({n.corpus for n in found})})
        return 0
    from rich.table import Table
    from rich.text import Text

    from expunge.data.load import load
    from expunge.data.texts import text_of

    table = Table(box=None, pad_edge=False, expand=True)
    for column in ("forget", "corpus", "score", "why"):
        table.add_column(column, no_wrap=True)
    if not redact:
        table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    texts = load(corpus, "corpus")
    for one in found[:SHOWN]:
        why = f"{one.why}: {one.shared}" if one.shared and one.why == "entity" else one.why
        text = [] if redact else [Text(" ".join(text_of(texts[one.corpus - 1]).split())[:300])]
        table.add_row(str(one.forget), str(one.corpus), f"{one.score:.2f}", Text(why), *text)
    console = _show.console()
    if found:
        console.print(table)
    left = f", of which {SHOWN} are shown" if len(found) > SHOWN else ""
    said = ", ".join(f"{n} {why}" for why, n in counts(found).items()) or "none"
    console.print(
        f"{len(found)} neighbours ({said}) in {len({n.corpus for n in found})} corpus rows{left}.", markup=False
    )
    if out:
        console.print(f"Written to {out}: look through it, then add it to the forget set.", markup=False)
    return 0
