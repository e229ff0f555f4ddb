"""The search for what a request leaves open: the most forgetting that its acceptance criteria allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from expunge.core import cache, processes
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput, Interrupted
from expunge.core.extras import require
from expunge.core.files import delete, finite, write_json, write_text
from expunge.core.request import Request, redact_request
from expunge.core.variables import expand
from expunge.evaluation import scores
from expunge.ledger.certificate import SALT, salt_of, seal
from expunge.models.open import open_model
from expunge.pipeline import out_folder
from expunge.pipeline.observation_spec import reading_spec
from expunge.pipeline.observe import observe, observe_gold
from expunge.pipeline.plan import Plan, check_runnable, plan
from expunge.pipeline.prepare import with_world
from expunge.workflows._search import STORE, TRIAL, Search, Target, check_journal, plain_trials
from expunge.workflows._search_space import Axis, axes, with_values

LEFT = frozenset({cache.JOURNAL, SALT, TRIAL})
"""What a search that was killed before its first trial may have left."""


@dataclass(frozen=True)
class Tuned:
    """The trials in order, the best of them (None: all failed), and where its request was written.

    method: whose numbers are searched. choice: why `auto` chose it, empty where the request names it. settings: the
    values that the best trial sets in the request (method and budget). whole: whether best.yaml is a complete request;
    where that would hold redacted examples, the settings are to be put into the original.
    """

    out: Path
    method: str
    choice: str
    space: list[Axis]
    target: float
    """The forget NLL to come near to, and whose it is: gold or holdout."""
    target_of: str
    trials: list[dict[str, Any]]
    best: dict[str, Any] | None
    settings: dict[str, Any]
    whole: bool

    @property
    def passed(self) -> bool:
        """Whether the best trial meets all acceptance criteria."""
        return self.best is not None and not self.best["failing"]

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "choice": self.choice or None,
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
    """Try values for what the request leaves open; writes `best.yaml`, a complete request, to `out`.

    Best is the trial whose forget NLL is nearest to gold's (to the holdout's, where there is no gold)
    among those that meet all acceptance criteria, else the one that misses the fewest by the least.
    Done again, it goes on where it stopped. Raises BadInput before anything is written.
    """
    require("tune", "", "optuna", "tune")
    request = request if isinstance(request, Request) else Request.parse(request)
    folder = Path(expand(out, "--out") if out else f"{request.out}-tune")
    search = _search_of(request, trials, folder, reporter or Silent())
    with out_folder.hold(folder):
        for lock in folder.glob(f"{STORE}.lock*"):  # of a process that was killed: this one holds the folder
            lock.unlink()
        identity = {"request": search.resolved, "axes": [asdict(axis) for axis in search.space]}
        key = seal(identity, salt_of(folder))
        check_journal(folder, key)
        try:
            target = _target(search.planned, search.reporter)
            search.run(trials, key, target)
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(f"Interrupted. Do the same again to go on ({folder}).") from None
        finally:
            delete(folder / TRIAL)
        tuned = _result(search, target)
        write_json(folder / "tune.json", tuned.to_json())
    return tuned


def _search_of(request: Request, trials: int, folder: Path, reporter: Reporter) -> Search:
    """The search of a request that leaves something open and says how much forgetting is enough. Raises BadInput."""
    if trials < 1:
        raise BadInput.of("--trials", trials, "is not a number of trials", "give a whole number from 1 up")
    if processes.world() > 1:
        raise BadInput.of("tune", "", "cannot run under a launcher of several processes", "start it as it is")
    resolved = request.to_dict()
    planned = plan(Request.parse({**resolved, "out": str(folder / TRIAL)}), resume=True)
    check_runnable(planned)
    space = list(axes(planned))
    if not space:
        fix = "leave some of its options out of the request, or run it as it is"
        if planned.ladder is not None:
            fix = f"name a method with numbers, or run it as it is ({planned.choice})"
        raise BadInput.of("method", planned.composed.name, "leaves no number open to search", fix)
    if not (folder / STORE).is_file():
        out_folder.free(folder, LEFT)
    if not planned.gold and "holdout" not in planned.splits:
        raise BadInput.of(
            "gold",
            request.gold,
            "is absent, and so is a holdout: nothing says how much forgetting is enough",
            "give gold or a holdout",
        )
    return Search(planned, space, resolved, folder, reporter)


def _target(planned: Plan, reporter: Reporter) -> Target:
    """Gold's forget NLL, else the holdout's before; the trials find the readouts in the cache. Raises BadInput."""
    planned = with_world(planned, reporter)
    model = open_model(planned.source, planned.request.trust_code)
    spec = reading_spec(planned)
    before = observe(model, "before", spec, reporter)
    gold = observe_gold(planned, model, spec, before, reporter)
    readouts = {role: one.readouts for role, one in (("before", before), ("gold", gold)) if one.readouts}
    figures = {(s.name, s.role): s.value for s in scores.measure(readouts, planned.capabilities)}
    for of, key in (("gold", ("forget_nll", "gold")), ("holdout", ("holdout_nll", "before"))):
        if (value := figures.get(key)) is not None:
            return Target(float(value), of, figures.get(("retain_nll", "before")))
    raise BadInput.of(
        "gold", planned.request.gold, f"cannot be had ({gold.why}), and there is no holdout", "give one of them"
    )


def _result(search: Search, target: Target) -> Tuned:
    """The trials so far; writes best.yaml, unless it would hold redacted examples."""
    planned, folder = search.planned, search.folder
    trials = plain_trials(folder)
    best = min((one for one in trials if one["state"] == "done"), key=lambda one: one["value"], default=None)
    values: dict[str, Any] = {}
    if best:
        values = with_values(planned, search.resolved, {axis: best["values"][axis.name] for axis in search.space})
    whole = not planned.request.redacted or redact_request(values) == values
    if best and whole:
        write_text(folder / "best.yaml", yaml.safe_dump(finite(values), sort_keys=False, allow_unicode=True))
    settings = {name: value for name, value in values.items() if name in ("method", "budget")}
    method, choice = planned.composed.name, planned.ladder.why if planned.ladder else ""
    return Tuned(folder, method, choice, search.space, target.forget_nll, target.of, trials, best, settings, whole)
