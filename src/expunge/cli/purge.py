"""expunge purge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Delete the forget data that a run still holds.

These are cache entries, checkpoints and samples. The folder may be that of a run, an audit, an exposure, a bench or a
tuning (with all its runs), or a killed training. Of a model that a federation trained, what its server kept of the
rounds is deleted; verdicts and facts stay, but erase_client, federaser and distil_others need it.

The model, the figures and the certificate's salted commitments stay. Texts are removed from evidence and report,
and the certificate is renewed over the remaining files.

Examples:

\b
  expunge purge runs/authors
  expunge purge bases/federation  # federation.safetensors, after the last client that had to leave
  expunge purge --cache        # entries of audits without --out, and of runs whose folder is gone

A guard holds traces of the forget set, and without it the model answers as before: it stays unless you give --guards.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("purge", help=HELP)(command)


def command(
    run: Annotated[str, typer.Argument(help="The folder of a run, an audit, a bench, a tuning or a training.")] = "",
    guards: Annotated[bool, typer.Option("--guards", help="Delete the model's guards too.")] = False,
    caches: Annotated[bool, typer.Option("--cache", help="Empty the cache of all runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.core.errors import BadInput
    from expunge.workflows.purge import purge, purge_cache, records_of

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
            "kept model/guard, which holds traces of the forget set; --guards deletes it, and the model then answers "
            "as before",
            markup=False,
        )
    for record in records_of(Path(run)) if run else []:
        say(
            f"kept {record}, which holds what each client sent, the erased one too; expunge purge {record.parent} "
            "deletes it, and no client can then leave by a method that reads it",
            markup=False,
        )
    say(f"{len(gone)} items deleted. The base model, and a gold model of your own, are yours to delete.")
    return 0
