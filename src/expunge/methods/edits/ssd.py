"""Selective synaptic dampening."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.data.sampling import sample as draw
from expunge.methods._line_search import Put
from expunge.methods.edits._edit import edit, stored_fisher, write_parameters

CARD = MethodCard(
    "Selective synaptic dampening",
    paper="arXiv:2308.07707",
    equation="3 and 4",
    needs={"forget": (), "retain": ()},
    means="Weights that the forget set needs more than all data do are shrunk; nothing is trained.",
    deterministic=True,
    one_shot=True,
    fidelity="variant",
    leaves_out="the fixed ratio alpha: by default a line search finds it, and lowers the dampening with it below 1",
    shown="A class of digits is forgotten for two points of test accuracy; in a language model the forget NLL rises "
    "three times as far as retain's, and most answers stay.",
)


def dampen(weight: Tensor, forget: Tensor, everything: Tensor, alpha: float, strength: float) -> Tensor:
    """Return theta min(lambda F_all / F_forget, 1) where F_forget > alpha F_all, else theta."""
    factor = (strength * everything / forget.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)
    return torch.where(forget > alpha * everything, weight.float() * factor, weight.float()).to(weight.dtype)


def dampener(
    of: Mapping[str, Mapping[str, Tensor]], share: float, dampening: float, searched: bool
) -> Callable[[str, Tensor, float], Tensor]:
    """The change of a weight at a strength, which is one over the ratio.

    of: "forget" and "retain" -> parameter -> its importance. share: of the forget rows among all. searched: whether a
    search sets the strength. Weights that a ratio below the dampening selects would stay as they are, and the search
    would stall there: it lowers the dampening as well.
    """

    def change(name: str, weight: Tensor, strength: float) -> Tensor:
        everything = share * of["forget"][name] + (1 - share) * of["retain"][name]
        factor = min(dampening, 1 / strength) if searched else dampening
        return dampen(weight, of["forget"][name], everything, 1 / strength, factor)

    return change


def ssd(
    *,
    alpha: Annotated[float, Gt(0)] | None = None,
    dampening: Annotated[float, Gt(0)] = 1.0,
    sample: Annotated[int, Ge(1)] = 256,
    batch: Annotated[int, Ge(1)] = 1,
) -> Method:
    """Shrink the weights that matter more to the forget set than to all the data.

    theta min(dampening F_all / F_forget, 1) where F_forget > alpha F_all; F the diagonals of the empirical Fisher
    information over forget, and over forget and retain together. alpha: a ratio (10 in the paper; by default found
    by a line search for the forget-loss target with the retain floor held, in which the dampening is never above the
    ratio). sample: retain examples read at most, drawn by seed. batch: examples whose gradients are squared together;
    more is faster and coarser.
    """

    def prepare(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Put:
        forget, retain = list(splits["forget"]), draw(splits["retain"], context.seed, sample)
        parts = {"forget": forget, "retain": retain}
        of = {name: stored_fisher(model, part, batch, context, name) for name, part in parts.items()}
        share = len(forget) / (len(forget) + len(splits["retain"]))
        return write_parameters(model, dampener(of, share, dampening, alpha is None))

    return edit(prepare, None if alpha is None else 1 / alpha, start=0.1)
