"""Requests one after another."""

from __future__ import annotations

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
)
RECIPE = {"inner": "npo"}


def sequential(*, inner: Method, by: str = "group") -> Method:
    """Serve the parts of the forget set as requests that come one after another, and track them all.

    by: the field of the forget examples that tells the requests apart, served in sorted order. The
    forget NLL of every request so far and the retain NLL stand after each one in the evidence
    (nats a token).
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        if any(by not in row for row in splits["forget"]):
            raise BadInput.of("method.sequential.by", by, "is missing in some forget examples", "name a field of all")
        values = sorted({str(row[by]) for row in splits["forget"]})
        parts = {v: [row for row in splits["forget"] if str(row[by]) == v] for v in values}
        retain = sample(splits.get("retain", []), context.seed)
        history = []
        fold(model.module)
        for i, value in enumerate(values):
            part = {**splits, "forget": parts[value]}

            def serve(
                part: Mapping[str, Sequence[Example]] = part, number: int = i + 1, value: str = value
            ) -> dict[str, Tensor]:
                inner(model, part, context.child(f"request-{number}", draws=f"request-{value}"))
                return {name: tensor.cpu().clone() for name, tensor in snapshot(model.module).items()}

            after = context.once(f"request-{i + 1}", serve)
            fold(model.module)
            restore(model.module, after, "")
            line: dict[str, object] = {"request": value}
            line["forget_nll"] = {v: figures(model, parts[v])["nll"] for v in values[: i + 1]}
            if retain:
                line["retain_nll"] = figures(model, retain)["nll"]
            history.append(line)
        context.notes["requests"] = history
        return model

    return Method(apply)
