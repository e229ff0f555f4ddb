"""Loss adjustment with forget data alone: an f-divergence between a template answer and the true one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Output, Step, Stream
from expunge.methods._refusals import refusal_maker
from expunge.methods._targets import Calibrated, Target

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
    shown="At a forget NLL of 1.5 it keeps some points more of retain than ascent on each of three seeds. Beside "
    "`retain: cross_entropy` and without a stop, `target: calibrated` brings its membership AUCs nearer to gold's (.33 "
    "to .51 off without targets, .08 to .22 with them) and keeps more; alone it did on five of six runs.",
    distributed=True,
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
    target: Target = "none",
) -> LossTerm:
    """Raise a template answer and lower the true one by an f-divergence, without retain data or reference model.

    f*(g(p_forget)) - g(p_template), mean over the batch; p is the mean probability of the answer's tokens. template: a
    refusal (from `answers`, a text file, or the built-in list), or the first of the example's `alternates` where it has
    one. target: `calibrated` does not lower true answers at the NLL of unseen ones.
    """
    activation, conjugate = DIVERGENCES[divergence]
    refuse = refusal_maker(answers)

    def make(example: Example) -> Example | None:
        given = example.get("alternates") if template == "alternate" and "question" in example else None
        return {"question": example["question"], "answer": given[0]} if given else refuse(example)

    def each(step: Step) -> Tensor:
        return conjugate(activation(likelihood_B(step["forget"])))

    def template_of(step: Step) -> Tensor:
        return step["template"].mean(activation(likelihood_B(step["template"])))

    def below_target(step: Step, below_B: Tensor) -> Tensor:
        return step["forget"].mean(each(step) * below_B) - template_of(step)

    def loss(step: Step) -> Tensor:
        return step["forget"].mean(each(step)) - template_of(step)

    term = Calibrated(below_target) if target == "calibrated" else LossTerm(loss)
    term.streams = {"template": Stream(split="forget", make=make)}
    return term


def likelihood_B(output: Output) -> Tensor:
    """Mean probability of the answer's tokens."""
    return (output.logp_BT.exp() * output.mask_BT).sum(-1) / output.n_B.clamp(min=1)
