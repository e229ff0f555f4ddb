"""The whole request, bound before anything starts: faults, steps, tokens, memory, time, disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.alignment import risk
from expunge.alignment.spec import AlignmentSpec
from expunge.core.budget import Budget
from expunge.core.errors import BadInput, Faults
from expunge.core.files import digest_named
from expunge.core.request import Request, read_config
from expunge.data.conflicts import conflict_notes
from expunge.data.duplicates import duplicate_notes
from expunge.data.fields import ignored_answers
from expunge.data.splits import Splits
from expunge.data.worlds import is_builtin
from expunge.evaluation import acceptance, attack
from expunge.methods.auto import Ladder
from expunge.methods.compose import Composed, compose
from expunge.methods.given import digest_models
from expunge.methods.repair import words_of
from expunge.models.generation import SPARE
from expunge.models.manifest import MANIFEST, retraining_tokens
from expunge.models.open import check, check_tokenizer
from expunge.models.packaged import check_packaged
from expunge.pipeline._bind import Parts, bind, budget_for, check_criteria, check_parts, check_stop
from expunge.pipeline._workload import Workload, estimates, fit, learning_rate
from expunge.pipeline.choice import cheaper_exactly, pooled_remarks
from expunge.pipeline.compatibility import fits_history, fits_sharding
from expunge.pipeline.estimate import answer_limits
from expunge.pipeline.gold import gold_folder, gold_source, membership_remarks, retraining_seconds, second_source
from expunge.pipeline.partition import evidence_splits, method_splits, most_read, notes
from expunge.pipeline.resources import Estimate, size
from expunge.pipeline.worlds import package_of
from expunge.training.optimisers import check_optimiser
from expunge.training.precision import precision_note, read_notes
from expunge.training.recomputation import check_recomputation


@dataclass(frozen=True)
class Rung:
    """One strength of `method: auto`: a method that was bound."""

    spec: Any
    composed: Composed
    budget: Budget
    work: Workload
    learning_rate: str
    whole_steps: int = 0
    """Steps before `auto.cost` cut them; 0 where it did not."""

    @property
    def tokens(self) -> int:
        """Tokens that it trains on at most."""
        return round(self.work.tokens_per_step * self.work.steps) + self.composed.ahead

    @property
    def remarks(self) -> list[str]:
        """Remarks on how it trains."""
        note = precision_note(self.work.precision) if self.composed.objective is not None else ""
        return [note] if note else []

    def within(self, tokens: float) -> Rung:
        """The same with as many steps as train on so many tokens, and one at least; itself where that is all, or where
        the method itself says how many it takes."""
        if self.tokens <= tokens or self.composed.method.steps is not None:
            return self
        steps = max(1, int((tokens - self.composed.ahead) / self.work.tokens_per_step))
        budget = self.budget.model_copy(update={"steps": steps, "epochs": None})
        return replace(self, budget=budget, work=replace(self.work, steps=steps), whole_steps=self.work.steps)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a plan that belong to the method."""
        return {
            "spec": self.spec,
            "composed": self.composed,
            "budget": self.budget,
            "steps": self.work.steps,
            "batch": self.work.batch,
            "checkpoint_every": self.work.checkpoint_every,
            "tokens": self.tokens,
            "learning_rate": self.learning_rate,
        }


