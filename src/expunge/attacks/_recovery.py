"""What attacks that bring knowledge back share: how it is measured, and how a model is taught anew.

Knowledge of an example is a share in 0-1: the probability of its answer a token (a classifier: of
its label), or ROUGE-L recall where the attack gets texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from expunge.core.card import Example
from expunge.core.contracts import Model, Output
from expunge.core.random import permutation
from expunge.evaluation import intervals
from expunge.evaluation.arrays import only, rouge
from expunge.evaluation.attack import Target, knowledge
from expunge.evaluation.scores import Figure, NotMeasured
from expunge.models.family import family, likelihood
from expunge.models.passes import passes

MEANS = (
    "How much of the forgotten knowledge the attack brings out; what counts is how far it is above gold's, "
    "since a model that never saw the data learns and guesses too."
)
STEPS, CHECKS = 24, 8
"""Steps of a relearning attack, and how often it looks."""


def answer_probability(model: Model, rows: Sequence[Example]) -> np.ndarray:
    """[N] probability of each answer, a token; in eval mode. Raises NotMeasured for a model that has diverged."""
    return probability_of(passes(model, rows), len(rows), family(model.family).knowledge)


def probability_of(
    found: Iterable[tuple[list[int], Output]], count: int, knowledge_of: Callable[[Any], Any] = likelihood
) -> np.ndarray:
    """The same of `count` rows that were laid out and evaluated otherwise. knowledge_of: the family's measure."""
    probability_N = np.zeros(count)
    for rows, out in found:
        probability_N[rows] = knowledge_of(out.nll_B / out.n_B.clamp(min=1)).double().cpu().numpy()
    if not np.isfinite(probability_N).all():
        raise NotMeasured("the model has diverged: its losses are not finite")
    return probability_N


def told(target: Target, split: str) -> np.ndarray:
    """[N] probability of each answer of a split, a token, when simply asked: from what was read, where it was."""
    if split in target.readouts:
        return knowledge(target.readouts[split])
    return answer_probability(target.model, target.splits[split])


def written(rows: Sequence[Example], texts: Sequence[str]) -> np.ndarray:
    """[N] share of each reference answer's words that a text repeats; masked where it has no words."""
    found = [rouge(str(row["answer"]), text) for row, text in zip(rows, texts, strict=True)]
    return only([x[0] if x else 0.0 for x in found], [x is not None for x in found])


def generated(model: Model, rows: Sequence[Example], **settings: Any) -> list[str]:
    """What the model writes to each row, in up to four batches of rows whose answers are about as long.

    A batch goes on for as long as its longest answer may take, so that mixed ones cost half as much again.
    """
    parts = max(1, min(4, len(rows) // 48))
    order = sorted(range(len(rows)), key=lambda i: len(str(rows[i]["answer"])))
    texts = [""] * len(rows)
    for near in np.array_split(np.array(order, dtype=int), parts):
        said = model.generate([rows[i] for i in near], **settings)
        for i, text in zip(near.tolist(), said, strict=True):
            texts[i] = text
    return texts


def with_answers(rows: Sequence[Example]) -> Sequence[Example]:
    """The rows; NotMeasured unless all are question and answer, which such attacks rewrite."""
    if not all(row.get("question") and row.get("answer") for row in rows):
        raise NotMeasured("the forget set is not made of questions and answers")
    return rows


def figure_of(recovered_N: np.ndarray, why: str = "") -> Figure:
    """The mean share with its interval; masked examples do not count."""
    counted = np.ma.masked_array(recovered_N, dtype=float).compressed()
    if not len(counted):
        raise NotMeasured("no example counts")
    return Figure(*intervals.mean(counted, 0.0, 1.0), n=len(counted), values=recovered_N, why=why)


def teach(
    model: Model, rows: Sequence[Example], *, steps: int, rate: float, seed: int, every: int, batch: int = 16
) -> Iterator[int]:
    """Fine-tunes the model in place on the rows and yields the count of steps at every check.

    AdamW on all weights, at a constant rate; batches are drawn anew in each pass. The model stays in
    eval mode: an attacker wants the knowledge, not regularisation.
    """
    model.module.eval()
    optimiser = torch.optim.AdamW(model.module.parameters(), lr=rate, weight_decay=0.0)
    order: list[int] = []
    for step in range(steps):
        while len(order) < min(batch, len(rows)):
            order += permutation(len(rows), seed, "teach", step, len(order))
        chosen, order = order[:batch], order[batch:]
        with torch.enable_grad():
            loss = model.forward(model.collate([rows[i] for i in chosen])).nll
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if (step + 1) % every == 0 or step + 1 == steps:
            yield step + 1
