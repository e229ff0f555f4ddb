"""Rewriting a decision: the last layer no longer hears what sets the forget rows apart from others of their class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.methods._head import head_inputs, linear_head
from expunge.models.weights import fold

NAME = "rewrite"
CARD = MethodCard(
    "A spurious concept taken out of a decision",
    paper="arXiv:2303.00885",
    equation="the concept's directions leave the decision; the projection is LEACE's, arXiv:2306.03819, theorem 4.2",
    needs={"forget": (), "retain": ()},
    capabilities={"labels"},
    fidelity="variant",
    leaves_out="the search for the concept, by a person who looks at clusters of heat maps: the forget rows carry it "
    "(`expunge find`), and a class that they lack rows of has no direction; logic rules in the place of the head",
    means="For a cue beside which a class has other signs. The cue stays in the features, for any other head to read.",
    deterministic=True,
    one_shot=True,
)


def rewrite(*, share: Annotated[float, Gt(0), Le(1)] = 1.0, ridge: Annotated[float, Gt(0), Le(1)] = 0.01) -> Method:
    """Take a concept that the forget rows carry out of a classifier's last layer, in closed form.

    A column of D is, for a class, the mean of its forget rows' features less that of its retain rows; S the covariance
    of features within the classes of retain, with `ridge` of its mean diagonal added to it. The head W, b on features
    of mean m becomes W (1 - share P), b + share W P m, P = D (D' S^-1 D)^+ D' S^-1: of all maps that take D away the
    one that moves the features least (share 1). Raises BadInput without a linear head, or a class on both sides.
    """

    return Rewrite(share, ridge)


class Rewrite(Method):
    """The method of rewrite()."""

    def __init__(self, share: float, ridge: float) -> None:
        self.share, self.ridge = share, ridge

    def fits(
        self, model: Any, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        _shared_classes(splits)
        return []

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        forget, retain = splits["forget"], splits["retain"]
        path, head = linear_head(model, list(retain[:2]), f"{NAME} changes such a layer")
        (with_ND, of_N), (without_MD, of_M) = (_features(model, rows, path) for rows in (forget, retain))
        both = _shared_classes(splits)
        apart_DC = torch.stack([with_ND[of_N == c].mean(0) - without_MD[of_M == c].mean(0) for c in both], 1)
        concept_DD = self.share * projection(apart_DC, within(without_MD, of_M), self.ridge)
        mean_D, weight = without_MD.mean(0), head.weight.detach().cpu().double()
        with torch.no_grad():
            head.bias.add_((weight @ concept_DD @ mean_D).to(head.bias))
            head.weight.sub_((weight @ concept_DD).to(head.weight))
        context.notes["concept"] = {"classes": both, "rank": int(torch.linalg.matrix_rank(apart_DC))}
        return model


def _shared_classes(splits: Mapping[str, Sequence[Example]]) -> list[int]:
    """The labels that rows of forget and of retain have. Raises BadInput where there are none."""
    forget, retain = ({int(row["label"]) for row in splits[name]} for name in ("forget", "retain"))
    if not forget & retain:
        fix = "give retain rows of the forget rows' classes"
        raise BadInput.of("retain", "", "has no class that forget has, with which to compare it", fix)
    return sorted(forget & retain)


def within(x_ND: Tensor, label_N: Tensor) -> Tensor:
    """[D, D] covariance of the features around the means of their classes."""
    centred_ND = torch.cat([x_ND[label_N == c] - x_ND[label_N == c].mean(0) for c in label_N.unique()])
    return centred_ND.T @ centred_ND / len(centred_ND)


def projection(apart_DC: Tensor, covariance_DD: Tensor, ridge: float) -> Tensor:
    """[D, D] the map P with P D = D, and the least mean |P x|^2 in the covariance's measure."""
    eye_DD = torch.eye(len(covariance_DD), dtype=covariance_DD.dtype)
    inverse_DD = torch.linalg.inv(covariance_DD + ridge * covariance_DD.diagonal().mean().clamp(min=1e-9) * eye_DD)
    return apart_DC @ torch.linalg.pinv(apart_DC.T @ inverse_DD @ apart_DC) @ apart_DC.T @ inverse_DD


def _features(model: Model, rows: Sequence[Example], path: str) -> tuple[Tensor, Tensor]:
    """([N, D] the inputs of the head in float64, [N] labels)."""
    return torch.from_numpy(head_inputs(model, rows, path)), torch.tensor([int(row["label"]) for row in rows])
