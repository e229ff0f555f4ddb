"""Fisher forgetting: noise where the retained data do not need the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.data.sampling import sample as drawn
from expunge.methods._statistics import counted, parameters
from expunge.methods._statistics import fisher as diagonal
from expunge.methods.edits._strength import fitted
from expunge.models.weights import fold

CARD = MethodCard(
    "Fisher forgetting",
    paper="arXiv:1911.04933",
    equation="section 5, Fisher forgetting",
    needs={"forget": (), "retain": ()},
    means="Noise takes information from all weights by how little retain needs them; it aims at no example.",
)


def fisher(
    *,
    sigma: Annotated[float, Gt(0)] | None = None,
    damping: Annotated[float, Gt(0)] = 0.01,
    sample: Annotated[int, Ge(1)] = 256,
    batch: Annotated[int, Ge(1)] = 1,
) -> Method:
    """Add Gaussian noise to every weight, less where the retained data need it.

    theta + sigma e (F / mean F + damping)^(-1/4), e standard normal by seed, F the diagonal of the empirical
    Fisher information over retain. sigma: deviation of a weight of average F (by default what reaches the forget
    level with the budget's floor held). damping: share of the mean F that bounds the noise where F is zero.
    sample, batch: as for ssd.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        rows = drawn(splits["retain"], context.seed, sample)
        half = (len(rows) + 1) // 2  # stored in two parts, so that a killed run keeps the first
        sums = [
            context.once(
                f"retain-{i}",
                lambda part=part, i=i: diagonal(  # type: ignore[misc]
                    model, part, batch, counted(context, f"retain-{i}", len(part))
                ),
            )
            for i, part in enumerate((rows[:half], rows[half:]))
            if part
        ]
        held = parameters(model)
        weights = [half / len(rows), 1 - half / len(rows)]
        total = {name: sum(w * part[name] for w, part in zip(weights, sums)) for name in held}
        mean = sum(float(f.double().sum()) for f in total.values()) / sum(f.numel() for f in total.values())
        before = {name: p.detach().cpu().clone() for name, p in held.items()}

        @torch.no_grad()
        def put(strength: float) -> None:
            for name, p in held.items():
                noise = torch.randn(p.shape, generator=context.generator("noise", name))
                scale = (total[name] / max(mean, 1e-30) + damping) ** -0.25
                p.copy_((before[name].float() + strength * noise * scale).to(p.dtype) if strength else before[name])

        if sigma is None:
            fitted(model, splits, context, put, start=1e-3)
        else:
            put(sigma)
        return model

    return Method(apply)
