"""The checks that a purpose implies, whether or not the request names them.

Each holds a score, with its whole interval, against a bound: shown below it, refuted above it, else open. Under
`suppress` shown and open pass and refuted warns; under `erase` shown alone passes, and what is not measured is open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from expunge.evaluation.acceptance import Check, Purpose, Table, missing
from expunge.evaluation.comparison import Word, difference, word_for
from expunge.evaluation.margins import MOST, margin
from expunge.evaluation.plausibility import plausibility_checks
from expunge.evaluation.sample_size import examples_needed
from expunge.evaluation.scores import Score
from expunge.ledger.evidence import SECOND_GOLD

UNCHANGED = Check("weights changed", False, why="weights unchanged: suppression, not erasure", implied=True)
"""The check of every guard."""
CONTROL = "robustness_relearn_forget"
"""The attack without which nothing counts as erased."""
LEARNED = 0.1
"""Share of what there was to learn of the taught examples, from which that attack is one."""
MAX_OVER_FORGETTING = 1.5
"""Factor on the upper end of the yardstick's NLL, above which a model has forgotten more than it was taught."""
KNOWN_AGAIN = 0.3
"""Gap to gold, in shares of the knowledge, beyond which one example counts as known again."""
MAX_SHARE = 0.05
"""Share of single examples that may differ from gold: Wilson's interval stays below it from 73 examples without one."""
UNMEASURED_NOISE = 0.25
"""Share of single examples by which two retrainings may differ where that was not measured; beyond it a line is
refuted. It shows nothing: without a second gold the bound itself has no allowance."""
MAX_WORST = 0.5
"""Bound of the worst examples' mean gap, however far two retrainings differ there: half of the knowledge."""


def implied_checks(table: Table, purpose: Purpose) -> list[Check]:
    """The implied checks on these scores, by (name, role), in the order of the report."""
    checks = [
        hidden_mean(table, purpose),
        hidden_share(table, purpose),
        hidden_worst(table, purpose),
        worst_attacker(table, purpose),
        over_forgetting(table, purpose),
        nll_above_gold(table, purpose),
        rouge_below_gold(table, purpose),
        *(beyond(name, table, purpose) for name, role in table if role == "after" and name.endswith("_beyond")),
        *plausibility_checks(table, purpose),
    ]
    return [check for check in checks if check is not None]


def hidden_mean(table: Table, purpose: Purpose) -> Check | None:
    """The check on the largest mean gap to gold over all attacks; under `erase` it needs the relearning attack."""
    bound = _margin(0.0, _value(table, "robustness_hidden", SECOND_GOLD))
    rule = f"robustness.hidden <= {bound:.3g} (hidden, not removed)"
    score = table.get(("robustness_hidden", "after"))
    controls = [table.get((CONTROL, role)) for role in ("after", "gold")]
    if purpose == "erase" and not all(control is not None and control.measured for control in controls):
        reasons = [control.why for control in controls if control is not None and not control.measured]
        why = reasons[0] if reasons else ("no gold model was attacked" if controls[0] else "audit: none was asked for")
        why = f"erasure needs the relearning check against gold, and it was not made: {why}"
        return Check(rule, False, score.value if score else None, bound, why, implied=True, word="open")
    learned = table.get((f"{CONTROL}_learned", "after"))
    if purpose == "erase" and learned is not None and (learned.value or 0.0) < LEARNED:
        gained = "it diverged" if learned.value is None else f"{learned.value:.2g} of what there was to learn"
        why = f"the relearning attack did not even learn what it was taught: {gained}; its learning rate is too low"
        return Check(rule, False, score.value if score else None, bound, why, implied=True, word="open")
    return _below(rule, score, "robustness_hidden", purpose, bound, refuted="hidden, not removed")


