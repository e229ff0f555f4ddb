"""The checks that a comparison with gold can show anything at all; under `erase` alone.

A model that never knew the forget set, a destroyed model and a holdout of training data all agree with gold in the
figures of forgetting and privacy.
"""

from __future__ import annotations

from expunge.evaluation.acceptance import Check, Purpose, Table
from expunge.evaluation.comparison import Word
from expunge.evaluation.margins import LEAST, MOST, margin
from expunge.evaluation.sample_size import examples_needed
from expunge.evaluation.scores import PERPLEXITY

DRAWN = "retain_concept_rate"
STRANGE = 1.5
"""Factor on the upper end of gold's forget NLL, above which answers are gibberish to gold."""


def plausibility_checks(table: Table, purpose: Purpose) -> list[Check]:
    """The checks on these scores, by (name, role)."""
    if purpose != "erase":
        return []
    checks = [
        known_before(table),
        nll_below_gold(table),
        unseen_holdout(table),
        unseen_forget_set(table),
        fluent_answers(table),
        recognised_others(table),
    ]
    return [check for check in checks if check is not None]


def known_before(table: Table) -> Check | None:
    """The check that the worst membership attacker refutes the model before the change.

    Otherwise nothing shows that the forget set was in it, and a model that was never changed would pass. None without
    membership figures of the changed model: `implied.worst_attacker` is open then.
    """
    score, second = table.get(("privacy_worst", "before")), table.get(("privacy_worst", "second_gold"))
    bound = min(MOST, margin(0.0, None if second is None else second.value))
    if score is None or score.value is None or score.low is None or score.high is None:
        after = table.get(("privacy_worst", "after"))
        if after is None or not after.measured:
            return None
        rule = f"privacy.worst before the change > {bound:.3g} (something to forget)"
        why = "the model before the change was not read: nothing shows that it knew the forget set"
        return Check(rule, False, None, bound, why, implied=True, word="open")
    word: Word = "shown" if score.low > bound else "refuted" if score.high <= bound else "open"
    why = "" if word == "shown" else f"nothing shows that the model before the change knew the forget set: {score.why}"
    rule, open_ = f"privacy.worst before the change > {bound:.3g} (something to forget)", word == "open"
    needed = examples_needed(score, score.value - score.low, score.value - bound) if open_ else None
    return Check(rule, word == "shown", score.value, bound, why, open_, implied=True, word=word, needed=needed)


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
    rule, open_ = f"forget.nll_below_gold <= {bound:.3g} (unlike gold)", word == "open"
    needed = examples_needed(score, score.value - score.low, bound - (1 - score.value)) if open_ else None
    return Check(rule, word == "shown", 1 - score.value, bound, why, open_, implied=True, word=word, needed=needed)


def fluent_answers(table: Table) -> Check | None:
    """The check that gold does not find the model's own answers far more surprising than the true ones, which it never
    saw; None where answers were not read by gold.

    Gibberish is no forgetting. The bound is that of `implied.over_forgetting`.
    """
    score, gold = table.get((PERPLEXITY, "after")), table.get(("forget_nll", "gold"))
    if score is None or gold is None or gold.value is None:
        return None
    bound = STRANGE * (gold.value if gold.high is None else gold.high)
    rule = f"forget.log_perplexity <= {STRANGE} * upper end of gold's forget.nll (gibberish)"
    if score.value is None or score.low is None or score.high is None:
        return Check(rule, False, score.value, bound, score.why, implied=True, word="open")
    word: Word = "shown" if score.high <= bound else "refuted" if score.low > bound else "open"
    why = {
        "shown": "",
        "refuted": "gibberish: gold finds the answers far stranger than the true ones, which it never saw",
        "open": f"the interval [{score.low:.4g}, {score.high:.4g}] reaches beyond {bound:.3g}",
    }[word]
    needed = examples_needed(score, score.high - score.value, bound - score.value) if word == "open" else None
    return Check(rule, word == "shown", score.value, bound, why, word == "open", implied=True, word=word, needed=needed)


def recognised_others(table: Table) -> Check | None:
    """The check that the pictures of the other classes are recognised as often as gold's; None of what draws none.

    Noise is no forgetting.
    """
    score, gold = table.get((DRAWN, "after")), table.get((DRAWN, "gold"))
    if score is None or gold is None or gold.value is None:
        return None
    second = table.get((DRAWN, "second_gold"))
    bound = gold.value - min(MOST, margin(gold.value, None if second is None else second.value))
    rule = f"retain.concept_rate >= {bound:.3g} (the other classes are drawn)"
    if score.value is None or score.low is None or score.high is None:
        return Check(rule, False, score.value, bound, score.why, implied=True, word="open")
    word: Word = "shown" if score.low >= bound else "refuted" if score.high < bound else "open"
    why = {
        "shown": "",
        "refuted": "destroyed: the other classes are no longer drawn as gold draws them",
        "open": f"the interval [{score.low:.4g}, {score.high:.4g}] reaches below {bound:.3g}",
    }[word]
    needed = examples_needed(score, score.value - score.low, score.value - bound) if word == "open" else None
    return Check(rule, word == "shown", score.value, bound, why, word == "open", implied=True, word=word, needed=needed)


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


def unseen_forget_set(table: Table) -> Check | None:
    """The check on a forget set that gold knows better than the holdout; None where it does not.

    A retraining knows it where other training data hold the same facts in another form: what is left of those in the
    changed model then counts as gold's.
    """
    score = table.get(("privacy_loss_auc", "gold"))
    bound = 0.5 + LEAST
    if score is None or score.low is None or score.low <= bound:
        return None
    why = (
        "gold knows the forget set better than the holdout: other training data hold it too, or the two differ by "
        "themselves"
    )
    rule = f"privacy.loss_auc of gold <= {bound:.3g} (unseen forget set)"
    return Check(rule, False, score.value, bound, why, implied=True, word="refuted")
