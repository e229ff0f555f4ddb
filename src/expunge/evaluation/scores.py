"""Scores from readouts: the figures that a plan can have, each with its interval.

A metric or an attack is one file: a CARD and a factory. The function that the factory returns takes readouts by name:
"split" of a card's needs is the argument `split` (the figure is computed for each of the card's splits), "forget" the
argument `forget`, "gold.split" the argument `gold_split`, "before.retain" the argument `before_retain` (gold's readout,
and that of the model before the change). A channel that ends in "?" may be missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from expunge.core import registry
from expunge.core.card import AttackCard, Example, MetricCard
from expunge.core.channels import CHANNELS, OWN
from expunge.data.splits import FURTHER, SEEN
from expunge.evaluation import intervals
from expunge.evaluation.groups import count_groups, groups_of
from expunge.evaluation.readout import Readout
from expunge.ledger.evidence import SECOND_GOLD, ScoreRecord

SIDES = ("forgetting", "utility", "privacy", "robustness", "alignment", "cost")
ROLES = ("before", "after", "gold")
UNITS = ("nats", "share", "auc", "ratio", "p-value", "steps", "count", "distance", "seconds", "bytes")
WITHOUT_INTERVAL = ("p-value", "steps", "count", "distance", "seconds", "bytes")
RANGES = {"share": (0.0, 1.0), "auc": (0.0, 1.0), "nats": (0.0, float("inf"))}
"""The ends of a unit, at which the interval of a mean is cut: a figure that may be negative is not in nats."""
FIELDS = {"subject": "role"}
"""Keys of a score in evidence.json that are fields of another name here."""
PRESENT, HOME = "split", "forget"
PROBES = "probes"
"""In a card's splits: every further split that was given, whatever its name."""
PERPLEXITY = "forget_log_perplexity"  # of pipeline/fluency.py, where there is gold and the model writes
LIKE_RETAIN = (SEEN, *FURTHER)
"""Splits on which everything is measured that a card measures on retain, other than the side alignment."""
NAMED_SPLITS = frozenset(
    {"forget", "retain", "holdout", "test", "test_forget", "reference", "real_authors", "world_facts"}
) | frozenset(LIKE_RETAIN)
"""The splits that cards name one by one, or mean with retain."""
DIVERGED = "the figure is not finite: the model has diverged"


class NotMeasured(Exception):
    """A figure cannot be measured; the message is the reason, in plain words."""