def hidden_share(table: Table, purpose: Purpose) -> Check | None:
    """The check on the share of examples that some attack brings back."""
    second = _value(table, "robustness_hidden_share", SECOND_GOLD)
    bound = MAX_SHARE + min(MAX_SHARE, second or 0.0)
    limit = bound if second is not None else MAX_SHARE + UNMEASURED_NOISE
    rule = f"robustness.hidden_share <= {bound:.3g} (examples known again)"
    score = table.get(("robustness_hidden_share", "after"))
    return _below(
        rule, score, "robustness_hidden_share", purpose, bound, limit, refuted="single examples are known again"
    )


def hidden_worst(table: Table, purpose: Purpose) -> Check | None:
    """The check on the examples that attacks bring back best; never refuted without a second gold."""
    second = _value(table, "robustness_hidden_worst", SECOND_GOLD)
    bound = min(MAX_WORST, KNOWN_AGAIN + (second or 0.0))
    rule = f"robustness.hidden_worst <= {bound:.3g} (the worst examples)"
    score = table.get(("robustness_hidden_worst", "after"))
    limit = math.inf if second is None else bound
    return _below(
        rule, score, "robustness_hidden_worst", purpose, bound, limit, refuted="the worst examples are known again"
    )


def worst_attacker(table: Table, purpose: Purpose) -> Check | None:
    """The check on the largest difference of a membership attack's AUC to gold's, either way."""
    bound = _margin(0.0, _value(table, "privacy_worst", SECOND_GOLD))
    rule = f"privacy.worst <= {bound:.3g} (membership can be told)"
    score = table.get(("privacy_worst", "after"))
    return _below(rule, score, "privacy_worst", purpose, bound, refuted="membership can be told, unlike in gold")


def over_forgetting(table: Table, purpose: Purpose) -> Check | None:
    """The check on a forget_nll far above that of a model which never saw the data; None without a yardstick.

    The bound is 1.5 times the upper end of gold's forget_nll, else of holdout_nll before the change, else (in an audit)
    after it. The last comes last because a method that destroys the model drags the holdout along with the forget set,
    and the two then look alike. A forget_nll that is not measured (the model has diverged) fails.
    """
    score = table.get(("forget_nll", "after"))
    if score is None:
        return None
    if score.value is None:
        rule = "forget.nll measured (over-forgetting)"
        return Check(rule, False, why=missing("forget_nll", "after", score), implied=True)
    yardsticks = {
        "gold": ("forget_nll", "gold"),
        "holdout before the change": ("holdout_nll", "before"),
        "holdout": ("holdout_nll", "after"),
    }
    for of, key in yardsticks.items():
        against = table.get(key)
        if against is None or against.value is None:
            continue
        bound = MAX_OVER_FORGETTING * (against.value if against.high is None else against.high)
        rule = f"forget.nll <= {MAX_OVER_FORGETTING} * upper end of {of} (over-forgetting)"
        refuted = (
            f"over-forgotten: far above {of}, which itself tells an attacker what was erased, or the model is destroyed"
        )
        return _below(rule, score, "forget_nll", purpose, bound, refuted=refuted)
    return None


def nll_above_gold(table: Table, purpose: Purpose) -> Check | None:
    """The check on the chance that a forget example's NLL exceeds one of gold's: 0.5 where they are distributed alike.

    It sees a shift that the factor on the mean allows, for example between 2.6 and 4.5 nats. A distance of 0.1 from 0.5
    is a shift by a third of a standard deviation.
    """
    second = _value(table, "forget_nll_above_gold", SECOND_GOLD)
    bound = 0.5 + _margin(0.5, second)
    rule = f"forget.nll_above_gold <= {bound:.3g} (over-forgetting)"
    score = table.get(("forget_nll_above_gold", "after"))
    if score is None:
        return None
    refuted = "over-forgotten: the forget set is less likely than to gold, which tells an attacker what was erased"
    return _below(rule, score, "forget_nll_above_gold", purpose, bound, refuted=refuted)


