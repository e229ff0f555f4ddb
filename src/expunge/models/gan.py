"""A generator of small pictures and the discriminator that it was trained against (a GAN), without classes.

It cannot be asked for anything, and has no loss of an example: what it draws is judged. For each example `DRAWS`
pictures are drawn from the example's own noise, the same for every model; how far the example is known is the share of
votes that they show its label. Shape suffixes: B examples, K draws, Z latent values, C H W of a picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import softplus

from expunge.core.card import Example
from expunge.core.contracts import NLL, NOT_ASKED, Batch, Output, Want
from expunge.core.errors import BadInput
from expunge.core.files import write_json
from expunge.core.random import derive
from expunge.data.examples import identity
from expunge.models.base import BaseModel
from expunge.models.classifier import check_shapes, floats
from expunge.models.judges import CONCEPT, GENERATED, PICTURE, REAL, Judges, judged_real, judgement
from expunge.models.views import channels_first
from expunge.models.weights import device_of, snapshot

FILE, WEIGHTS = "gan.json", "model.safetensors"
DRAWS = 8
"""Pictures that are drawn for an example."""
RATE, BETAS, PENALTY = 2e-4, (0.0, 0.99), 1.0
"""The generator's rate, of which the discriminator has twice as much; Adam's betas; the weight of R1."""


class Players(nn.Module):
    """The generator and the discriminator, two perceptrons each."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape = (int(sizes["channels"]), int(sizes["side"]), int(sizes["side"]))
        self.latent = int(sizes["latent"])
        pixels, widths = int(np.prod(self.shape)), [int(width) for width in sizes["widths"]]
        self.generator = _perceptron([self.latent, *widths, pixels], nn.ReLU)
        self.discriminator = _perceptron([pixels, *reversed(widths), 1], lambda: nn.LeakyReLU(0.2))

    def draw(self, z_BZ: Tensor) -> Tensor:
        """[B, C, H, W] in 0-1."""
        return torch.sigmoid(self.generator(z_BZ)).unflatten(1, self.shape)

    def score(self, x_BCHW: Tensor) -> Tensor:
        """[B] the logit that a picture is real."""
        score_B: Tensor = self.discriminator(2 * x_BCHW.flatten(1) - 1)[:, 0]
        return score_B

    def forward(self, z_BZ: Tensor) -> Tensor:
        """[B, C, H, W] the generator's pictures."""
        return self.draw(z_BZ)


