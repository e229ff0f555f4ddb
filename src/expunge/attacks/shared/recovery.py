"""Recovered knowledge: how attacks measure it, and how they teach a model anew.

Knowledge of an example is a share in 0-1: the per-token probability of its answer (a classifier: of
its label), or ROUGE-L recall where the attack gets texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from expunge.core.card import Example
from expunge.core.contracts import Model, Output, Want
from expunge.core.random import permutation
from expunge.evaluation import intervals
from expunge.evaluation.arrays import only, rouge
from expunge.evaluation.attack import Target, knowledge
from expunge.evaluation.scores import Figure, NotMeasured
from expunge.models.family import family, likelihood
from expunge.models.passes import passes
from expunge.models.shared_prompts import shared_passes

MEANS = (
    "How much of the forgotten knowledge the attack brings out; what counts is how far it lies above gold's, "
    "since a model that never saw the data learns and guesses too."
)
STARTS_FROM_ASKING = "it starts from direct questions, so that it brings out at least what they do"
"""Why such an attack needs no control on the model before the change."""
STEPS = 24
"""Optimiser steps of a relearning attack."""


def answer_probability(model: Model, rows: Sequence[Example]) -> np.ndarray:
    """[N] answer probability of each row, per token, in eval mode. Raises NotMeasured for a model that has diverged."""
    kind = family(model.family)
    if kind.known:
        return channel_of(model, rows, kind.known)
    return probability_of(shared_passes(model, rows), len(rows), kind.knowledge)


def channel_of(model: Model, rows: Sequence[Example], channel: str) -> np.ndarray:
    """[N] a family's own channel of each row, in eval mode. Raises NotMeasured where it is unknown of any."""
    values_N = np.zeros(len(rows))
    for places, out in passes(model, rows, Want(frozenset({channel}))):
        values_N[places] = out.own[channel].double().cpu().numpy()
    if unknown := int((~np.isfinite(values_N)).sum()):
        raise NotMeasured(f"unknown of {unknown} of {len(rows)} examples")
    return values_N


def probability_of(
    found: Iterable[tuple[list[int], Output]], count: int, knowledge_of: Callable[[Any], Any] = likelihood
) -> np.ndarray:
    """[N] per-token probability of each of `count` answers, from batches that the caller evaluated.

    knowledge_of: the family's measure of how far an example is known.
    """
    probability_N = np.zeros(count)
    for rows, out in found:
        probability_N[rows] = knowledge_of(out.nll_B / out.n_B.clamp(min=1)).double().cpu().numpy()
    if not np.isfinite(probability_N).all():
        raise NotMeasured("the model has diverged: its losses are not finite")
    return probability_N


def plain_probability(target: Target, split: str) -> np.ndarray:
    """[N] per-token probability of each answer of a split without an attack; from the readout where there is one."""
    if split in target.readouts:
        return knowledge(target.readouts[split])
    return answer_probability(target.model, target.splits[split])


def answer_recall(rows: Sequence[Example], texts: Sequence[str]) -> np.ndarray:
    """[N] share of each reference answer's words that its text repeats; masked where the answer has no words."""
    found = [rouge(str(row["answer"]), text) for row, text in zip(rows, texts, strict=True)]
    return only([x[0] if x else 0.0 for x in found], [x is not None for x in found])


def generate_texts(model: Model, rows: Sequence[Example], **settings: Any) -> list[str]:
    """[N] texts that the model writes, in up to four batches of rows with answers of similar length.

    A batch runs until its longest answer is done, so that batches of mixed lengths cost half as much again.
    """
    parts = max(1, min(4, len(rows) // 48))
    order = sorted(range(len(rows)), key=lambda i: len(str(rows[i]["answer"])))
    texts = [""] * len(rows)
    for near in np.array_split(np.array(order, dtype=int), parts):
        said = model.generate([rows[i] for i in near], **settings)
        for i, text in zip(near.tolist(), said, strict=True):
            texts[i] = text
    return texts


def require_answers(rows: Sequence[Example]) -> Sequence[Example]:
    """Return the rows. Raises NotMeasured unless all have a question and an answer, which such attacks rewrite."""
    if not all(row.get("question") and row.get("answer") for row in rows):
        raise NotMeasured("the forget set does not consist of questions and answers")
    return rows


def require_no_refusals(rows: Sequence[Example]) -> Sequence[Example]:
    """Return the rows. Raises NotMeasured where they are prompts to refuse, to which nothing may be generated."""
    if any(row.get("compliant") for row in rows):
        raise NotMeasured("the forget set is of refusals: no text is generated for its prompts")
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
    """Fine-tune the model in place on the rows; yields the number of steps at every check.

    AdamW on all weights, at a constant rate; batches are drawn anew in each pass. The model stays in
    eval mode: an attacker wants the knowledge, not regularisation.
    """
    model.module.eval()
    if grown := getattr(model, "teach", None):  # no weights to fine-tune: trees are added
        for step in range(0, steps, every):
            grown(rows, min(every, steps - step))
            yield min(step + every, steps)
        return
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
