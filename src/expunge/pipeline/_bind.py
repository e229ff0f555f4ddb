"""The parts of a request, each bound as far as its faults allow, and checked against one another."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.alignment.spec import AlignmentSpec, on_refusals
from expunge.alignment.training_data import training_sources
from expunge.core import cache
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.contracts import Model
from expunge.core.errors import BadInput, Faults
from expunge.core.request import Request
from expunge.data.splits import SOURCES, Splits, make_splits
from expunge.data.worlds import is_builtin
from expunge.evaluation import acceptance, attack, scores
from expunge.methods.auto import Ladder, is_auto
from expunge.methods.compose import Composed, compose
from expunge.methods.repair import is_repair, repair_ladder
from expunge.methods.training import added_capabilities, client_in, with_defaults
from expunge.models.build import budget_of, outline
from expunge.models.manifest import manifest_of
from expunge.models.open import open_on_cpu
from expunge.models.packaged import is_packaged, outline_packaged, place_of
from expunge.models.prompt_notes import prompt_notes
from expunge.pipeline.choice import choose
from expunge.pipeline.clients import check_parties
from expunge.pipeline.compatibility import fits_history, fits_method, fits_model
from expunge.pipeline.folders import fits_cache, fits_folder
from expunge.pipeline.partition import divide, evidence_splits
from expunge.pipeline.worlds import config, is_trained


@dataclass(frozen=True)
class Base:
    """The model before the change: its place, how it was trained, and its structure without trained weights."""

    source: Any
    """A folder, a hub name or a factory; for an embedded world or a packaged model its place in the cache."""
    manifest: dict[str, Any] | None
    model: Model
    """On the meta device, or untrained."""


@dataclass(frozen=True)
class Parts:
    """A request with what its fields stand for; None where a field is faulty."""

    request: Request
    base: Base | None
    aligned: AlignmentSpec | None
    splits: Splits
    """As the request names them, so that faults name its rows."""
    composed: Composed | None
    ladder: Ladder | None
    """Of `method: auto` or a repair, whose first trial `composed` is."""
    rules: tuple[acceptance.Criterion, ...]

    @functools.cached_property
    def divided(self) -> Splits:
        """The splits with a part of retain held out."""
        return divide(self.splits, self.request.seed)

    @property
    def manifest(self) -> dict[str, Any] | None:
        """How the model was trained, where that is known."""
        return self.base.manifest if self.base else None


def bind(request: Request, faults: Faults) -> Parts:
    """Open and read what the request names. Faults are collected."""
    base: Base | None = None
    with faults:
        base = _base(request)
    aligned: AlignmentSpec | None = None
    splits: Splits = {}
    with faults:
        aligned = AlignmentSpec.from_request(request)
        splits = _splits(request, aligned, base)
    has_retain = "retain" in splits or request.retain is not None or request.data is not None
    composed: Composed | None = None
    ladder: Ladder | None = None
    with faults:
        if not is_auto(request.method) and not is_repair(request.method):
            composed = compose(request.method, has_retain=has_retain)
        elif base is not None and splits:
            if is_repair(request.method):
                ladder = repair_ladder(request.method, base.model, base.manifest)
            else:
                ladder = choose(request, base.model, splits, base.manifest)
            composed = compose(ladder.rungs[ladder.start], has_retain=has_retain)
    rules = []
    for key, text in request.accept.items():
        with faults:
            rules.append(acceptance.parse(key, text))
    return Parts(request, base, aligned, splits, composed, ladder, tuple(rules))


def _base(request: Request) -> Base:
    """The model's structure and manifest. Raises BadInput."""
    if not is_builtin(request.model):
        source = request.model if isinstance(request.model, str) else request.model.model_dump()
        folder = source if isinstance(source, str) else Path(source["weights"]).parent
        return Base(source, manifest_of(folder), open_on_cpu(source, trust_code=request.trust_code, meta=True))
    if is_packaged(request.model):
        place = place_of(request.model)
        there = cache.whole(place)
        return Base(str(place), None, open_on_cpu(str(place), meta=True) if there else outline_packaged(request.model))
    training = config(str(request.model))
    if is_trained(Path(training.out)):
        return Base(training.out, manifest_of(training.out), open_on_cpu(training.out, meta=True))
    spec = training.model
    known = {"model": spec, "data": training.data, "learning_rate": training.learning_rate, "seed": training.seed}
    model = outline(spec, training.seed) if isinstance(spec, dict) else outline_packaged(spec)
    if trainer := with_defaults(training.trainer, "trainer"):
        known["trainer"] = trainer
        model.capabilities |= added_capabilities(trainer)
    return Base(training.out, known, model)