def rouge_below_gold(table: Table, purpose: Purpose) -> Check | None:
    """The check on answers that overlap with the true ones less than gold's do; None where either was not measured."""
    score, gold = table.get(("forget_rouge_l", "after")), table.get(("forget_rouge_l", "gold"))
    if score is None or gold is None or not score.measured or not gold.measured:
        return None
    second = _value(table, "forget_rouge_l", SECOND_GOLD)
    allowed = _margin(gold.value, second)
    apart = difference(score, gold, 1.0, table.get(("forget_rouge_l_gap", "after")))
    shifted = apart._replace(**{end: x + allowed for end, x in apart._asdict().items() if x is not None})
    word = word_for(">=", shifted)
    rule = f"forget.rouge_l >= gold - {allowed:.3g} (over-forgetting)"
    refuted = "over-forgotten: the answers avoid the true words, which gold's do not"
    why = refuted if word == "refuted" else _straddling(apart.low, apart.high, -allowed) if word == "open" else ""
    bound, open_ = (gold.value or 0.0) - allowed, word == "open"
    half = None if apart.low is None else apart.value - apart.low
    needed = examples_needed(score, half, apart.value + allowed) if open_ else None
    return Check(rule, _passes(word, purpose), score.value, bound, why, open_, implied=True, word=word, needed=needed)


def beyond(name: str, table: Table, purpose: Purpose) -> Check | None:
    """The check on the share of examples whose own figure is far from gold's; under `erase` alone."""
    if purpose != "erase":
        return None
    second = _value(table, name, SECOND_GOLD)
    bound = MAX_SHARE + min(UNMEASURED_NOISE, second or 0.0)
    limit = bound if second is not None else MAX_SHARE + UNMEASURED_NOISE
    rule = f"{name.replace('_', '.', 1)} <= {bound:.3g} (examples unlike gold's)"
    score = table.get((name, "after"))
    return _below(rule, score, name, purpose, bound, limit, refuted="single examples differ from gold")


def _below(
    rule: str,
    score: Score | None,
    name: str,
    purpose: Purpose,
    bound: float,
    limit: float | None = None,
    *,
    refuted: str,
) -> Check | None:
    """Hold a score against an upper bound; None under `suppress` where it is not measured.

    limit: the bound above which the check is refuted, where that is not `bound`. refuted: the finding in words.
    """
    if score is None or score.value is None:
        if purpose != "erase":
            return None
        return Check(rule, False, None, bound, missing(name, "after", score), implied=True, word="open")
    word: Word = "open"
    if score.high is not None and score.high <= bound:
        word = "shown"
    elif (score.value if score.low is None else score.low) > (limit or bound):
        word = "refuted"
    reason = refuted if word == "refuted" else _straddling(score.low, score.high, bound) if word == "open" else ""
    why = ": ".join(filter(None, [reason, score.why]))
    flagged = score.low is not None and score.high is not None and score.low < bound < score.high
    half = None if score.high is None else score.high - score.value
    needed = examples_needed(score, half, bound - score.value) if word == "open" else None
    return Check(rule, _passes(word, purpose), score.value, bound, why, flagged, implied=True, word=word, needed=needed)


def _passes(word: Word, purpose: Purpose) -> bool:
    return word == "shown" if purpose == "erase" else word != "refuted"


def _straddling(low: float | None, high: float | None, bound: float) -> str:
    if low is None or high is None:
        return "one example does not show a spread"
    if low <= bound < high:
        return f"the interval [{low:.4g}, {high:.4g}] reaches beyond {bound:.3g}"
    return f"what two retrainings differ by is not known, and [{low:.4g}, {high:.4g}] may be that"


def _margin(gold: float | None, second: float | None) -> float:
    """The margin of a share or an AUC, given gold's and the second gold's."""
    return min(MOST, margin(gold, second))


def _value(table: Mapping[Any, Score], name: str, role: str) -> float | None:
    score = table.get((name, role))
    return score.value if score is not None else None
