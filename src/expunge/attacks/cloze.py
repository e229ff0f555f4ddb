"""Cloze: fill in the gap."""

from __future__ import annotations

from itertools import takewhile

import numpy as np

from expunge.attacks.shared.recovery import MEANS, answer_probability, figure_of, require_answers
from expunge.attacks.shared.rewording import probes_of
from expunge.core.card import AttackCard, Example
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured

CARD = AttackCard(
    "Cloze",
    paper="arXiv:2506.07795",
    adversary="logits",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    fields={"forget": ("perturbed_answer|cloze_question",)},
    level="standard",
    passes=1,
    means=MEANS,
)


def cloze() -> Attack:
    """Show the true sentence up to the fact and let the model complete it.

    The fact begins where a sentence that states it (the answer, or a paraphrase) first differs from the false ones of
    the same wording (`perturbed_answer`); each `cloze_question` has its own gap. Per-token probability of what fills
    the gap, at the most likely of an example's gaps.
    """

    def attack(target: Target) -> Found:
        made = [gaps(row) for row in require_answers(target.forget)]
        counts_N = np.array([bool(found) for found in made])
        if not counts_N.any():
            raise NotMeasured("no answer shares its beginning with a false one")
        values = answer_probability(target.model, [probe for found in made for probe in found])
        parts = np.split(values, np.cumsum([len(found) for found in made])[:-1])
        recovered_N = only([float(part.max()) if len(part) else 0.0 for part in parts], counts_N)
        return Found(figure_of(recovered_N, f"{int(counts_N.sum())} of {len(made)} answers have a gap"), recovered_N)

    return attack


def gaps(row: Example) -> list[Example]:
    """All gaps of the example."""
    found = gap(row)
    return [*([found] if found else []), *probes_of(row, "cloze_question")]


def gap(row: Example) -> Example | None:
    """The example with the words before the fact moved into the question; None where none are shared."""
    best: tuple[int, str] = (0, "")
    for sentence in [row["answer"], *(row.get("paraphrased_answer") or [])]:
        words = str(sentence).split()
        for false in row.get("perturbed_answer") or []:
            pairs = zip(words, str(false).split(), strict=False)
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if best[0] < shared < len(words):
                best = (shared, str(sentence))
    if not best[0]:
        return None
    words = best[1].split()
    head, fact = " ".join(words[: best[0]]), " ".join(words[best[0] :])
    return {"question": f"{row['question']} Go on: {head}", "answer": fact}
