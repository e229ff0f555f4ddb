"""Many methods on one base with a shared gold: each an ordinary run, all together a leaderboard."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from expunge.core import processes
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput, Faults, Interrupted
from expunge.core.files import write_json, write_text
from expunge.core.parallel import check, spread, threads_of_torch
from expunge.core.request import Request, parse, put, redacted
from expunge.core.variables import expand
from expunge.pipeline import evidence, out_folder
from expunge.report import ranking
from expunge.report.leaderboard import render
from expunge.workflows._bench_entries import Entry, check_folders, entries_of, in_sequence, request_values
from expunge.workflows._bench_shared import NEUTRAL, SharedBase, read_shared
from expunge.workflows.benches import Bench, bench_of
from expunge.workflows.run import run


class BenchRequest(BaseModel):
    """The methods to compare, on what, and how the runs are spread.

    name: authors, tofu, shakespeare, a published bench such as tofu:forget10, or a request file. methods: all that
    apply unless named. grid: lines METHOD.OPTION=VALUE,VALUE. sets: fields of all requests. model, data: as in
    `benches.bench_of`. threads: of each run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    methods: list[str] | None = None
    seeds: Annotated[int, Field(gt=0)] = 1
    grid: list[str] = []
    sets: dict[str, Any] = {}
    out: str | None = None
    jobs: int = 1
    engine: str = "processes"
    threads: int = 1
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
    """A bench, checked as far as it can be without its model."""

    request: BenchRequest
    base: Bench
    entries: list[Entry]
    seeds: list[int]
    folder: Path
    redact: bool


def bench(
    request: BenchRequest | Mapping[str, Any] | str | None = None, *, reporter: Reporter | None = None, **fields: Any
) -> dict[str, Any]:
    """Run methods on one base, and write leaderboard.json and leaderboard.html to `out`; returns the former.

    request: a BenchRequest, its fields, or the bench's name; fields may also be given as keywords, as in
    `bench("authors", methods=["npo", "rmu"])`. Each run is a folder `out/METHOD/seed-N`; finished ones are reused. A
    method that fails is a row with its sentence. Raises BadInput before anything is trained or written, except that a
    bench's base model is trained in the cache.
    """
    reporter = reporter or Silent()
    job = _bind(BenchRequest.of(request, fields))
    with _resumable(job.folder), out_folder.held(job.folder):
        with threads_of_torch(job.request.threads):
            job.base.prepare(reporter)
            shared = SharedBase.open(job.base.request, job.seeds, job.folder, reporter)
            entries, skipped = shared.fitting(job.entries, job.redact)
            for entry in skipped:
                reporter.say(f"skipped {entry['method']}: {entry['why']}")
            figures = read_shared(shared, reporter)
        runs = _runs(job, entries, reporter)
        board = {
            "bench": job.base.name,
            "rows": _rows(job, entries, runs),
            **figures.to_json(),
            "seeds": job.seeds,
            "skipped": skipped,
            "ways": job.base.ways,
            "shown": list(job.base.shown),
            "request": redacted(job.base.request) if job.redact else job.base.request,
            "environment": {**evidence.environment(), "threads": job.request.threads},
        }
        ranking.mark_front(board["rows"], board["gold"])
        write_text(job.folder / "leaderboard.html", render(board))
        write_json(job.folder / "leaderboard.json", board)
    return board


def _bind(wanted: BenchRequest) -> _Job:
    """The bench with its base, rows and folder. Raises BadInput with all faults; nothing is written."""
    base = bench_of(wanted.name, model=wanted.model, data=wanted.data)
    for key, value in wanted.sets.items():
        put(base.request, key, value)
    folder = Path(expand(wanted.out, "--out") if wanted.out else f"runs/bench-{base.name}")
    faults = Faults()
    with faults:
        check(wanted.jobs, wanted.engine, wanted.threads)
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
    check_folders(base.request, entries, seeds, folder)
    return _Job(wanted, base, entries, seeds, folder, redact)


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


def _runs(job: _Job, entries: list[Entry], reporter: Reporter) -> dict[tuple[str, int], Any]:
    """(label, seed) -> evidence, or the exception that the run ended with."""
    wanted = list(itertools.product(entries, job.seeds))
    values = [request_values(job.base.request, entry, seed, job.folder) for entry, seed in wanted]
    how = job.request
    results: dict[tuple[str, int], Any] = {}
    reporter.start("bench", len(wanted))
    for place, result in spread(one, values, jobs=how.jobs, engine=how.engine, threads=how.threads):
        if isinstance(result, Interrupted):
            raise result
        entry, seed = wanted[place]
        results[entry.label, seed] = result
        reporter.advance("bench", len(results), entry.label)
    reporter.finish("bench")
    return results


def _rows(job: _Job, entries: list[Entry], runs: Mapping[tuple[str, int], Any]) -> list[dict[str, Any]]:
    """The leaderboard's rows, ranked: the figures of a method over its seeds, or why it failed."""
    rows = []
    for entry in entries:
        results = [runs[entry.label, seed] for seed in job.seeds]
        errors = [result for result in results if isinstance(result, BaseException)]
        why = out_folder.sentence(errors[0], job.redact) if errors else ""
        row = ranking.failed(entry.label, why) if errors else ranking.row(entry.label, results)
        rows.append({**row, "name": entry.name, "folder": str(job.folder / entry.folder)})
    return ranking.ranked(rows)
