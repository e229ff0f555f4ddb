"""What claims on out-of-distribution scores share: encoders under a linear classifier, adversarial rows, and pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.data.worlds.pair_shapes import pair
from expunge.evaluation.reading import read
from expunge.methods.objective import plain_training
from expunge.models.build import fresh
from expunge.models.classifier import Classifier

Examples = list[dict[str, Any]]
ENCODER = {"encoder": "Pictures", "arguments": {"filters": 8, "width": 32}, "pretext": "nt_xent"}


def trained(spec: Any, rows: Examples, seed: int, folder: Path, epochs: int = 20, batch: int = 32) -> Any:
    """A new model of this specification, trained on the rows."""
    budget = Budget(epochs=epochs, batch_size=batch, learning_rate=3e-3)
    return plain_training()(fresh(spec, rows, seed), {"retain": rows}, Context(budget, folder, seed))


class OnEncoder(nn.Module):
    """A linear classifier on standardised embeddings of pictures."""

    def __init__(self, network: nn.Module, mean_D: Tensor, spread_D: Tensor, classes: int) -> None:
        super().__init__()
        self.network, self.mean, self.spread = network, nn.Parameter(mean_D), nn.Parameter(spread_D)
        self.head = nn.Linear(len(mean_D), classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, side, side] -> logits [B, classes]."""
        return self.head((self.network(x[:, None]) - self.mean) / self.spread)


def probe(encoder: Any, rows: Examples) -> Classifier:
    """A classifier whose last layer alone has learned the rows' labels, on the encoder's embeddings."""
    x_ND = np.asarray(read(encoder, "rows", rows, {"embedding"}, cache=False).own["embedding"], dtype=np.float64)
    mean_D, spread_D = x_ND.mean(0), x_ND.std(0) + 1e-6
    fitted = LogisticRegression(max_iter=1000).fit((x_ND - mean_D) / spread_D, [row["label"] for row in rows])
    float_of = [torch.from_numpy(one).float() for one in (mean_D, spread_D)]
    module = OnEncoder(encoder.module.network, *float_of, len(fitted.classes_))
    with torch.no_grad():
        module.head.weight.copy_(torch.from_numpy(fitted.coef_))
        module.head.bias.copy_(torch.from_numpy(fitted.intercept_))
    return Classifier(module.eval())


def adversarial(model: Any, rows: Examples, bound: float, steps: int = 10) -> Examples:
    """Projected gradient steps up the loss, within `bound` of each pixel (1706.06083)."""
    x = torch.from_numpy(np.stack([row["image"] for row in rows]))
    labels, moved = torch.tensor([row["label"] for row in rows]), x.clone()
    for _ in range(steps):
        moved.requires_grad_(True)
        (slope,) = torch.autograd.grad(cross_entropy(model.module(moved), labels), moved)
        step = moved.detach() + 2.5 * bound / steps * slope.sign()
        moved = torch.minimum(torch.maximum(step, x - bound), x + bound).clamp(0, 1)
    return [{**row, "image": image} for row, image in zip(rows, moved.numpy(), strict=True)]


def captioned(seed: int, count: int) -> Examples:
    """Drawn shapes with captions, as in the world `pair_shapes`."""
    draw = np.random.default_rng([seed, 17])
    return [pair(draw) for _ in range(count)]
