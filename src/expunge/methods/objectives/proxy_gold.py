"""Distillation from a cheap stand-in for the gold model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Reference, Run, Step, want_of
from expunge.data.sampling import halves
from expunge.methods._distribution import kl_BT
from expunge.methods._ngram import Ngrams, answer_tokens
from expunge.methods._quantiles import LIKELIEST, match_partners, match_quantiles, with_entropy, with_label
from expunge.methods._short_training import tokens_of_short, train_short
from expunge.models.build import check_retrainable
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
    shown="On two worlds, which set it, and three seeds ROUGE-L ends within .12 of gold's, truth ratio within .1, the "
    "AUCs of four membership attacks within .08 on average and .15 at most, at less than half of retraining's tokens; "
    "up to .07 of held-out probability is lost. More attackers, other worlds and TOFU pairs: docs/frontier.md.",
    means="The stand-in knows the form of answers and none of their facts; what it cannot know of the forget set, a "
    "gold model that generalises better may still guess. With `part` a short retraining teaches in its place, which "
    "cost twice as much and did worse on a world and on a real model (one seed each).",
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
Answers = Sequence[Sequence[int]]
"""The counted tokens of each forget row's answer."""
Says = Callable[[int], Tensor]
"""Place of a forget row -> [T, V] the teacher's log-probabilities before each token of its answer."""


class ProxyGold(LossTerm):
    """The loss, and the stand-in's distribution at each forget position, which `prepare` makes."""

    def __init__(self, label: float, order: int, match_entropy: bool, part: float, rank: int) -> None:
        super().__init__()
        self.label, self.order, self.match_entropy = label, order, match_entropy
        self.part, self.rank = part, rank
        self.reads = ("holdout",) if match_entropy else ()
        self.teacher = Record({}, Reference())
        self.unseen = 0

    def fits(self, model: Model, manifest: Mapping[str, Any] | None) -> None:
        """Raises BadInput where the model cannot be trained again from its start, and the teacher would be."""
        if self.part:
            check_retrainable(manifest, model, "proxy_gold")
            self.ahead = tokens_of_short(manifest, self.part)

    def prepare(self, run: Run) -> None:
        """Make the stand-in, and read unseen labels under the reference model."""
        rows = run.examples("forget")
        if not rows:
            return
        answers = answer_tokens(run.model, rows)
        unseen = halves(run.splits.get("holdout", []), run.context.seed)[0]
        if self.part:
            found = run.context.once("proxy_gold", lambda: self._train_teacher(run, answers, unseen))
            self.trained = int(run.context.notes["short_training"]["outcome"]["tokens"])
        else:
            found = self._count_patterns(run, answers, unseen)
        self.unseen = len(unseen)
        width = max(map(len, answers))
        mask_RT = torch.tensor([[False] * (width - len(answer)) + [True] * len(answer) for answer in answers])
        values = Reference(
            index_BTK=spread(found["index"], mask_RT),
            top_BTK=spread(found["top"], mask_RT),
            rest_BT=spread(found["rest"], mask_RT),
        )
        self.teacher = Record({row: i for i, row in enumerate(run.rows("forget"))}, values)

    def _count_patterns(self, run: Run, answers: Answers, unseen: Sequence[Example]) -> dict[str, Tensor]:
        """The stand-in by the patterns of retain's answers."""
        rows = run.examples("forget")
        words = next(out.logits_BTV.shape[-1] for _, out in passes(run.model, rows[:1], want_of({"logits"})))
        patterns = Ngrams(answer_tokens(run.model, run.splits["retain"]), words, self.order)
        return self._match_labels(run.model, answers, unseen, lambda i: patterns.log_probabilities(answers[i]))

    def _train_teacher(self, run: Run, answers: Answers, unseen: Sequence[Example]) -> dict[str, Tensor]:
        """The stand-in by a short training without the forget set."""
        teacher = train_short(run, "short_training", self.part, rank=self.rank)
        rows = run.examples("forget")

        def says(i: int) -> Tensor:
            _, out = next(passes(teacher, rows[i : i + 1], want_of({"logits"})))
            return out.logits_BTV[out.mask_BT].float().log_softmax(-1).cpu()

        return self._match_labels(run.model, answers, unseen, says)

    def _match_labels(self, model: Model, answers: Answers, unseen: Sequence[Example], says: Says) -> dict[str, Tensor]:
        """The stand-in's distributions, with labels as likely as unseen ones where there are any."""
        goals = like_unseen(says, answers, model, unseen) if unseen else [None] * len(answers)
        found = [
            stand_in(says(i), answer, goal, self.match_entropy)
            for i, (answer, goal) in enumerate(zip(answers, goals, strict=True))
        ]
        return {name: torch.cat([one[name] for one in found]) for name in ("index", "top", "rest")}

    def __call__(self, step: Step) -> Tensor:
        forget = step["forget"]
        logp_BTV = forget.logits_BTV.log_softmax(-1)
        teacher = self.teacher.at(forget.indices, logp_BTV.shape[1], logp_BTV.device)
        off_BT = logp_BTV.gather(-1, forget.labels_BT[..., None])[..., 0] - teacher.top_BTK[..., 0]
        return forget.mean(kl_BT(logp_BTV, teacher) + self.label * off_BT.square())

    def notes(self) -> dict[str, Any]:
        """The number of holdout examples that set the labels' log-probabilities."""
        return {"proxy_gold": {"unseen_examples": self.unseen}}


