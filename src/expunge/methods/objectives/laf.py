"""Label-agnostic forgetting: the representations of forget are turned away, those of retain are held."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from expunge.core.contracts import LossTerm, MethodCard, Model, Output, Run, Step, want_of
from expunge.core.errors import BadInput
from expunge.core.random import seed_torch

CARD = MethodCard(
    "Label-agnostic forgetting",
    paper="ICLR 2024, Label-Agnostic Forgetting",
    equation="extractor unlearning and representation alignment",
    needs={"forget": {"hidden"}, "retain": {"hidden"}},
    reference={"forget": {"hidden"}, "retain": {"hidden"}},
    fidelity="simplified",
    leaves_out="an optimiser for each half, the log-sum-exp over a batch's forget rows, which is about their mean, and "
    "temperatures from 5",
    means="No label is read; a retain floor or a stop by NLL would read them, so the recipe has neither. At "
    "temperature 5 one of three seeds kept a class of MNIST.",
    shown="Without labels a class of digits or of MNIST goes, within two points of gold, and wrong labels learned "
    "by heart go, at a fifth of fine-tuning's gap or less: no further from gold than the mean of four methods that "
    "read labels.",
)
RECIPE = {"retain": "none", "share": 0.5, "stop": "none", "floor": 0.0}
STREAMS = ("forget", "retain")
BATCH, STEP, KL_WEIGHT = 32, 1e-3, 0.025
"""Of an autoencoder's fit: rows of a batch, the rate of Adam, the weight of its latent's KL divergence."""


class Autoencoder(nn.Module):
    """A variational autoencoder of representations [N, D]; as published, its decoder ends in a sigmoid."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        wide, narrow = max(latent, width // 2), max(latent, width // 8)
        self.encoder = nn.Sequential(nn.Linear(width, wide), nn.ReLU(), nn.Linear(wide, narrow), nn.ReLU())
        self.latent = nn.Linear(narrow, 2 * latent)
        layers = [nn.Linear(latent, narrow), nn.ReLU(), nn.Linear(narrow, wide), nn.ReLU(), nn.Linear(wide, width)]
        self.decoder = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, x_ND: Tensor, draws: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """(squared error of the reconstruction [N], KL of the latent to a standard normal [N]); draws: for training."""
        mean_NL, spread_NL = self.latent(self.encoder(x_ND)).chunk(2, -1)
        noise_NL = torch.zeros_like(mean_NL) if draws is None else torch.randn(mean_NL.shape, generator=draws)
        error_N = (self.decoder(mean_NL + noise_NL * (0.5 * spread_NL).exp()) - x_ND).square().sum(-1)
        return error_N, 0.5 * (mean_NL.square() + spread_NL.exp() - 1 - spread_NL).sum(-1)


class Agnostic(LossTerm):
    """The loss of laf(), at one module of the model; autoencoders: of each stream's representations, with a push."""

    def __init__(self, temperature: float, push: float, layer: str | None, latent: int, fit: int) -> None:
        super().__init__()
        self.temperature, self.push, self.layer, self.latent, self.fit = temperature, push, layer, latent, fit
        self.autoencoders: dict[str, Autoencoder] = {}

    def declare(self, model: Model) -> None:
        """Find the representation: as named, else the last block, or the input of a linear head. Raises BadInput."""
        linear = [path for path, part in model.module.named_modules() if isinstance(part, nn.Linear)]
        if self.layer is None and not model.blocks:
            fix = "name the module that gives its representation, under layer"
            raise BadInput.of("method.laf.layer", "", "is missing, and the model names no blocks", fix)
        last = self.layer if self.layer is not None else model.blocks[-1]
        self.path = f"{last}:in" if self.layer is None and last in linear[-1:] else last
        self.needs: Any = {name: {f"hidden:{self.path}"} for name in STREAMS}
        self.reference = self.needs

    def prepare(self, run: Run) -> None:
        """Fit the autoencoders to the reference model's representations, where there is a push."""
        for name in STREAMS if self.push and run.examples("forget") else ():
            state = run.context.once(f"autoencoder_{name}", functools.partial(self._fit, run, name))
            width = state["decoder.4.weight"].shape[0]
            self.autoencoders[name] = Autoencoder(width, self.latent).requires_grad_(False)
            self.autoencoders[name].load_state_dict(state)
            self.autoencoders[name].to(next(run.model.module.parameters()).device)

    def _fit(self, run: Run, name: str) -> dict[str, Tensor]:
        """The weights of an autoencoder that was fitted to a stream's representations."""
        found = run.record(run.examples(name), want_of({f"hidden:{self.path}"}))
        x_ND = found.hidden[self.path].flatten(0, -2).float()
        draws = run.context.generator("autoencoder", name)
        with torch.random.fork_rng():
            seed_torch(run.context.derive("autoencoder", name))
            fitted = Autoencoder(x_ND.shape[1], self.latent)
        optimiser = torch.optim.Adam(fitted.parameters(), lr=STEP)
        for _ in range(self.fit):
            for rows in torch.randperm(len(x_ND), generator=draws).split(BATCH):
                error_N, kl_N = fitted(x_ND[rows], draws)
                optimiser.zero_grad()
                (error_N + KL_WEIGHT * kl_N).sum().backward()
                optimiser.step()
        return fitted.state_dict()

    def __call__(self, step: Step) -> Tensor:
        forget, retain = step["forget"], step["retain"]
        loss = retain.mean(self._turn(retain)) - forget.mean(self._turn(forget)) / self.temperature
        if self.push:
            away, near = (out.mean(self._unlike(out, name)) for name, out in (("forget", forget), ("retain", retain)))
            loss = loss + self.push * (near - away)
        return loss

    def _turn(self, out: Output) -> Tensor:
        """[B, T] one minus the cosine between the representation and the reference model's."""
        now_BTD, then_BTD = out.hidden[self.path].float(), out.reference.hidden[self.path].float()
        return 1 - cosine_similarity(now_BTD, then_BTD, dim=-1)

    def _unlike(self, out: Output, name: str) -> Tensor:
        """[B, T] exp(m / (m + 1)), m the squared error of the reconstruction: it saturates at e."""
        hidden_BTD = out.hidden[self.path].float()
        error_N, _ = self.autoencoders[name](hidden_BTD.flatten(0, 1))
        return (error_N / (error_N + 1)).exp().view(hidden_BTD.shape[:2])


def laf(
    *,
    temperature: Annotated[float, Gt(0)] = 2.0,
    push: Annotated[float, Ge(0)] = 0.1,
    layer: str | None = None,
    latent: Annotated[int, Ge(1)] = 8,
    fit: Annotated[int, Ge(1)] = 20,
) -> LossTerm:
    """Turn the forget examples' representations away from where they were, and hold those of retain; no labels.

    Retain's 1 - cos minus forget's / temperature, cos between the representation now and the reference model's, a mean
    over positions. A higher temperature turns less. layer: the module whose
    output is the representation (PATH:in for its input; by default the last block, or the input of a linear head).
    push: the weight of exp(m / (m + 1)) of retain less forget's, m the squared error of an autoencoder's
    reconstruction, one of `latent` dimensions fitted to each for `fit` epochs. Without it the slope at the start is 0.
    """
    return Agnostic(temperature, push, layer, latent, fit)
