"""Attacks that work on a model: what they get, what they give back, how they are run and kept.

Such an attack is a file in attacks/ whose CARD has a `level`. Its factory returns a function
`(Target) -> Found`; every attack runs on the changed model and, where there is one, on gold, since
a model that never saw the data also learns and guesses: the difference is what counts. It also runs on
the model before the change, as a positive control (`evaluation/controls.py`). Suffixes: N examples of the
forget set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from expunge.core import cache, processes, registry
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Model, Reporter
from expunge.core.files import digest
from expunge.core.random import derive
from expunge.data.examples import identity
from expunge.evaluation import intervals
from expunge.evaluation.groups import count_groups, groups_of
from expunge.evaluation.hidden_states import pooled_states
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Label, NotMeasured, Score
from expunge.models.guarded import bare_model
from expunge.models.settings import settings_digest
from expunge.models.weights import thaw

VERSION = 11
"""Raised with any change that alters what an attack finds."""
LEVELS = ("none", "standard", "deep")
RATE = 2e-5
"""Learning rate of attacks that train, where no manifest tells the model's own."""


@dataclass
class Target:
    """The target of an attack: one opened model, the examples, and what was already read of it.

    role: "before", "gold", "second_gold" or "after". plain: model -> [N] knowledge of the forget set when it is simply
    asked (see `knowledge`). rate: the learning rate that the model was trained with.
    """

    model: Model
    role: str
    splits: Mapping[str, Sequence[Example]]
    readouts: Mapping[str, Readout]
    plain: Mapping[str, np.ndarray]
    rate: float = RATE
    manifest: Mapping[str, Any] | None = None
    """How the model before the change was trained, where that is known."""
    seed: int = 0
    fingerprint: Any = None
    states: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """Model -> module path -> [N + holdout, D] pooled hidden states, as far as they were read."""
    weights: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    """"before" or "gold" -> its weights by name, where a deep audit kept them."""
    golds: Mapping[str, AttackedGold] = field(default_factory=dict)
    """Role -> a gold model that was attacked before."""
    whole: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    """All rows of the splits, of which `splits` has a sample."""

    @property
    def forget(self) -> Sequence[Example]:
        return self.splits["forget"]

    @cached_property
    def key_parts(self) -> dict[str, Any]:
        """The model, its settings and the examples, as far as results depend on them."""
        return {
            "subject": self.fingerprint or self.model.fingerprint(),
            "settings": settings_digest(self.model),
            "data": {split: [_content(row) for row in self.splits[split]] for split in sorted(self.splits)},
        }

    def states_of(self, role: str) -> dict[str, np.ndarray] | None:
        """The pooled states of forget and then holdout; this model's own are read when first asked for."""
        if role == self.role and role not in self.states:
            self.states[role] = pooled_states(bare_model(self.model), [*self.forget, *self.splits.get("holdout", [])])
        return self.states.get(role)

    def derive(self, *parts: object) -> int:
        """A seed that is the same for every model: the same draws make the comparison a paired one."""
        return derive(self.seed, "attack", *parts)

    @contextlib.contextmanager
    def disposable(self) -> Iterator[Model]:
        """The model, to be changed at will: its weights and buffers come back at the end.

        Guards stay outside: who can change weights can also take them away.
        """
        module = self.model.module
        kept = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        training = module.training
        try:
            yield bare_model(self.model)
        finally:
            module.load_state_dict(kept)
            module.train(training)
            thaw(module)
            module.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class AttackedGold:
    """Gold, for attacks that choose their strength by the model: two models are compared at one strength.

    found: attack -> its result on gold. open: opens gold again; None where it cannot be. direct_N: [N] what direct
    questions bring out of it.
    """

    found: Mapping[str, Found | str]
    open: Callable[[], Model] | None = None
    direct_N: np.ndarray | None = None

    def strength(self, name: str) -> float:
        """The strength that an attack took on gold; 0 where it was not run there or has none."""
        found = self.found.get(name)
        return (found.strength or 0.0) if isinstance(found, Found) else 0.0

    def key(self, name: str) -> list[Any]:
        """All of it on which an attack's result on another model depends."""
        direct = None if self.direct_N is None else digest(self.direct_N.tobytes())
        return [self.strength(name), self.open is not None, direct]


@dataclass(frozen=True)
class Found:
    """The result of an attack.

    recovered_N: [N] share in 0-1 of each forget example's knowledge that it brought out, masked
    where the example does not count (it taught the attack); None for attacks that recover nothing.
    more: suffix -> (unit, better, figure), further scores. curve: points to draw, each with "x" and
    "value". texts: [N] what was recovered, in words. strength: what the attack chose by the model, if anything. golds:
    role -> its result on a gold model at that strength, where it took another one there.
    """

    figure: Figure
    recovered_N: np.ndarray | None = None
    more: Mapping[str, tuple[str, str, Figure]] = field(default_factory=dict)
    curve: Sequence[Mapping[str, float]] = ()
    texts: Sequence[str] | None = None
    strength: float | None = None
    golds: Mapping[str, Found] = field(default_factory=dict)


