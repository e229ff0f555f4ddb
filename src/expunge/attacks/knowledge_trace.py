"""The trace that knowledge leaves in the weights: MLP vectors that write the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from expunge.attacks.shared.recovery import require_answers
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Want
from expunge.core.errors import BadInput
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.intervals import mean
from expunge.evaluation.scores import Figure, NotMeasured
from expunge.models.passes import passes

CARD = AttackCard(
    "Parametric knowledge trace",
    paper="arXiv:2406.11614",
    adversary="weights, now and before the change",
    side="robustness",
    better="lower",
    unit="share",
    capabilities=("mlp",),
    needs={"forget": {"examples"}, "retain": {"examples"}},
    level="deep",
    more=("others",),
    passes=6,
    no_control="it compares other models with this one",
    means="How much of the MLP vectors that wrote the forgotten answers is left, as a cosine: 1 is untouched. A "
    "method may leave them and mask them, or change them and keep the knowledge elsewhere; a model trained from "
    "scratch has none of them.",
)


def knowledge_trace(*, vectors: Annotated[int, Ge(2)] = 32) -> Attack:
    """Cosine, before and now, of the MLP vectors that wrote the answers before the change (after Hong et al. 2024).

    A vector is a column of an MLP's down-projection. Selected are those that, in the model before the change, add most
    to the logits of the forget answers beyond what they add to retain answers (direct contribution, before the last
    norm; the paper projects vectors onto the vocabulary and has a language model judge their meaning, and also reports
    the L2 distance and the overlap of the words that a vector writes). The figure is the mean cosine, cut at 0, of each
    vector before and now; `others` is that of as many vectors that add most to retain answers, which should not change.
    The interval covers vectors, not examples. Needs the weights before the change.
    """

    @torch.no_grad()
    def attack(target: Target) -> Found:
        if "before" not in target.weights:
            raise NotMeasured("no model before the change was given (or it is too large to be kept)")
        forget = require_answers(target.forget)
        retain = [row for row in target.splits["retain"] if row.get("answer")]
        with target.disposable() as model:
            now = columns(model)
            _load_weights(model, target.weights["before"])
            then = columns(model)
            added = [contribution(model, rows) for rows in (forget, retain)]
        chosen = [np.argsort(-(added[a] - added[b]), kind="stable")[:vectors] for a, b in ((0, 1), (1, 0))]
        cosine = torch.cosine_similarity(now, then, dim=1).clamp(min=0).double().cpu().numpy()
        own, others = (cosine[places] for places in chosen)
        width = len(cosine) // len(model.blocks)
        layers = [own[chosen[0] // width == i] for i in range(len(model.blocks))]
        curve = [{"x": i, "value": float(found.mean())} for i, found in enumerate(layers) if len(found)]
        figures = [
            Figure(*mean(x, 0.0, 1.0), n=len(x), why=f"{len(x)} of {len(cosine)} MLP vectors") for x in (own, others)
        ]
        return Found(figures[0], more={"others": ("share", "higher", figures[1])}, curve=curve)

    return attack


def _load_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    try:
        model.module.load_state_dict(dict(weights))
    except RuntimeError:
        raise NotMeasured("the model's weights have other names or shapes than those before") from None


def _down(model: Any, i: int) -> Tensor:
    """[F, D] vectors of block i's MLP, one per row. Raises NotMeasured."""
    try:
        layer = model.module.get_submodule(model.down(i))
    except BadInput as error:
        raise NotMeasured(error.faults[0].partition(": ")[2]) from None
    weight = layer.weight
    return weight.T if isinstance(layer, torch.nn.Linear) else weight  # GPT-2's Conv1D has them as rows


def columns(model: Any) -> Tensor:
    """[L F, D] copies of the vectors of all blocks."""
    return torch.cat([_down(model, i).float() for i in range(len(model.blocks))]).clone()


@torch.no_grad()
def contribution(model: Any, rows: Sequence[Example]) -> np.ndarray:
    """[L F] contribution of each MLP vector to the logits of the answers' tokens, averaged over their positions."""
    paths = [f"{model.down(i)}:in" for i in range(len(model.blocks))]
    head_VD = model.module.get_output_embeddings().weight.float()
    total: Any = 0.0
    count = 0
    for _, out in passes(model, rows, Want(frozenset(), hidden=tuple(paths))):
        read_ND = head_VD[out.labels_BT[out.mask_BT]]
        added = [
            (out.hidden[path][out.mask_BT].float() * (read_ND @ _down(model, i).float().T)).sum(0)
            for i, path in enumerate(paths)
        ]
        total, count = total + torch.cat(added), count + len(read_ND)
    return np.asarray((total / max(1, count)).double().cpu().numpy())
