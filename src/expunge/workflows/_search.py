"""The search of `tune`: trials one after another, kept in a journal, each an ordinary run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from expunge.core.contracts import Reporter
from expunge.core.errors import BadInput, ExpungeError, Interrupted
from expunge.core.files import delete, finite
from expunge.core.random import derive
from expunge.pipeline.out_folder import sentence
from expunge.pipeline.plan import Plan
from expunge.workflows._search_space import Axis, with_values
from expunge.workflows.run import run

STORE, TRIAL, FLOOR = "trials.log", "trial", 0.9
UTILITY = ("retain_accuracy", "retain_probability", "test_accuracy")
"""Of the first that is measured, FLOOR times its value before must be left, unless a criterion is on utility."""
TAIL = 5
"""Steps at the end of a trial's curve so far whose mean is judged."""


class Target(NamedTuple):
    """The forget NLL to come near to, whose it is, and the retain NLL of the model before."""

    forget_nll: float
    of: str
    retain_nll: float | None


@dataclass(frozen=True)
class Search:
    """A plan, the numbers that it leaves open, and the folder of the trials."""

    planned: Plan
    space: list[Axis]
    resolved: Mapping[str, Any]
    folder: Path
    reporter: Reporter

    def run(self, trials: int, key: str, target: Target) -> None:
        """Run the trials that are not there yet. key: seals the request, so that no other goes on with the trials."""
        import optuna

        study = open_study(self.folder)
        study.set_user_attr("request", key)
        for stale in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            study.tell(stale.number, state=optuna.trial.TrialState.FAIL)  # killed: tried again under the next number
        self.reporter.start("tune", trials)
        while (done := len(finished_trials(study))) < trials:
            self.reporter.advance("tune", done, _best_so_far(study))
            self._try(study, done, target)
        self.reporter.finish("tune")

    def _try(self, study: Any, done: int, target: Target) -> None:
        """One trial: a run with the study's next values, and its result told to the study."""
        import optuna

        trial, place = self._next_trial(study, done), self.folder / TRIAL
        delete(place)
        values = with_values(self.planned, self.resolved, {axis: trial.params[axis.name] for axis in self.space})

        def tell(state: Any, word: str, value: float | None = None, **more: Any) -> None:
            for key, item in {**more, "state": word}.items():  # `state` last: with it the trial counts as finished
                trial.set_user_attr(key, finite(item))
            study.tell(trial, value, state=state)

        curve = Curve(trial, place / "log.jsonl", target.forget_nll, target.retain_nll, self.reporter)
        try:
            evidence = run({**values, "out": str(place)}, reporter=curve).evidence
        except optuna.TrialPruned:
            tell(optuna.trial.TrialState.PRUNED, "pruned")
        except (KeyboardInterrupt, Interrupted):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        except ExpungeError as error:
            tell(optuna.trial.TrialState.FAIL, "failed", why=sentence(error, self.planned.request.redacted))
        else:
            value, failing = objective(evidence, target.forget_nll)
            after = {s["name"]: s["value"] for s in evidence["scores"] if s["subject"] == "after"}
            seconds = evidence["cost"]["unlearn_seconds"]
            tell(optuna.trial.TrialState.COMPLETE, "done", value, failing=failing, scores=after, seconds=seconds)
        finally:
            for name in list(curve.open):  # a trial that ended early leaves no progress bar behind
                curve.finish(name)

    def _next_trial(self, study: Any, done: int) -> Any:
        """The study's next values; those of the recipe first."""
        import optuna

        # Seeded anew for each trial, so that a search that was interrupted goes on as if it had not been.
        study.sampler = optuna.samplers.TPESampler(seed=derive(self.planned.request.seed, "tune", done) % 2**32)
        waiting = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.WAITING])
        if done == 0 and not waiting:
            study.enqueue_trial({axis.name: axis.default for axis in self.space})
        return study.ask(
            {
                axis.name: optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
                if axis.whole
                else optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)
                for axis in self.space
            }
        )


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
        """Distance of the last steps' forget NLL from the target, and the rise of retain's; small is good."""
        lines = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()[-TAIL:]]
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


