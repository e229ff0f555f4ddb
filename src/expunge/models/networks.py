"""Small networks for images and tables: the embedded digits world and quick starts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Digits(nn.Module):
    """A convolutional network for images in [0, 1], side x side, grey or in colour, with group or batch
    normalisation."""

    def __init__(
        self, width: int = 32, classes: int = 10, norm: str = "group", side: int = 8, channels: int = 1
    ) -> None:
        super().__init__()
        after = -(-side // 4)  # two strides of 2

        def normal(maps: int) -> nn.Module:
            return nn.BatchNorm2d(maps) if norm == "batch" else nn.GroupNorm(4, maps)

        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), normal(width), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
            normal(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, stride=2),
            normal(2 * width),
            nn.ReLU(),
        )
        self.middle = nn.Sequential(nn.Flatten(), nn.Linear(2 * width * after**2, 64), nn.ReLU())
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, side, side], in colour [B, side, side, channels] -> logits [B, classes]."""
        planes = x[:, None] if x.dim() == 3 else x.movedim(-1, 1)
        return self.head(self.middle(self.body(self.stem(planes))))


class LearnedTemperature(Digits):
    """`Digits` whose logits are cosines over a temperature that the network sets for each input (2401.12129).

    logits = cos(class, features) / sigmoid(norm(linear(features))). Trained by cross-entropy like any network; the
    energy of these logits, at a temperature of 1 and without the learned one in front, is the score of AbeT.
    """

    def __init__(
        self, width: int = 32, classes: int = 10, norm: str = "group", side: int = 8, channels: int = 1
    ) -> None:
        super().__init__(width, classes, norm, side, channels)
        self.head = nn.Linear(64, classes, bias=False)
        self.warmth = nn.Sequential(nn.Linear(64, 1), nn.BatchNorm1d(1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """x: as of `Digits` -> logits [B, classes], each in magnitude at most 1 / temperature."""
        planes = x[:, None] if x.dim() == 3 else x.movedim(-1, 1)
        features = self.middle(self.body(self.stem(planes)))
        cosines = nn.functional.normalize(features, dim=-1) @ nn.functional.normalize(self.head.weight, dim=-1).T
        return cosines / self.warmth(features)


class Pictures(nn.Module):
    """A convolutional encoder of small pictures, side x side, with group normalisation."""

    def __init__(self, filters: int = 16, width: int = 64, side: int = 8, channels: int = 1) -> None:
        super().__init__()
        self.width = width
        after = -(-side // 4)  # two strides of 2
        self.stem = nn.Sequential(nn.Conv2d(channels, filters, 3, padding=1), nn.GroupNorm(4, filters), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(filters, 2 * filters, 3, padding=1, stride=2),
            nn.GroupNorm(4, 2 * filters),
            nn.ReLU(),
            nn.Conv2d(2 * filters, 2 * filters, 3, padding=1, stride=2),
            nn.GroupNorm(4, 2 * filters),
            nn.ReLU(),
        )
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(2 * filters * after**2, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, channels, side, side] -> embeddings [B, width]."""
        return self.last(self.body(self.stem(x)))


class Perceptron(nn.Module):
    """An encoder of small pictures or tables without convolutions, which learns by heart more easily."""

    def __init__(self, inputs: int, hidden: int = 256, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU())
        self.last = nn.Sequential(nn.Linear(hidden, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """x: of any shape with `inputs` values each -> embeddings [B, width]."""
        return self.last(self.second(self.first(x)))


class Linear(nn.Module):
    """Logistic regression: one layer over all values of a row."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: of any shape with `inputs` values each -> logits [B, classes]."""
        return self.head(x.flatten(1))


class MLP(nn.Module):
    """A perceptron for tables and small images; inputs are standardised by the given means and deviations."""

    def __init__(
        self,
        inputs: int,
        classes: int,
        hidden: int = 64,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean or [0.0] * inputs))
        self.register_buffer("std", torch.tensor(std or [1.0] * inputs))
        self.body = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, inputs], or of any shape with as many values -> logits [B, classes]."""
        return self.head(self.body((x.flatten(1) - self.mean) / self.std))


class LinearHead(nn.Module):
    """The last layer of a classifier whose other layers are frozen: its inputs are the features that those compute."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, inputs] -> logits [B, classes]."""
        return self.head(x)