Attack = Callable[[Target], Found]


def plugins(level: str, capabilities: frozenset[str]) -> list[registry.Plugin[AttackCard]]:
    """The attacks on models that a level runs, of those that suit the family; by side and name."""
    known = LEVELS[: LEVELS.index(level) + 1]
    found = [p for p in registry.everything("attacks") if p.card.level and p.card.level in known]
    return sorted(
        (p for p in found if frozenset(p.card.capabilities) <= capabilities), key=lambda p: (p.card.side, p.name)
    )


def score_names(level: str, capabilities: frozenset[str], given: Iterable[str], has_gold: bool) -> list[str]:
    """The scores that an audit of this level can measure with these splits."""
    given = set(given)
    able = [p for p in plugins(level, capabilities) if set(p.card.needs) <= given]
    names = ["_".join(filter(None, [p.card.side, p.name, suffix])) for p in able for suffix in ("", *p.card.more)]
    if level != "none" and has_gold and "forget" in given:
        names += ["robustness_hidden", "robustness_hidden_share", "robustness_hidden_worst"]
    return sorted(names)


def cost(level: str, capabilities: frozenset[str], given: Iterable[str], golds: int) -> str:
    """The cost of the attacks of a level, in words, for the plan; empty where there are none. golds: their number."""
    if level == "none":
        return ""
    given = set(given)
    able = [p for p in plugins(level, capabilities) if set(p.card.needs) <= given]
    passes = sum(p.card.passes for p in able)
    control = sum(p.card.passes for p in able if not p.card.no_control)
    others = ("", " and on gold", " and on both golds")[golds]
    return (
        f"{level}: {len(able)} attacks on the model{others}, each time as much as about "
        f"{passes:.0f} forward passes over the forget set, and on the model before the change as their control (about "
        f"{control:.0f} passes); " + ", ".join(p.name for p in able)
    )


def knowledge(readout: Readout) -> np.ndarray:
    """[N] how far each example is known, in 0-1, from what was read: the probability of the answer per token (a
    classifier: of the label), or the family's own measure."""
    return np.asarray(np.exp(-readout.mean_nll_N)) if readout.known_N is None else readout.known_N


def attack(
    level: str, target: Target, reporter: Reporter, only: Collection[str] | None = None
) -> dict[str, Found | str]:
    """Name -> what each attack of the level found on the target, or why it could not run.

    only: names of attacks; None runs all of the level.
    Finished attacks are kept by a hash of weights, examples and code version, so that a killed audit
    goes on where it was. Several processes run some attacks each, and all get all results.
    """
    chosen = [p for p in plugins(level, target.model.capabilities) if only is None or p.name in only]
    mine = _shares(chosen, processes.world())[processes.rank()]
    found: dict[str, Found | str] = {}
    stage = f"attacking {target.role}"
    reporter.start(stage, len(mine))
    with processes.alone():
        for i, plugin in enumerate(mine):
            found[plugin.name] = _one(plugin, target)
            reporter.advance(stage, i + 1, plugin.name)
    reporter.finish(stage)
    results = {name: result for part in processes.gather(found) for name, result in part.items()}
    return {plugin.name: results[plugin.name] for plugin in chosen}


def _shares(chosen: Sequence[registry.Plugin[AttackCard]], count: int) -> list[list[registry.Plugin[AttackCard]]]:
    """The attacks of each of so many processes: the costliest first, each to the one that has the least to do."""
    shares: list[list[registry.Plugin[AttackCard]]] = [[] for _ in range(count)]
    passes = [0.0] * count
    for plugin in sorted(chosen, key=lambda p: -p.card.passes):
        least = passes.index(min(passes))
        shares[least].append(plugin)
        passes[least] += 1 + plugin.card.passes
    return [sorted(share, key=chosen.index) for share in shares]


def _one(plugin: registry.Plugin[AttackCard], target: Target) -> Found | str:
    if plugin.card.whole and target.whole:
        target = replace(target, splits=target.whole)
    if why := _reason_not_to_run(plugin.card, target):
        return why
    entry = f"attacks/{_key(plugin.name, target)}.json"
    if (known := cache.load(entry)) is not None:
        return _read(known)
    try:
        found = _cluster(plugin.factory()(target), target.forget)
    except NotMeasured as reason:
        return str(reason)
    cache.save(entry, _plain(found))
    return found


def _reason_not_to_run(card: AttackCard, target: Target) -> str:
    """Why the attack cannot run on the target, or need not; "" where it runs."""
    if target.role == "before" and card.no_control:
        return card.no_control
    missing = [split for split in card.needs if not target.splits.get(split)]
    if missing:
        return f"no {' and no '.join(missing)} {'were' if missing == ['probes'] else 'was'} given"
    for split, names in card.fields.items():
        for name in names:
            if not any(row.get(one) for row in target.splits[split] for one in name.split("|")):
                return f"no example of {split} carries {name.replace('|', ' or ')}"
    return ""


