"""expunge bench."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli import _show

HELP = """Compare many methods on the same base models, in a leaderboard.

All runs share a base and its gold model. WHAT is authors, digits or shapes (embedded; authors@1-3: the worlds of three
seeds in one leaderboard), mnist, fashion, mnist_noisy or fashion_noisy (pictures that scripts/fetch_pictures fetches),
tofu or shakespeare (real data under ${EXPUNGE_DATA}), a published bench on a model of yours (tofu:forget01, :forget05,
:forget10; muse:news, muse:books; wmdp:cyber, wmdp:bio), or your own request.yaml, whose method is ignored. --seeds
varies the runs on a fixed base; --bases trains further bases, each with a gold of its own, and says how much of a
figure's spread comes from the base. Each run is an ordinary `expunge run` folder below --out. Finished runs are reused:
run the same command again to continue after an interruption.

Examples:

\b
  expunge bench authors
  expunge bench authors@1-3 --methods npo,rmu,graddiff --seeds 3 --jobs 4
  expunge bench authors --methods npo,rmu --bases 3 --seeds 3
  expunge bench tofu --methods npo --grid npo.beta=0.05,0.1,0.5 --out runs/beta
  expunge bench tofu:forget10 --model open-unlearning/tofu_Llama-3.2-1B-Instruct_full --methods npo,rmu
  expunge bench wmdp:cyber --model models/zephyr --data data/hub --methods rmu
  expunge bench request.yaml --methods npo,simnpo --set budget.epochs=5 --json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", help=HELP)(command)


def command(
    what: Annotated[
        str,
        typer.Argument(help="authors, authors@1-3, digits, mnist, tofu, BENCH:CHOICE, or a request file."),
    ],
    methods: Annotated[str | None, typer.Option(help="Names separated by commas; default: all that apply.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of each method's runs on a base; two or more give intervals.")] = 1,
    bases: Annotated[int, typer.Option(help="Bases of each world, trained from as many seeds and cached.")] = 1,
    grid: Annotated[
        list[str] | None, typer.Option(metavar="METHOD.OPTION=VALUE,...", help="A sweep; may be repeated.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model for a published bench, or in place of a request's.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The folder with a published bench's data sets; default: from the hub.")
    ] = None,
    sets: _show.Sets = None,
    out: Annotated[
        str | None, typer.Option(help="The folder of runs and leaderboard; default: runs/bench-WHAT.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Parallel runs, each in its own process.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads per run; the last digits of the figures depend on it.")] = 1,
    engine: Annotated[
        str, typer.Option(help="processes, ray (extra `ray`), or slurm (writes a job array); all must see the folders.")
    ] = "processes",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With slurm: print script and jobs, write nothing.")
    ] = False,
    env: _show.Env = None,
    as_json: Annotated[bool, typer.Option("--json", help=_show.JSON_HELP)] = False,
) -> int:
    """Run the command."""
    from expunge.core.request import parse_sets
    from expunge.workflows.bench import bench

    names = [name.strip() for name in methods.split(",") if name.strip()] if methods is not None else None
    found = bench(
        what,
        methods=names,
        seeds=seeds,
        bases=bases,
        grid=grid or [],
        sets=parse_sets(sets or ()),
        out=out,
        jobs=jobs,
        engine=engine,
        threads=threads,
        dry_run=dry_run,
        model=model,
        data=data,
        reporter=_show.reporter(),
    )
    if as_json:
        _show.emit(found)
    elif engine == "slurm":
        _print_array(found, dry_run)
    else:
        _print_board(found, out)
    return 0


def _print_board(found: dict[str, Any], out: str | None) -> None:
    """The leaderboard, and where its page lies."""
    from expunge.report.leaderboard import print_leaderboard

    print_leaderboard(found, _show.console())
    _show.console().print(f"leaderboard.html: {out or 'runs/bench-' + found['bench']}/leaderboard.html", markup=False)


def _print_array(found: dict[str, Any], dry_run: bool) -> None:
    """The job array: as a whole in a dry run, else what to do with it."""
    console, count = _show.console(), len(found["jobs"])
    if dry_run:
        console.print(found["script"])
        for number, job in enumerate(found["jobs"]):
            console.print(f"{number}: {job['method']}, seed {job['seed']}: {job['out']}")
        console.print(f"{count} jobs; nothing was written. Methods that do not apply are left out when it is.")
        return
    console.print(f"{count} jobs: sbatch {found['path']}")
    console.print("When they are done, the same command without --engine slurm writes the leaderboard.")
