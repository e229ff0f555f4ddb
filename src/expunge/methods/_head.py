"""The head of a classifier: the linear layer whose output is the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from expunge.core.contracts import Example, Model, Want, want_of
from expunge.core.errors import BadInput
from expunge.models.passes import passes
from expunge.models.weights import tap


def linear_head(model: Model, rows: Sequence[Example], why: str) -> tuple[str, nn.Linear]:
    """(path, layer) of the head. why: what asks for one, for the message. Raises BadInput where there is none."""
    linear = [
        (path, part)
        for path, part in model.module.named_modules()
        if isinstance(part, nn.Linear) and part.bias is not None
    ]
    if linear:
        path, head = linear[-1]
        with torch.no_grad(), tap(model.module, (path,)) as seen:
            out = model.forward(model.collate(rows), Want(frozenset({"logits"})))
        if path in seen and seen[path].dim() == 2 and torch.equal(seen[path].float(), out.logits_BTV[:, 0]):
            return path, head
    raise BadInput.of(
        "model",
        type(model.module).__name__,
        f"does not end in a linear layer with a bias, and {why}",
        "choose another method, or a model with a linear head",
    )


def head_inputs(model: Model, rows: Sequence[Example], path: str) -> np.ndarray:
    """[N, D] what the head at this path reads of each row, in float64."""
    found: list[Any] = [None] * len(rows)
    for places, out in passes(model, rows, want_of({f"hidden:{path}:in"})):
        for place, state in zip(places, out.hidden[f"{path}:in"][:, 0].double().cpu().numpy(), strict=True):
            found[place] = state
    return np.stack(found)
