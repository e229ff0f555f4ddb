"""The whole request, bound before anything starts: faults, steps, tokens, memory, time, disk.

`plan` raises BadInput with every fault that it finds; what it returns is all that `run` needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.alignment import asking, risk
from expunge.core.budget import DEFAULTS, Budget, batch_size
from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput, Faults
from expunge.core.files import digest_named
from expunge.core.request import Request, read_config
from expunge.data.pairing import Pairing
from expunge.data.sampling import halves
from expunge.data.splits import Splits, make_splits
from expunge.evaluation import acceptance as accept
from expunge.evaluation import attack as attacking
from expunge.evaluation.scores import bounded, score_names
from expunge.methods.compose import Composed, compose
from expunge.models.build import budget_of, fresh_lm, tokenizer_for
from expunge.models.manifest import MANIFEST, manifest_of
from expunge.models.open import check, check_tokenizer, open_on_cpu
from expunge.models.prompt_notes import prompt_notes
from expunge.pipeline.compatibility import fits_history, fits_method, fits_model
from expunge.pipeline.estimate import lengths, weights_options
from expunge.pipeline.gold import gold_folder, gold_source
from expunge.pipeline.resources import Estimate, estimate, size
from expunge.pipeline.room import fits_cache, fits_disk, fits_folder, fits_memory
from expunge.pipeline.worlds import config as builtin_config
from expunge.pipeline.worlds import trained
from expunge.training.rate import from_manifest

FORGET_READ, OTHERS_READ = 2000, 120
"""Examples that are read of a split at most: a seeded sample, n stands with each figure."""


@dataclass
class Plan:
    """What will be done."""

    request: Request
    source: Any
    """The model's folder, hub name or factory; for an embedded world its place in the cache."""
    manifest: dict[str, Any] | None
    splits: Splits
    composed: Composed
    capabilities: frozenset[str]
    budget: Budget
    gold: str
    """"train", a folder, or "" with the reason in `no_gold`."""
    no_gold: str
    rules: list[accept.Rule]
    steps: int
    tokens: int
    learning_rate: str
    estimate: Estimate
    notes: list[str] = field(default_factory=list)
    batch: int = 0
    """Examples a step."""
    here: Estimate | None = None
    """The estimate for this very machine, where `estimate` is for another's limit."""
    aligned: asking.Asked | None = None
    """What the request wants of alignment: drift, containment, refusals to forget."""
    foreseen: list[risk.Risk] = field(default_factory=list)
    """The domains at risk, the riskiest first, where `contain: auto` made the run look."""
    files: dict[str, str] = field(default_factory=dict)
    """Path -> SHA-256 of every file that an option of the method names."""

    @property
    def gold_work(self) -> str:
        """Where gold comes from and what that takes, in words."""
        if self.gold != "train":
            return self.gold or self.no_gold
        manifest = self.manifest or {}
        if "budget" not in manifest:
            return "retrained without the forget set once the model is built; as long as building the model"
        if (gold_folder(manifest, self.splits["forget"]) / MANIFEST).is_file():
            return "retrained without the forget set; it is in the cache already"
        left = 1 - len(self.splits["forget"]) / max(1, len(manifest.get("hashes") or []))
        took = f"; about {left * manifest['seconds']:.0f} s, once" if manifest.get("seconds") else ", once"
        return f"retrained without the forget set{took}, and then kept in the cache"

    @property
    def builtin(self) -> str:
        """The embedded world's name, where the model is one that must be built first."""
        model = self.request.model
        return model if isinstance(model, str) and model.startswith("builtin:") else ""

    @property
    def audit(self) -> str:
        """Which attacks will be run, and what they take; empty where none are."""
        level = self.request.audit
        return attacking.cost(level, self.capabilities, read_splits(self.splits), bool(self.gold))

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
            "tokens": self.tokens,
            "learning_rate": self.learning_rate,
            "gold": self.gold or None,
            "no_gold": self.no_gold,
            "gold_work": self.gold_work,
            "accept": {rule.key: rule.text for rule in self.rules},
            "alignment": self.aligned.sentence if self.aligned else None,
            "estimate": self.estimate.to_json(),
            "audit": self.audit or None,
            "notes": self.notes,
        }


