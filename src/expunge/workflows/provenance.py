"""Tests of whether a model was trained on data: by marks that were set beforehand, or without any.

Each model is opened once and tested alike: the one in question, and where they are given the one before unlearning and
one that never saw the data. Nothing is trained or changed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.attacks.population.contamination import Marks, guided_completion, leads, option_order, pieces, sign_flip_p
from expunge.core.audit_request import ProvenanceRequest
from expunge.core.card import Example
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.errors import BadInput, Faults
from expunge.data.content import content_keys
from expunge.data.load import load
from expunge.data.sampling import sample
from expunge.data.texts import texts_only
from expunge.evaluation import intervals, reading
from expunge.evaluation.scores import Figure, Label, NotMeasured, Score, measure
from expunge.pipeline import evidence as dossier
from expunge.pipeline import out_folder
from expunge.pipeline.compatibility import fits_model
from expunge.workflows._sources import check_sources, open_sources
from expunge.workflows.mark import LEAST_MARKS, read_marks

ALPHA = 0.01
"""At or below it a p-value is called small."""
MAX_ROWS = 200
"""Rows of the data, and of the holdout, that are read at most."""
MEMBERSHIP = {"min_k_auc": "auc", "dataset_inference": "p-value", "blind_auc": "auc"}
"""Attacks of an audit that say whether data were seen, and their units."""
STAGE = "testing models"
CHANNELS = {"nll", "logp", "moments"}
MODELS = {"before": "the model before", "after": "the model", "gold": "gold"}
CAVEATS = {
    "marks": "A small p says that the marks were learnt: of models that never saw them so few look like "
    "this as p says, since a secret draw chose which of the two was published. A large p does not "
    "say that the data were not used: marks are few, and can be seen too seldom to be learnt, or "
    "be filtered out.",
    "removed": "After unlearning, a large p says that this test no longer finds the marks, not that nothing "
    "else of the data is left.",
    "others": "That the marks were drawn beforehand is the basis of the p-value: to convince others, show "
    "that the digest of marks.json is older than the model.",
    "guided_completion": "A small p says that naming the data set helps the model to finish its rows; a model that "
    "cannot follow instructions gives a large one, whatever it saw.",
    "option_order": "A small p says that the model prefers the published order of the options. It speaks of "
    "training only where that order is an accident: options that rise in size, or end in `all of "
    "the above`, are preferred by every model. A large p says nothing, for the rows may have been "
    "seen in another form.",
    "membership": "A small p of dataset inference says that data and holdout can be told apart; its remark says "
    "whether the data look more or less seen. They can differ by more than training: where the blind baseline, which "
    "asks no model, is above 0.5, the others cannot be read as memory.",
}
"""Test -> the conclusions that it allows, and those that it does not."""


def provenance(
    request: ProvenanceRequest | Mapping[str, Any] | str | None = None,
    *,
    reporter: Reporter | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Test whether a model was trained on data, and return the evidence; with `out` also write it.

    request: a ProvenanceRequest, a mapping of its fields, or the model alone. fields: fields of ProvenanceRequest, as
    in `provenance("model", marks="marked")`. Raises BadInput with every fault before a model is opened.
    """
    began = time.monotonic()
    reporter = reporter or Silent()
    plan = _plan(request, fields)
    checked, marks = plan.request, plan.marks
    scores: list[Score] = []
    reporter.start(STAGE, len(checked.sources))
    for role, _, model in open_sources(checked.sources, checked.trust_code, reporter):
        fits_model(model, plan.rows | ({"marks": [*marks.published, *marks.twins]} if marks else {}))
        scores += [*_marks(model, role, marks), *_order(model, role, plan), *_members(model, role, plan.rows)]
        reporter.advance(STAGE, list(checked.sources).index(role) + 1, role)
        del model
    reporter.finish(STAGE)
    evidence = dossier.build(
        title="Contamination and provenance",
        request=plan.as_written(),
        scores=scores,
        conclusions=conclusions(scores),
        notes=caveats(scores, len(marks.published) if marks else None),
        cost={"audit_seconds": round(time.monotonic() - began, 2)},
        splits=plan.rows,
    )
    if checked.out is not None:
        with out_folder.hold(checked.out):
            out_folder.write(checked.out, evidence)
    return evidence


