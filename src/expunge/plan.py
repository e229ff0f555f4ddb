"""The whole request, bound before anything starts: faults, steps, tokens, memory, time, disk.

`plan` raises BadInput with every fault that it finds; what it returns is all that `run` needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge import accept
from expunge.builtin import config as builtin_config
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.card import Card, Example
from expunge.core.contracts import Subject
from expunge.core.errors import BadInput, Faults
from expunge.core.registry import SINGULAR
from expunge.core.request import Request
from expunge.data.examples import form
from expunge.data.pairing import Pairing
from expunge.data.splits import Splits, make_splits
from expunge.evidence import score_names
from expunge.methods.compose import Composed, compose, every_method, load
from expunge.resources import Estimate, estimate
from expunge.subjects.building import fresh_lm, tokenizer_for, training_data
from expunge.subjects.opening import MANIFEST, check, manifest_of, open_subject
from expunge.training.rate import from_manifest
from expunge.training.stopping import halves

FORGET_READ, OTHERS_READ = 2000, 300
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

    @property
    def builtin(self) -> str:
        """The embedded world's name, where the model is one that must be built first."""
        model = self.request.model
        return model if isinstance(model, str) and model.startswith("builtin:") else ""

    def to_json(self) -> dict[str, Any]:
        """The plan for `--plan --json`."""
        return {
            "method": self.composed.name, "described": self.composed.described, "yields": self.composed.yields,
            "splits": {name: len(rows) for name, rows in self.splits.items()},
            "budget": self.budget.model_dump(exclude_none=True), "steps": self.steps, "tokens": self.tokens,
            "learning_rate": self.learning_rate, "gold": self.gold or None, "no_gold": self.no_gold,
            "accept": {rule.key: rule.text for rule in self.rules},
            "estimate": self.estimate.to_json(), "notes": self.notes,
        }  # fmt: skip


def plan(request: Request, *, resume: bool = False) -> Plan:
    """Binds the whole request. Raises BadInput with all faults; nothing is written."""
    faults = Faults()
    source, manifest = request.model if isinstance(request.model, str) else request.model.model_dump(), None
    subject: Subject | None = None
    with faults:
        source, manifest, subject = _model(request)
    splits: Splits = {}
    with faults:
        splits = make_splits(
            forget=request.forget, data=request.data, retain=request.retain, holdout=request.holdout,
            test=request.test, reference=request.reference, probes=request.probes, columns=request.columns,
            seed=request.seed,
        )  # fmt: skip
    has_retain = "retain" in splits or request.retain is not None or request.data is not None
    composed: Composed | None = None
    with faults:
        composed = compose(request.method, has_retain=has_retain)
    rules = []
    for key, text in request.accept.items():
        with faults:
            rules.append(accept.parse(key, text))
    with faults:
        _unsupported(request)
    with faults:
        _out(Path(request.out), resume)
    if subject is not None and composed is not None:
        with faults:
            _fits(composed, subject, splits)
        with faults:
            _examples(subject, splits)
    gold, no_gold = "", "gold: none was asked for"
    with faults:
        gold, no_gold = _gold(request, manifest, splits)
    if subject is not None and splits:
        read = read_splits(splits)
        names = score_names(subject.capabilities, read, bool(gold))
        owners = {"before", "after"} | ({"gold"} if gold else set())
        for rule in rules:
            with faults:
                rule.names_score(names, owners)
    budget = request.budget.over(composed.budget if composed else Budget(), _stop(request, splits), DEFAULTS)
    with faults:
        _stops(budget, splits, gold)
    faults.raise_any()
    assert composed is not None and subject is not None
    return _bound(request, source, manifest, splits, composed, subject, budget, gold, no_gold, rules)


def _bound(
    request: Request, source: Any, manifest: Any, splits: Splits, composed: Composed, subject: Subject,
    budget: Budget, gold: str, no_gold: str, rules: list[accept.Rule],
) -> Plan:  # fmt: skip
    objective = composed.objective
    anchor = objective.anchor if objective else "forget"
    streams = objective.streams() if objective else {}
    sizes = {name: len(rows) for name, rows in splits.items()}
    pairing = Pairing(anchor, sizes, int(budget.batch_size or 1), request.seed, "apply")
    steps = budget.steps if budget.steps is not None else int(budget.epochs or 1) * pairing.steps_per_epoch
    lengths = {s: [subject.length(row) for row in splits[s][:500]] for s in splits}  # type: ignore[attr-defined]
    means = {s: sum(found) / max(1, len(found)) for s, found in lengths.items()}
    longest = max((max(found, default=1) for found in lengths.values()), default=1)
    per_step = sum(means.get(split, 0.0) for split in streams.values()) * min(pairing.batch_size, sizes[anchor])
    faults = Faults()
    with faults:
        _disk(subject, Path(request.out))
    share = float(budget.share or 0.1) * (objective.rate if objective else 1.0)
    found = from_manifest(manifest, share)
    rate = f"{budget.learning_rate:g} (given)" if isinstance(budget.learning_rate, float) else (
        f"{found[0]:.3g} ({found[1]})" if found else
        "auto: a short seeded ladder on retain finds it when the run starts" if "retain" in splits else
        "1e-05 (auto: no retain data and no manifest to go by)")  # fmt: skip
    weights = next((p.name for p in composed.plugins if p.kind == "weights"), "all")
    guess = estimate(
        subject, weights=weights, options=_weights_options(composed), rows=int(budget.micro_batch_size or
        pairing.batch_size) * max(1, len(streams)), length=longest, steps=steps, tokens_a_step=per_step,
        checkpointing=bool(budget.gradient_checkpointing), bf16=budget.precision == "bf16",
    )  # fmt: skip
    with faults:
        _memory(guess, budget)
    faults.raise_any()
    return Plan(request, source, manifest, splits, composed, subject.capabilities, budget, gold, no_gold, rules,
                steps, round(per_step * steps), rate, guess, list(composed.notes))  # fmt: skip