@dataclass(frozen=True)
class Plan:
    """A request bound whole: all that a run needs. It is never changed; `dataclasses.replace` derives another."""

    request: Request
    source: Any
    """The model's folder, hub name or factory; for an embedded world its place in the cache."""
    manifest: dict[str, Any] | None
    """How the model was trained; None where that is not known."""
    splits: Splits
    spec: Any
    """The method as the request names it, or as `auto` chose it."""
    composed: Composed
    capabilities: frozenset[str]
    budget: Budget
    gold: str
    """"train", a folder, or "" with the reason in `no_gold`."""
    no_gold: str
    rules: tuple[acceptance.Criterion, ...]
    steps: int
    batch: int
    """Examples per step."""
    checkpoint_every: int
    """Steps between checkpoints at least; an epoch where that is longer."""
    tokens: int
    learning_rate: str
    estimate: Estimate
    here: Estimate
    """The estimate for this very machine; `estimate` may be for the memory limit of another."""
    aligned: AlignmentSpec | None
    """The request's wishes of alignment: drift, containment, refusals to forget."""
    answer_limits: Mapping[str, int]
    """Split -> most tokens of a generated answer whose reference is no longer; of the splits that are generated."""
    files: Mapping[str, str]
    """Path -> SHA-256 of every file that an option of the method names."""
    notes: tuple[str, ...] = ()
    foreseen: tuple[risk.Risk, ...] = ()
    """The domains at risk, the riskiest first, once a run under `contain: auto` has ranked them."""
    second_gold: str = ""
    """"train", a folder, or "": the source of a second gold model, by which margins are set."""
    second_gold_work: str = ""
    """Why there is a second gold model or none, in words."""
    ladder: Ladder | None = None
    """Of `method: auto` or a repair."""
    rungs: tuple[Rung, ...] = ()
    """The ladder's, in its order; the plan's own method is the one to start with."""

    def at(self, rung: int) -> Plan:
        """The plan with another strength of `method: auto`."""
        return replace(self, **self.rungs[rung].fields)

    def words_of(self, rung: int) -> str:
        """A rung of the ladder, in words."""
        if self.ladder is not None and (self.ladder.lines or self.ladder.ways > 1):
            return words_of(self.rungs[rung].spec)
        return f"strength {rung + 1} of {len(self.rungs)}"

    @property
    def gold_work(self) -> str:
        """The source of gold and the time that it takes, in words."""
        if self.gold != "train":
            return self.gold or self.no_gold
        manifest = self.manifest or {}
        if "budget" not in manifest:
            return "retrained without the forget set once the model is built; as long as building the model"
        if (gold_folder(manifest, self.splits["forget"]) / MANIFEST).is_file():
            return "retrained without the forget set; it is in the cache already"
        seconds = retraining_seconds(manifest, self.splits["forget"])
        took = ", once" if seconds is None else f"; about {seconds:.0f} s, once"
        return f"retrained without the forget set{took}, and then kept in the cache"

    @property
    def choice(self) -> str:
        """The reason for the method that `auto` chose, and what may follow; empty for a method that was named."""
        if self.ladder is None:
            return ""
        options, others = self.ladder.options, len(self.rungs) - 1
        trials = self.ladder.ways * min(options.trials, len(self.rungs) // self.ladder.ways)
        kinds = "models" if self.ladder.lines else "strengths"
        more = f"; up to {trials} trials of {others + 1} {kinds}, until one passes" if others and trials > 1 else ""
        first = self.rungs[self.ladder.start]
        cut = (
            f"; {first.work.steps} of its {first.whole_steps} steps, since all trials may take {options.cost:.0%} of a "
            "retraining's tokens (auto.cost)"
            if first.whole_steps
            else ""
        )
        return f"{self.ladder.name}: {self.ladder.why}{more}{cut}"

    @property
    def builtin(self) -> str:
        """The embedded world's name, where the model is one that must be built first."""
        return self.request.model if is_builtin(self.request.model) else ""

    @property
    def audit(self) -> str:
        """The attacks that will be run and their cost, in words; empty where there are none."""
        level = self.request.audit
        return attack.cost(
            level, self.capabilities, evidence_splits(self.splits), bool(self.gold) + bool(self.second_gold)
        )

    @property
    def answers(self) -> str:
        """How long generated answers may become, in words; empty where none are generated."""
        if not self.answer_limits:
            return ""
        tokens = ", ".join(f"{name} {limit}" for name, limit in self.answer_limits.items())
        quantile = self.request.answer_quantile
        which = "the longest true answer" if quantile == 1 else f"{quantile:.4g} of the true answers, or the row's own,"
        return f"generated at most as long as {which} and {SPARE} tokens more: {tokens}"

    @property
    def reading(self) -> str:
        """How many rows evidence reads, in words."""
        read = most_read(self.splits, self.request.held_out_rows)
        return "at most " + ", ".join(f"{name} {count}" for name, count in read.items())

    @property
    def training_splits(self) -> Splits:
        """The splits that the method gets."""
        wanted = method_splits(self.composed, self.budget)
        return {name: rows for name, rows in self.splits.items() if name in wanted}

    def to_json(self) -> dict[str, Any]:
        """The plan for `--plan --json`."""
        return {
            "method": self.composed.name,
            "described": self.composed.described,
            "yields": self.composed.yields,
            "splits": {name: len(rows) for name, rows in self.splits.items()},
            "budget": self.budget.model_dump(exclude_none=True),
            "steps": self.steps,
            "batch_size": self.batch,
            "checkpoint_every": self.checkpoint_every,
            "tokens": self.tokens,
            "learning_rate": self.learning_rate,
            "gold": self.gold or None,
            "no_gold": self.no_gold,
            "gold_work": self.gold_work,
            "second_gold": self.second_gold or None,
            "second_gold_work": self.second_gold_work,
            "accept": {rule.key: rule.text for rule in self.rules},
            **({"choice": self.choice} if self.ladder else {}),
            "alignment": self.aligned.sentence if self.aligned else None,
            "estimate": self.estimate.to_json(),
            "audit": self.audit or None,
            "answer_limits": dict(self.answer_limits),
            "rows_read": most_read(self.splits, self.request.held_out_rows),
            "notes": list(self.notes),
        }


def read_request(path: str | Path, sets: Mapping[str, Any] | None = None, *, resume: bool = False) -> Request:
    """Read a request from a file. Raises BadInput with the faults of its fields, and of the data that they name."""
    values = read_config(path, "request", sets)
    try:
        return Request.parse(values)
    except BadInput as error:
        rest = Request.salvage(values)
        if rest is None:
            raise
        faults = Faults()
        faults.add(error)
        with faults:
            plan(rest, resume=resume)
        raise BadInput.all(faults.errors) from None


def plan(request: Request, *, resume: bool = False) -> Plan:
    """Bind the whole request. Raises BadInput with all faults; nothing is written."""
    faults = Faults()
    parts = bind(request, faults)
    history = check_parts(parts, resume, faults)
    splits, composed, manifest = parts.divided, parts.composed, parts.manifest
    model = parts.base.model if parts.base else None
    gold, no_gold = "", ""
    with faults:
        gold, no_gold = gold_source(request, manifest, splits, model)
    check_criteria(parts, bool(gold), faults)
    budget, remarks = budget_for(parts)
    _check_budget(parts, budget, bool(gold), faults)
    faults.raise_any()
    assert composed is not None and parts.base is not None and model is not None
    second_gold, second_gold_work = second_source(request.gold, manifest, splits, gold, small=is_builtin(request.model))
    ladder, rungs = _rungs(parts)
    first = rungs[ladder.start] if ladder else _rung(parts, request.method)
    needed, here = estimates(first.composed, model, first.budget, first.work, Path(request.out))
    return Plan(
        request=request,
        source=parts.base.source,
        manifest=manifest,
        splits=splits,
        capabilities=model.capabilities,
        gold=gold,
        no_gold=no_gold,
        second_gold=second_gold,
        second_gold_work=second_gold_work,
        rules=parts.rules,
        estimate=needed,
        here=here,
        aligned=parts.aligned,
        answer_limits=answer_limits(model, evidence_splits(splits), request.answer_quantile),
        files=digest_named(first.composed.described) | digest_models(first.composed.described),
        ladder=ladder,
        rungs=rungs,
        notes=(*first.composed.notes, *first.remarks, *history, *remarks, *_notes(parts, gold, first.composed)),
        **first.fields,
    )


def _check_budget(parts: Parts, budget: Budget, has_gold: bool, faults: Faults) -> None:
    """Add what is wrong with the stop, and what this model or machine cannot do."""
    with faults:
        check_stop(parts.request, budget, parts.divided, has_gold)
    with faults:
        check_optimiser(budget)
    if parts.base is not None:
        with faults:
            check_recomputation(parts.base.model.module, budget)


def _notes(parts: Parts, gold: str, composed: Composed) -> list[str]:
    """Remarks on the data, and on what they and gold allow to be shown."""
    request, splits = parts.request, parts.divided
    return [
        *ignored_answers(parts.splits),
        *duplicate_notes(parts.splits),
        *conflict_notes(parts.splits),
        *notes(splits),
        *membership_remarks(parts.manifest, splits, request.trust_code),
        *_erasure_remarks(request, gold, composed.yields),
        *pooled_remarks(composed, parts.manifest),
        *read_notes(request.read_precision),
    ]


def _rung(parts: Parts, spec: Any) -> Rung:
    """The method of a request that was bound, with its budget and its work."""
    assert parts.composed is not None and parts.base is not None
    budget, _ = budget_for(parts)
    fits_sharding(parts.composed, budget)
    budget, work = fit(parts.composed, parts.base.model, parts.divided, budget, parts.request.seed)
    rate = learning_rate(parts.composed, budget, parts.manifest, "retain" in parts.splits)
    return Rung(spec, parts.composed, budget, work, rate)


def _method_of(parts: Parts, spec: Any) -> Composed:
    """A rung's method, which has counted its steps where it knows them."""
    assert parts.base is not None
    composed = compose(spec, has_retain="retain" in parts.splits)
    fits_history(composed, parts.base.model, parts.divided, parts.manifest)
    return composed


def _rungs(parts: Parts) -> tuple[Ladder | None, tuple[Rung, ...]]:
    """The ladder of `method: auto` or a repair with its rungs, or a retraining where that costs no more; else none."""
    ladder = parts.ladder
    if ladder is None:
        return None, ()

    def rungs(chosen: Ladder) -> tuple[Rung, ...]:
        return tuple(_rung(replace(parts, composed=_method_of(parts, spec)), spec) for spec in chosen.rungs)

    found = rungs(ladder)
    cheaper = cheaper_exactly(ladder, found[ladder.start].tokens, parts.manifest, parts.divided)
    if cheaper:
        return cheaper, rungs(cheaper)
    whole, limit = retraining_tokens(parts.manifest, parts.divided), ladder.options.cost
    own = parts.request.budget.steps or parts.request.budget.epochs  # the request's own steps hold
    if whole is not None and limit is not None and own is None:
        found = tuple(rung.within(limit * whole) for rung in found)
    return ladder, found


def _erasure_remarks(request: Request, gold: str, yields: str) -> list[str]:
    """Reasons why `purpose: erase` cannot pass, for the plan."""
    if request.purpose != "erase":
        return []
    if yields == "guard":
        return ["purpose: erase cannot pass with a guard, which leaves the weights as they are."]
    present = (("audit: standard", request.audit != "none"), ("a gold model", gold))
    lacks = " and ".join(name for name, there in present if not there)
    return [f"purpose: erase cannot pass without {lacks}: it takes the relearning check against gold."] if lacks else []


def check_runnable(plan: Plan) -> None:
    """Check what a run needs and a plan does not: weights, tokenizer, this machine's memory. Raises BadInput."""
    request, here = plan.request, plan.here
    if here.peak > here.available:
        raise BadInput.of(
            "model",
            "",
            f"about {size(here.peak)} are needed on this machine ({here.sentence}), which has "
            f"{size(here.available)} free",
            "run it on a larger machine; this one can plan it",
        )
    if (package := package_of(plan.builtin)) and not Path(plan.source).is_dir():
        check_packaged(package)
    if plan.builtin:
        return
    check(plan.source, request.trust_code)
    check_tokenizer(plan.source, request.trust_code, plan.capabilities)
