"""Predict which domains a request puts at risk, before any training; score the prediction against a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.alignment.risk import AT_RISK, Risk, at_risk, rank_correlation_with_fall
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.evaluation.intervals import Interval
from expunge.models.open import open_model
from expunge.pipeline import containment, run_folder
from expunge.pipeline.plan import check_runnable, plan
from expunge.pipeline.prepare import with_world


@dataclass(frozen=True)
class Foreseen:
    """The ranking, highest risk first; score: Spearman's rank correlation with a run's drift, None where undefined."""

    risks: list[Risk]
    score: Interval | None = None
    happened: Mapping[str, float] | None = None
    """Domain -> drop of its refusal score in that run."""

    @property
    def rho(self) -> float | None:
        """The point estimate of the score."""
        return self.score.value if self.score else None

    def to_json(self) -> dict[str, Any]:
        rows = [
            {
                **risk.to_json(),
                "at_risk": risk.domain in at_risk(self.risks),
                **({"fell": self.happened.get(risk.domain)} if self.happened is not None else {}),
            }
            for risk in self.risks
        ]
        return {
            "rows": rows,
            "threshold": AT_RISK,
            "rho": self.rho,
            "low": self.score.low if self.score else None,
            "high": self.score.high if self.score else None,
        }


def foresee(
    request: Request | Mapping[str, Any], *, against: str | None = None, reporter: Reporter | None = None
) -> Foreseen:
    """Rank the domains by risk. Writes only cache entries; the model's folder is not changed.

    against: the folder of a finished run; the ranking is scored against its drift. Raises BadInput.
    """
    request = request if isinstance(request, Request) else Request.parse(request)
    values = {**request.resolved(), "alignment": "standard"}
    reporter = reporter or Silent()
    happened = _fell(Path(against)) if against else None
    # resume: the run's folder may exist already, and nothing is written to it here.
    planned = plan(Request.parse(values), resume=True)
    check_runnable(planned)
    planned = with_world(planned, reporter)
    found = containment.risks(planned, open_model(planned.source, planned.request.trust_code), reporter)
    if not found:
        raise BadInput.of(
            "domains",
            planned.aligned.pack.name if planned.aligned else "",
            "has no training prompts outside the target domain",
            "give a pack with prompts of the part train",
        )
    return Foreseen(found, rank_correlation_with_fall(found, happened) if happened else None, happened)


def _fell(folder: Path) -> dict[str, float]:
    page = run_folder.evidence_of(folder).get("alignment")
    if not page:
        raise BadInput.of("--against", str(folder), "is a run without drift figures", "run it with alignment: standard")
    try:
        return {str(row["domain"]): 0.0 - float(row["change"]) for row in page["drift"] if not row["asked"]}
    except (LookupError, TypeError, ValueError):
        raise BadInput.of(
            "--against",
            str(folder),
            "holds an evidence.json whose drift is broken",
            "give the folder of a finished run",
        ) from None
