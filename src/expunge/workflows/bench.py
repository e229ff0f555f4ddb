"""Many methods on one base with a shared gold: each an ordinary run, all together a leaderboard."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core import processes
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.errors import BadInput, Faults, Interrupted, did_you_mean
from expunge.core.files import digest, write_json, write_text
from expunge.core.parallel import check, spread, threads_of_torch
from expunge.core.request import Request, parse_sets, put, redacted
from expunge.core.variables import expand
from expunge.data.splits import Splits
from expunge.evaluation import scores as scoring
from expunge.methods.compose import compose, every_method
from expunge.models.open import open_model
from expunge.pipeline import evidence as dossier
from expunge.pipeline import load, observe, out_folder, run_folder
from expunge.pipeline.compatibility import fits_method
from expunge.pipeline.gold import gold as train_gold
from expunge.pipeline.plan import Plan, plan, weights_there
from expunge.report import ranking
from expunge.report.leaderboard import render
from expunge.workflows.benches import Bench, bench_of
from expunge.workflows.run import run

KINDS = ("recipe", "objective", "wrapper", "edit", "guard", "exact")
"""What is compared unless methods are named: all that is a method by itself."""
NEUTRAL = {"forget": "ga"}
"""Stands for the method while the rest of the request is checked: it asks for nothing but a forget set."""


@dataclass(frozen=True)
class Entry:
    """One row to be: a method with its options; `label` names the row and its folder."""

    label: str
    name: str
    spec: Any


def bench(
    name: str,
    *,
    methods: Sequence[str] | None = None,
    seeds: int = 1,
    grid: Sequence[str] = (),
    sets: Mapping[str, Any] | None = None,
    out: str | None = None,
    jobs: int = 1,
    engine: str = "processes",
    threads: int = 1,
    model: str | None = None,
    data: str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Runs methods on one base and writes leaderboard.json and leaderboard.html to `out`; returns the former.

    name: authors, tofu, shakespeare, a published bench such as tofu:forget10, or a request file. Each run
    is a folder `out/METHOD/seed-N`; finished ones are reused. A method that fails is a row with its sentence.
    model, data: as in `benches.bench_of`. Raises BadInput before anything is trained or written, except
    that a bench's base model is trained in the cache.
    """
    reporter = reporter or Silent()
    base = bench_of(name, model=model, data=data)
    for key, value in (sets or {}).items():
        put(base.request, key, value)
    folder = Path(expand(out, "--out") if out else f"runs/bench-{base.name}")
    faults = Faults()
    with faults:
        check(jobs, engine, threads)
    if seeds < 1:
        faults.add(BadInput.of("--seeds", seeds, "is no number of seeds", "give a whole number from 1 up"))
    if processes.world() > 1:
        faults.add(BadInput.of("bench", name, "cannot run under a launcher of several processes", "use --jobs"))
    entries: list[Entry] = []
    with faults:
        entries = entries_of(methods, grid)
        if base.sequence:
            entries += in_sequence(entries, base.sequence)
    first, redact = 0, False
    with faults:
        whole = Request.parse({**base.request, "method": NEUTRAL, "out": str(folder)})
        first, redact = whole.seed, whole.redacted
    faults.raise_any()
    numbers = [first + i for i in range(seeds)]
    if seeds > 1 and isinstance(base.request.get("forget"), Mapping) and "random" in base.request["forget"]:
        raise BadInput.of(
            "forget",
            base.request["forget"],
            "selects anew for each seed, and gold could not be shared",
            "put the forget set into a file, or leave --seeds out",
        )
    _held_for_us(base, entries, numbers, folder)
    try:
        with out_folder.held(folder):
            with threads_of_torch(threads):
                base.prepare(reporter)
                shared = Shared(base, numbers, folder, reporter)
                entries, skipped = shared.fitting(entries, redact)
                for entry in skipped:
                    reporter.say(f"skipped {entry['method']}: {entry['why']}")
                shared.read()
            runs = _runs(base, entries, numbers, folder, jobs, engine, threads, reporter)
            rows = _rows(entries, numbers, runs, folder, redact)
            found = {
                "bench": base.name,
                "rows": rows,
                **shared.figures(),
                "seeds": numbers,
                "skipped": skipped,
                "ways": base.ways,
                "shown": list(base.shown),
                "request": redacted(base.request) if redact else base.request,
                "environment": {**dossier.environment(), "threads": threads},
            }
            ranking.mark_front(found["rows"], found["gold"])
            write_text(folder / "leaderboard.html", render(found))
            write_json(folder / "leaderboard.json", found)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(f"Interrupted. Do the same again to go on: finished runs are kept ({folder}).") from None
    return found


