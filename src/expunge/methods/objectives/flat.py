"""Loss adjustment with forget data alone: an f-divergence between a template answer and the true one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Output, Step, Stream
from expunge.methods._refusals import refusal_maker

CARD = MethodCard(
    "FLAT: the variational f-divergence between a template answer and the forget answer",
    paper="arXiv:2410.11143",
    equation="section 3, the loss in its variational form",
    needs={"forget": {"logp"}, "template": {"logp"}},
    streams={"template": Stream(split="forget", make=refusal_maker(None))},
    fields={"forget": {"question"}},
    capabilities={"tokens", "generate"},
    means="Without a retain term a small model loses retained knowledge almost as under ascent; the floor then ends "
    "the run early. `{forget: flat, retain: cross_entropy}` preserves it.",
    fidelity="faithful",
    shown="At a forget NLL of 1.5 it keeps some points more of retain than ascent on each of three seeds.",
)

DIVERGENCES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "total_variation": (lambda v: torch.tanh(v) / 2, lambda t: t),
    "kl": (lambda v: v, lambda t: torch.exp(t - 1)),
    "pearson": (lambda v: v, lambda t: t.square() / 4 + t),
}
"""Name -> (g, the output activation; f*, the convex conjugate), as in f-GAN's table."""


def flat(
    *,
    divergence: Literal["total_variation", "kl", "pearson"] = "kl",
    template: Literal["refusal", "alternate"] = "refusal",
    answers: str | None = None,
) -> LossTerm:
    """Raise a template answer and lower the true one by an f-divergence, without retain data or reference model.

    f*(g(p_forget)) - g(p_template), mean over the batch; p is the mean probability of the answer's tokens. template: a
    refusal (from `answers`, a text file, or the built-in list), or the first of the example's `alternates` where it has
    one.
    """
    activation, conjugate = DIVERGENCES[divergence]
    refuse = refusal_maker(answers)

    def make(example: Example) -> Example | None:
        given = example.get("alternates") if template == "alternate" and "question" in example else None
        return {"question": example["question"], "answer": given[0]} if given else refuse(example)

    def loss(step: Step) -> Tensor:
        forget, template = step["forget"], step["template"]
        true_B, template_B = activation(likelihood_B(forget)), activation(likelihood_B(template))
        return forget.mean(conjugate(true_B)) - template.mean(template_B)

    return LossTerm(loss, streams={"template": Stream(split="forget", make=make)})


def likelihood_B(output: Output) -> Tensor:
    """Mean probability of the answer's tokens."""
    return (output.logp_BT.exp() * output.mask_BT).sum(-1) / output.n_B.clamp(min=1)
