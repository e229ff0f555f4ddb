"""Pictures that are protected before they are given away: what a protection gets and returns, and its own network.

A protection is a file in methods/protections/ with a CARD and a factory of its name, which returns a function
`(Pictures) -> Tensor`: the changed pictures. Suffixes: N pictures, C channels, H and W pixels, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, cross_entropy

from expunge.core.random import derive, generator, seed_libraries
from expunge.models.networks import Digits

WIDTH, RATE, BATCH = 16, 3e-3, 64
"""Of the network that a protection trains on the pictures."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a data set as a protection sees them.

    pixels_NCHW: float32 in 0-1, square. labels_N: from 0. secret: the seed of all draws.
    """

    pixels_NCHW: Tensor
    labels_N: Tensor
    secret: int

    @property
    def classes(self) -> int:
        return int(self.labels_N.max()) + 1

    def generator(self, *parts: object) -> torch.Generator:
        """A generator for these parts of the work."""
        return generator(self.secret, "protect", *parts)

    def network(self) -> Digits:
        """An untrained network for these pictures."""
        _, channels, side, _ = self.pixels_NCHW.shape
        with torch.random.fork_rng(devices=[]):
            seed_libraries(derive(self.secret, "protect", "network"), "weights")
            return Digits(width=WIDTH, classes=self.classes, side=side, channels=channels)

    def batches(self, steps: int, *parts: object) -> Iterator[Tensor]:
        """The places of as many batches, each of different pictures, pass after pass."""
        draw, count = self.generator("batches", *parts), len(self.labels_N)
        order = torch.randperm(count, generator=draw)
        for _ in range(steps):
            if len(order) < min(BATCH, count):
                order = torch.cat([order, torch.randperm(count, generator=draw)])
            yield order[:BATCH]
            order = order[BATCH:]


Protection = Callable[[Pictures], Tensor]


def features(network: Digits, pixels_BCHW: Tensor) -> Tensor:
    """[B, D] the inputs of the last layer."""
    return network.middle(network.body(network.stem(pixels_BCHW)))


def logits(network: Digits, pixels_BCHW: Tensor) -> Tensor:
    """[B, K] of pictures with the channels first."""
    return network.head(features(network, pixels_BCHW))


def learn(network: Digits, optimiser: torch.optim.Optimizer, pixels_BCHW: Tensor, labels_B: Tensor) -> None:
    """Take one step of training."""
    network.requires_grad_(True)
    optimiser.zero_grad()
    cross_entropy(logits(network, pixels_BCHW), labels_B).backward()
    optimiser.step()
    network.requires_grad_(False)


def train_network(pictures: Pictures, epochs: int) -> Digits:
    """A network that was trained on the pictures as they are, its weights frozen."""
    network = pictures.network()
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    steps = epochs * -(-len(pictures.labels_N) // BATCH)
    for places in pictures.batches(steps, "network"):
        learn(network, optimiser, pictures.pixels_NCHW[places], pictures.labels_N[places])
    return network.requires_grad_(False).eval()


def convolve(pixels_NCHW: Tensor, kernels_NHW: Tensor) -> Tensor:
    """Each picture convolved with its own kernel, alike in all channels; the ground outside a picture is 0."""
    count, channels, height, width = pixels_NCHW.shape
    own = kernels_NHW[:, None].repeat_interleave(channels, 0)
    flat = pixels_NCHW.reshape(1, count * channels, height, width)
    return conv2d(flat, own, padding=kernels_NHW.shape[-1] // 2, groups=count * channels).reshape(pixels_NCHW.shape)
