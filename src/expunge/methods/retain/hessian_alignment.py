"""Cross-entropy on retain with the head's gradients and Hessians alike in all domains."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import one_hot

from expunge.core.contracts import LossTerm, MethodCard, Model, Run, Step
from expunge.core.errors import BadInput
from expunge.methods._head import linear_head

CARD = MethodCard(
    "Hessian alignment over domains",
    paper="arXiv:2308.11778",
    equation="6, by Hessian-gradient products",
    needs={"retain": {"nll", "logits", "hidden"}},
    capabilities={"labels"},
    fidelity="faithful",
    means="Rows need a field that names their domain (`group`); of one domain it is plain fine-tuning. What is alike "
    "in all domains is kept, and what tells them apart is not relied on.",
    shown="On unseen rows of three domains of digits the head's gradients differ less than after plain fine-tuning; a "
    "fourth domain is read no better on average.",
)


class HessianAlignment(LossTerm):
    """The loss of hessian_alignment(), and each row's domain, which `prepare` numbers."""

    def __init__(self, gradients: float, hessians: float, by: str) -> None:
        super().__init__()
        self.gradients, self.hessians, self.by = gradients, hessians, by
        self.domains: dict[int, int] = {}

    def declare(self, model: Model) -> None:
        paths = [path for path, part in model.module.named_modules() if isinstance(part, nn.Linear)]
        if not paths:
            fix = "choose another retain term, or a model with a linear head"
            name = type(model.module).__name__
            raise BadInput.of("model", name, "has no linear layer, as hessian_alignment needs", fix)
        self.path = paths[-1]
        self.needs = {"retain": {"nll", "logits", f"hidden:{self.path}:in"}}

    def prepare(self, run: Run) -> None:
        """Number the domains, and check that the last layer's outputs are the logits."""
        examples = run.examples("retain")
        if examples:
            linear_head(run.model, examples[:2], "hessian_alignment compares its gradients")
        names = sorted({str(row.get(self.by, "")) for row in examples})
        number = {name: i for i, name in enumerate(names)}
        rows = zip(run.rows("retain"), examples, strict=True)
        self.domains = {i: number[str(row.get(self.by, ""))] for i, row in rows}

    def __call__(self, step: Step) -> Tensor:
        retain = step["retain"]
        loss = retain.mean(retain.nll_B)
        domain_B = torch.tensor([self.domains[i] for i in retain.indices], dtype=torch.long)
        present = domain_B.unique()
        if len(present) < 2:
            return loss
        feature_BD = retain.hidden[f"{self.path}:in"][:, 0].float()
        p_BV = retain.logits_BTV[:, 0].float().softmax(-1)
        error_BV = p_BV - one_hot(retain.labels_BT[:, 0], p_BV.shape[-1])
        own = [(domain_B == domain).to(p_BV.device) for domain in present]
        gradients = [error_BV[mask].T @ feature_BD[mask] / mask.sum() for mask in own]
        mean_VD = torch.stack(gradients).mean(0)
        products = [product(p_BV[mask], feature_BD[mask], mean_VD) for mask in own]
        spread = self.gradients * _spread(gradients) + self.hessians * _spread(products)
        return loss + spread * len(domain_B) / max(1, retain.examples or len(domain_B))


def product(p_BV: Tensor, feature_BD: Tensor, vector_VD: Tensor) -> Tensor:
    """[V, D] the mean Hessian of the cross-entropy by the head's weights, times a matrix of their shape.

    Of one row the Hessian is (diag p - p p') on classes times x x' on features.
    """
    along_BV = feature_BD @ vector_VD.T
    turned_BV = p_BV * (along_BV - (p_BV * along_BV).sum(-1, keepdim=True))
    return turned_BV.T @ feature_BD / len(feature_BD)


def _spread(values: list[Tensor]) -> Tensor:
    """The mean squared distance from the mean."""
    all_EVD = torch.stack(values)
    return (all_EVD - all_EVD.mean(0)).square().sum((1, 2)).mean()


def hessian_alignment(
    *, gradients: Annotated[float, Ge(0)] = 1.0, hessians: Annotated[float, Ge(0)] = 1.0, by: str = "group"
) -> LossTerm:
    """Go on training on retain, with the head's gradient and curvature alike in all domains of a batch.

    nll + gradients mean_e |g_e - g|^2 + hessians mean_e |H_e g - H g|^2, in nats: g_e and H_e the gradient and Hessian
    of domain e's mean cross-entropy by the last layer's weights, g and H g their means. by: the field of the domain;
    rows without it are one. Parts of an accumulated batch are aligned each by itself.
    """
    return HessianAlignment(gradients, hessians, by)