@dataclass(frozen=True)
class _Plan:
    """A test of provenance, checked as far as it can be without opening a model."""

    request: ProvenanceRequest
    kind: str
    """Of the marks; "" without any."""
    marks: Marks | None
    rows: dict[str, Sequence[Example]]
    """Data and holdout, as far as they were given: seeded samples."""

    def as_written(self) -> dict[str, Any]:
        """The request for the evidence."""
        return {
            **self.request.as_written("model", "before", "gold", "marks"),
            "kind": self.kind or None,
            "data": self.request.data if isinstance(self.request.data, str) else None,
            **self.request.as_written("name", "split", "seed"),
        }


def _plan(given: ProvenanceRequest | Mapping[str, Any] | str | None, fields: Mapping[str, Any]) -> _Plan:
    faults = Faults()
    request, errors = ProvenanceRequest.of(given, fields)
    for error in errors:
        faults.add(error)
    if request is None:
        raise BadInput.all(faults.errors)
    kind, marks = "", None
    _check_combination(request, faults)
    if request.marks is not None:
        with faults:
            kind, marks = read_marks(request.marks)
    rows: dict[str, Sequence[Example]] = {}
    for field in ("data", "holdout"):
        if (source := getattr(request, field)) is not None:
            with faults:
                loaded = load(source, field)
                texts_only(loaded, field)
                rows[field] = loaded
    if shared := content_keys(rows.get("data", [])) & content_keys(rows.get("holdout", [])):
        reason = f"shares {len(shared)} rows with data"
        faults.add(BadInput.of("holdout", str(request.holdout), reason, "give rows that were never trained on"))
    with faults:
        check_sources(request.sources, request.trust_code)
    if request.out is not None:
        with faults:
            out_folder.free(request.out)
    faults.raise_any()
    return _Plan(request, kind, marks, {field: sample(some, request.seed, MAX_ROWS) for field, some in rows.items()})


def _check_combination(request: ProvenanceRequest, faults: Faults) -> None:
    """Check that there is something to test, and nothing that has no use without data."""
    if request.marks is None and request.data is None:
        reason = "is missing, and so is data: there is nothing to test"
        faults.add(BadInput.of("marks", "", reason, "give --marks FOLDER, --data FILE, or both"))
    for field, value in {"holdout": request.holdout, "name": request.name}.items():
        if value is not None and request.data is None:
            faults.add(BadInput.of(field, str(value), "is of use with data alone", "add --data FILE"))


def _label(name: str, split: str, role: str, unit: str) -> Label:
    return {
        "name": f"privacy_{name}",
        "side": "privacy",
        "split": split,
        "role": role,
        "unit": unit,
        "better": "gold",
    }


def _score(name: str, split: str, role: str, test: Callable[[], Figure], unit: str = "p-value") -> Score:
    """The score that a test gives, or the reason that it cannot be made."""
    label = _label(name, split, role, unit)
    try:
        return Score.of_figure(test(), **label)
    except (NotMeasured, BadInput) as reason:
        return Score.not_measured(str(reason), **label)


def _marks(model: Model, role: str, marks: Marks | None) -> list[Score]:
    """p, and the lead of the marks over their twins."""
    if marks is None:
        reason = "no --marks was given"
        return [
            Score.not_measured(reason, **_label("marks", "marks", role, "p-value")),
            Score.not_measured(reason, **_label("marks_lead", "marks", role, "nats")),
        ]
    lead_N: list[np.ndarray] = []

    def p() -> Figure:
        lead_N.append(leads(model, marks))
        return Figure(sign_flip_p(lead_N[0]), None, None, len(lead_N[0]))

    def mean_lead() -> Figure:
        if not lead_N:
            raise NotMeasured(found.why)
        return Figure(*intervals.mean(lead_N[0]), n=len(lead_N[0]))

    found = _score("marks", "marks", role, p)
    return [found, _score("marks_lead", "marks", role, mean_lead, "nats")]