# -- what is compared ----------------------------------------------------------------------------


def entries_of(methods: Sequence[str] | None, grid: Sequence[str]) -> list[Entry]:
    """One entry a method, or one a combination where a grid names options of it. Raises BadInput."""
    known = every_method()
    names = (
        list(dict.fromkeys(methods))
        if methods is not None
        else [n for n, kind in known.items() if kind in KINDS and n != "retrain"]
    )
    if not names:
        raise BadInput.of("--methods", "", "names no method", "give names with commas between, or leave it out")
    faults = Faults()
    options: dict[str, dict[str, list[Any]]] = {}
    for line in grid:
        with faults:
            method, option, values = _grid_line(line, names)
            options.setdefault(method, {})[option] = values
    found = []
    for method in names:
        if method not in known:
            faults.add(BadInput.of("--methods", method, "is no method that we know", did_you_mean(method, known)))
            continue
        axes = options.get(method, {})
        for chosen in itertools.product(*axes.values()):
            given = dict(zip(axes, chosen, strict=True))
            label = " ".join([method, *(f"{k}={_short(v)}" for k, v in given.items())])
            entry = Entry(label, method, {method: given} if given else method)
            if given:
                with faults:
                    compose(entry.spec, where="--grid")
            found.append(entry)
    faults.raise_any()
    return found


def in_sequence(entries: Sequence[Entry], by: str) -> list[Entry]:
    """Each method that trains, on the forget set's parts as requests one after another."""
    known = every_method()
    return [
        Entry(f"{entry.label} in sequence", entry.name, {"sequential": {"by": by, "inner": entry.spec}})
        for entry in entries
        if known[entry.name] in ("recipe", "objective")
    ]


def _grid_line(line: str, names: Sequence[str]) -> tuple[str, str, list[Any]]:
    key, equals, values = line.partition("=")
    method, dot, option = key.strip().partition(".")
    if not (equals and dot and method and option and values.strip()):
        raise BadInput.of("--grid", line, "is no line of a grid", "write --grid METHOD.OPTION=VALUE,VALUE")
    if method not in names:
        raise BadInput.of(
            "--grid", line, f"is about {method!r}, which is not among the methods", did_you_mean(method, names)
        )
    parsed = parse_sets([f"{option}=[{values}]"], "--grid")[option]
    return method, option, parsed


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _folder(label: str) -> str:
    """A label as a folder's name: every file system takes it, and no two labels share one."""
    plain = re.sub(r"[^\w.=+-]+", "_", label)
    return plain if plain == label and len(plain) < 100 else f"{plain[:80]}-{digest(label)[:8]}"


def _values(base: Bench, entry: Entry, seed: int, folder: Path) -> dict[str, Any]:
    return {
        **base.request,
        "method": entry.spec,
        "seed": seed,
        "out": str(folder / _folder(entry.label) / f"seed-{seed}"),
    }


def _held_for_us(base: Bench, entries: Sequence[Entry], seeds: Sequence[int], folder: Path) -> None:
    """No folder may hold another request's run. Raises BadInput."""
    faults = Faults()
    for entry, seed in itertools.product(entries, seeds):
        with faults:
            request = Request.parse(_values(base, entry, seed, folder))
            if Path(request.out).is_dir():
                run_folder.same(request, Path(request.out))
    faults.raise_any()


# -- what all runs share -------------------------------------------------------------------------


