"""expunge purge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Delete what a run still holds of the forget data: caches, checkpoints, samples.

The model, the figures and the certificate's salted commitments stay; texts in evidence and report
are taken out, and the certificate is written anew over what is left.

Example:

  expunge purge runs/authors

A guard holds traces of what it keeps back, and without it the model answers as before: it stays unless you say
--guards.
"""


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("purge", help=HELP)(command)


def command(
    run: Annotated[str, typer.Argument(help="The folder of a run.")],
    guards: Annotated[bool, typer.Option("--guards", help="Take the model's guards away too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from expunge.purge import purge

    gone = purge(Path(run), guards=guards)
    left = (Path(run) / "model" / "guard").is_dir()
    if as_json:
        _show.emit({"deleted": gone})
    else:
        for name in gone:
            _show.console().print(f"deleted {name}", markup=False)
        if left:
            _show.console().print("kept model/guard, which holds traces of the forget set: --guards takes it away, and the "
                                  "model then answers as before", markup=False)  # fmt: skip
        _show.console().print(f"{len(gone)} things deleted; a base or gold model in use elsewhere is yours to delete.")
    return 0
