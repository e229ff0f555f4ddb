"""Searches what a request leaves open, under its own bar: the most forgetting that the bar allows."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from expunge.core import cache, processes
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput, ExpungeError, Interrupted
from expunge.core.extras import require
from expunge.core.files import delete, finite, write_json, write_text
from expunge.core.random import derive
from expunge.core.request import Request, redacted
from expunge.core.variables import expand
from expunge.evaluation import scores as scoring
from expunge.ledger.certificate import SALT, salt_of, seal
from expunge.pipeline import load, observe, out_folder
from expunge.pipeline.plan import Plan, plan, weights_there
from expunge.workflows._search_space import Axis, axes, with_values
from expunge.workflows.run import run

STORE, TRIAL, FLOOR = "trials.log", "trial", 0.9
LEFT = frozenset({cache.JOURNAL, SALT, TRIAL})
"""What a search that was killed before its first trial may have left."""
UTILITY = ("retain_accuracy", "retain_probability", "test_accuracy")
"""Of the first that is measured, FLOOR times its value before must be left, unless the bar has a line on utility."""


@dataclass(frozen=True)
class Tuned:
    """The trials in order, the best of them (None: all failed), and where its request was written.

    settings: what the best trial sets in the request (method and budget). whole: is best.yaml a complete request; where
    that would hold redacted examples, the settings are to be put into the original.
    """

    out: Path
    space: list[Axis]
    target: float
    target_of: str
    trials: list[dict[str, Any]]
    best: dict[str, Any] | None
    settings: dict[str, Any]
    whole: bool

    @property
    def passed(self) -> bool:
        """Does the best trial meet the whole bar."""
        return self.best is not None and not self.best["failing"]

    def to_json(self) -> dict[str, Any]:
        return {
            "trials": self.trials,
            "best": self.best,
            "passed": self.passed,
            "space": [asdict(a) for a in self.space],
            "target": {"forget_nll": self.target, "of": self.target_of},
            "settings": self.settings,
            "request": str(self.out / "best.yaml") if self.best and self.whole else None,
        }


def tune(
    request: Request | Mapping[str, Any], *, trials: int = 30, out: str | None = None, reporter: Reporter | None = None
) -> Tuned:
    """Tries values for what the request leaves open; writes `best.yaml`, a complete request, to `out`.

    Best is the trial whose forget NLL is nearest to gold's (to the holdout's, where there is no gold)
    among those that meet every line of the bar, else the one that misses the fewest lines by the least.
    Done again, it goes on where it stopped. Raises BadInput before anything is written.
    """
    require("tune", "", "optuna", "tune")
    request = request if isinstance(request, Request) else Request.parse(request)
    reporter = reporter or Silent()
    folder = Path(expand(out, "--out") if out else f"{request.out}-tune")
    if trials < 1:
        raise BadInput.of("--trials", trials, "is no number of trials", "give a whole number from 1 up")
    if processes.world() > 1:
        raise BadInput.of("tune", "", "cannot run under a launcher of several processes", "start it as it is")
    resolved = request.resolved()
    planned = plan(Request.parse({**resolved, "out": str(folder / TRIAL)}), resume=True)
    weights_there(planned)
    space = list(axes(planned))
    if not space:
        raise BadInput.of(
            "method",
            planned.composed.name,
            "leaves no number open to search",
            "leave some of its options out of the request, or run it as it is",
        )
    if not (folder / STORE).is_file():
        out_folder.free(folder, LEFT)
    if not planned.gold and "holdout" not in planned.splits:
        raise BadInput.of(
            "gold",
            request.gold,
            "is absent, and so is a holdout: nothing says how much forgetting is enough",
            "give gold or a holdout",
        )
    with out_folder.held(folder):
        for lock in folder.glob(f"{STORE}.lock*"):  # of a process that was killed: this one holds the folder
            lock.unlink()
        key = seal({"request": resolved, "axes": [asdict(axis) for axis in space]}, salt_of(folder))
        if (folder / STORE).is_file():
            _ours(folder, key)
        target, target_of = _searched(planned, space, resolved, folder, trials, key, reporter)
        found = [_shown(number, one) for number, one in enumerate(_finished(_study(folder)))]
        best = min((one for one in found if one["state"] == "done"), key=lambda one: one["value"], default=None)
        values = with_values(planned, resolved, {axis: best["values"][axis.name] for axis in space}) if best else {}
        whole = not request.redacted or redacted(values) == values
        settings = {name: value for name, value in values.items() if name in ("method", "budget")}
        tuned = Tuned(folder, space, target, target_of, found, best, settings, whole)
        if best is not None and whole:
            write_text(folder / "best.yaml", yaml.safe_dump(finite(values), sort_keys=False, allow_unicode=True))
        write_json(folder / "tune.json", tuned.to_json())
    return tuned


# -- the search ----------------------------------------------------------------------------------


def _searched(
    planned: Plan,
    space: list[Axis],
    resolved: Mapping[str, Any],
    folder: Path,
    trials: int,
    key: str,
    reporter: Reporter,
) -> tuple[float, str]:
    """Runs the trials that are not there yet; (the forget NLL to come near to, whose it is)."""
    import optuna

    try:
        target, target_of, retain_nll = _target(planned, reporter)
        study = _study(folder)
        study.set_user_attr("request", key)
        for stale in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            study.tell(stale.number, state=optuna.trial.TrialState.FAIL)  # killed: tried again under the next number
        reporter.start("tune", trials)
        while (done := len(_finished(study))) < trials:
            reporter.advance("tune", done, _note(study))
            _trial(study, planned, space, resolved, folder, done, (target, retain_nll), reporter)
        reporter.finish("tune")
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(f"Interrupted. Do the same again to go on ({folder}).") from None
    finally:
        delete(folder / TRIAL)
    return target, target_of


def _study(folder: Path) -> Any:
    """The trials so far: a journal in the folder, one line an event."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(folder / STORE)))
    # A trial is given up where its curve is worse than the median trial's at the same share of its steps.
    return optuna.create_study(
        study_name="tune",
        storage=storage,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3),
    )