def _order(model: Model, role: str, plan: _Plan) -> list[Score]:
    """Guided completion and the order of options."""
    data, request = plan.rows.get("data"), plan.request

    def guided_figure() -> Figure:
        if data is None:
            raise NotMeasured("no --data was given")
        if not request.name:
            raise NotMeasured("no --name was given: what the data set is called")
        if "generate" not in model.capabilities:
            raise NotMeasured("the model writes no text")
        p = guided_completion(model, data, dataset=request.name, split=request.split)
        return Figure(p, None, None, len(pieces(data)))

    def order() -> Figure:
        if data is None:
            raise NotMeasured("no --data was given")
        rows = [with_three for row in data if (with_three := with_options(row))]
        if not rows:
            raise NotMeasured("no row has a question and three options or more (options, or choices)")
        return Figure(option_order(model, rows, seed=request.seed), None, None, len(rows))

    return [_score("guided_completion", "data", role, guided_figure), _score("option_order", "data", role, order)]


def with_options(row: Example) -> Example | None:
    """{"question", "options"} of a row that has three options or more; a question that lists them loses the list."""
    options = row.get("options") or row.get("choices")
    if not row.get("question") or not isinstance(options, list | tuple) or len(options) < 3:
        return None
    question = str(row["question"])
    for i, option in reversed(list(enumerate(options))):
        question = question.removesuffix(f"\n{chr(ord('A') + i)}. {option}")
    return {"question": question, "options": [str(option) for option in options]}


def _members(model: Model, role: str, rows: Mapping[str, Sequence[Example]]) -> list[Score]:
    """Min-K%, dataset inference and the blind baseline of data against holdout, as an audit measures them."""
    known: dict[str, Score] = {}
    lacking = [field for field in ("data", "holdout") if field not in rows]
    if not lacking:
        splits = {"forget": rows["data"], "holdout": rows["holdout"]}
        readouts = {
            split: reading.read(model, split, some, CHANNELS, role=role, cache=False) for split, some in splits.items()
        }
        scores = measure({"after": readouts}, model.capabilities)
        known = {score.name.removeprefix("privacy_"): score for score in scores}
    why = f"no --{lacking[0]} was given" if lacking else "the model gives no probabilities of single tokens"
    return [
        dataclasses.replace(known[name], split="data", role=role)
        if name in known
        else Score.not_measured(why, **_label(name, "data", role, unit))
        for name, unit in MEMBERSHIP.items()
    ]


def conclusions(scores: Sequence[Score]) -> list[str]:
    """The meaning of the marks' p-values: a sentence per model, and one on all of them."""
    p = {score.role: score.value for score in scores if score.name == "privacy_marks" and score.value is not None}
    sentences = [f"{name.capitalize()}: {_meaning(p[role])}" for role, name in MODELS.items() if role in p]
    if p.get("gold", 1.0) <= ALPHA:
        sentences.append("Gold finds the marks as well: it saw them, or the secret that drew them was known.")
    elif {"before", "after"} <= set(p) and p["before"] <= ALPHA:
        left = (
            "They are still there." if p["after"] <= ALPHA else "They were there, and this test no longer finds them."
        )
        sentences.append(left if p["after"] < 1 - ALPHA else "They were there, and went too far down.")
    return sentences


def _meaning(p: float) -> str:
    """A sentence on one p-value of the marks."""
    if p <= ALPHA:
        return f"the marks were learnt (p = {p:.4f})."
    if p >= 1 - ALPHA:
        return (
            f"the marks are unlikelier than their twins (p = {p:.4f}), which happens to one in a hundred models that "
            "never saw them: they were pushed down, and that gives them away too."
        )
    return f"the marks are not found at the level of {ALPHA:g} (p = {p:.4f})."


def caveats(scores: Sequence[Score], marks: int | None) -> list[str]:
    """The caveats of the tests that were measured. marks: how many there are."""
    measured = {score.name.removeprefix("privacy_") for score in scores if score.measured}
    texts = [CAVEATS[name] for name in ("marks", "removed", "others") if "marks" in measured]
    if marks is not None and marks < LEAST_MARKS:
        texts.append(f"With {marks} marks p cannot fall below {0.5**marks:.2g}.")
    texts += [CAVEATS[name] for name in ("guided_completion", "option_order") if name in measured]
    return texts + ([CAVEATS["membership"]] if "min_k_auc" in measured else [])
