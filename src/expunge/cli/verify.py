"""expunge verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Check a certificate: are model, evidence and report what they were when the run ended.

Works on a copied folder. Exit 0 when all digests match, 1 otherwise, whatever the verdict was. With
--key a missing or wrong signature is 1; a key that lies beside the run proves nothing.

Example:

  expunge verify runs/authors/certificate.json
"""


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("verify", help=HELP)(command)


def command(
    certificate: Annotated[str, typer.Argument(help="certificate.json, or the run's folder.")],
    key: Annotated[str | None, typer.Option(help="The signer's public key.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from expunge.ledger.certificate import verify

    found = verify(Path(certificate), Path(key) if key else None)
    if as_json:
        _show.emit(found.to_json())
    else:
        say = _show.console().print
        for word, names in (("changed", found.changed), ("missing", found.missing), ("added", found.added)):
            for name in names:
                say(f"{word}: {name}", markup=False)
        verdict = {True: "passed", False: "failed", None: "had no bar"}[found.passed]
        state = "all digests match" if not (found.changed or found.missing or found.added) else "NOT as certified"
        say(f"{len(found.matching)} files checked, {state}; signature: {found.signature}; the run {verdict}.")
    return 0 if found.good else 1
