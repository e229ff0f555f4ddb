"""The observation of a model: what is read of it, what attacks bring out, and what it answers to the domains' prompts.

`observe` is the only way from an opened model to these, whoever wants them: run, audit, bench, tune and verify.
"""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.alignment.observation import AlignmentObservation, observe_alignment
from expunge.core import processes
from expunge.core.card import Example
from expunge.core.contracts import Model, Reporter
from expunge.core.errors import BadInput
from expunge.core.random import permutation
from expunge.evaluation import attack, reading, scores
from expunge.evaluation.readout import Readout
from expunge.ledger.evidence import SECOND_GOLD
from expunge.models.family import family
from expunge.models.guarded import bare_model
from expunge.models.manifest import manifest_of
from expunge.models.open import open_model
from expunge.pipeline.clients import read_rows
from expunge.pipeline.compatibility import fits_reference
from expunge.pipeline.gold import gold as train_gold
from expunge.pipeline.gold import second_manifest
from expunge.pipeline.gold_check import MODELS, REFUSED, Origin, gold_fault, hiding_fault
from expunge.pipeline.observation_spec import ObservationSpec
from expunge.pipeline.plan import Plan
from expunge.pipeline.slowdown import slowdown
from expunge.pipeline.views import NO_VIEWS, Views, views_of
from expunge.training.precision import autocast

PROMPTED_ROLES = ("before", "after")
ACCOUNT = ("tokens", "passes", "seconds", "machine")
"""Fields of a manifest that say what a training took."""
COMPARED_ROLES = ("before", "gold")
"""The roles that are observed first, and that attacks on the next models compare with."""
ATTACKED = 200
"""Examples of a split that most attacks on a model take at most: a seeded sample; n is given with each figure."""
RELEARNING = "relearn_forget"
"""The attack that a gold model of unknown origin must withstand."""
WEIGHED = 2**30
"""Weights of a larger model are not kept for the comparisons of a deep audit."""


@dataclass(frozen=True)
class Observation:
    """Everything that was observed of one model. Complete when it is made, and never changed."""

    fingerprint: Any = None
    """The model's; None where nothing was opened."""
    readouts: Mapping[str, Readout] = field(default_factory=dict)
    """Split -> what one pass over it recorded."""
    meter: reading.Meter = field(default_factory=reading.Meter)
    why: str = ""
    """Why there are no readouts."""
    folder: str = ""
    """The place of a gold model, from which it can be opened again."""
    again: Callable[[], Model] | None = None
    """Opens a gold model again."""
    answers_N: np.ndarray | None = None
    """[N] nats per token that gold gives the model's own answers to the forget questions (pipeline/fluency.py)."""
    account: Mapping[str, Any] = field(default_factory=dict)
    """What training the model took, as far as its manifest says (gold): `ACCOUNT`."""
    attacks: Mapping[str, attack.Found | str] = field(default_factory=dict)
    """Attack -> its result, or why it could not run."""
    attack_seconds: float = 0.0
    attacked: Sequence[Example] = ()
    """The forget examples that were attacked, in the order of the attacks' results."""
    direct_N: np.ndarray | None = None
    """[N] what direct questions bring out of the examples that were attacked."""
    states: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Module path -> [N, D] pooled hidden states, where a deep audit read them."""
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Name -> weight on the CPU, where a deep audit compares the next models with them."""
    aligned: AlignmentObservation | None = None
    """Its answers to the domains' prompts."""
    views: Views = NO_VIEWS
    """A classifier's views of some examples or a generator's drawings, where the report wants them."""
    slowdown: float | None = None
    """Behind guards: time to score an example, over the bare model's."""

    @property
    def seconds(self) -> float | None:
        """Time that training the model took (gold)."""
        return self.account.get("seconds")

    @property
    def refused(self) -> bool:
        """Whether the model was read and is not taken for what it was given as; `why` has the reason."""
        return bool(self.why) and self.fingerprint is not None


@dataclass(frozen=True)
class _Attacked:
    results: Mapping[str, attack.Found | str] = field(default_factory=dict)
    seconds: float = 0.0
    forget: Sequence[Example] = ()
    direct_N: np.ndarray | None = None
    states: Mapping[str, np.ndarray] = field(default_factory=dict)


