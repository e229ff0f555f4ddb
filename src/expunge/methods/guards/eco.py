"""ECO: a classifier flags prompts, and flagged prompts reach the model with corrupted embeddings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Batch, Example, Method, MethodCard, Model, Output, Want
from expunge.data.sampling import halves, sample
from expunge.methods.guards._detector import Detector, fit
from expunge.methods.guards._prompts import encode, require_prompts
from expunge.models.guarded import Guarded
from expunge.models.prompts import prompt_mask_BS, prompts_in
from expunge.training.stopping import figures

CARD = MethodCard(
    "Embedding-corrupted prompts",
    paper="arXiv:2406.07933",
    needs={"forget": (), "retain": ()},
    optional=("reference", "holdout"),
    capabilities=("tokens", "generate"),
    yields="guard",
    means="The knowledge stays in the weights: without guard/ it is back.",
    fidelity="simplified",
    leaves_out="the trained prompt classifier (n-grams serve), and noise on flagged entity tokens alone",
    shown="The forget answers' ROUGE-L falls to gold's, and retain is answered as before; prompts in other words are "
    "still flagged.",
)
PATTERN = 64
"""Prompt tokens after which the noise repeats, counted from the prompt's end."""


@dataclass
class Eco:
    """detector: of the prompts to corrupt; noise_PD: added to their embeddings, by distance from the prompt's end."""

    detector: Detector
    noise_PD: Tensor
    name: str = "eco"

    def forward(self, bare: Any, batch: Batch, want: Want) -> Output:
        flags = torch.tensor(self.detector.flags(prompts_in(batch)))
        prompt_BS = prompt_mask_BS(batch)
        left_BS = prompt_BS.flip(-1).cumsum(-1).flip(-1) - 1  # prompt tokens that follow
        noise_BSD = self.noise_PD[left_BS.clamp(min=0) % PATTERN] * (prompt_BS & flags[:, None])[..., None]
        with _add_noise(bare.module, noise_BSD):
            return bare.forward(batch, want)

    def generate(self, bare: Any, prompts: Sequence[Example], **settings: Any) -> list[str]:
        items = settings.pop("encoded", None) or encode(bare, prompts)
        flags = self.detector.flags([item.prompt for item in items])
        rows: list[int] = []

        def noise(width: int) -> Tensor:
            left_S = torch.arange(width - 1, -1, -1)
            return self.noise_PD[left_S % PATTERN] * torch.tensor(flags[rows])[:, None, None]

        def batch_of(places: list[int]) -> None:
            rows[:] = places
            if outer:
                outer(places)

        outer = settings.pop("rows", None)
        with _add_noise(bare.module, noise):
            return bare.generate(prompts, encoded=items, rows=batch_of, **settings)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return self.detector.settings(), {"detector": self.detector.weight_F, "noise": self.noise_PD}


@contextlib.contextmanager
def _add_noise(module: Any, noise: Any) -> Iterator[None]:
    """Add noise [B, S, D] to the embeddings; in generation a function of the width gives it, for the prompt alone."""

    def add(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        if callable(noise) and output.shape[1] == 1:
            return output  # an answer's token, not the prompt
        noise_BSD = noise(output.shape[1]) if callable(noise) else noise
        return output + noise_BSD.to(output)

    handle = module.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def restore(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Eco:
    """Rebuild the guard from its saved state."""
    return Eco(Detector.restore(dict(settings), tensors["detector"]), tensors["noise"])


def eco(
    *,
    dimensions: Annotated[int, Gt(0)] | None = None,
    strength: Annotated[float, Ge(0)] | None = None,
    trials: Annotated[int, Ge(3)] = 12,
) -> Method:
    """Flag the prompts that ask for the forget set, and add noise to their embeddings.

    strength: the noise's deviation in units of the embeddings' own; by default found by a gradient-free search over
    `trials` values, so that the forget answers become as unlikely as the holdout's (without a holdout: as the forget
    answers without their questions). dimensions: how many carry noise (by default all).
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        bare: Any = model
        forget = list(splits["forget"])
        require_prompts("eco", forget)
        others = [*splits["retain"], *splits.get("reference", [])]
        detector = fit(
            [item.prompt for item in encode(bare, forget)],
            [item.prompt for item in encode(bare, others)],
            context.notes,
        )
        table = bare.module.get_input_embeddings().weight
        drawn_PD = torch.randn(PATTERN, table.shape[1], generator=context.generator("noise"))
        if dimensions is not None:
            drawn_PD[:, dimensions:] = 0.0
        drawn_PD *= float(table.detach().float().std())
        deviation = (
            strength if strength is not None else _search_strength(bare, detector, drawn_PD, splits, context, trials)
        )
        context.notes["strength"] = deviation
        return Guarded(model, Eco(detector, drawn_PD * deviation))

    return Method(apply)


def _search_strength(
    bare: Any,
    detector: Detector,
    drawn_PD: Tensor,
    splits: Mapping[str, Sequence[Example]],
    context: Context,
    trials: int,
) -> float:
    """Find the strength at which the guarded forget NLL is nearest to the target, by bounded scalar search."""
    from scipy.optimize import minimize_scalar  # heavy, and `expunge list` imports every guard

    forget = sample(splits["forget"], context.seed)
    if splits.get("holdout"):
        target = figures(bare, halves(splits["holdout"], context.seed)[0])["nll"]
    else:
        target = figures(bare, [{"question": "", "answer": row.get("answer", "")} for row in forget])["nll"]
    context.notes["surrogate_nll"] = target
    tried = 0

    def gap(log_strength: float) -> float:
        guarded = Guarded(bare, Eco(detector, drawn_PD * float(np.exp(log_strength))))
        nonlocal tried
        tried += 1
        context.reporter.advance(context.label, tried)
        return abs(figures(guarded, forget)["nll"] - target)

    context.reporter.start(context.label, trials)
    best = minimize_scalar(gap, bounds=(np.log(0.05), np.log(50.0)), method="bounded", options={"maxiter": trials})
    context.reporter.finish(context.label)
    return float(np.exp(best.x))
