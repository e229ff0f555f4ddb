"""Fooling pictures of an image-text pair: one picture that lies nearer to captions than their own pictures do."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.card import AttackCard
from expunge.core.contracts import Batch, Model, Want
from expunge.evaluation import intervals
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import Figure
from expunge.models.guarded import bare_model
from expunge.models.pair import PICTURE, TEXT
from expunge.models.passes import evaluating, passes
from expunge.models.weights import device_of

CARD = AttackCard(
    "Fooling pictures (CLIPMasterPrints)",
    paper="arXiv:2307.03798",
    equation="1, with a soft minimum over the captions",
    adversary="gradients; captions of the forget set",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("pairs",),
    needs={"forget": {"examples"}},
    level="deep",
    more=("start",),
    passes=60,
    means="The share of captions to which one made picture is at least as near as the picture that the caption is of. "
    "It says how far texts and pictures lie apart in the common space, not what was forgotten: a pair that has "
    "forgotten captions has worse pictures to beat. `start` is the share of the mean picture, with which it begins.",
)


def master_prints(
    *,
    steps: Annotated[int, Ge(1)] = 150,
    rate: Annotated[float, Gt(0)] = 0.05,
    softness: Annotated[float, Gt(0)] = 0.05,
) -> Attack:
    """Climb from the mean picture to one whose smallest cosine to the forget captions is large (Freiberger et al.).

    Adam on the pixels, as the network reads them, within the range of the forget pictures'; `rate` as a share of that
    range, the objective -softness log mean exp(-cosine/softness). The weights do not change.
    """

    def attack(target: Target) -> Found:
        model: Any = bare_model(target.model)
        batch = model.collate(list(target.forget))
        texts_ND, pictures_ND = (_vectors(model, target, channel) for channel in (TEXT, PICTURE))
        own_N = (texts_ND * pictures_ND).sum(1)
        start = batch.inputs["pixel_values"].mean(0, keepdim=True)
        made = climb(model, batch, start, torch.from_numpy(np.unique(texts_ND, axis=0)), steps, rate, softness)

        def share(picture: Tensor) -> Figure:
            with torch.no_grad(), evaluating(model.module):
                vector_D = _embed(model, batch, picture)[0].double().cpu().numpy()
            hits_N = texts_ND @ vector_D >= own_N
            return Figure(*intervals.share(int(hits_N.sum()), len(hits_N)), n=len(hits_N))

        return Found(share(made), more={"start": ("share", "gold", share(start))})

    return attack


def climb(
    model: Model, batch: Batch, start: Tensor, texts_MD: Tensor, steps: int, rate: float, softness: float
) -> Tensor:
    """[1, C, H, W] the picture with the largest soft minimum of cosines on the way. batch: gives the pixels' range."""
    low, high = (float(end) for end in batch.inputs["pixel_values"].aminmax())
    device = device_of(model.module)
    texts_MD, picture = texts_MD.to(device).float(), start.to(device).clone().requires_grad_(True)
    optimiser = torch.optim.Adam([picture], rate * (high - low))
    best, highest = picture.detach().clone(), -float("inf")
    with torch.enable_grad(), evaluating(model.module):
        for _ in range(steps + 1):
            least = soft_minimum((_embed(model, batch, picture) @ texts_MD.T)[0], softness)
            if (value := float(least.detach())) > highest:
                best, highest = picture.detach().clone(), value
            (picture.grad,) = torch.autograd.grad(-least, picture)
            optimiser.step()
            with torch.no_grad():
                picture.clamp_(low, high)
    return best


def soft_minimum(values_M: Tensor, softness: float) -> Tensor:
    """-softness log mean exp(-values/softness): the mean of a soft limit, the minimum of a hard one."""
    count = torch.tensor(float(len(values_M)))
    return -softness * (torch.logsumexp(-values_M / softness, 0) - count.log())


def _embed(model: Model, batch: Batch, picture: Tensor) -> Tensor:
    """[1, D] unit vector of a picture given as pixels."""
    one = {name: value[:1] for name, value in batch.inputs.items()} | {"pixel_values": picture}
    shown = dataclasses.replace(
        batch, inputs=one, labels_BT=batch.labels_BT[:1], mask_BT=batch.mask_BT[:1], n_B=batch.n_B[:1]
    )
    return model.forward(shown, Want(frozenset({PICTURE}))).own[PICTURE]


def _vectors(model: Model, target: Target, channel: str) -> np.ndarray:
    """[N, D] unit vectors of the forget set."""
    found: list[Any] = [None] * len(target.forget)
    for places, out in passes(model, target.forget, Want(frozenset({channel}))):
        for place, value in zip(places, out.own[channel].double().cpu().numpy(), strict=True):
            found[place] = value
    return np.stack(found)
