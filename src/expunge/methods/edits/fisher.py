"""Fisher forgetting: noise where the retained data do not need the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.data.sampling import sample as draw
from expunge.methods._line_search import Put
from expunge.methods.edits._edit import edit, mean_entry, stored_fisher, write_parameters

CARD = MethodCard(
    "Fisher forgetting",
    paper="arXiv:1911.04933",
    equation="section 5, Fisher forgetting",
    needs={"forget": (), "retain": ()},
    means="Noise takes information from all weights by how little retain needs them; it aims at no example, so that of "
    "a class it ends no nearer to gold than fine-tuning.",
    one_shot=True,
    fidelity="simplified",
    leaves_out="the correction for a shifted minimum: noise alone, along the diagonal",
    shown="The forget NLL rises to the holdout's on digits, and retain's with it; in a language model under the floor "
    "it aims at nothing.",
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
    Fisher information over retain. sigma: deviation of a weight of average F (by default found by a line
    search for the forget-loss target with the retain floor held). damping: share of the mean F that bounds the noise
    where F is zero. sample, batch: as for ssd.
    """

    def prepare(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Put:
        rows = draw(splits["retain"], context.seed, sample)
        half = (len(rows) + 1) // 2  # stored in two parts, so that a run that is killed keeps the first
        parts = [rows[:half], rows[half:]]
        diagonals = [stored_fisher(model, part, batch, context, f"retain-{i}") for i, part in enumerate(parts) if part]
        shares = [half / len(rows), 1 - half / len(rows)]
        total = {name: shares[0] * value for name, value in diagonals[0].items()}
        if len(diagonals) == 2:
            total = {name: value + shares[1] * diagonals[1][name] for name, value in total.items()}
        mean = mean_entry(total)

        def change(name: str, weight: Tensor, strength: float) -> Tensor:
            noise = torch.randn(weight.shape, generator=context.generator("noise", name))
            scale = (total[name] / max(mean, 1e-30) + damping) ** -0.25
            return weight.float() + strength * noise * scale

        return write_parameters(model, change)

    return edit(prepare, sigma, start=1e-3)
