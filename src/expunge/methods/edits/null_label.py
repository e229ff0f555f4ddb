"""The row of a class in the label table, overwritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model

CARD = MethodCard(
    "Label row overwritten",
    paper="baseline",
    needs={"forget": ()},
    capabilities={"class_table"},
    fidelity="faithful",
    means="Hides a class and removes nothing: nobody is understood who asks for it, and all that draws it is still "
    "there. A control for evidence, not a way to erase.",
    deterministic=True,
    one_shot=True,
)


def null_label() -> Method:
    """Give the forgotten classes the vector of no class (where there is none, the others' mean); one assignment."""

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        bare: Any = model
        table_VD = bare.module.get_parameter(bare.table)
        classes = sorted({int(row["label"]) for row in splits["forget"]})
        others = [label for label in range(bare.classes) if label not in classes]
        with torch.no_grad():
            table_VD[classes] = table_VD[others].mean(0) if bare.null is None else table_VD[bare.null].clone()
        return model

    return Method(apply)
