"""Task-vector negation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.methods.objective import plain_training
from expunge.models.weights import fold, snapshot
from expunge.training.checkpoint import restore

CARD = MethodCard(
    "Task-vector negation",
    paper="arXiv:2212.04089",
    equation="section 3, forgetting by negation",
    needs={"forget": ()},
    fidelity="faithful",
    shown="At equal forget NLL it keeps no more of retain than ascent.",
)


def task_vector(*, scale: Annotated[float, Gt(0)] = 1.0) -> Method:
    """Fine-tune on the forget set, then move the weights as far in the opposite direction.

    theta - scale (theta_ft - theta), theta_ft fine-tuned on the forget set with the run's budget.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        before = {name: value.clone().cpu() for name, value in snapshot(model.module).items()}

        def tune() -> dict[str, Tensor]:
            plain_training("forget")(model, splits, context.child("tuned"))
            return {name: value.cpu().clone() for name, value in snapshot(model.module).items()}

        after = context.once("tuned", tune)
        moved = {
            name: (value.float() - scale * (after[name].float() - value.float())).to(value.dtype)
            if value.is_floating_point()
            else value
            for name, value in before.items()
        }
        restore(model.module, moved, "")
        return model

    return Method(apply)
