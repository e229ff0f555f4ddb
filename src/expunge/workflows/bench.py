"""Many methods on the same bases and golds: each an ordinary run, all together a leaderboard."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from expunge.core import processes
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput, Faults, Interrupted
from expunge.core.files import write_json, write_text
from expunge.core.parallel import ENGINES, check, spread, threads_of_torch
from expunge.core.request import Request, parse, put, redact_request
from expunge.core.variables import expand
from expunge.pipeline import evidence, out_folder
from expunge.report import ranking, variance
from expunge.report.leaderboard import render
from expunge.workflows._bench_entries import Entry, check_folders, entries_of, in_sequence
from expunge.workflows._bench_rows import Finished, Planned, rows_of
from expunge.workflows._bench_settings import Setting, check_bases, setting_of, settings_of
from expunge.workflows._bench_shared import NEUTRAL, SharedBase, SharedFigures, pooled_figures, read_shared
from expunge.workflows._bench_slurm import JobArray
from expunge.workflows.benches import Bench, benches_of
from expunge.workflows.run import run

SLURM = "slurm"
"""The engine that writes a job array and runs nothing."""


class BenchRequest(BaseModel):
    """The methods to compare, on what, and how the runs are spread.

    name: authors, digits, shapes, mnist, fashion, mnist_noisy or fashion_noisy (authors@2: the world of seed 2,
    authors@1-3: three worlds), tofu, shakespeare, a published bench such as tofu:forget10, or a request file. methods:
    all that apply unless named. seeds: of the requests, on a fixed base. bases: models per world, trained from as many
    seeds.
    grid: lines METHOD.OPTION=VALUE,VALUE. sets: fields of all requests. model, data: as in `benches.bench_of`. threads:
    of each run. engine: processes, ray, or slurm, which writes a job array in the place of running. dry_run: with
    slurm, write and train nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    methods: list[str] | None = None
    seeds: Annotated[int, Field(gt=0)] = 1
    bases: Annotated[int, Field(gt=0)] = 1
    grid: list[str] = []
    sets: dict[str, Any] = {}
    out: str | None = None
    jobs: int = 1
    engine: str = "processes"
    threads: int = 1
    dry_run: bool = False
    model: str | None = None
    data: str | None = None

    @classmethod
    def of(cls, given: BenchRequest | Mapping[str, Any] | str | None, fields: Mapping[str, Any]) -> BenchRequest:
        """A request, its fields, or a bench's name, with further fields over it. Raises BadInput."""
        if isinstance(given, BenchRequest):
            given = given.model_dump(exclude_unset=True)
        elif isinstance(given, str):
            given = {"name": given}
        return parse(cls, {**(given or {}), **fields}, whole="bench")


@dataclass(frozen=True)
class _Job:
    """A bench, checked as far as it can be without its models."""

    request: BenchRequest
    worlds: list[Bench]
    entries: list[Entry]
    seeds: list[int]
    folder: Path
    redact: bool

    @property
    def first(self) -> Bench:
        """The first world, whose columns are those of all."""
        return self.worlds[0]


def bench(
    request: BenchRequest | Mapping[str, Any] | str | None = None, *, reporter: Reporter | None = None, **fields: Any
) -> dict[str, Any]:
    """Run methods on the same bases, and write leaderboard.json and leaderboard.html to `out`; returns the former.

    request: a BenchRequest, its fields, or the bench's name; fields may also be given as keywords, as in
    `bench("authors", methods=["npo", "rmu"])`. Each run is a folder `out/METHOD/seed-N`, below `out/WORLD` and `base-I`
    where there are several; finished ones are reused. A method that fails is a row with its sentence. Under
    `engine="slurm"` the runs are written to `out/slurm` as a job array, which is returned: once it is done, the same
    call with another engine writes the leaderboard. Raises BadInput before anything is trained or written, except that
    bases are trained in the cache.
    """
    reporter = reporter or Silent()
    job = _bind(BenchRequest.of(request, fields))
    if job.request.dry_run:
        return _array(job, _runs(job, _bare_settings(job), job.entries)).to_json()
    with _resumable(job.folder), out_folder.hold(job.folder):
        with threads_of_torch(job.request.threads):
            shared, entries, skipped = _read_settings(job, reporter)
        wanted = _runs(job, list(shared), entries)
        if job.request.engine == SLURM:
            array = _array(job, wanted)
            array.write()
            return array.to_json()
        rows = rows_of(entries, _run_all(job, wanted, reporter), job.redact)
        board = _board(job, rows, shared, skipped)
        write_text(job.folder / "leaderboard.html", render(board))
        write_json(job.folder / "leaderboard.json", board)
    return board


def _runs(job: _Job, settings: Sequence[Setting], entries: Sequence[Entry]) -> list[Planned]:
    """Every row on every base, from every seed."""
    return [Planned(*one) for one in itertools.product(settings, entries, job.seeds)]


def _array(job: _Job, runs: Sequence[Planned]) -> JobArray:
    how = job.request
    return JobArray(how.name if len(job.worlds) > 1 else job.first.name, job.folder, runs, how.jobs, how.threads)


