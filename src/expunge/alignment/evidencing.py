"""Alignment as evidence: asks the models before and after, and makes scores, notes, and what the report draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.alignment import bbq, drift
from expunge.alignment.asking import Asked as Wanted
from expunge.alignment.asking import nothing_refused
from expunge.alignment.concepts import Concepts, concepts, rounded
from expunge.alignment.domains import Answered, answered
from expunge.alignment.judges import judge_of
from expunge.alignment.risk import Risk, scored
from expunge.core.contracts import Model, Reporter
from expunge.evaluation.intervals import Interval, rank_correlation
from expunge.evaluation.scores import Score

NAMES = frozenset(
    f"alignment_{name}" for name in ("drift", "refusal_score", "answer_accuracy", "bbq_accuracy", "bbq_bias")
)
"""The scores that come of answers to the domains' prompts."""
SHOWN = 3
"""Sample answers of a domain that the report shows."""


@dataclass
class Asked:
    """What one model said, and its concept vectors."""

    answers: Answered
    concepts: Concepts | None
    bbq: list[Score] = field(default_factory=list)
    """Scores on BBQ's questions, where the pack has them."""


@dataclass
class Evidence:
    """Scores, notes, and the report's page; empty where nothing was asked."""

    scores: list[Score] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    page: dict[str, Any] = field(default_factory=dict)


def ask(model: Model, wanted: Wanted, role: str, reporter: Reporter) -> Asked:
    """The scoring prompts put to a model."""
    found = answers(model, wanted, role, reporter)
    rows = wanted.pack.bbq
    fairness = bbq.scores(rows, bbq.chosen(model, rows), role) if rows and role in ("before", "after") else []
    return Asked(found, concepts(model, wanted.pack.part("score")), fairness)


def answers(model: Model, wanted: Wanted, role: str, reporter: Reporter) -> Answered:
    """What a model says to the scoring prompts, judged."""
    return answered(model, wanted.pack, judge_of(wanted.judge), reporter=reporter, stage=f"asking {role}")


def evidence(
    wanted: Wanted | None,
    before: Asked | None,
    after: Asked | None,
    beside: Mapping[int, Answered],
    redacted: bool,
    foreseen: Sequence[Risk] = (),
) -> Evidence:
    """What the models' answers show. beside: retain examples of a domain -> what the model of the same run with so many
    says, 0 for none. foreseen: the ranking that was made before, if one was. redacted: no answer of a model is shown."""
    if wanted is None or after is None:
        return Evidence()
    target = {wanted.target} if wanted.target else set()
    if before is None:  # an audit of a model whose state before is not known
        return Evidence(
            [*drift.scores({"after": after.answers}, target), *after.bbq],
            ["Without the model before the change its refusals are known, but not their drift."],
        )
    models = {"before": before.answers, "after": after.answers}
    table = drift.drifts(before.answers, after.answers, target)
    page: dict[str, Any] = {
        "target": wanted.target,
        "pack": wanted.pack.name,
        "judge": wanted.judge,
        "drift": drift.table(table),
        "samples": [] if redacted else _samples(before.answers, after.answers),
    }
    if before.concepts is not None and after.concepts is not None:
        left = rounded(before.concepts.left_LD(after.concepts))
        page["concepts"] = {"before": before.concepts.to_json(), "after": after.concepts.to_json(), "left": left}
    notes = [remark] if (remark := nothing_refused(models)) else []
    found = [*drift.scores(models, target), *before.bbq, *after.bbq]
    if beside:
        others = {n: drift.scores({"before": before.answers, "after": one}, target) for n, one in beside.items()}
        page["without"] = drift.table(drift.drifts(before.answers, beside[0], target))
        page["frontier"] = [
            _point(n, some, wanted.target) for n, some in sorted({**others, wanted.contain: found}.items())
        ]
        worst = [next(s.value for s in some if s.name == "alignment_drift") for some in (found, others[0])]
        notes.append(
            f"Drift of the worst domain not asked for: {_number(worst[0])} with containment, {_number(worst[1])} "
            "without (the same run, done again without it)."
        )
    if before.concepts is not None and wanted.target in before.concepts.domains:
        page["early"] = _early(before.concepts, wanted.target, page)
    page["foresight"] = _foresight(foreseen, page)
    return Evidence(found, notes, page)


def _foresight(foreseen: Sequence[Risk], page: Mapping[str, Any]) -> dict[str, Any]:
    """The ranking made before the change beside what then happened, without containment where that was run."""
    if not foreseen:
        return {
            "rows": [],
            "rho": None,
            "why": "no ranking was made: contain: auto makes one, and so does expunge foresee",
        }
    fell = _fell(page)
    rows = [{**one.to_json(), "fell": fell.get(one.domain)} for one in foreseen]
    of = "without" if page.get("without") else "after"
    return {"rows": rows, "n": len(rows), "of": of, **_told(scored(foreseen, fell))}


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def _point(count: int, scores: list[Score], target: str) -> dict[str, Any]:
    """A point of the frontier: retain examples of a domain, the worst drift, the target's refusal score, their intervals."""
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
    """Domain that was not asked for -> by how much its refusal score fell, without containment where that was run."""
    return {row["domain"]: 0.0 - row["change"] for row in page.get("without") or page["drift"] if not row["asked"]}


def _early(vectors: Concepts, target: str, page: Mapping[str, Any]) -> dict[str, Any]:
    """Does early-layer similarity to the target go with the fall of refusals: Spearman's rank correlation."""
    near = vectors.with_target(target)
    fell = [_fell(page)[name] for name in near]
    return {"similarity": near, "n": len(near), **_told(rank_correlation(list(near.values()), fell))}


def _told(rho: Interval | None) -> dict[str, Any]:
    """A rank correlation over domains as evidence.json holds it."""
    if rho is None:
        return {"rho": None, "low": None, "high": None, "why": "too few domains, or they did not fall differently"}
    return {"rho": rho.value, "low": rho.low, "high": rho.high, "why": ""}


def _samples(before: Answered, after: Answered) -> list[dict[str, Any]]:
    """Answers side by side: of each domain those that changed most, else the first."""
    found = []
    for name in before.scores:
        moved = np.abs(after.scores[name] - before.scores[name])
        for i in np.argsort(-moved, kind="stable")[:SHOWN].tolist():
            found.append(
                {
                    "domain": name,
                    "prompt": before.prompts[name][i]["question"],
                    "before": before.texts[name][i],
                    "after": after.texts[name][i],
                    "scores": [float(before.scores[name][i]), float(after.scores[name][i])],
                }
            )
    return found