@dataclass(frozen=True)
class Figure:
    """A figure that a metric aggregates itself. low, high: its 95 % interval; n: examples.

    values: [N] per-example values whose mean is the figure, where there are such. others: of an AUC, [K] such values of
    the other side. why: a remark. groups: the number of groups by which the interval is clustered.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    values: np.ndarray | None = None
    why: str = ""
    groups: int | None = None
    others: np.ndarray | None = None


Metric = Callable[..., np.ndarray | Figure]
"""The function that a factory in metrics/ or attacks/ returns: readouts -> [N] values, of which masked ones do not
count, or a Figure."""


class Label(TypedDict):
    """The fields of a score that do not depend on what was measured."""

    name: str
    side: str
    split: str
    role: str
    unit: str
    better: str


@dataclass(frozen=True)
class Score:
    """One figure of one role. A measured one is finite; another has a reason in `why`.

    One example says nothing of the spread: below n = 2 there is no interval, whatever the plug-in made of it.
    """

    name: str
    side: str
    split: str
    role: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str
    better: str
    """"higher", "lower" or "gold": the nearer to a model that never saw the data, the better."""
    status: Literal["measured", "not measured"] = "measured"
    why: str = ""
    groups: int | None = None
    """Groups by which the interval is clustered; None where each example counts by itself."""
    values: np.ndarray | None = field(default=None, compare=False, repr=False)
    """[N] per-example values in the split's order (masked where an example does not count)."""
    others: np.ndarray | None = field(default=None, compare=False, repr=False)  # [K] of an AUC: of the holdout

    def __post_init__(self) -> None:
        ends = [end for end in (self.low, self.high) if end is not None]
        if self.unit not in UNITS or self.side not in SIDES:
            raise ValueError(f"{self.name}: unknown unit {self.unit!r} or side {self.side!r}")
        if not self.measured:
            if self.value is not None or ends or not self.why:
                raise ValueError(f"{self.name}: not measured needs a reason and has no figures")
        elif self.value is None or not np.isfinite([self.value, *ends]).all():
            raise ValueError(f"{self.name}: a measured score is finite, not {self.value}")
        elif self.unit not in WITHOUT_INTERVAL:
            if len(ends) == 1 or (not ends and self.n > 1):
                raise ValueError(f"{self.name}: a score in {self.unit} has an interval")
            if self.n < 2:
                reason = f"n = {self.n}: no interval"
                why = self.why if reason in self.why else "; ".join(filter(None, [reason, self.why]))
                for name, value in {"low": None, "high": None, "why": why}.items():
                    object.__setattr__(self, name, value)

    @property
    def measured(self) -> bool:
        return self.status == "measured"

    @classmethod
    def not_measured(cls, why: str, **label: Unpack[Label]) -> Score:
        """A score without a figure; why: the reason, in plain words."""
        return cls(**label, value=None, low=None, high=None, n=0, status="not measured", why=why)

    @classmethod
    def of_figure(cls, figure: Figure, **label: Unpack[Label]) -> Score:
        """The score that a figure makes; not measured where the figure is not finite."""
        numbers = [x for x in (figure.value, figure.low, figure.high) if x is not None]
        if not np.isfinite(numbers).all():
            return cls.not_measured(figure.why or DIVERGED, **label)
        return cls(**label, **vars(figure))

    def to_json(self) -> dict[str, Any]:
        """The score as `evidence.json` holds it: everything but the per-example values."""
        return {key: getattr(self, FIELDS.get(key, key)) for key in ScoreRecord.model_fields}

    @classmethod
    def of(cls, shown: Any) -> Score:
        """The score that `to_json` gave, of schema 1 too. Raises ValueError where it is none."""
        record = ScoreRecord.parse(shown)
        return cls(**{FIELDS.get(key, key): getattr(record, key) for key in ScoreRecord.model_fields})


@dataclass(frozen=True)
class Planned:
    """One score that a plug-in can give, on one split; over several, `split` is their home."""

    plugin: registry.Plugin[MetricCard]
    name: str
    split: str
    side: str
    better: str
    needs: dict[str, tuple[str, str, frozenset[str]]]
    """Argument -> (owner or "" for the role itself, split, channels)."""


def measure(readouts: Mapping[str, Mapping[str, Readout]], capabilities: frozenset[str]) -> list[Score]:
    """All scores of all metrics and attacks that apply, by side; of what is missing with the reason."""
    given = {split for splits in readouts.values() for split in splits}
    roles = [role for role in (*ROLES, SECOND_GOLD) if role in readouts]
    scores = [
        _measure_one(planned, role, readouts, given) for planned in _plan_scores(capabilities, given) for role in roles
    ]
    return sorted(_interpret(scores), key=lambda score: SIDES.index(score.side))


def requirements(
    capabilities: frozenset[str], splits: Iterable[str], names: tuple[str, ...] = ("",)
) -> dict[str, frozenset[str]]:
    """Split -> the channels that the applicable metrics and attacks need of it, gold's included; of scores whose names
    begin with one of `names`."""
    given = set(splits)
    wanted: dict[str, frozenset[str]] = {split: frozenset() for split in sorted(given)}
    for planned in _plan_scores(capabilities, given):
        if planned.name.startswith(names) and all(split in given for _, split, _ in planned.needs.values()):
            for _, split, channels in planned.needs.values():
                wanted[split] |= {channel.rstrip("?") for channel in channels}
    return wanted


