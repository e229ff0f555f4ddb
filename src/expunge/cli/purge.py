"""expunge purge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Delete what a run still holds of the forget data: caches, checkpoints, samples.

Also for the folder of an audit, an exposure, a bench or a tuning (with all its runs), and for a killed training.

The model, the figures and the certificate's salted commitments stay; texts in evidence and report
are taken out, and the certificate is written anew over what is left.

Examples:

  expunge purge runs/authors

  expunge purge --cache        # what audits without --out, and runs whose folder is gone, left in the cache

A guard holds traces of what it keeps back, and without it the model answers as before: it stays unless you say
--guards.
"""


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("purge", help=HELP)(command)


def command(
    run: Annotated[str, typer.Argument(help="The folder of a run, an audit, a bench, a tuning or a training.")] = "",
    guards: Annotated[bool, typer.Option("--guards", help="Take the model's guards away too.")] = False,
    caches: Annotated[bool, typer.Option("--cache", help="Empty the cache of all runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from expunge.core.errors import BadInput
    from expunge.workflows.purge import purge, purge_cache

    if not run and not caches:
        raise BadInput.of("run", "", "is missing", "give a folder, or --cache")
    gone = [*(purge(Path(run), guards=guards) if run else []), *(purge_cache() if caches else [])]
    if as_json:
        _show.emit({"deleted": gone})
        return 0
    say = _show.console().print
    for name in gone:
        say(f"deleted {name}", markup=False)
    if run and (Path(run) / "model" / "guard").is_dir():
        say(
            "kept model/guard, which holds traces of the forget set: --guards takes it away, and the model then answers "
            "as before",
            markup=False,
        )
    say(f"{len(gone)} things deleted; the base model, and a gold model that you gave, are yours to delete.")
    return 0
