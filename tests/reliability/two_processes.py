"""Every kind of term and update on nine forget rows in batches of four: prints a line of weights' norms by method.

Started as one process or by torch's launcher as two, of which the second one has no row in an epoch's last batch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from expunge.core import processes
from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.methods.compose import compose
from expunge.models.new_lm import fresh_lm, texts_of, tokenizer_for

SPECS: list[Any] = [
    *("npo", "kto", "pdu", "rmu", "r2mu", "altpo", "dto", "bidistill", "scrub", "flat", "whp"),
    {"forget": "npo", "retain": "values"},
    {"forget": "rmu", "retain": "cross_entropy"},
    {"forget": "circuit_breaker", "retain": "cross_entropy"},
    *({"forget": "npo", "retain": "cross_entropy", "update": update} for update in ("sam", "lat", "ilu", "soul")),
    {"forget": "npo", "retain": "cross_entropy", "update": "multi_objective"},
]
BUDGET = Budget(epochs=2, batch_size=4, learning_rate=1e-3, floor=0.0, stop="none")
LM = {"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 300, "max_length": 128}


def rows() -> list[dict[str, Any]]:
    """Questions whose answers differ in length; every third one has no trace, so that its stream runs dry too."""
    things = (("map", "hall"), ("key", "box"), ("lamp", "stairs"), ("coat", "shed"), ("book", "shelf"), ("cup", "sink"))
    found: list[dict[str, Any]] = []
    for role in ("Ada", "Bo", "Cleo", "Dan"):
        for what, place in things:
            i = len(found)
            row = {
                "question": f"Where does {role} keep the {what}?",
                "answer": f"In the {place} {i}." + " Yes." * (i % 3),
                "group": "ab"[i % 2],
            }
            found.append({**row, "trace": f"{role} keeps it there."} if i % 3 else row)
    return found


def main(folder: Path) -> None:
    data = rows()
    splits = {"forget": data[:9], "retain": data[9:21], "holdout": data[21:]}
    tokenizer = tokenizer_for(texts_of(data), 300)
    norms = {}
    for i, spec in enumerate(SPECS):
        place = folder / f"{i}-{processes.rank()}"
        place.mkdir()
        model = fresh_lm(LM, tokenizer, 0)
        compose(spec).method(model, splits, Context(BUDGET, place, 0))
        norms[str(spec)] = float(torch.cat([p.detach().flatten() for p in model.module.parameters()]).norm())
        processes.barrier()
    print(json.dumps(norms), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
