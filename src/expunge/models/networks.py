"""Small networks for images and tables, and for tasks: the embedded worlds and quick starts."""

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


OPERATIONS = ("conv3", "conv5", "skip")
"""The operations that a cell of a `Supernet` may have."""


class Supernet(nn.Module):
    """Cells of several operations side by side, whose outputs are averaged, for images as of `Digits` (2112.13939).

    operations: the names of each cell's; without, three cells have all of OPERATIONS. With one in each cell it is an
    ordinary network. The tensors of an operation have the same names whatever stands beside it, so that the weights
    hold those of every network with fewer operations.
    """

    def __init__(
        self,
        operations: list[list[str]] | None = None,
        width: int = 16,
        classes: int = 10,
        side: int = 8,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.operations = [list(own) for own in operations or [list(OPERATIONS)] * 3]
        if not all(self.operations):
            raise ValueError("each cell needs an operation")

        def layer(inputs: int, size: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(inputs, width, size, padding=size // 2), nn.GroupNorm(4, width), nn.ReLU())

        made = {"conv3": lambda: layer(width, 3), "conv5": lambda: layer(width, 5), "skip": nn.Identity}
        self.stem = layer(channels, 3)
        self.cells = nn.ModuleList(nn.ModuleDict({name: made[name]() for name in own}) for own in self.operations)
        for _ in self.operations[1:]:  # between two cells the side is halved
            side = -(-side // 2)
        self.head = nn.Linear(width * side**2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, side, side], in colour [B, side, side, channels] -> logits [B, classes]."""
        planes = self.stem(x[:, None] if x.dim() == 3 else x.movedim(-1, 1))
        for i, cell in enumerate(self.cells):
            planes = nn.functional.max_pool2d(planes, 2, ceil_mode=True) if i else planes
            assert isinstance(cell, nn.ModuleDict)
            planes = torch.stack([operation(planes) for operation in cell.values()]).mean(0)
        return self.head(planes.flatten(1))


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


class Written(nn.Module):
    """A linear layer of which a small network writes the weights, from a vector of the task, in chunks.

    heart: width of the small network. chunk: weights that one of its passes writes.
    """

    def __init__(self, inputs: int, outputs: int, width: int, heart: int = 64, chunk: int = 256) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.chunks = nn.Parameter(torch.randn(-(-(inputs + 1) * outputs // chunk), width))
        self.body = nn.Sequential(nn.Linear(2 * width, heart), nn.ReLU(), nn.Linear(heart, chunk))

    def write(self, task_BE: Tensor) -> Tensor:
        """[B, inputs + 1, outputs] weights for each task's vector; the last row is the bias."""
        count, width = self.chunks.shape
        pairs_BCE = torch.cat(
            [task_BE[:, None].expand(-1, count, -1), self.chunks.expand(len(task_BE), count, width)], -1
        )
        flat_BP = self.body(pairs_BCE).flatten(1)[:, : (self.inputs + 1) * self.outputs]
        return flat_BP.reshape(-1, self.inputs + 1, self.outputs) / self.inputs**0.5

    def forward(self, x: Tensor, task_BE: Tensor) -> Tensor:
        """x: [B, inputs] -> [B, outputs]."""
        weight = self.write(task_BE)
        return (x[:, None] @ weight[:, :-1])[:, 0] + weight[:, -1]


class Hypernetwork(nn.Module):
    """A perceptron for each of several tasks, whose weights are written from a vector that is learned of the task.

    An input's last value is the number of its task, from 0; the others are what the task is to classify (1906.00695).
    """

    def __init__(self, inputs: int, classes: int = 10, tasks: int = 5, hidden: int = 32, width: int = 16) -> None:
        super().__init__()
        self.tasks = nn.Embedding(tasks, width)
        self.first = Written(inputs, hidden, width)
        self.head = Written(hidden, classes, width)
        self.known: Tensor
        self.register_buffer("known", torch.zeros(tasks, dtype=torch.bool))
        """The tasks that were learned and not forgotten since."""

    def tasks_of(self, x: Tensor) -> Tensor:
        """[B] the numbers of the inputs' tasks."""
        return x[:, -1].round().long().clamp(0, self.tasks.num_embeddings - 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, inputs + 1] -> logits [B, classes]."""
        task_BE = self.tasks(self.tasks_of(x))
        return self.head(torch.relu(self.first(x[:, :-1], task_BE)), task_BE)

    def write_all(self, tasks: list[int]) -> Tensor:
        """[tasks, P] all weights that are written for these."""
        chosen_TE = self.tasks(torch.tensor(tasks, dtype=torch.long, device=self.tasks.weight.device))
        return torch.cat([self.first.write(chosen_TE).flatten(1), self.head.write(chosen_TE).flatten(1)], 1)
