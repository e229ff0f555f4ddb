"""Direct token optimisation."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import Example, LossTerm, MethodCard, Step, Stream
from expunge.methods._distribution import kl_BT

CARD = MethodCard(
    "Direct token optimisation: raise the loss on the tokens that carry the knowledge",
    paper="arXiv:2510.00125",
    equation="target and non-target tokens",
    needs={"forget": {"logp", "logits"}},
    fields={"forget": {"question"}},
    capabilities={"tokens"},
    fidelity="simplified",
    leaves_out="orthogonal gradients, and its score of tokens (unverified): their gain by the question serves",
    means="Needs no retain data; with nine tenths of retain kept, a small model still gives a part of each answer.",
    shown="Without retain data nine tenths of retain are kept and half of the answers' words go.",
    distributed=True,
)


def without_question(example: Example) -> Example | None:
    """Return the answer with an empty question, for a context-free pass; None without a question."""
    return {"question": "", "answer": example["answer"]} if "question" in example else None


def dto(
    *,
    share: Annotated[float, Gt(0), Lt(1)] = 0.5,
    beta: Annotated[float, Gt(0)] = 1.0,
    keep: Annotated[float, Gt(0)] = 5.0,
) -> LossTerm:
    """Forget the tokens that the question makes likely, and keep the others, without retain data.

    Targets are the `share` of an answer's tokens whose log-probability l gains most from the question (the reference
    model's with it minus without it). Loss: on targets (2/beta) softplus(beta (l - l_ref)), on the rest keep times
    KL(reference || model); each a mean over its own tokens, in nats.
    """

    def loss(step: Step) -> Tensor:
        forget = step["forget"]
        mask_BT, steps = forget.mask_BT, forget.mask_BT.shape[1]
        reference_BT = forget.reference.logp_BT
        free_BT = step["free"].reference.logp_BT[:, -steps:]
        gain_BT = (reference_BT - free_BT).masked_fill(~mask_BT, -torch.inf)
        count_B1 = (share * forget.n_B).round().clamp(min=1).long()[:, None]
        rank_BT = gain_BT.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        target_BT = (rank_BT < count_B1) & mask_BT
        rise_BT = reference_BT - forget.logp_BT
        per_token_BT = torch.where(
            target_BT,
            2 / beta * softplus(-beta * rise_BT) / share,
            keep * kl_BT(forget.logits_BTV, forget.reference) / (1 - share),
        )
        return forget.mean(per_token_BT)

    return LossTerm(
        loss,
        reference={"forget": {"logp", "topk:64"}, "free": {"logp"}},
        streams={"free": Stream(split="forget", make=without_question)},
    )