def stand_in(logp_TV: Tensor, answer: Sequence[int], goal_T2: Tensor | None, match_entropy: bool) -> dict[str, Tensor]:
    """Make what is kept of the stand-in's distribution at each token of an answer.

    Labels are as likely as the goal has them and, with match_entropy, all others as hard to guess. goal_T2:
    log-probability of the label, entropy of the others (nats); None: as the teacher has them.
    """
    labels_T = torch.tensor(answer)
    if goal_T2 is not None and match_entropy:
        others_TV = logp_TV.scatter(-1, labels_T[:, None], -torch.inf)
        logp_TV = with_entropy(others_TV, goal_T2[:, 1]).scatter(-1, labels_T[:, None], 0.0)
    found = measure_NV(logp_TV, labels_T, KEPT)
    if goal_T2 is None:
        return found
    top, rest = with_label(found["top"], found["rest"], goal_T2[:, 0])
    return {"index": found["index"], "top": top, "rest": rest}


def like_unseen(says: Says, answers: Answers, model: Model, unseen: Sequence[Example]) -> tuple[Tensor, ...]:
    """Per answer [T, 2], the goal of each token: that of the unseen label which is as likely among those as it is here.

    One pair of numbers goes together, because Min-K%++ reads a label's likelihood against how sure the model was.
    """
    own_N = torch.cat([says(i).gather(-1, torch.tensor(a)[:, None])[:, 0] for i, a in enumerate(answers)])
    logp_M, entropy_M = unseen_labels(model, unseen)
    goal_N2 = torch.stack([match_quantiles(own_N, logp_M), match_partners(own_N, logp_M, entropy_M)], -1)
    return goal_N2.split([len(answer) for answer in answers])


def unseen_labels(model: Model, rows: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """[M] log-probability of each counted label of the rows, and [M] entropy (nats) of all other tokens."""
    found = [
        [value[out.mask_BT].cpu() for value in (out.logp_BT, out.mu_BT)]
        for _, out in passes(model, rows, want_of({"logp", "moments"}))
    ]
    logp_M, mean_M = (torch.cat(part).double() for part in zip(*found, strict=True))
    label_M = logp_M.clamp(max=LIKELIEST)
    left_M = torch.log1p(-label_M.exp())  # mu = p log p + (1 - p) (log (1 - p) - entropy of the others)
    entropy_M = left_M - (mean_M - label_M.exp() * label_M) / left_M.exp()
    return logp_M.float(), entropy_M.clamp(min=0).float()


def proxy_gold(
    *,
    label: Annotated[float, Ge(0)] = 0.15,
    order: Annotated[int, Ge(1), Le(8)] = 4,
    match_entropy: bool = False,
    part: Annotated[float, Ge(0), Lt(1)] = 0.0,
    rank: Annotated[int, Ge(0), Le(4096)] = 0,
) -> LossTerm:
    """Teach the model what somebody would say who knows how answers sound, and none of the facts.

    KL(teacher || model) per position + label (log p - log p_teacher of the label)^2, in nats. The teacher is an n-gram
    model (Witten-Bell, `order` tokens) of the retain answers: no training. Where there is a holdout, the labels'
    log-probabilities are those of half of it under the reference model, quantile by quantile, in the order in which
    the teacher finds the forget tokens likely; KL alone is blind to the low ones, which Min-K% reads.

    match_entropy makes all other tokens as hard to guess as beside those labels, by a temperature per position: n-grams
    are less sure of what they say than a model that learned others by heart, and Min-K%++ tells that.

    part: the teacher is a short retraining in place of n-grams: the weights that the base's training began with (its
    manifest knows them: a pretrained parent, or a fresh initialisation) after this share of its examples, drawn from
    retain. rank: of low-rank adapters that learn in place of all its weights; 0 for none.
    """
    return ProxyGold(label, order, match_entropy, part, rank)