def _key(name: str, target: Target) -> str:
    """A hash of everything on which the attack's result depends."""
    return digest(
        {
            "version": VERSION,
            "attack": name,
            **target.key_parts,
            "plain": {role: digest(values.tobytes()) for role, values in target.plain.items()},
            "states": {
                role: digest([digest(x.tobytes()) for x in found.values()])
                for role, found in target.states.items()
                if role != target.role
            },
            "weights": {
                role: digest({name: float(x.double().square().sum()) for name, x in found.items()})
                for role, found in target.weights.items()
            },
            "golds": {role: one.key(name) for role, one in target.golds.items()},
            "rate": target.rate,
            "seed": target.seed,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
    )


def _cluster(found: Found, rows: Sequence[Example]) -> Found:
    """The result with the interval of the mean recovered share clustered by the examples' groups; on golds too."""
    found = replace(found, golds={role: _cluster(one, rows) for role, one in found.golds.items()})
    if found.recovered_N is None or found.figure.values is not found.recovered_N:
        return found
    if len(found.recovered_N) != len(rows):  # it asks questions of its own (probes)
        return found
    groups = groups_of(rows, np.ma.getmaskarray(found.recovered_N))
    if groups is None:
        return found
    ends = intervals.mean(np.ma.compressed(found.recovered_N), 0.0, 1.0, groups=groups)
    figure = replace(found.figure, low=ends.low, high=ends.high, groups=count_groups(groups))
    return replace(found, figure=figure)


def _content(row: Example) -> Any:
    """An example's identity, with what attacks use of it besides question and answer."""
    return [
        identity(row),
        *(
            row.get(name)
            for name in (
                "paraphrased_answer",
                "perturbed_answer",
                "group",
                "paraphrased_question",
                "subject",
                "aliases",
                "multi_hop_question",
                "translated_question",
                "cloze_question",
            )
        ),
    ]


def scores(results: Mapping[str, Mapping[str, Found | str]], capabilities: frozenset[str]) -> list[Score]:
    """The scores of all attacks on all models; results["after"]["relearn_forget"]."""
    made: list[Score] = []
    for plugin in plugins(LEVELS[-1], capabilities):
        for role, found in results.items():
            if plugin.name not in found:
                continue
            result = found[plugin.name]
            card, name = plugin.card, f"{plugin.card.side}_{plugin.name}"
            label = Label(name=name, side=card.side, split="forget", role=role, unit=card.unit, better=card.better)
            if isinstance(result, str):
                made.append(Score.not_measured(result, **label))
                continue
            made.append(Score.of_figure(result.figure, **label))
            made += [
                Score.of_figure(figure, **(label | {"name": f"{name}_{suffix}", "unit": unit, "better": better}))
                for suffix, (unit, better, figure) in result.more.items()
            ]
    return made


# -- the cache: JSON, no pickle -------------------------------------------------------------------


def _plain(found: Found) -> dict[str, Any]:
    return {
        "figure": _figure(found.figure),
        "recovered": _list(found.recovered_N),
        "more": {k: [unit, better, _figure(figure)] for k, (unit, better, figure) in found.more.items()},
        "curve": list(found.curve),
        "texts": None if found.texts is None else list(found.texts),
        "strength": found.strength,
        "golds": {role: _plain(one) for role, one in found.golds.items()},
    }


def _read(kept: dict[str, Any]) -> Found:
    more = {k: (unit, better, Figure(**_arrays(figure))) for k, (unit, better, figure) in kept["more"].items()}
    figure, golds = Figure(**_arrays(kept["figure"])), {role: _read(one) for role, one in kept["golds"].items()}
    return Found(figure, _array(kept["recovered"]), more, kept["curve"], kept["texts"], kept["strength"], golds)


def _figure(figure: Figure) -> dict[str, Any]:
    value = figure.value if np.isfinite(figure.value) else None
    return {
        "value": value,
        "low": figure.low,
        "high": figure.high,
        "n": figure.n,
        "values": _list(figure.values),
        "why": figure.why,
        "groups": figure.groups,
        "others": _list(figure.others),
    }


def _arrays(kept: dict[str, Any]) -> dict[str, Any]:
    value = float("nan") if kept["value"] is None else kept["value"]
    return {**kept, "value": value, "values": _array(kept["values"]), "others": _array(kept["others"])}


def _list(values: np.ndarray | None) -> list[float | None] | None:
    """Masked entries as None."""
    return None if values is None else np.ma.masked_array(values, dtype=float).tolist()


def _array(kept: list[float | None] | None) -> np.ndarray | None:
    if kept is None:
        return None
    mask = [value is None for value in kept]
    values = np.array([0.0 if value is None else value for value in kept])
    return np.ma.masked_array(values, mask=mask) if any(mask) else values