def observe(
    model: Model,
    role: str,
    spec: ObservationSpec,
    reporter: Reporter,
    *,
    against: Mapping[str, Observation] | None = None,
    fingerprint: Any = None,
) -> Observation:
    """Read, attack and question an opened model; several processes share the work, and all get the whole.

    role: "before", "gold", "second_gold" or "after". against: role -> earlier observation, which attacks compare with.
    """
    fingerprint = fingerprint or model.fingerprint()
    weights = _weights(model) if role in COMPARED_ROLES and spec.level == "deep" else {}
    meter = reading.Meter()
    readouts = _read(model, role, spec, fingerprint, meter, reporter)
    slower = processes.from_first(lambda: slowdown(model, spec.splits)) if role == "after" else None
    attacked = _Attacked()
    if spec.level != "none" and "forget" in readouts:
        attacked = _attack(model, role, spec, readouts, against or {}, fingerprint, reporter)
    aligned = None
    if role in PROMPTED_ROLES and spec.alignment is not None:
        prompts = spec.alignment
        aligned = processes.from_first(lambda: observe_alignment(model, prompts, role, reporter))
    return Observation(
        fingerprint=fingerprint,
        readouts=readouts,
        meter=meter,
        attacks=attacked.results,
        attack_seconds=attacked.seconds,
        attacked=attacked.forget,
        direct_N=attacked.direct_N,
        states=attacked.states,
        weights=weights,
        aligned=aligned,
        views=processes.from_first(lambda: views_of(model, spec.splits, spec.seed)) if spec.views else NO_VIEWS,
        slowdown=slower,
    )


def _weights(model: Model) -> dict[str, torch.Tensor]:
    """A copy of the bare model's weights on the CPU; none of a large model."""
    if sum(parameter.numel() for parameter in model.module.parameters()) > WEIGHED:
        return {}
    return {name: x.detach().to("cpu", copy=True) for name, x in bare_model(model).module.state_dict().items()}


def _read(
    model: Model, role: str, spec: ObservationSpec, fingerprint: Any, meter: reading.Meter, reporter: Reporter
) -> dict[str, Readout]:
    """Split -> readout: one pass per split."""
    if study := family(model.family).study:
        study(bare_model(model), spec.splits)
    channels = scores.requirements(model.capabilities, spec.splits, spec.names)
    if spec.answer_quantile < 1:
        shorter = {"generation": f"generation:{spec.answer_quantile:g}"}
        channels = {split: frozenset(shorter.get(one, one) for one in found) for split, found in channels.items()}
    readouts: dict[str, Readout] = {}
    stage = f"reading {role}"
    reporter.start(stage, len(spec.splits))
    for i, (name, rows) in enumerate(spec.splits.items()):
        given = (model, name, rows, channels[name], meter)
        with autocast(spec.read_precision):
            readouts[name] = read_rows(spec.parties, *given, role=role, fingerprint=fingerprint)
        readouts[name].remark = spec.remarks.get(name, "") if role == "after" else ""
        reporter.advance(stage, i + 1, name)
    reporter.finish(stage)
    return readouts


def _attack(
    model: Model,
    role: str,
    spec: ObservationSpec,
    readouts: Mapping[str, Readout],
    against: Mapping[str, Observation],
    fingerprint: Any,
    reporter: Reporter,
) -> _Attacked:
    """Run the level's attacks on a seeded sample of the examples."""
    began = time.monotonic()
    sampled = {
        name: sorted(permutation(len(rows), spec.seed, "attack", name)[:ATTACKED]) for name, rows in spec.splits.items()
    }
    earlier = {other: one for other, one in against.items() if one.readouts and other in COMPARED_ROLES}
    golds = {other: one for other, one in against.items() if other != "before"}
    known = {**{other: one.readouts for other, one in earlier.items()}, role: readouts}
    taken = {
        other: {name: readout.take(sampled[name]) for name, readout in found.items()} for other, found in known.items()
    }
    target = attack.Target(
        model,
        role,
        {name: [spec.splits[name][i] for i in rows] for name, rows in sampled.items()},
        taken[role],
        {other: attack.knowledge(found["forget"]) for other, found in taken.items() if "forget" in found},
        float((spec.manifest or {}).get("learning_rate") or attack.RATE),
        spec.manifest,
        spec.seed,
        fingerprint,
        states={other: dict(one.states) for other, one in earlier.items() if one.states},
        weights={other: one.weights for other, one in earlier.items() if one.weights},
        golds={other: attack.AttackedGold(one.attacks, one.again, one.direct_N) for other, one in golds.items()},
        whole=spec.splits,
    )
    states = target.states_of(role) if spec.level == "deep" and role == "gold" else None
    results = attack.attack(spec.level, target, reporter, spec.attacks)
    return _Attacked(results, round(time.monotonic() - began, 2), target.forget, target.plain[role], states or {})


@dataclass(frozen=True)
class GoldSpec:
    """A gold model that is to be observed."""

    role: str
    """"gold" or "second_gold"."""
    source: str
    """"train", or the folder of a model that was given."""
    manifest: dict[str, Any] | None
    """The training to repeat without the forget set."""
    forget: Sequence[Example]
    trust_code: bool

    @classmethod
    def of(cls, plan: Plan, role: str, source: str) -> GoldSpec:
        return cls(role, source, plan.manifest, plan.splits["forget"], plan.request.trust_code)