def _ours(folder: Path, key: str) -> None:
    """Raises BadInput where the folder's trials are of another request, or cannot be read."""
    try:
        theirs = _study(folder).user_attrs.get("request")
    except Exception as error:
        raise BadInput.of(
            "--out", str(folder), f"holds trials that cannot be read ({type(error).__name__})", "choose another folder"
        ) from None
    if theirs not in (None, key):
        raise BadInput.of("--out", str(folder), "holds the trials of another request", "choose another folder")


def _finished(study: Any) -> list[Any]:
    """Trials that count: those that ended by themselves."""
    return [one for one in study.get_trials(deepcopy=False) if "state" in one.user_attrs]


def _trial(
    study: Any,
    planned: Plan,
    space: list[Axis],
    resolved: Mapping[str, Any],
    folder: Path,
    done: int,
    levels: tuple[float, float | None],
    reporter: Reporter,
) -> None:
    import optuna
    from optuna.distributions import FloatDistribution, IntDistribution
    from optuna.trial import TrialState

    # Seeded anew for each trial, so that a search that was interrupted goes on as if it had not been.
    study.sampler = optuna.samplers.TPESampler(seed=derive(planned.request.seed, "tune", done) % 2**32)
    waiting = study.get_trials(deepcopy=False, states=[TrialState.WAITING])
    if done == 0 and not waiting:  # what the recipe says by itself is the first trial
        study.enqueue_trial({axis.name: axis.default for axis in space})
    trial = study.ask(
        {
            axis.name: IntDistribution(int(axis.low), int(axis.high), log=axis.log)
            if axis.whole
            else FloatDistribution(axis.low, axis.high, log=axis.log)
            for axis in space
        }
    )
    place = folder / TRIAL
    delete(place)
    values = with_values(planned, resolved, {axis: trial.params[axis.name] for axis in space})

    def tell(state: Any, word: str, value: float | None = None, **more: Any) -> None:
        for key, item in {**more, "state": word}.items():  # `state` last: what has it is finished
            trial.set_user_attr(key, finite(item))
        study.tell(trial, value, state=state)

    curve = Curve(trial, place / "log.jsonl", *levels, reporter)
    try:
        evidence = run({**values, "out": str(place)}, reporter=curve).evidence
    except optuna.TrialPruned:
        tell(TrialState.PRUNED, "pruned")
    except (KeyboardInterrupt, Interrupted):
        study.tell(trial, state=TrialState.FAIL)
        raise
    except ExpungeError as error:
        tell(TrialState.FAIL, "failed", why=out_folder.sentence(error, planned.request.redacted))
    else:
        value, failing = judged(evidence, levels[0])
        after = {s["name"]: s["value"] for s in evidence["scores"] if s["subject"] == "after"}
        tell(
            TrialState.COMPLETE,
            "done",
            value,
            failing=failing,
            scores=after,
            seconds=evidence["cost"]["unlearn_seconds"],
        )
    finally:
        for name in list(curve.open):  # a trial that ended early leaves no progress bar behind
            curve.finish(name)