def score_names(
    capabilities: frozenset[str], splits: Iterable[str], has_gold: bool, has_before: bool = True
) -> list[str]:
    """The names of the scores that a plan with these splits can measure, sorted.

    A score of the side alignment that is measured on several splits has the first one's under its bare name, and each
    one's as `name.split`.
    """
    given = set(splits)
    owners = {""} | ({"gold"} if has_gold else set()) | ({"before"} if has_before else set())
    found = set()
    for planned in _plan_scores(capabilities, given):
        if all(split in given and owner in owners for owner, split, _ in planned.needs.values()):
            several = planned.side == "alignment"
            found |= {f"{planned.name}.{planned.split}"} if several else set()
            found |= {planned.name} if not several or planned.split == next(iter(planned.plugin.card.splits)) else set()
            card = planned.plugin.card
            if has_gold and planned.side in SIDES[:2] and card.unit in RANGES and card.aggregate != "harmonic":
                found |= {f"{planned.name}_gap", f"{planned.name}_beyond"}
    if has_gold:
        attacked = any(name.startswith("privacy_") and name.endswith("_auc") for name in found)
        found |= {"forget_nll_above_gold"} if "forget_nll" in found else set()
        found |= {"privacy_worst"} if attacked else set()
        found |= {PERPLEXITY} if "forget" in given and "generate" in capabilities else set()
    return sorted(found)


def bounded_scores(capabilities: frozenset[str], splits: Iterable[str]) -> dict[str, str]:
    """Score -> unit, of those scores that lie between 0 and 1."""
    return {
        planned.name: planned.plugin.card.unit
        for planned in _plan_scores(capabilities, set(splits))
        if RANGES.get(planned.plugin.card.unit) == (0.0, 1.0)
    }


def _plan_scores(capabilities: frozenset[str], given: set[str]) -> Iterator[Planned]:
    for plugin in registry.everything("metrics") + registry.everything("attacks"):
        card = plugin.card
        # An attack with a level (relearning, quantisation) works on the model, not on readouts: see attacking.py.
        if (
            (isinstance(card, AttackCard) and card.level)
            or not card.needs
            or not frozenset(card.capabilities) <= capabilities
        ):
            continue
        keys = {key: key.rpartition(".") for key in card.needs}
        bare = any(place == PRESENT for _, _, place in keys.values())
        fair = card.side == "alignment"  # a side of its own, whatever split it is read on
        if bare:
            also = LIKE_RETAIN if "retain" in card.splits and not fair else ()
            homes = [split for split in (*card.splits, *also) if split in given and split != PROBES]
            homes += sorted(given - NAMED_SPLITS) if PROBES in card.splits else []
        else:
            places = [place for _, _, place in keys.values()]
            homes = [HOME if HOME in places else places[0]]
        for home in homes:
            side = _side_of(home) if bare and not fair else card.side
            yield Planned(
                plugin,
                f"{home if bare and not fair else side}_{plugin.name}",
                home,
                side,
                _better(card, home) if bare and not fair else card.better,
                {
                    key.replace(".", "_"): (owner, home if place == PRESENT else place, frozenset(card.needs[key]))
                    for key, (owner, _, place) in keys.items()
                },
            )


def _side_of(split: str) -> str:
    return "forgetting" if must_go(split) else "privacy" if split == "holdout" else "utility"


def must_go(split: str) -> bool:
    """The user's own probes, and further splits whose name starts with `forget`, ask for what must go."""
    return split == PROBES or split.startswith("forget")


def _better(card: MetricCard, split: str) -> str:
    """The better direction of a score: data that must be forgotten, or were never seen, should look as they do to gold.

    There neither a high nor a low figure is good by itself: too little forgetting and too much both show. A figure that
    compares with gold already says which way is better.
    """
    against_gold = any(key.startswith("gold.") for key in card.needs)
    unseen = must_go(split) or split == "holdout"
    return "gold" if unseen and not against_gold else card.better