def _splits(request: Request, aligned: AlignmentSpec | None, base: Base | None) -> Splits:
    forget, retain = training_sources(request, aligned)
    given = {name: getattr(request, name) for name in SOURCES if name != "retain"}
    sources = {"forget": forget, "retain": retain, **given}
    return make_splits(
        sources,
        probes=request.probes,
        columns=request.columns,
        seed=request.seed,
        turns=request.turns,
        client=client_in(base.manifest) if base else None,
    )


# -- do they go together ---------------------------------------------------------------------------


def check_parts(parts: Parts, resume: bool, faults: Faults) -> list[str]:
    """Check folder, cache, method, model and data against one another; notes on how the model was trained and is asked.

    Faults are collected.
    """
    request, composed, splits, notes = parts.request, parts.composed, parts.splits, []
    with faults:
        fits_folder(Path(request.out), resume)
    if composed is not None and request.redacted:
        with faults:
            _check_redaction(composed)
    with faults:
        fits_cache()
    if parts.base is None:
        return []
    model = parts.base.model
    if composed is not None:
        with faults:
            fits_method(composed, model, splits)
            notes += fits_history(composed, model, splits, parts.base.manifest)
    with faults:
        check_parties(client_in(parts.base.manifest), request.clients_send, request.audit)
    with faults:
        fits_model(model, splits)
        notes += prompt_notes(model, splits, request.turns)
    with faults:
        if parts.aligned is not None:
            parts.aligned.check(model.capabilities, splits)
    return notes


def _check_redaction(composed: Composed) -> None:
    """Refuse a method that would publish the forget set with the model of a redacted run. Raises BadInput."""
    for plugin in composed.plugins:
        if plugin.card.keeps:
            raise BadInput.of(
                "method",
                plugin.name,
                f"saves {plugin.card.keeps} in the model's folder, and the run is redacted",
                "choose another method, or set redact: false",
            )


def check_criteria(parts: Parts, has_gold: bool, faults: Faults) -> None:
    """Check that each acceptance criterion names a score that will be measured. Faults are collected."""
    if parts.base is None or not parts.splits:
        return
    capabilities, read = parts.base.model.capabilities, list(evidence_splits(parts.divided))
    names = scores.score_names(capabilities, read, has_gold)
    names += attack.score_names(parts.request.audit, capabilities, read, has_gold)
    names += parts.aligned.names if parts.aligned else []
    owners = {"before", "after"} | ({"gold"} if has_gold else set())
    units = scores.bounded_scores(capabilities, read)
    for rule in parts.rules:
        with faults:
            rule.names_score(names, owners, units)


# -- the budget ------------------------------------------------------------------------------------


def budget_for(parts: Parts) -> tuple[Budget, list[str]]:
    """(the request's budget over the method's and the defaults, notes on it)."""
    request, composed, manifest = parts.request, parts.composed, parts.manifest or {}
    if composed is not None and composed.yields == "ensemble" and "budget" in manifest:
        own = request.budget.model_fields_set
        notes = ["A deletion trains as its model was trained: the request's budget is not used."] if own else []
        return budget_of(manifest).over(Budget(stop="none"), DEFAULTS), notes
    recipe = composed.budget if composed else Budget()
    return request.budget.over(recipe, _default_stop(request, parts.splits), DEFAULTS), []


def _default_stop(request: Request, splits: Splits) -> Budget:
    """The holdout, where there is one and it says how unseen data look."""
    if on_refusals(request):
        return Budget(stop="refusals", epochs=40, batch_size=8)
    by_class = isinstance(request.forget, dict) and bool({"class", "concept"} & set(request.forget))
    return Budget(stop="holdout" if "holdout" in splits and not by_class else "none")


def check_stop(request: Request, budget: Budget, splits: Splits, has_gold: bool) -> None:
    """Check that the stopping rule has what it needs. Raises BadInput."""
    if budget.stop == "refusals" and not on_refusals(request):
        raise BadInput.of(
            "budget.stop", "refusals", "needs refusals to forget", "write forget: {refusals: DOMAIN}, or another stop"
        )
    if budget.stop == "holdout" and splits and "holdout" not in splits:
        raise BadInput.of(
            "budget.stop", "holdout", "needs a holdout, and there is none", "add holdout: FILE, or set stop: none"
        )
    if budget.stop == "gold" and not has_gold:
        raise BadInput.of(
            "budget.stop", "gold", "needs a gold model, and there is none", "set gold: FOLDER, or another stop"
        )
