"""Expunge makes a trained model forget, and proves it.

    import expunge
    done = expunge.run({"model": "builtin:authors", "forget": "builtin:authors/forget", ...})
    done.passed, done.evidence["scores"]

Every command is a function of the same name. The single steps are public too: `plan` checks a request, `load` opens a
model, `compose` builds a request's method, `read` and `measure` give scores.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

NAMES = {
    "AttackCard": "core.card",
    "AuditRequest": "core.audit_request",
    "BadInput": "core.errors",
    "Budget": "core.budget",
    "Context": "core.context",
    "Evidence": "ledger.evidence",
    "ExpungeError": "core.errors",
    "ExposureRequest": "core.audit_request",
    "LossTerm": "core.contracts",
    "MethodCard": "core.card",
    "MetricCard": "core.card",
    "Model": "core.contracts",
    "Output": "core.contracts",
    "Plan": "pipeline.plan",
    "ProvenanceRequest": "core.audit_request",
    "Readout": "evaluation.readout",
    "Request": "core.request",
    "Run": "workflows.run",
    "Score": "evaluation.scores",
    "Step": "core.contracts",
    "Stream": "core.card",
    "Term": "core.contracts",
    "TrainConfig": "core.train_config",
    "Want": "core.want",
    "allow_env": "core.variables",
    "audit": "workflows.audit",
    "bench": "workflows.bench",
    "compare": "workflows.compare",
    "compose": "methods.compose",
    "exposure": "workflows.exposure",
    "find": "workflows.find",
    "foresee": "workflows.foresee",
    "forget": "workflows.forget",
    "judge": "alignment.answers",
    "load": "pipeline.worlds",
    "make_splits": "data.splits",
    "mark": "workflows.mark",
    "measure": "evaluation.scores",
    "neighbours": "workflows.neighbours",
    "plan": "pipeline.plan",
    "provenance": "workflows.provenance",
    "purge": "workflows.purge",
    "read": "evaluation.reading",
    "record": "training.references",
    "repair": "workflows.repair",
    "run": "workflows.run",
    "selftest": "workflows.selftest",
    "train": "pipeline.train",
    "tune": "workflows.tune",
    "verify": "workflows.verify",
}
"""Public name -> the module that has it. Adding one is a promise to keep it."""
__all__ = sorted(NAMES)


def __getattr__(name: str) -> Any:
    """Public names are imported when first used: `import expunge` costs nothing."""
    if name not in NAMES:
        raise AttributeError(f"module 'expunge' has no attribute {name!r}")
    return getattr(importlib.import_module(f"expunge.{NAMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
