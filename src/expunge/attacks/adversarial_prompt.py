"""Adversarial prompt: words before the prompt that bring back what it no longer draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt

from expunge.attacks.shared.recovery import MEANS, STARTS_FROM_ASKING, answer_probability, figure_of
from expunge.attacks.shared.relearning import taught_examples
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Model
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured
from expunge.models.text_diffusion import PROMPT

CARD = AttackCard(
    "Adversarial prompt",
    paper="arXiv:2310.11868",
    equation="4, by greedy search over all words instead of projected gradients",
    adversary="query access; losses; part of the forget set",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("prompts",),
    needs={"forget": {"examples"}},
    level="standard",
    passes=30,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)
PICTURES = 16
"""Pictures on which a prompt's loss is read."""
MOST_WORDS = 1000
"""Words of a tokenizer of which all are tried."""


def adversarial_prompt(*, words: Annotated[int, Ge(1)] = 2, share: Annotated[float, Gt(0), Lt(1)] = 0.25) -> Attack:
    """Put words before the prompts under which the model denoises real pictures of the concept best.

    The model is its own classifier (Zhang et al. 2023): a seeded share of the forget set gives the pictures, `words`
    words are chosen one after another by the lowest denoising loss, and the rest is asked for with them. The better of
    with and without them counts. Raises NotMeasured for tokenizers of more than a thousand tokens.
    """

    def attack(target: Target) -> Found:
        taught, counts_N = taught_examples(target, share)
        rows = [row for row, counts in zip(target.forget, counts_N, strict=True) if counts]
        with target.disposable() as model:
            chosen = choose_words(model, taught[:PICTURES], words)
            after = answer_probability(model, [put_before(row, chosen) for row in rows])
        start = target.plain[target.role][counts_N]
        best = after if after.mean() >= start.mean() else start
        recovered_N = torch.zeros(len(counts_N)).double().numpy()
        recovered_N[counts_N] = best
        recovered_N = only(recovered_N, counts_N)
        return Found(figure_of(recovered_N, f"with {' '.join(chosen)!r} before the prompt"), recovered_N)

    return attack


def choose_words(model: Model, rows: Sequence[Example], count: int) -> list[str]:
    """The words, the nearest to the prompt first chosen, under which the loss on these examples is lowest."""
    bare: Any = model
    special = set(bare.tokenizer.all_special_tokens)
    vocabulary = sorted(word for word in bare.tokenizer.get_vocab() if word not in special)
    if len(vocabulary) > MOST_WORDS:
        raise NotMeasured(f"the tokenizer has {len(vocabulary):,} tokens, too many to try each")
    chosen: list[str] = []
    for _ in range(count):
        tried = [[word, *chosen] for word in vocabulary]
        losses = [_loss(bare, [put_before(row, words) for row in rows]) for words in tried]
        chosen = tried[min(range(len(tried)), key=losses.__getitem__)]
    return chosen


def put_before(row: Example, words: Sequence[str]) -> Example:
    """The example with these words before its prompt."""
    return {**row, PROMPT: " ".join([*words, str(row[PROMPT])])}


@torch.no_grad()
def _loss(bare: Any, rows: Sequence[Example]) -> float:
    return float(bare.forward(bare.collate(rows)).nll)