def _measure_one(
    planned: Planned,
    role: str,
    readouts: Mapping[str, Mapping[str, Readout]],
    given: set[str],
) -> Score:
    card = planned.plugin.card
    label: Label = {
        "name": planned.name,
        "side": planned.side,
        "split": planned.split,
        "role": role,
        "unit": card.unit,
        "better": planned.better,
    }
    try:
        if lacking := [split for _, split, _ in planned.needs.values() if split not in given]:
            raise NotMeasured(f"no {lacking[0]} was given")
        arguments = {
            argument: _readout(readouts, owner or role, split, channels)
            for argument, (owner, split, channels) in planned.needs.items()
        }
        figure = _figure(card, planned.plugin.factory()(**arguments), readouts[role][planned.split].examples)
    except NotMeasured as reason:
        return Score.not_measured(str(reason), **label)
    if role in {owner for owner, _, _ in planned.needs.values()}:
        figure = dataclasses.replace(figure, why=f"by definition: {role} against itself")
    own = [one for one in arguments.values() if one.remark and (one.role, one.split) == (role, planned.split)]
    for remark in sorted({one.remark for one in own}):
        figure = dataclasses.replace(figure, why="; ".join(filter(None, [figure.why, remark])))
    return Score.of_figure(figure, **label)


def _readout(
    readouts: Mapping[str, Mapping[str, Readout]],
    owner: str,
    split: str,
    channels: frozenset[str],
) -> Readout:
    """The readout that a metric needs. Raises NotMeasured with the reason where there is none."""
    if owner not in readouts:
        raise NotMeasured("no gold model" if owner == "gold" else f"the model {owner} the change was not read")
    if split not in readouts[owner]:
        raise NotMeasured(f"{split} was not read for {owner}")
    readout = readouts[owner][split]
    if len(readout) == 0:
        raise NotMeasured(f"{split} is empty")
    for channel in sorted(channels):
        if not channel.endswith("?") and not has(readout, channel):
            raise NotMeasured(f"no {CHANNELS[channel].words if channel in CHANNELS else channel} were read on {split}")
    return readout


def has(readout: Readout, channel: str) -> bool:
    """True where a readout holds a channel."""
    if channel.startswith("pooled:"):
        return channel.removeprefix("pooled:") in readout.pooled
    if channel in OWN:
        return channel in readout.own
    fields = CHANNELS[channel].readout if channel in CHANNELS else (channel,)
    return all(getattr(readout, name, None) is not None for name in fields)


def _figure(card: MetricCard, result: np.ndarray | Figure, rows: Sequence[Example]) -> Figure:
    """A metric's result with its interval, clustered by group, cut at `RANGES`; NotMeasured if empty or not finite."""
    if isinstance(result, Figure):
        numbers = [x for x in (result.value, result.low, result.high) if x is not None]
        if not np.isfinite(numbers).all():
            raise NotMeasured(DIVERGED)
        return result
    counted = np.ma.masked_array(result, dtype=float).compressed()
    if len(counted) == 0:
        raise NotMeasured("no example carries what it needs")
    broken = int((~np.isfinite(counted)).sum())
    if broken:
        raise NotMeasured(f"not finite on {broken} of {len(counted)} examples: the model has diverged")
    if card.aggregate == "harmonic":
        groups = groups_of(rows)
        found = intervals.harmonic(result, groups=[groups])
        return Figure(*found, n=len(result), groups=count_groups(groups))
    groups = groups_of(rows, np.ma.getmaskarray(result))
    if card.aggregate == "share":
        found = intervals.proportion(counted, groups=groups)
    elif card.aggregate == "mean":
        found = intervals.mean(counted, *RANGES.get(card.unit, (-np.inf, np.inf)), groups=groups)
    else:
        raise ValueError(f"{card.title}: unknown aggregate {card.aggregate!r}")
    return Figure(*found, n=len(counted), values=result, groups=count_groups(groups))


def _interpret(scores: list[Score]) -> list[Score]:
    """Mark membership scores whose splits a classifier of texts alone can distinguish."""
    blind = {
        score.role: score
        for score in scores
        if score.name == "privacy_blind_auc" and score.measured and (score.low or 0) > 0.5
    }
    return [
        dataclasses.replace(score, why=_differ(blind[score.role], score.why))
        if score.role in blind
        and score.measured
        and score.side == "privacy"
        and score.name.startswith("privacy_")
        and score.name != "privacy_blind_auc"
        else score
        for score in scores
    ]


def _differ(blind: Score, remark: str) -> str:
    reason = (
        "not interpretable: the splits differ by themselves (blind AUC "
        f"{blind.value:.2f} [{blind.low:.2f}, {blind.high:.2f}])"
    )
    return f"{reason}; {remark}" if remark else reason
