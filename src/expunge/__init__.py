"""Expunge makes a trained model forget, and proves it.

    import expunge
    done = expunge.run({"model": "builtin:authors", "forget": "builtin:authors/forget", ...})
    done.passed, done.evidence["scores"]

The stages are there one by one too: `plan` checks a request, `open_subject` opens a model, `compose`
makes a method of a request's `method`, `read` and `measure` give scores.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expunge.audit import audit
    from expunge.bench import bench
    from expunge.compare import compare
    from expunge.core.budget import Budget
    from expunge.core.card import Card, Stream
    from expunge.core.context import Context
    from expunge.core.contracts import Output, Step, Subject, Term, Want
    from expunge.core.errors import BadInput, ExpungeError
    from expunge.core.readout import Readout
    from expunge.core.request import Request
    from expunge.core.train_config import TrainConfig
    from expunge.core.variables import allow_env
    from expunge.data.splits import make_splits
    from expunge.evidence import Score, measure
    from expunge.foresee import foresee
    from expunge.forget import forget
    from expunge.load import load
    from expunge.methods.compose import compose
    from expunge.neighbours import neighbours
    from expunge.plan import Plan, plan
    from expunge.purge import purge
    from expunge.reading import read
    from expunge.run import Run, run
    from expunge.subjects.opening import open_subject
    from expunge.train import train
    from expunge.training.origins import record
    from expunge.tune import tune
    from expunge.verify import verify

_PLACES = {
    "BadInput": "core.errors", "Budget": "core.budget", "Card": "core.card", "Context": "core.context",
    "ExpungeError": "core.errors", "Output": "core.contracts", "Plan": "plan", "Readout": "core.readout",
    "Request": "core.request", "Run": "run", "Score": "evidence", "Step": "core.contracts", "Stream": "core.card",
    "Subject": "core.contracts", "Term": "core.contracts", "TrainConfig": "core.train_config",
    "Want": "core.contracts", "allow_env": "core.variables", "audit": "audit", "bench": "bench", "compare": "compare", "compose": "methods.compose",
    "foresee": "foresee",
    "forget": "forget", "load": "load", "make_splits": "data.splits", "measure": "evidence", "neighbours": "neighbours", "open_subject": "subjects.opening",
    "plan": "plan", "purge": "purge", "read": "reading", "record": "training.origins", "run": "run",
    "train": "train", "tune": "tune", "verify": "verify",
}  # fmt: skip

__all__ = [
    "BadInput", "Budget", "Card", "Context", "ExpungeError", "Output", "Plan", "Readout", "Request", "Run", "Score",
    "Step", "Stream", "Subject", "Term", "TrainConfig", "Want", "allow_env", "audit", "bench", "compare", "compose", "foresee", "forget", "load", "make_splits",
    "measure", "neighbours", "open_subject", "plan", "purge", "read", "record", "run", "train", "tune", "verify",
]  # fmt: skip

__version__ = "0.1.0"


class _Package(types.ModuleType):
    """Where a module bears the name of its function (`expunge.run`), the package shows the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, types.ModuleType) and name in _PLACES:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Public names are imported when first used: `import expunge` costs nothing."""
    if name not in _PLACES:
        raise AttributeError(f"module 'expunge' has no attribute {name!r}")
    return getattr(importlib.import_module(f"expunge.{_PLACES[name]}"), name)