# -- the journal -----------------------------------------------------------------------------------


def open_study(folder: Path) -> Any:
    """The trials so far: a journal in the folder, one line per event."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / STORE)))
    # A trial is given up where its curve is worse than the median trial's at the same share of its steps.
    return optuna.create_study(
        study_name="tune",
        storage=storage,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3),
    )


def check_journal(folder: Path, key: str) -> None:
    """Raise BadInput where the folder's trials are of another request, or cannot be read."""
    if not (folder / STORE).is_file():
        return
    try:
        theirs = open_study(folder).user_attrs.get("request")
    except Exception as error:
        raise BadInput.of(
            "--out", str(folder), f"holds trials that cannot be read ({type(error).__name__})", "choose another folder"
        ) from None
    if theirs not in (None, key):
        raise BadInput.of("--out", str(folder), "holds the trials of another request", "choose another folder")


def finished_trials(study: Any) -> list[Any]:
    """The trials that count: those that ended by themselves."""
    return [one for one in study.get_trials(deepcopy=False) if "state" in one.user_attrs]


def plain_trials(folder: Path) -> list[dict[str, Any]]:
    """The finished trials as plain data, numbered among themselves, so that an interruption leaves no gap."""
    return [_plain_trial(number, one) for number, one in enumerate(finished_trials(open_study(folder)))]


def _plain_trial(number: int, one: Any) -> dict[str, Any]:
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


def _best_so_far(study: Any) -> str:
    done = [one.value for one in finished_trials(study) if one.user_attrs["state"] == "done"]
    return f"best {min(done):.3f}" if done else ""


# -- the value of a trial --------------------------------------------------------------------------


def objective(evidence: Mapping[str, Any], target: float) -> tuple[float, list[str]]:
    """(the value that the search minimises, the acceptance criteria that fail).

    Ten for each failing criterion and up to ten for its distance from its bound; then the distance to the target.
    """
    figures = {(s["name"], s["subject"]): s["value"] for s in evidence["scores"] if s["value"] is not None}
    lines = [line for line in evidence["verdict"]["lines"] if not line["implied"]]
    if not any(line["rule"].startswith(("retain", "test", "utility")) for line in lines):
        if line := _utility_line(evidence, figures):
            lines.append(line)
    failing = [line for line in lines if not line["passed"]]
    forget = figures.get(("forget_nll", "after"))
    distance = 10.0 if forget is None else min(10.0, abs(forget - target) / max(1e-9, target))
    return sum(10 + _shortfall(line) for line in failing) + distance, [line["rule"] for line in failing]


def _utility_line(evidence: Mapping[str, Any], figures: Mapping[tuple[str, str], float]) -> dict[str, Any] | None:
    """The criterion for utility where the request has none: most of the first figure that both models have."""
    names = (*UTILITY, *(evidence.get("headline") or {}).get("utility", ()))
    name = next((name for name in names if (name, "after") in figures and (name, "before") in figures), None)
    if name is None:
        return None
    lower = any(s["name"] == name and s.get("better") == "lower" for s in evidence["scores"])
    value, before = figures[name, "after"], figures[name, "before"]
    bound = before / FLOOR if lower else FLOOR * before
    rule = f"{name} <= before / {FLOOR}" if lower else f"{name} >= {FLOOR} * before"
    return {"rule": rule, "passed": value <= bound if lower else value >= bound, "value": value, "bound": bound}


def _shortfall(line: Mapping[str, Any]) -> float:
    """Distance of a failing criterion's value from its bound, relative to the bound: 0 to 10."""
    value, bound = line.get("value"), line.get("bound")
    if value is None or bound is None:
        return 10.0
    nearest = min((abs(value - edge), abs(edge)) for edge in (bound if isinstance(bound, list | tuple) else [bound]))
    return min(10.0, nearest[0] / max(1e-9, nearest[1]))
