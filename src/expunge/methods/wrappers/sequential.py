"""Requests one after another."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.data.sampling import sample
from expunge.models.weights import fold, snapshot
from expunge.training.checkpoint import restore
from expunge.training.stopping import figures

CARD = MethodCard(
    "Sequential requests",
    paper="arXiv:2407.06460",
    equation="sustainability (MUSE, C6)",
    needs={"forget": ()},
    wraps={"weights"},
    fidelity="faithful",
    shown="After each of four requests all forgotten so far stay at over ten times the NLL before.",
)
RECIPE = {"inner": "npo"}


def sequential(*, inner: Method, by: str = "group") -> Method:
    """Serve the parts of the forget set as requests, one after another, and track them all.

    by: the field of the forget examples that names the request; requests are served in sorted order. After each one the
    evidence notes the forget NLL of every request so far and the retain NLL (nats per token).
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        if any(by not in row for row in splits["forget"]):
            raise BadInput.of(
                "method.sequential.by", by, "is missing in some forget examples", "name a field that all have"
            )
        values = sorted({str(row[by]) for row in splits["forget"]})
        parts = {v: [row for row in splits["forget"] if str(row[by]) == v] for v in values}
        retain = sample(splits.get("retain", []), context.seed)
        fold(model.module)

        def serve(number: int, value: str) -> dict[str, Tensor]:
            part = {**splits, "forget": parts[value]}
            inner(model, part, context.child(f"request-{number}", draws=f"request-{value}"))
            return {name: tensor.cpu().clone() for name, tensor in snapshot(model.module).items()}

        history = []
        for number, value in enumerate(values, 1):
            after = context.once(f"request-{number}", functools.partial(serve, number, value))
            fold(model.module)
            restore(model.module, after, "")
            line: dict[str, object] = {"request": value}
            line["forget_nll"] = {v: figures(model, parts[v])["nll"] for v in values[:number]}
            if retain:
                line["retain_nll"] = figures(model, retain)["nll"]
            history.append(line)
        context.notes["requests"] = history
        return model

    return Method(apply)