def read_request(path: str | Path, sets: Mapping[str, Any] | None = None, *, resume: bool = False) -> Request:
    """A request from a file. Raises BadInput that names what is wrong with its fields, and with what they name."""
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
    """Binds the whole request. Raises BadInput with all faults; nothing is written."""
    faults = Faults()
    source, manifest = request.model if isinstance(request.model, str) else request.model.model_dump(), None
    model: Model | None = None
    with faults:
        source, manifest, model = _model(request)
    splits: Splits = {}
    aligned: asking.Asked | None = None
    with faults:
        aligned = asking.asked(request)
        forget, retain = asking.sources(request, aligned)
        splits = make_splits(
            forget=forget,
            data=request.data,
            retain=retain,
            holdout=request.holdout,
            test=request.test,
            reference=request.reference,
            probes=request.probes,
            columns=request.columns,
            seed=request.seed,
        )
    has_retain = "retain" in splits or request.retain is not None or request.data is not None
    composed: Composed | None = None
    with faults:
        composed = compose(request.method, has_retain=has_retain)
    rules = []
    for key, text in request.accept.items():
        with faults:
            rules.append(accept.parse(key, text))
    with faults:
        fits_folder(Path(request.out), resume)
    if composed is not None and request.redacted:
        with faults:
            _saves_no_texts(composed)
    with faults:
        fits_cache()
    if model is not None and composed is not None:
        with faults:
            fits_method(composed, model, splits)
            composed.notes += fits_history(composed, model, splits, manifest)
    if model is not None:
        with faults:
            fits_model(model, splits)
            if composed is not None:
                composed.notes += prompt_notes(model, splits)
        with faults:
            if aligned is not None:
                aligned.check(model.capabilities, splits)
    gold, no_gold = "", "gold: none was asked for"
    with faults:
        gold, no_gold = gold_source(request, manifest, splits, model)
    if model is not None and splits:
        read = read_splits(splits)
        names = score_names(model.capabilities, read, bool(gold))
        names += attacking.score_names(request.audit, model.capabilities, read, bool(gold))
        names += aligned.names if aligned else []
        owners = {"before", "after"} | ({"gold"} if gold else set())
        units = bounded(model.capabilities, read)
        for rule in rules:
            with faults:
                rule.names_score(names, owners, units)
    budget = request.budget.over(composed.budget if composed else Budget(), _stop(request, splits), DEFAULTS)
    if composed is not None and composed.yields == "ensemble" and "budget" in (manifest or {}):
        budget = budget_of(manifest or {}).over(Budget(stop="none"), DEFAULTS)  # it trains as the model was trained
        composed.notes += (
            ["A deletion trains as its model was trained: the request's budget is not used."]
            if request.budget.model_fields_set
            else []
        )
    with faults:
        _stops(request, budget, splits, gold)
    faults.raise_any()
    assert composed is not None and model is not None
    made = _bound(request, source, manifest, splits, composed, model, budget, gold, no_gold, rules)
    made.aligned = aligned
    made.files = digest_named(composed.described)
    return made


def _bound(
    request: Request,
    source: Any,
    manifest: Any,
    splits: Splits,
    composed: Composed,
    model: Model,
    budget: Budget,
    gold: str,
    no_gold: str,
    rules: list[accept.Rule],
) -> Plan:
    objective = composed.objective
    anchor = objective.anchor if objective else "forget"
    streams = objective.streams() if objective else {}
    sizes = {name: len(rows) for name, rows in splits.items()}
    pairing = Pairing(anchor, sizes, batch_size(budget, sizes[anchor]), request.seed, "apply")
    own = composed.method.steps  # an exact scheme knows what it will retrain
    steps = (
        own
        if own is not None
        else (budget.steps if budget.steps is not None else int(budget.epochs or 1) * pairing.steps_per_epoch)
    )
    means, longest = lengths(model, splits)
    per_step = sum(means.get(split, 0.0) for split in streams.values()) * min(pairing.batch_size, sizes[anchor])
    share = float(budget.share or 0.1) * (objective.rate if objective else 1.0)
    found = from_manifest(manifest, share)
    rate = (
        f"{budget.learning_rate:g} (given)"
        if isinstance(budget.learning_rate, float)
        else (
            f"{found[0]:.3g} ({found[1]})"
            if found
            else "auto: a short seeded ladder on retain finds it when the run starts"
            if "retain" in splits
            else "1e-05 (auto: no retain data and no manifest to go by)"
        )
    )
    weights = next((p.name for p in composed.plugins if p.kind == "weights"), "all")
    options = weights_options(composed)
    # A limit that the user names may be another machine's: an accelerator, which keeps bfloat16 weights as they are.
    elsewhere = budget.memory is not None

    def guess(
        weights: str = weights, micro: int | None = None, checkpointing: bool | None = None, elsewhere: bool = elsewhere
    ) -> Estimate:
        rows = int(micro or budget.micro_batch_size or pairing.batch_size) * max(1, len(streams))
        kept = bool(budget.gradient_checkpointing) if checkpointing is None else checkpointing
        return estimate(
            model,
            weights=weights,
            options=options if weights != "lora" or options else {},
            rows=rows,
            length=longest,
            steps=steps,
            tokens_a_step=per_step,
            checkpointing=kept,
            bf16=budget.precision == "bf16",
            elsewhere=elsewhere,
        )

    made = guess()
    faults = Faults()
    with faults:
        fits_disk(made, weights, model, Path(request.out))
    with faults:
        fits_memory(made, budget, weights, guess, tokens="tokens" in model.capabilities)
    faults.raise_any()
    return Plan(
        request,
        source,
        manifest,
        splits,
        composed,
        model.capabilities,
        budget,
        gold,
        no_gold,
        rules,
        steps,
        round(per_step * steps),
        rate,
        made,
        [*composed.notes, *_erasing(request, gold, composed.yields)],
        pairing.batch_size,
        guess(elsewhere=False),
    )