def observe_gold(
    plan: Plan, base: Model, spec: ObservationSpec, before: Observation, reporter: Reporter
) -> Observation:
    """The model retrained without the forget set, or why there is none. base lends its tokenizer."""
    if not plan.gold:
        return Observation(why=plan.no_gold)
    observed = observe_retrained(GoldSpec.of(plan, "gold", plan.gold), base, spec, {"before": before}, reporter)
    if observed.refused and plan.budget.stop == "gold":
        fix = "give a model retrained without the forget set"
        raise BadInput.of("gold", plan.request.gold, f"is {observed.why}", fix)
    return observed


def observe_golds(
    plan: Plan, base: Model, spec: ObservationSpec, before: Observation, reporter: Reporter
) -> dict[str, Observation]:
    """Role -> gold, and the model that was retrained from another seed; of each, why there is none.

    The second one says how far two retrainings differ.
    """
    gold = observe_gold(plan, base, spec, before, reporter)
    if not plan.second_gold:
        none = Observation(why=f"no second gold model: {plan.second_gold_work}" if plan.gold else "")
        return {"gold": gold, SECOND_GOLD: none}
    wanted, earlier = GoldSpec.of(plan, SECOND_GOLD, plan.second_gold), {"before": before, "gold": gold}
    return {"gold": gold, SECOND_GOLD: observe_retrained(wanted, base, spec, earlier, reporter)}


def observe_retrained(
    wanted: GoldSpec,
    base: Model,
    spec: ObservationSpec,
    against: Mapping[str, Observation],
    reporter: Reporter,
    *,
    others: Mapping[str, Observation] | None = None,
) -> Observation:
    """A gold model, trained or opened, and checked against those observed earlier and `others`.

    base lends its tokenizer to a training. Raises BadInput where a given model does not go with the data.
    """
    folder: str | Path = wanted.source
    if wanted.source == "train":
        assert wanted.manifest is not None
        manifest = second_manifest(wanted.manifest) if wanted.role == SECOND_GOLD else wanted.manifest
        folder = train_gold(manifest, wanted.forget, base, reporter)
    again = functools.partial(open_model, str(folder), wanted.trust_code)
    fits_reference(base, model := again(), spec.splits, wanted.role, wanted.source)
    observed = observe(model, wanted.role, spec, reporter, against=against)
    del model
    gc.collect()
    made = manifest_of(folder)
    origin = Origin.of(made, wanted.forget, retrained=wanted.source == "train")
    account = {name: made[name] for name in ACCOUNT if made and made.get(name) is not None}
    checked = check_gold(observed, {**against, **(others or {})}, origin)
    return replace(checked, account=account, folder=str(folder), again=again)


def check_gold(gold: Observation, others: Mapping[str, Observation], origin: Origin) -> Observation:
    """The observation of a gold model as it is; without figures and with the reason where it is not one.

    others: role -> the models that it must not be, as far as they were observed.
    """
    if not gold.readouts:
        return gold
    before = others.get("before")
    same = next((role for role, one in others.items() if _weights_digest(one) == _weights_digest(gold)), "")
    why = gold_fault(gold.readouts, before.readouts if before else None, origin, same_as=same)
    relearnt = gold.attacks.get(RELEARNING)
    if not why and before is not None and isinstance(relearnt, attack.Found):
        why = hiding_fault(relearnt.recovered_N, gold.direct_N, before.direct_N, origin)
    return Observation(gold.fingerprint, why=why, meter=gold.meter) if why else gold


def refuse_copies(golds: Mapping[str, Observation], after: Observation) -> dict[str, Observation]:
    """The gold models that were given, without figures where they have the weights of the changed model."""
    copied = {role for role, one in golds.items() if one.readouts and _weights_digest(one) == _weights_digest(after)}
    why = f"{REFUSED}its weights are those of {MODELS['after']}"
    return {
        role: Observation(one.fingerprint, why=why, meter=one.meter) if role in copied else one
        for role, one in golds.items()
    }


def _weights_digest(observed: Observation) -> Any:
    """The part of the fingerprint that is of the weights, where the family names it."""
    found = observed.fingerprint
    return found.get("weights", found) if isinstance(found, Mapping) else found


def observe_saved(
    plan: Plan, folder: Path, spec: ObservationSpec, against: Mapping[str, Observation], reporter: Reporter
) -> Observation:
    """The changed model as it was saved: the evidence is of the artefact, not of what was in memory."""
    gc.collect()
    model = open_model(str(folder / "model"), plan.request.trust_code)
    return observe(model, "after", spec, reporter, against=against)
