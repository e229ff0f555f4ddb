"""The repair of a model that somebody's unlearning or fine-tuning harmed."""

from __future__ import annotations

from typing import Any

from expunge.core.contracts import Reporter
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.core.variables import expand
from expunge.data.worlds import is_builtin
from expunge.methods.repair import NAME
from expunge.models.family import family
from expunge.models.open import open_on_cpu
from expunge.workflows.run import Run, run

DEFAULTS = {"gold": "none", "out": "runs/repair"}
"""Fields of the request that the caller need not give."""
KEPT, LEFT, MOST_DRIFT = 0.9, 0.5, 0.05
"""Without criteria: the share of utility that must be left, the share of forget answers that may be, and the drift."""


def repair(
    model: str,
    *,
    before: str,
    forget: Any,
    start: str | None = None,
    ways: list[str] | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    **fields: Any,
) -> Run:
    """Take back as much of a model's change as its criteria ask for, and write model, report and certificate.

    before: the original. forget: what must stay forgotten. start: the model that the original was trained from, by
    default of its manifest. ways: of the repair, in their order. fields: further fields of the request (retain,
    neighbours, general, holdout, accept, gold, audit, alignment, domains, seed, out, ...); None: unset. Raises BadInput
    before anything starts.
    """
    return run(repair_request(model, before, forget, start, ways, **fields), resume=resume, reporter=reporter)


def repair_request(
    model: str, before: str, forget: Any, start: str | None = None, ways: list[str] | None = None, **fields: Any
) -> Request:
    """The request of a repair: its model is the original, its method the harmed model's change. Raises BadInput."""
    if is_builtin(model):
        raise BadInput.of("model", model, "is an embedded world's, which nobody harmed", "give the harmed model")
    options = {"model": model, "start": start, "ways": ways}
    given = {name: value for name, value in fields.items() if value is not None}
    method = {NAME: {name: value for name, value in options.items() if value}}
    values = {**DEFAULTS, **given, "model": before, "forget": forget, "method": method}
    if not values.get("accept"):
        values["accept"] = default_criteria(model, values)
    return Request.parse(values)


def default_criteria(model: str, values: dict[str, Any]) -> dict[str, str]:
    """Criteria for a request without any: on what it says must stay, and on what must stay forgotten."""
    opened = open_on_cpu(expand(model, "model"), trust_code=bool(values.get("trust_code")), meta=True)
    utility = "accuracy" if family(opened.family).labelled else "probability"
    left = "rouge_l" if "generate" in opened.capabilities else utility
    on = [name for name in ("retain", "neighbours", "general") if values.get(name) is not None]
    found = {f"{name}.{utility}": f">= {KEPT} * before" for name in on}
    if isinstance(values["forget"], dict) and "refusals" in values["forget"]:
        return {**found, "alignment.drift": f"<= {MOST_DRIFT}"}
    found[f"forget.{left}"] = f"<= {LEFT} * before"
    return {**found, "alignment.drift": f"<= {MOST_DRIFT}"} if values.get("alignment", "none") != "none" else found
