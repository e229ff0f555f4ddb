"""expunge train."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Train a base model, with the same loop as gold models.

The output folder opens with from_pretrained and holds a manifest, from which `expunge run` retrains the model
without the forget set.

Examples:

\b
  expunge train examples/tofu_base.yaml
  expunge train train.yaml --set epochs=20 --set out=bases/longer
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", help=HELP)(command)


def command(
    config: Annotated[str, typer.Argument(help="The training configuration, a YAML or JSON file.")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")] = False,
    sets: _show.Sets = None,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.core.errors import Interrupted
    from expunge.core.request import parse_sets
    from expunge.core.train_config import TrainConfig
    from expunge.models.manifest import read_manifest
    from expunge.pipeline.train import train

    parsed = TrainConfig.read(config, parse_sets(sets or ()))
    try:
        out = train(parsed, reporter=_show.reporter(), resume=resume)
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted. Continue with the same command and --resume ({parsed.out}).") from None
    manifest = read_manifest(out)
    shown = {
        "out": str(out),
        **{k: manifest[k] for k in ("steps", "tokens", "seconds", "learning_rate", "seed")},
        "examples": len(manifest["hashes"]),
    }
    if as_json:
        _show.emit(shown)
    else:
        _show.console().print(
            f"Trained on {shown['examples']} examples in {shown['seconds']:.1f} s "
            f"({shown['steps']} steps, {shown['tokens']:,} answer tokens): {out}"
        )
    return 0