def _model(request: Request) -> tuple[Any, dict[str, Any] | None, Subject]:
    """(source, manifest, the model's structure on the meta device or untrained)."""
    if isinstance(request.model, str) and request.model.startswith("builtin:"):
        made = builtin_config(request.model)
        manifest = manifest_of(made.out) or {
            "model": made.model, "data": made.data, "learning_rate": made.learning_rate, "seed": made.seed}  # fmt: skip
        if manifest_of(made.out):
            return made.out, manifest, open_subject(made.out, meta=True)
        spec = made.model
        assert isinstance(spec, dict)
        subject = (open_subject(spec, meta=True) if "factory" in spec else
                   fresh_lm(spec, tokenizer_for(["Question: Answer:"], 300), made.seed))  # fmt: skip
        return made.out, manifest, subject
    source = request.model if isinstance(request.model, str) else request.model.model_dump()
    check(source, request.trust_code, weights=False)
    folder = source if isinstance(source, str) else Path(source["weights"]).parent
    return source, manifest_of(folder), open_subject(source, trust_code=request.trust_code, meta=True)


def weights_there(plan: Plan) -> None:
    """A run, unlike a plan, needs the weights. Raises BadInput."""
    if not plan.builtin:
        check(plan.source, plan.request.trust_code)


def _unsupported(request: Request) -> None:
    faults = Faults()
    for name in ("alignment", "contain"):
        if getattr(request, name) != "none":
            faults.add(BadInput.of(name, getattr(request, name), "cannot be done by this version yet",
                                   f"set {name}: none"))  # fmt: skip
    if request.audit == "deep":
        faults.add(BadInput.of("audit", "deep", "cannot be done by this version yet", "set audit: standard"))
    faults.raise_any()


def _out(out: Path, resume: bool) -> None:
    if (out / "certificate.json").exists():
        if not resume:
            raise BadInput.of("out", str(out), "already holds a finished run",
                              "choose another folder, or --resume to see its verdict")  # fmt: skip
    elif (out / "request.yaml").exists() and not resume:
        raise BadInput.of("out", str(out), "holds an unfinished run", "add --resume, or choose another folder")
    elif out.exists() and not out.is_dir():
        raise BadInput.of("out", str(out), "is a file", "choose a folder")
    elif out.is_dir() and any(p.name != ".lock" for p in out.iterdir()) and not (out / "request.yaml").exists():
        raise BadInput.of("out", str(out), "holds other files", "choose an empty or new folder")


def _fits(composed: Composed, subject: Subject, splits: Splits) -> None:
    """Does each part go with this family and these data."""
    faults = Faults()
    for plugin in composed.plugins:
        missing = set(plugin.card.capabilities) - subject.capabilities
        if missing:
            faults.add(BadInput.of("method", plugin.name, f"needs {_words(missing)}, which this {subject.family} "
                       "has not", f"these would work: {_fitting(subject)}"))  # fmt: skip
        for split, wanted in plugin.card.fields.items():
            for name in wanted:
                without = sum(not _has(row, name) for row in splits.get(split, []))
                if without:
                    faults.add(BadInput.of(split, name, f"is missing in {without} of {len(splits[split])} examples, "
                               f"and {plugin.name} needs it", "add it, or choose another method"))  # fmt: skip
        for split in {*_splits_of(plugin.card)} - set(splits):
            if splits:
                faults.add(BadInput.of(split, "", f"is missing, and {plugin.name} cannot do without it",
                                       f"add {split}: FILE, or choose another method"))  # fmt: skip
    if isinstance(composed.method, object) and composed.objective is not None and not faults.errors:
        with faults:
            for term in composed.objective.terms.values():
                term.declare(subject)
    faults.raise_any()


def _splits_of(card: Card) -> set[str]:
    streams = {name: stream.split for name, stream in card.streams.items()}
    return {streams.get(name, name) for name in (*card.needs, *card.origin)}


