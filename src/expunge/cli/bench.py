"""expunge bench."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import _show

HELP = """Many methods on one base model with a shared gold: one leaderboard.

WHAT is authors (embedded), tofu, shakespeare (real data under ${EXPUNGE_DATA}), a published bench on
a model of yours (tofu:forget01, :forget05, :forget10; muse:news, muse:books; wmdp:cyber, wmdp:bio), or a
request.yaml of your own, whose method is put aside. Each run is an ordinary `expunge run` folder below
--out, and finished ones are reused: do the same again to go on after an interruption.

Examples:

  expunge bench authors

  expunge bench authors --methods npo,rmu,graddiff --seeds 3 --jobs 4

  expunge bench tofu --methods npo --grid npo.beta=0.05,0.1,0.5 --out runs/beta

  expunge bench tofu:forget10 --model open-unlearning/tofu_Llama-3.2-1B-Instruct_full --methods npo,rmu

  expunge bench wmdp:cyber --model models/zephyr --data data/hub --methods rmu

  expunge bench request.yaml --methods npo,simnpo --set budget.epochs=5 --json
"""


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("bench", help=HELP)(command)


def command(
    what: Annotated[str, typer.Argument(help="authors, tofu, shakespeare, BENCH:CHOICE, or a request file.")],
    methods: Annotated[str | None, typer.Option(help="Names with commas between; default: all that apply.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each method; two or more give intervals over seeds.")] = 1,
    grid: Annotated[list[str], typer.Option(help="A sweep: METHOD.OPTION=VALUE,VALUE; may be repeated.")] = [],  # noqa: B006
    model: Annotated[
        str | None, typer.Option(help="The model of a published bench, or instead of a request's.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The folder with a published bench's data sets; default: from the hub.")
    ] = None,
    sets: Annotated[list[str], typer.Option("--set", help="A field of all requests, key=value; may be repeated.")] = [],  # noqa: B006
    out: Annotated[
        str | None, typer.Option(help="The folder of runs and leaderboard; default: runs/bench-WHAT.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Runs at a time, each in a process of its own.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of each run; figures depend on it in their last digits.")] = 1,
    engine: Annotated[
        str, typer.Option(help="processes, or ray (the extra `ray`; folders must be shared).")
    ] = "processes",
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """The verb."""
    from expunge.core.request import parse_sets
    from expunge.workflows.bench import bench

    names = [name.strip() for name in methods.split(",") if name.strip()] if methods is not None else None
    found = bench(
        what,
        methods=names,
        seeds=seeds,
        grid=grid,
        sets=parse_sets(sets),
        out=out,
        jobs=jobs,
        engine=engine,
        threads=threads,
        model=model,
        data=data,
        reporter=_show.reporter(),
    )
    if as_json:
        _show.emit(found)
        return 0
    from expunge.report.leaderboard import print_leaderboard

    print_leaderboard(found, _show.console())
    _show.console().print(f"leaderboard.html: {out or 'runs/bench-' + found['bench']}/leaderboard.html", markup=False)
    return 0
