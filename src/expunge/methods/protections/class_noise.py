"""Error-minimising noise, one pattern for each class: nothing is left to learn from the picture beneath it."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor
from torch.nn.functional import cross_entropy

from expunge.core.card import ProtectionCard
from expunge.methods.protecting import RATE, Pictures, Protection, learn, logits

CARD = ProtectionCard(
    "Error-minimising noise of each class",
    paper="arXiv:2101.04898",
    equation="2, class-wise",
    means="A network that is trained on these pictures reads the pattern in place of the picture. Adversarial training "
    "with a radius as large as the noise's, and strong changes of the pictures, bring what they show back.",
    fidelity="simplified",
    leaves_out="noise of each picture's own, and a residual network as the one that is trained",
)
ENOUGH = 0.99
"""Accuracy on the protected pictures at which the paper stops."""
MANY = 256
"""Pictures whose gradient moves the patterns."""
STEP = 0.1
"""Of the patterns, as a share of the radius."""


def class_noise(
    *,
    radius: Annotated[float, Gt(0), Le(1)] = 0.3,
    rounds: Annotated[int, Ge(1)] = 30,
    learning: Annotated[int, Ge(1)] = 10,
    moves: Annotated[int, Ge(1)] = 20,
) -> Protection:
    """Add to each picture its class's pattern, which makes the class easier to tell than the picture does.

    A network and the patterns both descend the loss, in turns of `learning` steps of the network and `moves` of the
    patterns by the sign of their gradient, until it reads 99 % of the protected pictures or after `rounds`. radius: the
    largest change of a pixel, in 0-1; the paper's 8/255 suffice for photographs, not for digits on a black ground.
    """

    def protect(pictures: Pictures) -> Tensor:
        shape = pictures.pixels_NCHW.shape[1:]
        noise_KCHW = radius * (2 * torch.rand(pictures.classes, *shape, generator=pictures.generator("noise")) - 1)
        network = pictures.network()
        optimiser = torch.optim.Adam(network.parameters(), RATE)
        for number in range(rounds):
            for places in pictures.batches(learning, "learning", number):
                learn(network, optimiser, _with(pictures, places, noise_KCHW), pictures.labels_N[places])
            draw = pictures.generator("moves", number)
            for _ in range(moves):
                places = torch.randint(len(pictures.labels_N), (MANY,), generator=draw)
                noise_KCHW.requires_grad_(True)
                loss = cross_entropy(logits(network, _with(pictures, places, noise_KCHW)), pictures.labels_N[places])
                (slope_KCHW,) = torch.autograd.grad(loss, [noise_KCHW])
                noise_KCHW = (noise_KCHW.detach() - STEP * radius * slope_KCHW.sign()).clamp(-radius, radius)
            every = torch.arange(len(pictures.labels_N))
            read_N = logits(network, _with(pictures, every, noise_KCHW)).argmax(-1)
            if (read_N == pictures.labels_N).float().mean() >= ENOUGH:
                break
        return _with(pictures, every, noise_KCHW)

    return protect


def _with(pictures: Pictures, places: Tensor, noise_KCHW: Tensor) -> Tensor:
    return (pictures.pixels_NCHW[places] + noise_KCHW[pictures.labels_N[places]]).clamp(0, 1)
