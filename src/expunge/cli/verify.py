"""expunge verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Check that a run's files are unchanged since it ended.

Works on a copied folder, with or without salt.json. Exit code 0 if everything is as certified, otherwise 1,
whatever the verdict was. With --key a missing or wrong signature is 1; a key from the run's own folder proves
nothing. --measure also reads the model again, without the cache, and compares the figures: it needs the data that
the request names.

Of a model that a federation trained, the links of its rounds are checked too, and the claims that its clients signed,
with --parties by the public keys that you have of them; of a folder that `expunge train` wrote for a federation,
these alone.

Examples:

\b
  expunge verify runs/authors/certificate.json
  expunge verify runs/authors --measure
  expunge verify bases/federation
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify", help=HELP)(command)


def command(
    certificate: Annotated[str, typer.Argument(help="certificate.json, the run's folder, or a federation's.")],
    key: Annotated[str | None, typer.Option(help="The signer's public key.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Read the model again and compare the figures.")] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="With --measure: run code that comes with the model.")
    ] = False,
    parties: Annotated[str | None, typer.Option(help="A folder of clients' public keys, CLIENT.pub.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.workflows.verify import verify

    found = verify(
        certificate,
        Path(key) if key else None,
        measure=measure,
        trust_code=trust_code,
        parties=Path(parties) if parties else None,
        reporter=_show.reporter(),
    )
    if as_json:
        _show.emit(found.to_json())
        return 0 if found.good else 1
    say = _show.console().print
    measured = found.measured
    for line in [*found.differences, *(measured.lines if measured else []), *found.remarks]:
        say(line, markup=False)
    state = "NOT as certified" if found.differences else "all digests match"
    outcome = {True: "passed", False: "failed", None: "set no criteria"}[found.passed]
    verdict = f"the run {outcome}" if found.good else f"its verdict (the run {outcome}) is not to be relied on"
    if found.alone:
        say("The rounds " + ("follow from one another." if found.good else "do NOT go with one another and the model."))
        return 0 if found.good else 1
    say(f"{len(found.matching)} files checked, {state}; signature: {found.signature}; {verdict}.")
    return 0 if found.good else 1
