"""RMU on answers and on the reasoning that leads to them."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Model, Step, Stream
from expunge.methods._traces import trace_as_answer
from expunge.methods.objectives.rmu import Misdirection

CARD = MethodCard(
    "Reasoning-aware representation misdirection",
    paper="arXiv:2506.12963",
    equation="section 5, R2MU",
    needs={"forget": {"hidden"}, "traces": {"hidden"}},
    streams={"traces": Stream(split="forget", make=trace_as_answer)},
    fields={"forget": {"trace"}},
    capabilities={"mlp"},
    fidelity="simplified",
    leaves_out="the published down-projections: whole blocks move",
    shown="In thirty epochs it raises the traces' NLL at least three times as far as RMU on the answers alone, and "
    "retained reasoning keeps its NLL within .15 nats.",
    distributed=True,
)
RECIPE = {"retain": {"hidden": {"traces": True}}, "weights": "layers", "alpha": 50.0}


class Traced(Misdirection):
    """RMU's loss on two streams, with one direction."""

    def __init__(self, layer: int | None, c: float | None, times: float, gamma: float) -> None:
        super().__init__(layer, c, times)
        self.gamma = gamma

    def declare(self, model: Model) -> None:
        super().declare(model)
        self.needs: Any = {**self.needs, "traces": {f"hidden:{self.path}"}}

    def __call__(self, step: Step) -> Tensor:
        return super().__call__(step) + self.gamma * self.distance(step["traces"])


def r2mu(
    *,
    layer: int | None = None,
    c: Annotated[float, Gt(0)] | None = None,
    times: Annotated[float, Gt(0)] = 5.0,
    gamma: Annotated[float, Ge(0)] = 1.0,
) -> Loss:
    """Misdirect the reasoning trace as well as the answer, since the trace holds the knowledge too.

    The examples carry `trace`, read as `<think>trace</think>`. RMU on the answers plus gamma times RMU on the traces,
    to one direction. The recipe's retain term also holds the reasoning of the retain examples that carry `trace`.
    """
    return Traced(layer, c, times, gamma)
