"""The checks that a comparison with gold can show anything at all; under `erase` alone.

A model that never knew the forget set, a destroyed model and a holdout of training data all agree with gold in the
figures of forgetting and privacy.
"""

from __future__ import annotations

from expunge.evaluation.acceptance import Check, Purpose, Table
from expunge.evaluation.comparison import Word
from expunge.evaluation.margins import LEAST, MOST, margin


def plausibility_checks(table: Table, purpose: Purpose) -> list[Check]:
    """The checks on these scores, by (name, role)."""
    if purpose != "erase":
        return []
    checks = [known_before(table), nll_below_gold(table), unseen_holdout(table)]
    return [check for check in checks if check is not None]


def known_before(table: Table) -> Check | None:
    """The check that the worst membership attacker refutes the model before the change.

    Otherwise nothing shows that the forget set was in it, and a model that was never changed would pass. None where the
    model before the change was not read, or without a holdout.
    """
    score, second = table.get(("privacy_worst", "before")), table.get(("privacy_worst", "second_gold"))
    if score is None or score.value is None or score.low is None or score.high is None:
        return None
    bound = min(MOST, margin(0.0, None if second is None else second.value))
    word: Word = "shown" if score.low > bound else "refuted" if score.high <= bound else "open"
    why = "" if word == "shown" else f"nothing shows that the model before the change knew the forget set: {score.why}"
    rule = f"privacy.worst before the change > {bound:.3g} (something to forget)"
    return Check(rule, word == "shown", score.value, bound, why, word == "open", implied=True, word=word)


def nll_below_gold(table: Table) -> Check | None:
    """The check on the chance that a forget example's NLL is below one of gold's; as for the chance that it is above.

    It sees a model whose NLLs are lower than gold's where no example is known: one that answers everything alike.
    """
    score, second = table.get(("forget_nll_above_gold", "after")), table.get(("forget_nll_above_gold", "second_gold"))
    if score is None or score.value is None or score.low is None or score.high is None:
        return None
    bound = 0.5 + min(MOST, margin(0.5, None if second is None else second.value))
    low, high = 1 - score.high, 1 - score.low
    word: Word = "shown" if high <= bound else "refuted" if low > bound else "open"
    why = {
        "shown": "",
        "refuted": "the forget set is likelier than to gold, known or not",
        "open": f"the interval [{low:.4g}, {high:.4g}] reaches beyond {bound:.3g}",
    }[word]
    rule = f"forget.nll_below_gold <= {bound:.3g} (unlike gold)"
    return Check(rule, word == "shown", 1 - score.value, bound, why, word == "open", implied=True, word=word)


def unseen_holdout(table: Table) -> Check | None:
    """The check on a holdout that gold knows better than the forget set; None where it does not.

    Gold never saw the forget set. A model that knows the holdout better was trained on it, or the two differ by
    themselves: then no membership figure means anything.
    """
    score = table.get(("privacy_loss_auc", "gold"))
    bound = 0.5 - LEAST
    if score is None or score.high is None or score.high >= bound:
        return None
    why = "gold knows the holdout better than the forget set: it was trained on it, or the two differ by themselves"
    rule = f"privacy.loss_auc of gold >= {bound:.3g} (unseen holdout)"
    return Check(rule, False, score.value, bound, why, implied=True, word="refuted")
