"""expunge verify."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Check a certificate: are model, evidence and report what they were when the run ended.

Works on a copied folder, with or without salt.json. Exit 0 when all is as certified, 1 otherwise, whatever the
verdict was. With --key a missing or wrong signature is 1; a key that lies beside the run proves nothing. --measure
also reads the model again, with no cache, and compares the figures: it needs the data that the request names.

Examples:

  expunge verify runs/authors/certificate.json

  expunge verify runs/authors --measure
"""


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("verify", help=HELP)(command)


def command(
    certificate: Annotated[str, typer.Argument(help="certificate.json, or the run's folder.")],
    key: Annotated[str | None, typer.Option(help="The signer's public key.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Read the model again and compare the figures.")] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="With --measure: the model may bring code of its own.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from pathlib import Path

    from expunge.workflows.verify import verify

    found = verify(
        certificate, Path(key) if key else None, measure=measure, trust_code=trust_code, reporter=_show.reporter()
    )
    if as_json:
        _show.emit(found.to_json())
        return 0 if found.good else 1
    say = _show.console().print
    measured = found.measured
    for line in [*found.differences, *(measured.lines if measured else []), *found.remarks]:
        say(line, markup=False)
    state = "NOT as certified" if found.differences else "all digests match"
    verdict = {True: "passed", False: "failed", None: "had no bar"}[found.passed]
    told = f"the run {verdict}" if found.good else f"that the run {verdict} is not to be relied on"
    say(f"{len(found.matching)} files checked, {state}; signature: {found.signature}; {told}.")
    return 0 if found.good else 1