def _has(row: Example, name: str) -> bool:
    return row.get(name) is not None or (name == "question" and "messages" in row)


def _words(missing: set[str]) -> str:
    words = {"labels": "class labels", "generate": "text generation", "tokens": "tokens", "mlp": "MLP layers"}
    return " and ".join(sorted(words.get(name, name) for name in missing))


def _fitting(subject: Subject) -> str:
    """Methods whose cards go with the subject."""
    found = []
    for name, kind in every_method().items():
        folder = next((k for k, v in SINGULAR.items() if v == kind), None)
        if folder in ("objectives", "edits", "exact", "wrappers"):
            if set(load(folder, name).card.capabilities) <= subject.capabilities:
                found.append(name)
    return ", ".join(sorted(found))


def _examples(subject: Subject, splits: Splits) -> None:
    """Are the examples of the family's kind, and can each be collated."""
    labels = "labels" in subject.capabilities
    faults = Faults()
    for name, rows in splits.items():
        for i, row in enumerate(rows):
            has_label = "label" in (form(row) or ())
            if labels != has_label:
                faults.add(BadInput.of(name, f"row {i + 1}", "has a label" if has_label else "has no label",
                           f"a {subject.family} needs examples " + ("with label" if labels else
                           "with question and answer, text or messages")))  # fmt: skip
                break
        else:
            with faults:
                _lengths(subject, rows)
    faults.raise_any()


def _lengths(subject: Subject, rows: Sequence[Example]) -> None:
    if "labels" in subject.capabilities:
        for row in rows:
            if int(row["label"]) < 0:
                raise BadInput.of("label", row["label"], "is no class", "give whole numbers from 0 up")
        return
    subject.collate(rows[:50])


def _gold(request: Request, manifest: dict[str, Any] | None, splits: Splits) -> tuple[str, str]:
    """(how to get gold, why there is none)."""
    if request.gold == "none":
        return "", "gold: none was asked for"
    if request.gold != "auto":
        check(request.gold, request.trust_code)
        return request.gold, ""
    if not manifest:
        return "", f"no gold model: the model has no training manifest ({MANIFEST})"
    if "forget" not in splits:
        return "", ""
    if "budget" not in manifest:  # an embedded world that is not built yet
        return "train", ""
    try:
        training_data(manifest, splits["forget"])
    except BadInput as error:
        return "", f"no gold model: {error}"
    return "train", ""


def _stop(request: Request, splits: Splits) -> Budget:
    """The default stop: the holdout, where there is one and it says how unseen data look."""
    by_class = isinstance(request.forget, dict) and "class" in request.forget
    return Budget(stop="holdout" if "holdout" in splits and not by_class else "none")


def _stops(budget: Budget, splits: Splits, gold: str) -> None:
    if budget.stop == "holdout" and splits and "holdout" not in splits:
        raise BadInput.of("budget.stop", "holdout", "needs a holdout, and there is none",
                          "add holdout: FILE, or set stop: none")  # fmt: skip
    if budget.stop == "gold" and not gold:
        raise BadInput.of("budget.stop", "gold", "needs a gold model, and there is none",
                          "set gold: FOLDER, or another stop")  # fmt: skip


def _weights_options(composed: Composed) -> dict[str, Any]:
    described = composed.described
    while isinstance(described, dict) and "weights" not in described:
        inner = [v for v in described.values() if isinstance(v, dict)]
        if not inner:
            return {}
        described = inner[0].get("inner", inner[0]) if isinstance(inner[0], dict) else {}
        if described in inner and "weights" not in described:
            return {}
    (options,) = described["weights"].values()
    return dict(options)


def _memory(guess: Estimate, budget: Budget) -> None:
    limit = budget.memory * 1e9 if budget.memory is not None else guess.available
    if guess.peak > limit:
        raise BadInput.of("budget.memory" if budget.memory is not None else "model",
                          f"{guess.peak / 1e9:.1f} GB", f"is the estimated peak ({guess.sentence}), and there are "
                          f"{limit / 1e9:.1f} GB", "set weights: lora, a smaller micro_batch_size, or "
                          "gradient_checkpointing: true")  # fmt: skip


def _disk(subject: Subject, out: Path) -> None:
    size = sum(p.numel() * p.element_size() for p in subject.module.parameters())
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    # The model, a checkpoint with two moments, and the best weights.
    if free < 5 * size + 5e7:
        raise BadInput.of("out", str(out), f"has {free / 1e9:.2f} GB of disk left, and the run may need "
                          f"{(5 * size + 5e7) / 1e9:.2f} GB", "free some, or choose another disk")  # fmt: skip


def read_splits(splits: Splits) -> list[str]:
    """The splits that evidence reads: all but what only trains or calibrates."""
    return [name for name in splits if name != "reference"]


def audit_half(splits: Splits, seed: int) -> list[Example]:
    """The half of the holdout that no stopping rule saw."""
    return halves(splits["holdout"], seed)[1]