class Shared:
    """The base, its gold and a second gold of another seed, read once for all the runs."""

    def __init__(self, base: Bench, seeds: Sequence[int], folder: Path, reporter: Reporter) -> None:
        self.reporter = reporter
        self.plans: list[Plan] = [
            plan(Request.parse({**base.request, "method": NEUTRAL, "seed": seed, "out": str(folder / "shared")}))
            for seed in seeds
        ]
        weights_there(self.plans[0])
        self.model: Model = load.opened(self.plans[0], reporter)
        for other in self.plans[1:]:
            other.manifest = self.plans[0].manifest
        self.before: list[dict[str, float]] = []
        self.gold: list[dict[str, float]] = []
        self.second: list[dict[str, float]] = []
        self.unit: dict[str, str] = {}
        self.seconds: float | None = None
        self.why = ""

    def fitting(self, entries: Iterable[Entry], redact: bool = False) -> tuple[list[Entry], list[dict[str, str]]]:
        """(those that go with this model and data, the others with the reason). Raises BadInput if none does."""
        made = self.plans[0]
        fit, skipped = [], []
        for entry in entries:
            try:
                fits_method(compose(entry.spec, has_retain="retain" in made.splits), self.model, made.splits)
                fit.append(entry)
            except BadInput as error:
                # What would work instead is the leaderboard itself.
                whys = [fault.partition("; these would work")[0].removesuffix(".") + "." for fault in error.faults]
                why = out_folder.unquoted(" ".join(whys)) if redact else " ".join(whys)
                skipped.append({"method": entry.label, "why": why})
        if not fit:
            raise BadInput(*(entry["why"] for entry in skipped))
        return fit, skipped

    def read(self) -> None:
        """Trains what gold is missing and reads all three; the runs find gold and readouts in the cache."""
        second, why = self._second_gold()
        for made in self.plans:
            splits = observe.reading_splits(made)
            before = observe.read_into(self.model, splits, "before", self.reporter)
            gold = observe.gold(made, self.model, splits, self.reporter)
            readouts = {"before": before.readouts}
            if gold.readouts:
                readouts["gold"] = gold.readouts
            if second is not None:
                readouts["after"] = self._read(second, splits)
            scores = scoring.measure(readouts, made.capabilities)
            evidence = {"scores": [score.to_json() for score in scores]}
            self.unit |= ranking.units([evidence])
            for found, role in ((self.before, "before"), (self.gold, "gold"), (self.second, "after")):
                if values := ranking.values(evidence, role):
                    found.append(values)
            self.seconds, self.why = gold.seconds, gold.why or why

    def _read(self, folder: Path, splits: Splits) -> dict[str, Any]:
        return observe.read_into(
            open_model(str(folder), self.plans[0].request.trust_code), splits, "second gold", self.reporter
        ).readouts

    def _second_gold(self) -> tuple[Path | None, str]:
        """Trained like gold from another seed: how far two such models lie apart is the noise floor."""
        made = self.plans[0]
        if made.gold != "train":
            return None, made.no_gold or "gold is a folder, which is not trained a second time"
        assert made.manifest is not None
        manifest = {**made.manifest, "seed": int(made.manifest["seed"]) + 1}
        return train_gold(manifest, made.splits["forget"], self.model, self.reporter), ""

    def figures(self) -> dict[str, Any]:
        """`gold` with the second gold and the noise floor, and `before`, for the leaderboard."""
        unit = {**self.unit, "average_gap": "distance"}
        before, before_ends = ranking.over_seeds(self.before, unit)
        gold, ends = ranking.over_seeds(self.gold, unit)
        second, _ = ranking.over_seeds(self.second, unit)
        gaps = [ranking.average_gap(two, one) for one, two in zip(self.gold, self.second, strict=False)]
        floor = sum(gap for gap in gaps if gap is not None) / len(gaps) if gaps else None
        return {
            "gold": {
                **gold,
                "seconds": self.seconds,
                "why": self.why,
                "intervals": ends,
                "noise_floor": floor,
                "second": second,
            },
            "before": {**before, "intervals": before_ends},
        }


# -- the runs ------------------------------------------------------------------------------------


def one(values: Mapping[str, Any]) -> dict[str, Any]:
    """One run, in whichever process; finished before: its evidence as it stands."""
    return run(values, resume=True).evidence


def _runs(
    base: Bench,
    entries: Sequence[Entry],
    seeds: Sequence[int],
    folder: Path,
    jobs: int,
    engine: str,
    threads: int,
    reporter: Reporter,
) -> dict[tuple[str, int], Any]:
    """(label, seed) -> evidence, or the exception that the run ended with."""
    wanted = list(itertools.product(entries, seeds))
    reporter.start("bench", len(wanted))
    found: dict[tuple[str, int], Any] = {}
    values = [_values(base, entry, seed, folder) for entry, seed in wanted]
    for place, result in spread(one, values, jobs=jobs, engine=engine, threads=threads):
        if isinstance(result, Interrupted):
            raise result
        entry, seed = wanted[place]
        found[entry.label, seed] = result
        reporter.advance("bench", len(found), entry.label)
    reporter.finish("bench")
    return found


def _rows(
    entries: Sequence[Entry], seeds: Sequence[int], runs: Mapping[tuple[str, int], Any], folder: Path, redact: bool
) -> list[dict[str, Any]]:
    rows = []
    for entry in entries:
        results = [runs[entry.label, seed] for seed in seeds]
        errors = [result for result in results if isinstance(result, BaseException)]
        why = out_folder.sentence(errors[0], redact) if errors else ""
        row = ranking.failed(entry.label, why) if errors else ranking.row(entry.label, results)
        rows.append({**row, "name": entry.name, "folder": str(folder / _folder(entry.label))})
    return ranking.ranked(rows)
