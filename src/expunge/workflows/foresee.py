"""Foresee: the domains that a request puts at risk, before any training; and how right that was afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.alignment.risk import AT_RISK, Risk, scored
from expunge.alignment.risk import at_risk as chosen
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
    """The ranking, riskiest first; score: Spearman's rank correlation with a run's drift, None where none can be told."""

    risks: list[Risk]
    score: Interval | None = None
    happened: Mapping[str, float] | None = None
    """Domain -> by how much its refusal score fell in that run."""

    @property
    def rho(self) -> float | None:
        """The point value of the score."""
        return self.score.value if self.score else None

    def to_json(self) -> dict[str, Any]:
        rows = [
            {
                **risk.to_json(),
                "at_risk": risk.domain in chosen(self.risks),
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
    """Ranks the domains at risk. Nothing is written but caches; the model's folder is not changed.

    against: the folder of a finished run, whose drift the ranking is scored against. Raises BadInput.
    """
    request = request if isinstance(request, Request) else Request.parse(request)
    values = {**request.resolved(), "alignment": "standard"}
    reporter = reporter or Silent()
    happened = _fell(Path(against)) if against else None
    # The folder of the run may be there already: foreseeing writes nothing to it.
    planned = plan(Request.parse(values), resume=True)
    check_runnable(planned)
    planned = with_world(planned, reporter)
    found = containment.risks(planned, open_model(planned.source, planned.request.trust_code), reporter)
    if not found:
        raise BadInput.of(
            "domains",
            planned.aligned.pack.name if planned.aligned else "",
            "has no prompts that train beside the target's",
            "give a pack with prompts of the part train",
        )
    return Foreseen(found, scored(found, happened) if happened else None, happened)


def _fell(folder: Path) -> dict[str, float]:
    page = run_folder.evidence_of(folder).get("alignment")
    if not page:
        raise BadInput.of("--against", str(folder), "holds a run without drift", "run it with alignment: standard")
    try:
        return {str(row["domain"]): 0.0 - float(row["change"]) for row in page["drift"] if not row["asked"]}
    except (LookupError, TypeError, ValueError):
        raise BadInput.of(
            "--against",
            str(folder),
            "holds an evidence.json whose drift is broken",
            "give the folder of a finished run",
        ) from None
