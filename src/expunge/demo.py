"""The demo: an embedded world, a request, a run."""

from __future__ import annotations

from expunge.core.contracts import Reporter
from expunge.core.request import Request
from expunge.run import Run, run

OUT = "runs/authors"


def request(method: str = "npo", seed: int = 0) -> Request:
    """Forget four of forty fictitious authors, keep the others."""
    return Request.parse({
        "model": "builtin:authors",
        "forget": "builtin:authors/forget",
        "retain": "builtin:authors/retain",
        "holdout": "builtin:authors/holdout",
        "method": method,
        "purpose": "suppress",
        "accept": {
            "forget.rouge_l": "<= 1.2 * gold",
            "forget.nll": ">= 0.8 * gold",
            "retain.probability": ">= 0.9 * before",
        },
        "seed": seed,
        "out": OUT,
    })  # fmt: skip


def demo(*, method: str = "npo", seed: int = 0, reporter: Reporter | None = None) -> Run:
    """Runs the demo; an older one is replaced at the end."""
    return run(request(method, seed), reporter=reporter, replace=True)
