"""The shared part of a bench: the base, its gold, and a second gold of another seed, each read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.core.contracts import Model, Reporter
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.evaluation import scores
from expunge.ledger.evidence import SECOND_GOLD
from expunge.methods.auto import is_auto
from expunge.methods.compose import compose
from expunge.models.open import open_model
from expunge.pipeline.choice import choose
from expunge.pipeline.compatibility import fits_history, fits_method
from expunge.pipeline.gold import gold as train_gold
from expunge.pipeline.gold import second_manifest
from expunge.pipeline.observation_spec import reading_spec
from expunge.pipeline.observe import observe, observe_gold
from expunge.pipeline.out_folder import without_quotations
from expunge.pipeline.plan import Plan, check_runnable, plan
from expunge.pipeline.prepare import with_world
from expunge.report import ranking
from expunge.workflows._bench_entries import Entry

NEUTRAL = {"forget": "ga"}
"""A method while the rest of the request is checked: it needs nothing but a forget set."""


@dataclass(frozen=True)
class SharedBase:
    """The base model, opened, and a plan of its request per seed."""

    model: Model
    plans: list[Plan]

    @classmethod
    def open(cls, request: Mapping[str, Any], seeds: Sequence[int], folder: Path, reporter: Reporter) -> SharedBase:
        """Plan the request for each seed, and open its model. Raises BadInput."""
        values = {**request, "method": NEUTRAL, "out": str(folder / "shared")}
        plans = [plan(Request.parse({**values, "seed": seed})) for seed in seeds]
        check_runnable(plans[0])
        plans = [with_world(one, reporter) for one in plans]
        return cls(open_model(plans[0].source, plans[0].request.trust_code), plans)

    def fitting(self, entries: Iterable[Entry], redact: bool) -> tuple[list[Entry], list[dict[str, str]]]:
        """(entries that go with this model and data, the others with the reason). Raises BadInput if none does."""
        splits = self.plans[0].splits
        fit, skipped = [], []
        for entry in entries:
            try:
                if is_auto(entry.spec):
                    choose(Request.parse({**self.plans[0].request.to_dict(), "method": entry.spec}), self.model, splits)
                else:
                    composed = compose(entry.spec, has_retain="retain" in splits)
                    fits_method(composed, self.model, splits)
                    fits_history(composed, self.model, splits, self.plans[0].manifest)
                fit.append(entry)
            except BadInput as error:
                # The other methods, which the fault goes on to name, are the leaderboard itself.
                whys = [fault.partition("; these would work")[0].removesuffix(".") + "." for fault in error.faults]
                why = without_quotations(" ".join(whys)) if redact else " ".join(whys)
                skipped.append({"method": entry.label, "why": why})
        if not fit:
            raise BadInput(*(entry["why"] for entry in skipped))
        return fit, skipped


@dataclass(frozen=True)
class SharedFigures:
    """Figures of the base, of gold and of a second gold: a mapping per seed of the bench."""

    before: list[dict[str, float]] = field(default_factory=list)
    gold: list[dict[str, float]] = field(default_factory=list)
    second: list[dict[str, float]] = field(default_factory=list)
    units: Mapping[str, str] = field(default_factory=dict)
    account: Mapping[str, Any] = field(default_factory=dict)
    """What training gold took: seconds, tokens and passes, as far as they are known."""
    why: str = ""
    """Why there is no gold, or no second one."""
    group: Any = None
    """The world or the base of the figures, where they are pooled with others."""

    @property
    def gaps(self) -> list[float]:
        """The average gap of the two golds, for each seed."""
        found = [ranking.average_gap(two, one) for one, two in zip(self.gold, self.second, strict=False)]
        return [gap for gap in found if gap is not None]

    def to_json(self) -> dict[str, Any]:
        """`gold` with the second gold and the noise floor, and `before`, for the leaderboard."""
        return pooled_figures([self])


def pooled_figures(found: Sequence[SharedFigures]) -> dict[str, Any]:
    """`gold` with the second gold and the noise floor, and `before`, over all settings of a bench."""
    units = {name: unit for one in found for name, unit in one.units.items()} | {"average_gap": "distance"}

    def over(role: str) -> tuple[dict[str, Any], dict[str, list[float]]]:
        pairs = [(figures, one.group) for one in found for figures in getattr(one, role)]
        groups = [group for _, group in pairs] if len({str(group) for _, group in pairs}) > 1 else None
        return ranking.over_runs([figures for figures, _ in pairs], units, groups)

    (before, before_ends), (gold, ends), (second, _) = over("before"), over("gold"), over("second")
    gaps = [gap for one in found for gap in one.gaps]
    seconds = [one.account["seconds"] for one in found if one.account.get("seconds") is not None]
    return {
        "gold": {
            **gold,
            "seconds": sum(seconds) / len(seconds) if seconds else None,
            "tokens": found[0].account.get("tokens"),
            "why": next((one.why for one in found if one.why), ""),
            "intervals": ends,
            "noise_floor": sum(gaps) / len(gaps) if gaps else None,
            "second": second,
        },
        "before": {**before, "intervals": before_ends},
    }


def read_shared(base: SharedBase, reporter: Reporter, group: Any = None) -> SharedFigures:
    """Train the gold models that are missing, and read all three; the runs find gold and readouts in the cache."""
    second, no_second = _second_gold(base, reporter)
    figures: dict[str, list[dict[str, float]]] = {"before": [], "gold": [], "after": []}
    units: dict[str, str] = {}
    account: Mapping[str, Any] = {}
    why = ""
    for planned in base.plans:
        spec = reading_spec(planned)
        before = observe(base.model, "before", spec, reporter)
        gold = observe_gold(planned, base.model, spec, before, reporter)
        readouts = {role: one.readouts for role, one in (("before", before), ("gold", gold)) if one.readouts}
        if second is not None:
            model = open_model(str(second), planned.request.trust_code)
            readouts["after"] = observe(model, SECOND_GOLD, spec, reporter).readouts
        evidence = {"scores": [score.to_json() for score in scores.measure(readouts, planned.capabilities)]}
        units |= ranking.units([evidence])
        for role, found in figures.items():
            if values := ranking.values(evidence, role):
                found.append(values)
        account, why = gold.account, gold.why or no_second
    return SharedFigures(figures["before"], figures["gold"], figures["after"], units, account, why, group)


def _second_gold(base: SharedBase, reporter: Reporter) -> tuple[Path | None, str]:
    """(gold trained from another seed, why there is none): the distance of two such models is the noise floor."""
    planned = base.plans[0]
    if planned.gold != "train":
        return None, planned.no_gold or "gold is a folder, which is not trained a second time"
    assert planned.manifest is not None
    return train_gold(second_manifest(planned.manifest), planned.splits["forget"], base.model, reporter), ""
