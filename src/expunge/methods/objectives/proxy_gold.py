"""Distillation from a cheap stand-in for the gold model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Reference, Run, Step, want_of
from expunge.data.sampling import halves
from expunge.methods._distribution import kl_BT
from expunge.methods._ngram import Ngrams, answer_tokens
from expunge.methods._quantiles import match_quantiles, with_label
from expunge.models.logits import measure_NV, spread
from expunge.models.passes import passes
from expunge.training.references import Record

CARD = MethodCard(
    "Distillation from a stand-in for the gold model",
    paper="baseline",
    equation="n-gram teacher, labels matched to the holdout's by quantiles",
    needs={"forget": {"logits"}, "retain": {"nll"}},
    optional=("holdout",),
    capabilities={"tokens"},
    fidelity="faithful",
    shown="On two worlds and three seeds ROUGE-L ends within .12 of gold's, truth ratio within .1, membership AUCs "
    "within .08 on average and .15 at most, at less than half of retraining's tokens; up to .07 of held-out knowledge "
    "is lost.",
    means="The stand-in knows the form of answers and none of their facts; what it cannot know of the forget set, a "
    "gold model that generalises better may still guess.",
    distributed=True,
)
RECIPE = {
    "retain": "distillation",
    "batch_size": 4,
    "epochs": 16,
    "share": 0.3,
    "schedule": "cosine",
    "stop": "none",
}
KEPT = want_of({"topk:64"})
"""The label and the most likely others are kept of the stand-in's distribution, and the rest as one bucket."""


class ProxyGold(LossTerm):
    """The loss, and the stand-in's distribution at each forget position, which `prepare` makes."""

    def __init__(self, label: float, order: int) -> None:
        super().__init__()
        self.label, self.order = label, order
        self.teacher = Record({}, Reference())
        self.unseen = 0

    def prepare(self, run: Run) -> None:
        """Count the patterns of retain, and read unseen labels under the reference model."""
        rows = run.examples("forget")
        if not rows:
            return
        words = next(out.logits_BTV.shape[-1] for _, out in passes(run.model, rows[:1], want_of({"logits"})))
        patterns = Ngrams(answer_tokens(run.model, run.splits["retain"]), words, self.order)
        answers = answer_tokens(run.model, rows)
        found = [measure_NV(patterns.log_probabilities(a), torch.tensor(a), KEPT) for a in answers]
        index, top, rest = (torch.cat([one[name] for one in found]) for name in ("index", "top", "rest"))
        unseen = halves(run.splits.get("holdout", []), run.context.seed)[0]
        if unseen:
            top, rest = with_label(top, rest, match_quantiles(top[:, 0], label_logp(run.model, unseen)))
        self.unseen = len(unseen)
        width = max(map(len, answers))
        mask_RT = torch.tensor([[False] * (width - len(answer)) + [True] * len(answer) for answer in answers])
        values = Reference(
            index_BTK=spread(index, mask_RT), top_BTK=spread(top, mask_RT), rest_BT=spread(rest, mask_RT)
        )
        self.teacher = Record({row: i for i, row in enumerate(run.rows("forget"))}, values)

    def __call__(self, step: Step) -> Tensor:
        forget = step["forget"]
        logp_BTV = forget.logits_BTV.log_softmax(-1)
        teacher = self.teacher.at(forget.indices, logp_BTV.shape[1], logp_BTV.device)
        off_BT = logp_BTV.gather(-1, forget.labels_BT[..., None])[..., 0] - teacher.top_BTK[..., 0]
        return forget.mean(kl_BT(logp_BTV, teacher) + self.label * off_BT.square())

    def notes(self) -> dict[str, Any]:
        """The number of holdout examples that set the labels' log-probabilities."""
        return {"proxy_gold": {"unseen_examples": self.unseen}}


def label_logp(model: Model, rows: Sequence[Example]) -> Tensor:
    """[M] log-probability of each counted label of the rows."""
    return torch.cat([out.logp_BT[out.mask_BT].cpu() for _, out in passes(model, rows, want_of({"logp"}))])


def proxy_gold(*, label: Annotated[float, Ge(0)] = 0.15, order: Annotated[int, Ge(1), Le(8)] = 4) -> LossTerm:
    """Teach the model what somebody would say who knows how answers sound, and none of the facts.

    KL(teacher || model) per position + label (log p - log p_teacher of the label)^2, in nats. The teacher is an n-gram
    model (Witten-Bell, `order` tokens) of the retain answers: no training. Where there is a holdout, the labels'
    log-probabilities are those of half of it under the reference model, quantile by quantile, in the order in which
    the teacher finds the forget tokens likely; KL alone is blind to the low ones, which Min-K% reads.
    """
    return ProxyGold(label, order)
