"""Alignment as evidence: scores, notes and the report's page, from the observations before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.alignment import drift
from expunge.alignment.concepts import Concepts, rounded
from expunge.alignment.domains import DomainAnswers
from expunge.alignment.judges import REFUSED
from expunge.alignment.observation import AlignmentObservation
from expunge.alignment.risk import Risk, rank_correlation_with_fall
from expunge.alignment.spec import AlignmentSpec
from expunge.data.packs import CONTROL
from expunge.evaluation.intervals import Interval, rank_correlation
from expunge.evaluation.scores import Score

SCORES_FROM_ANSWERS = frozenset(
    f"alignment_{name}" for name in ("drift", "refusal_score", "answer_accuracy", "bbq_accuracy", "bbq_bias")
)
"""The scores that answers to the domains' prompts give."""
SAMPLES_PER_DOMAIN = 3


@dataclass
class AlignmentEvidence:
    """Scores, notes, and the report's page; empty where alignment was not observed."""

    scores: list[Score] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    page: dict[str, Any] = field(default_factory=dict)


def alignment_evidence(
    spec: AlignmentSpec | None,
    before: AlignmentObservation | None,
    after: AlignmentObservation | None,
    other_counts: Mapping[int, DomainAnswers],
    redacted: bool,
    foreseen: Sequence[Risk] = (),
) -> AlignmentEvidence:
    """The evidence that the observations before and after give.

    other_counts: retain examples per domain -> answers of the model that the same run gives with so many, 0 for none.
    redacted: no answer of a model is shown. foreseen: the risks that were ranked before the change, if they were.
    """
    if spec is None or after is None:
        return AlignmentEvidence()
    target = {spec.target} if spec.target else set()
    if before is None:  # an audit of a model whose state before is not known
        return AlignmentEvidence(
            [*drift.scores({"after": after.answers}, target), *after.bbq],
            ["Without the model before the change its refusals are known, but not their drift."],
        )
    models = {"before": before.answers, "after": after.answers}
    page: dict[str, Any] = {
        "target": spec.target,
        "pack": spec.pack.name,
        "judge": spec.judge,
        "drift": drift.table(drift.drifts(before.answers, after.answers, target)),
        "samples": [] if redacted else _samples(before.answers, after.answers),
    }
    if before.concepts is not None and after.concepts is not None:
        left = rounded(before.concepts.left_LD(after.concepts))
        page["concepts"] = {"before": before.concepts.to_json(), "after": after.concepts.to_json(), "left": left}
    notes = [remark] if (remark := _nothing_refused(before.answers)) else []
    scores = [*drift.scores(models, target), *before.bbq, *after.bbq]
    if other_counts:
        others = {
            n: drift.scores({"before": before.answers, "after": answers}, target) for n, answers in other_counts.items()
        }
        page["without"] = drift.table(drift.drifts(before.answers, other_counts[0], target))
        page["frontier"] = [
            _point(n, listed, spec.target) for n, listed in sorted({**others, spec.contain: scores}.items())
        ]
        notes.append(_containment_note(scores, others[0]))
    if before.concepts is not None and spec.target in before.concepts.domains:
        page["early"] = _early(before.concepts, spec.target, page)
    page["foresight"] = _foresight(foreseen, page)
    return AlignmentEvidence(scores, notes, page)


def _nothing_refused(before: DomainAnswers) -> str:
    """A remark where the model refused almost nothing to begin with; else empty."""
    if any(before.scores[name].mean() >= REFUSED / 2 for name in before.scores if name != CONTROL):
        return ""
    return "The model refused almost nothing before the change, so no drift of refusals could show."


def _containment_note(contained: list[Score], without: list[Score]) -> str:
    worst = [next(s.value for s in scores if s.name == "alignment_drift") for scores in (contained, without)]
    ours, theirs = ("not measured" if value is None else f"{value:.2f}" for value in worst)
    return (
        f"Drift of the worst domain outside the request: {ours} with containment, {theirs} without (the same run, done "
        "again without it)."
    )


def _foresight(foreseen: Sequence[Risk], page: Mapping[str, Any]) -> dict[str, Any]:
    """The ranking made before the change and what then happened, without containment where that was run."""
    if not foreseen:
        return {
            "rows": [],
            "rho": None,
            "why": "no ranking was made: contain: auto makes one, and so does expunge foresee",
        }
    fell = _fell(page)
    rows = [{**one.to_json(), "fell": fell.get(one.domain)} for one in foreseen]
    of = "without" if page.get("without") else "after"
    return {"rows": rows, "n": len(rows), "of": of, **_correlation_json(rank_correlation_with_fall(foreseen, fell))}


def _point(count: int, scores: list[Score], target: str) -> dict[str, Any]:
    """A point of the frontier: retain examples per domain, the worst drift, the target's refusal score, intervals."""
    drift_of = next(score for score in scores if score.name == "alignment_drift")
    key = ("alignment_refusal_score", target, "after")
    left = next((score for score in scores if (score.name, score.split, score.role) == key), None)
    return {
        "examples": count,
        "drift": drift_of.value,
        "drift_low": drift_of.low,
        "drift_high": drift_of.high,
        "target": left and left.value,
        "target_low": left and left.low,
        "target_high": left and left.high,
    }


def _fell(page: Mapping[str, Any]) -> dict[str, float]:
    """Domain outside the request -> the fall of its refusal score, without containment where that was run."""
    return {row["domain"]: 0.0 - row["change"] for row in page.get("without") or page["drift"] if not row["asked"]}


def _early(vectors: Concepts, target: str, page: Mapping[str, Any]) -> dict[str, Any]:
    """Spearman's rank correlation of early-layer similarity to the target with the fall of refusals."""
    near = vectors.with_target(target)
    fell = [_fell(page)[name] for name in near]
    return {"similarity": near, "n": len(near), **_correlation_json(rank_correlation(list(near.values()), fell))}


def _correlation_json(rho: Interval | None) -> dict[str, Any]:
    """A rank correlation over domains as evidence.json holds it."""
    if rho is None:
        return {"rho": None, "low": None, "high": None, "why": "too few domains, or they did not fall differently"}
    return {"rho": rho.value, "low": rho.low, "high": rho.high, "why": ""}


def _samples(before: DomainAnswers, after: DomainAnswers) -> list[dict[str, Any]]:
    """Answers side by side: of each domain those whose score changed most, else the first."""
    samples = []
    for name in before.scores:
        change = np.abs(after.scores[name] - before.scores[name])
        for i in np.argsort(-change, kind="stable")[:SAMPLES_PER_DOMAIN].tolist():
            samples.append(
                {
                    "domain": name,
                    "prompt": before.prompts[name][i]["question"],
                    "before": before.texts[name][i],
                    "after": after.texts[name][i],
                    "scores": [float(before.scores[name][i]), float(after.scores[name][i])],
                }
            )
    return samples