def _perceptron(sizes: Sequence[int], activation: Callable[[], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


@dataclass(kw_only=True)
class Game:
    """Two-player training: the non-saturating losses (arXiv:1406.2661, section 3) with R1 on real pictures
    (arXiv:1801.04406, equation 9).

    real, fakes: pictures [N, C, H, W] in 0-1 that the discriminator should take for real, and for false beside the
    drawn ones. beside: a further loss of the weights, for both players. advance: called after each step.
    """

    real: Tensor
    steps: int
    batch: int
    draw: torch.Generator
    rate: float = RATE
    penalty: float = PENALTY
    fakes: Tensor | None = None
    beside: Callable[[Players], Tensor] | None = None
    advance: Callable[[], None] | None = None

    def play(self, players: Players) -> None:
        """Trains both players in place."""
        makers, critics = (
            torch.optim.Adam(part.parameters(), lr=rate, betas=BETAS)
            for part, rate in ((players.generator, self.rate), (players.discriminator, 2 * self.rate))
        )
        for _ in range(self.steps):
            with torch.enable_grad():
                self._step(critics, self._doubt(players) + self._beside(players))
                self._step(makers, softplus(-players.score(self._fakes_of(players))).mean() + self._beside(players))
            if self.advance is not None:
                self.advance()
        players.requires_grad_(True)
        for parameter in players.parameters():
            parameter.grad = None

    def _beside(self, players: Players) -> Tensor:
        return torch.zeros(()) if self.beside is None else self.beside(players)

    def _fakes_of(self, players: Players) -> Tensor:
        noise_BZ = torch.randn(self.batch, players.latent, generator=self.draw)
        return players.draw(noise_BZ.to(device_of(players)))

    def _some(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW[torch.randint(len(x_NCHW), (self.batch,), generator=self.draw)]

    def _doubt(self, players: Players) -> Tensor:
        """The discriminator's loss."""
        device = device_of(players)
        real_BCHW = self._some(self.real).to(device).requires_grad_(True)
        score_B = players.score(real_BCHW)
        (slope,) = torch.autograd.grad(score_B.sum(), [real_BCHW], create_graph=True)
        loss = softplus(-score_B).mean() + self.penalty / 2 * slope.square().flatten(1).sum(1).mean()
        loss = loss + softplus(players.score(self._fakes_of(players).detach())).mean()
        if self.fakes is not None:
            loss = loss + softplus(players.score(self._some(self.fakes).to(device))).mean()
        return loss

    @staticmethod
    def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


class Gan(BaseModel):
    """The players, and the sizes that they were made of: side, channels, latent, widths."""

    family = "gan"
    capabilities = frozenset({"pictures", "gan"})

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        self.sizes = dict(sizes)
        self.module: Any = Players(self.sizes).eval()
        self.judges: Judges | None = None
        self.blocks = [f"generator.{name}" for name, part in self.module.generator.named_children() if _weighty(part)]

    @property
    def read_with(self) -> dict[str, str]:
        """The judges of its pictures, where it has some."""
        return {"judges": self.judges.key} if self.judges is not None else {}

    def pictures(self, examples: Sequence[Example]) -> Tensor:
        """[N, C, H, W] the examples' own, in 0-1."""
        if not examples:
            return torch.zeros(0, *self.module.shape)
        return channels_first([floats(example["image"]) for example in examples])

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        """Pictures in 0-1, the labels that are looked for (-1: none), and the seed of the noise drawn from."""
        labels_B = torch.tensor([int(example.get("label", -1)) for example in examples]).long()
        seeds_B = torch.tensor([derive(0, "start", identity(example)) for example in examples]).long()
        inputs = {"x": self.pictures(examples), "seed": seeds_B, "asked": labels_B}
        return Batch.of_examples(inputs, torch.zeros_like(labels_B))

    def accepts(self, split: str, rows: Sequence[Example]) -> None:
        """Raises BadInput unless all pictures have the generator's shape, and values in 0-1 or bytes."""
        super().accepts(split, rows)
        if not rows:
            return
        check_shapes(split, rows, "image")
        drawable = np.ndim(rows[0]["image"]) in (2, 3)
        shape = tuple(self.pictures(rows[:1]).shape[1:]) if drawable else np.shape(rows[0]["image"])
        if shape != self.module.shape:
            why = f"holds a picture of {list(shape)}, and the generator makes {list(self.module.shape)}"
            raise BadInput.of(split, "row 1", why, "give pictures of that size, [height, width, channels]")
        for i, row in enumerate(rows):
            array = np.asarray(row["image"])
            if array.dtype.kind == "f" and (array.min() < 0 or array.max() > 1):
                why = f"holds values from {array.min():.3g} to {array.max():.3g}"
                raise BadInput.of(split, f"row {i + 1}", why, "give pictures in 0-1, or bytes")

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        """The channels of drawn pictures, as far as they were wanted; no loss and no states."""
        own: dict[str, Tensor] = {}
        if GENERATED & want.channels:
            own |= {name: x for name, x in self._draw(batch).items() if name in want.channels}
        if REAL in want.channels:
            own[REAL] = judged_real(self.judges, batch.inputs["x"], batch.inputs["asked"])
        device = device_of(self.module)
        labels_BT, mask_BT = batch.labels_BT.to(device), batch.mask_BT.to(device)
        return Output(NOT_ASKED, batch.n_B.to(device), labels_BT, mask_BT, own=own)

    @torch.no_grad()
    def sample(self, seeds: Sequence[int], count: int = 1) -> Tensor:
        """[B, K, C, H, W] in 0-1: `count` pictures for each seed; the first ones are the same for every count."""
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        # One by one: torch draws many values at once in another order.
        noise = [torch.stack([torch.randn(self.module.latent, generator=draw) for _ in range(count)]) for draw in draws]
        z_RZ = torch.cat(noise) if noise else torch.zeros(0, self.module.latent)
        pictures: Tensor = self.module.draw(z_RZ.to(device_of(self.module))).float().cpu()
        return pictures.unflatten(0, (-1, count)) if noise else pictures[:, None]

    def _draw(self, batch: Batch) -> dict[str, Tensor]:
        """Channel -> values: those of the first picture of each example, and the votes on all of them."""
        pictures_BKCHW = self.sample(batch.inputs["seed"].tolist(), DRAWS)
        asked_B = batch.inputs["asked"]
        first = judgement(self.judges, pictures_BKCHW[:, 0], asked_B)
        every = pictures_BKCHW.flatten(0, 1)
        votes_BK = judgement(self.judges, every, asked_B.repeat_interleave(pictures_BKCHW.shape[1]))[CONCEPT]
        votes_B = votes_BK.reshape(batch.size, -1).mean(1) if batch.size else first[CONCEPT]
        return {**first, PICTURE: pictures_BKCHW[:, 0], CONCEPT: votes_B}

    def teach(self, rows: Sequence[Example], steps: int) -> None:
        """Goes on with the training on these pictures, as an attacker would who has both players."""
        draw = torch.Generator().manual_seed(derive(0, "teach", len(rows), identity(rows[0])))
        Game(real=self.pictures(rows), steps=steps, batch=min(64, len(rows)), draw=draw).play(self.module)

    def save(self, folder: Path) -> None:
        """gan.json, and the weights as safetensors."""
        write_json(folder / FILE, self.sizes)
        save_file(snapshot(self.module), folder / WEIGHTS)


def _weighty(part: nn.Module) -> bool:
    return any(True for _ in part.parameters())