def _saves_no_texts(composed: Composed) -> None:
    """Refuse a method that would publish the forget set with the model of a redacted run. Raises BadInput."""
    for plugin in composed.plugins:
        if plugin.card.keeps:
            raise BadInput.of(
                "method",
                plugin.name,
                f"saves {plugin.card.keeps} in the model's folder, and the run is redacted",
                "choose another method, or set redact: false",
            )


def _erasing(request: Request, gold: str, yields: str) -> list[str]:
    if request.purpose == "erase" and yields == "guard":
        return ["purpose: erase cannot pass with a guard, which leaves the weights as they are."]
    lacks = [name for name, had in (("audit: standard", request.audit != "none"), ("a gold model", gold)) if not had]
    said = f"purpose: erase cannot pass without {' and '.join(lacks)}: it takes the relearning check against gold."
    return [said] if request.purpose == "erase" and lacks else []


def _model(request: Request) -> tuple[Any, dict[str, Any] | None, Model]:
    """(source, manifest, the model's structure on the meta device or untrained)."""
    if isinstance(request.model, str) and request.model.startswith("builtin:"):
        made = builtin_config(request.model)
        if trained(Path(made.out)):
            return made.out, manifest_of(made.out), open_on_cpu(made.out, meta=True)
        manifest = {"model": made.model, "data": made.data, "learning_rate": made.learning_rate, "seed": made.seed}
        spec = made.model
        assert isinstance(spec, dict)
        model = (
            open_on_cpu(spec, meta=True)
            if "factory" in spec
            else fresh_lm(spec, tokenizer_for(["Question: Answer:"], 300), made.seed)
        )
        return made.out, manifest, model
    source = request.model if isinstance(request.model, str) else request.model.model_dump()
    folder = source if isinstance(source, str) else Path(source["weights"]).parent
    return source, manifest_of(folder), open_on_cpu(source, trust_code=request.trust_code, meta=True)


def weights_there(plan: Plan) -> None:
    """A run, unlike a plan, needs the weights and the tokenizer, and runs on this machine. Raises BadInput."""
    request, here = plan.request, plan.here
    if here is not None and here.peak > here.available:
        raise BadInput.of(
            "model",
            "",
            f"about {size(here.peak)} are needed on this machine ({here.sentence}), which has "
            f"{size(here.available)} free",
            "run it on a larger machine; this one can plan it",
        )
    if plan.builtin:
        return
    check(plan.source, request.trust_code)
    if "tokens" in plan.capabilities and isinstance(plan.source, str):
        check_tokenizer(plan.source, request.trust_code)


def _stop(request: Request, splits: Splits) -> Budget:
    """The default stop: the holdout, where there is one and it says how unseen data look."""
    if asking.on_refusals(request):
        return Budget(stop="refusals", epochs=40, batch_size=8)
    by_class = isinstance(request.forget, dict) and "class" in request.forget
    return Budget(stop="holdout" if "holdout" in splits and not by_class else "none")


def _stops(request: Request, budget: Budget, splits: Splits, gold: str) -> None:
    if budget.stop == "refusals" and not asking.on_refusals(request):
        raise BadInput.of(
            "budget.stop", "refusals", "needs refusals to forget", "write forget: {refusals: DOMAIN}, or another stop"
        )
    if budget.stop == "holdout" and splits and "holdout" not in splits:
        raise BadInput.of(
            "budget.stop", "holdout", "needs a holdout, and there is none", "add holdout: FILE, or set stop: none"
        )
    if budget.stop == "gold" and not gold:
        raise BadInput.of(
            "budget.stop", "gold", "needs a gold model, and there is none", "set gold: FOLDER, or another stop"
        )


def read_splits(splits: Splits) -> list[str]:
    """The splits that evidence reads: all but what only trains or calibrates."""
    return [name for name in splits if name != "reference"]


def audit_half(splits: Splits, seed: int) -> list[Example]:
    """The half of the holdout that no stopping rule saw."""
    return halves(splits["holdout"], seed)[1]