class Curve:
    """A reporter between run and trial: reports the training curve at each tenth, and ends a hopeless trial."""

    def __init__(self, trial: Any, log: Path, target: float, retain_nll: float | None, reporter: Reporter) -> None:
        self.trial, self.log, self.target, self.retain_nll, self.reporter = trial, log, target, retain_nll, reporter
        self.total, self.tenth = 1, 0
        self.open: list[str] = []

    def start(self, name: str, total: int) -> None:
        self.total = max(1, total) if name == "apply" else self.total
        self.open.append(name)
        self.reporter.start(name, total)

    def advance(self, name: str, done: int, note: str = "") -> None:
        self.reporter.advance(name, done, note)
        tenth = 10 * done // self.total
        if name != "apply" or tenth <= self.tenth:
            return
        self.tenth = tenth
        value = self.value()
        if value is None:
            return
        self.trial.report(value, tenth)
        if self.trial.should_prune():
            import optuna

            raise optuna.TrialPruned

    def value(self) -> float | None:
        """Distance of the last steps' forget NLL from the target, and how far retain has risen; small is good."""
        lines = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()[-5:]]
        forget = [line["forget_nll"] for line in lines if line.get("forget_nll") is not None]
        retain = [line["retain_nll"] for line in lines if line.get("retain_nll") is not None]
        if not forget:
            return None
        rise = statistics.fmean(retain) - self.retain_nll if retain and self.retain_nll is not None else 0.0
        return abs(statistics.fmean(forget) - self.target) / max(1e-9, self.target) + max(0.0, rise)

    def finish(self, name: str) -> None:
        self.open.remove(name)
        self.reporter.finish(name)

    def say(self, text: str) -> None:
        self.reporter.say(text)


def _target(planned: Plan, reporter: Reporter) -> tuple[float, str, float | None]:
    """(the forget NLL to come near to, whose it is, retain NLL before); the trials find the readouts in the cache."""
    model = load.opened(planned, reporter)
    splits = observe.reading_splits(planned)
    readouts = {"before": observe.read_into(model, splits, "before", reporter).readouts}
    gold = observe.gold(planned, model, splits, reporter)
    if gold.readouts:
        readouts["gold"] = gold.readouts
    figures = {(s.name, s.role): s.value for s in scoring.measure(readouts, planned.capabilities)}
    retain = figures.get(("retain_nll", "before"))
    for of, key in (("gold", ("forget_nll", "gold")), ("holdout", ("holdout_nll", "before"))):
        if figures.get(key) is not None:
            return float(figures[key]), of, retain  # type: ignore[arg-type]
    raise BadInput.of(
        "gold", planned.request.gold, f"cannot be had ({gold.why}), and there is no holdout", "give one of them"
    )


def judged(evidence: Mapping[str, Any], target: float) -> tuple[float, list[str]]:
    """(what the search makes small, the lines of the bar that fail).

    Ten for each failing line and up to ten for how far off it is; then the distance to the target.
    """
    figures = {(s["name"], s["subject"]): s["value"] for s in evidence["scores"] if s["value"] is not None}
    lines = [line for line in evidence["verdict"]["lines"] if not line["implied"]]
    if not any(line["rule"].startswith(("retain", "test", "utility")) for line in lines):
        names = (*UTILITY, *(evidence.get("headline") or {}).get("utility", ()))
        name = next((name for name in names if (name, "after") in figures and (name, "before") in figures), None)
        if name:
            lower = any(s["name"] == name and s["better"] == "lower" for s in evidence["scores"])
            value, before = figures[name, "after"], figures[name, "before"]
            bound = before / FLOOR if lower else FLOOR * before
            rule = f"{name} <= before / {FLOOR}" if lower else f"{name} >= {FLOOR} * before"
            lines.append(
                {"rule": rule, "passed": value <= bound if lower else value >= bound, "value": value, "bound": bound}
            )
    failing = [line for line in lines if not line["passed"]]
    forget = figures.get(("forget_nll", "after"))
    distance = 10.0 if forget is None else min(10.0, abs(forget - target) / max(1e-9, target))
    return sum(10 + _off(line) for line in failing) + distance, [line["rule"] for line in failing]


def _off(line: Mapping[str, Any]) -> float:
    """How far a failing line is from its bound, relative to it: 0 to 10."""
    value, bound = line.get("value"), line.get("bound")
    if value is None or bound is None:
        return 10.0
    nearest = min((abs(value - edge), abs(edge)) for edge in (bound if isinstance(bound, list | tuple) else [bound]))
    return min(10.0, nearest[0] / max(1e-9, nearest[1]))


def _shown(number: int, one: Any) -> dict[str, Any]:
    """A finished trial as plain data. number: among the finished ones, so that an interruption leaves no gap."""
    kept = one.user_attrs
    return {
        "trial": number,
        "state": kept["state"],
        "values": dict(one.params),
        "value": one.value,
        "failing": kept.get("failing", []),
        "scores": kept.get("scores", {}),
        "seconds": kept.get("seconds"),
        "why": kept.get("why", ""),
    }


def _note(study: Any) -> str:
    done = [one.value for one in _finished(study) if one.user_attrs["state"] == "done"]
    return f"best {min(done):.3f}" if done else ""