def _bare_settings(job: _Job) -> list[Setting]:
    """Every base of every world, untrained: a dry run shows where its runs would lie."""
    bases = range(job.request.bases)
    return [
        setting_of(job.worlds, job.request.bases, job.folder, world, base) for world in job.worlds for base in bases
    ]


def _read_settings(
    job: _Job, reporter: Reporter
) -> tuple[dict[Setting, SharedFigures], list[Entry], list[dict[str, str]]]:
    """(each base with what was read of it and its golds, the rows to be, the methods that do not apply)."""
    entries, skipped = job.entries, list[dict[str, str]]()
    found: dict[Setting, SharedFigures] = {}
    for setting in settings_of(job.worlds, job.request.bases, job.folder, reporter):
        shared = SharedBase.open(setting.request, job.seeds, setting.folder, reporter)
        if not found:
            entries, skipped = shared.fitting(job.entries, job.redact)
            for entry in skipped:
                reporter.say(f"skipped {entry['method']}: {entry['why']}")
        check_folders(setting.request, entries, job.seeds, setting.folder)
        found[setting] = read_shared(shared, reporter, setting.group)
    return found, entries, skipped


def _board(
    job: _Job,
    rows: list[dict[str, Any]],
    shared: Mapping[Setting, SharedFigures],
    skipped: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """leaderboard.json."""
    board = {
        "bench": job.request.name if len(job.worlds) > 1 else job.first.name,
        "rows": rows,
        **pooled_figures(list(shared.values())),
        "seeds": job.seeds,
        "bases": job.request.bases,
        "settings": [setting.to_json() | figures.to_json() for setting, figures in shared.items()],
        "components": variance.mean_components(row["components"] for row in rows if row.get("components")),
        "skipped": list(skipped),
        "ways": job.first.ways,
        "shown": list(job.first.shown),
        "request": redact_request(job.first.request) if job.redact else job.first.request,
        "environment": {**evidence.environment(), "threads": job.request.threads},
    }
    ranking.mark_front(rows, board["gold"])
    return board


def _bind(wanted: BenchRequest) -> _Job:
    """The bench with its base, rows and folder. Raises BadInput with all faults; nothing is written."""
    worlds = benches_of(wanted.name, model=wanted.model, data=wanted.data)
    for world in worlds:
        for key, value in wanted.sets.items():
            put(world.request, key, value)
    base = worlds[0]
    several = f"runs/bench-{wanted.name}" if len(worlds) > 1 else f"runs/bench-{base.name}"
    folder = Path(expand(wanted.out, "--out") if wanted.out else several)
    faults = Faults()
    with faults:
        check_bases(base, wanted.bases)
    with faults:
        check(wanted.jobs, wanted.engine, wanted.threads, (*ENGINES, SLURM))
        if wanted.dry_run and wanted.engine != SLURM:
            raise BadInput.of("--dry-run", "", "shows a job array, and none was asked for", "add --engine slurm")
    if processes.world() > 1:
        faults.add(BadInput.of("bench", wanted.name, "cannot run under a launcher of several processes", "use --jobs"))
    entries: list[Entry] = []
    with faults:
        entries = entries_of(wanted.methods, wanted.grid)
        if base.sequence:
            entries += in_sequence(entries, base.sequence)
    first, redact = 0, False
    with faults:
        whole = Request.parse({**base.request, "method": NEUTRAL, "out": str(folder)})
        first, redact = whole.seed, whole.redacted
    faults.raise_any()
    forget = base.request.get("forget")
    if wanted.seeds > 1 and isinstance(forget, Mapping) and "random" in forget:
        raise BadInput.of(
            "forget",
            forget,
            "selects anew for each seed, and gold could not be shared",
            "put the forget set into a file, or leave --seeds out",
        )
    seeds = [first + i for i in range(wanted.seeds)]
    if len(worlds) == wanted.bases == 1:
        check_folders(base.request, entries, seeds, folder)
    return _Job(wanted, worlds, entries, seeds, folder, redact)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Inside, Ctrl-C becomes Interrupted, with how to go on."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(f"Interrupted. Do the same again to go on: finished runs are kept ({folder}).") from None


def one(values: Mapping[str, Any]) -> dict[str, Any]:
    """The evidence of one run, in whichever process; of a finished one as it is."""
    return run(values, resume=True).evidence


def _run_all(job: _Job, wanted: Sequence[Planned], reporter: Reporter) -> list[Finished]:
    """The runs in their order, each with its evidence or the exception that it ended with."""
    values = [planned.values for planned in wanted]
    how = job.request
    results: dict[int, Any] = {}
    reporter.start("bench", len(wanted))
    for place, result in spread(one, values, jobs=how.jobs, engine=how.engine, threads=how.threads):
        if isinstance(result, Interrupted):
            raise result
        results[place] = result
        reporter.advance("bench", len(results), wanted[place].entry.label)
    reporter.finish("bench")
    return [Finished(planned, results[place]) for place, planned in enumerate(wanted)]
