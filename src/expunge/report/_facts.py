"""Evidence in order and in words: rows of the table, numbers as text, the lines of the verdict.

The HTML page, the terminal and the model card read evidence through this file, so that all name the
same figure in the same way. Nothing is escaped here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from expunge.ledger.evidence import SECOND_GOLD

Evidence = dict[str, Any]
Score = dict[str, Any]

ROLES = {"before": "Before", "after": "After", "gold": "Retrained (gold)"}
SIDES = {
    "forgetting": "Is it gone?",
    "utility": "Is the rest still there?",
    "privacy": "Can an attacker tell that it was in the training data?",
    "robustness": "Does it come back?",
    "alignment": "Did refusals or fairness move?",
    "cost": "What did it take, compared with retraining?",
}
NOT_REQUESTED = "not requested in this run"
INTERVALS = "Intervals cover examples, not training seeds."
STRADDLES = "the interval contains the bound, so that other examples could have decided otherwise"
HINTS = {
    "forget_nll": "how surprising the forgotten answers are to the model",
    "forget_rouge_l": "share of the true answer's words that the model still writes",
    "forget_accuracy": "share of the forget set that is still classified correctly",
    "retain_nll": "how surprising the retain answers are to the model",
    "retain_probability": "per-token probability of the retain answers",
    "retain_utility": "a single figure for what the model can still do on the retain set",
    "retain_accuracy": "share of the retain set that is classified correctly",
    "test_accuracy": "share of unseen data that is classified correctly",
    "privacy_unseen_auc": "0.5: the forget set lies as near to what was kept as rows that were never seen",
    "privacy_min_k_auc": "membership attack; 0.5 is guessing",
    "robustness_hidden": "knowledge that attacks bring back beyond what they get from gold, on average",
    "robustness_hidden_share": "share of the forget examples that some attack brings back",
    "robustness_hidden_worst": "knowledge that attacks bring back of the worst examples, beyond gold",
    "privacy_worst": "largest difference of a membership attack to what it reaches on gold, either way",
    "forget_nll_above_gold": "chance that a forgotten answer is more surprising than one to gold; 0.5 is gold's own",
    "robustness_relearn_forget": "knowledge that comes back when a few forget examples are taught again",
    "robustness_relearn_forget_steps": "training steps until half of the knowledge is back",
    "alignment_refusal_score": "how often requests of this kind are refused",
    "alignment_answer_accuracy": "share of benign prompts that are answered, correctly where the answer is known",
    "alignment_drift": "largest unintended change of a domain's refusals",
    "alignment_bbq_accuracy": "share of BBQ's questions answered correctly",
    "alignment_bbq_bias": "BBQ's bias score: 0 is no bias, 1 always with the stereotype",
}
LIMITS = (
    "That the data are gone. It shows what these metrics and attacks found on these examples; an "
    "attack that was not run, or a better one, may find more.",
    "The outcome of other training runs: intervals cover examples, not training seeds. "
    "expunge bench --seeds covers those.",
    "Anything about copies: the model before the change, checkpoints, backups, logs, and models "
    "derived from it still know the data, wherever they are.",
    "That the forget set was complete: knowledge that other training data also hold is learned from them.",
    "Legal compliance. It is a measurement, and only as trustworthy as the party that ran it.",
)
MAIN = {
    "forgetting": ("forget_accuracy", "forget_nll"),
    "utility": ("retain_utility", "retain_accuracy", "test_accuracy", "utility_model"),
}
"""The scores that stand for a side where the evidence does not name those of the model's family."""
CERTAIN = ("share", "auc")
NAMES = {
    "min_k_plus_plus_auc": "Min-k++ AUC",
    "tpr_at_1": "TPR at 1 % FPR",
    "tpr_at_01": "TPR at 0.1 % FPR",
    "recall_auc": "ReCaLL AUC",
    "unseen_auc": "Looks seen, beside unseen rows like it (AUC)",
    "unseen_auc_kept": "Looks seen, beside unseen rows of what stays (AUC)",
    "unseen_auc_far": "Looks seen, beside shuffled rows (AUC)",
    "unseen_auc_confidence": "As confident as on unseen rows of what stays (AUC)",
    "privleak": "PrivLeak",
    "quantised_8": "Quantised to 8 bits",
    "quantised_4": "Quantised to 4 bits",
    "multi_hop": "Aliases and multi-hop",
    "true_false": "True or false",
    "lira_auc": "LiRA AUC",
    "rmia_auc": "RMIA AUC",
    "icp_auc": "In-context probing AUC",
    "probed": "Your own probes",
}
"""Names that cannot be derived from the score's key."""
WORDS = {"nll": "NLL", "auc": "AUC", "ks": "KS", "mia": "MIA", "tpr": "TPR", "fpr": "FPR", "ece": "ECE"}


@dataclass
class Row:
    """One line of the table: a score on a split, for each role that has it."""

    side: str
    name: str
    split: str
    unit: str
    better: str
    cells: dict[str, Score] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The score's name in words, with the split where the name does not say it."""
        bare = self.name.removeprefix(f"{self.side}_").replace("rouge_l", "ROUGE-L").replace("rouge_1", "ROUGE-1")
        if bare in NAMES:
            return NAMES[bare]
        words = [WORDS.get(word, word) for word in bare.replace("min_k", "min-k").split("_")]
        text = " ".join(words)
        own = self.name.startswith(f"{self.split}_") or self.split in ("", self.side, "forget")
        return text[:1].upper() + text[1:] + ("" if own else f" · {self.split.replace('_', ' ')}")

    def measured_score(self, role: str) -> Score | None:
        """The role's score, if it was measured."""
        cell = self.cells.get(role)
        return cell if cell and is_measured(cell) else None


def without_figures(rows: list[Row]) -> dict[str, list[Row]]:
    """Reason -> the rows that have no figure for any role, all for that reason: they are told together."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        reasons = {not_measured(cell) for cell in row.cells.values() if not is_measured(cell)}
        if len(reasons) == 1 and not any(map(is_measured, row.cells.values())):
            found.setdefault(reasons.pop(), []).append(row)
    return found


def is_measured(score: Score) -> bool:
    """Whether the score holds a figure."""
    return score.get("status", "measured") == "measured" and score.get("value") is not None


def known_sides(rows: list[Row]) -> list[str]:
    """The six sides in order, then any others that the rows have."""
    return [*SIDES, *dict.fromkeys(row.side for row in rows if row.side not in SIDES)]


def table(evidence: Evidence) -> list[Row]:
    """All scores as rows, in the order of the sides; the cost dict adds costs that are not among the scores."""
    rows: dict[tuple[str, str, str], Row] = {}
    for score in [*(evidence.get("scores") or []), *_cost_scores(evidence)]:
        if score.get("subject") == SECOND_GOLD:  # margins are made of it; it has no column
            continue
        side, name = score.get("side") or "other", score.get("name") or "unnamed"
        split = score.get("split") or ""
        row = rows.setdefault(
            (side, name, split),
            Row(side, name, split, score.get("unit") or "", score.get("better") or ""),
        )
        row.cells.setdefault(score.get("subject") or "after", score)
    order = known_sides(list(rows.values()))
    return sorted(rows.values(), key=lambda row: order.index(row.side))


def _cost_scores(evidence: Evidence) -> Iterator[Score]:
    cost = evidence.get("cost") or {}
    kinds = (
        ("cost_time", "after", "unlearn_seconds", "seconds"),
        ("cost_time", "gold", "gold_seconds", "seconds"),
        ("cost_peak_memory", "after", "peak_memory_bytes", "bytes"),
        ("cost_tokens", "after", "tokens", "count"),
        ("cost_steps", "after", "steps_retrained", "steps"),
        ("cost_steps", "gold", "steps_total", "steps"),
    )
    given = {score.get("name") for score in evidence.get("scores") or []}
    for name, role, key, unit in kinds:
        if cost.get(key) is not None and name not in given and key not in given:
            yield {
                "side": "cost",
                "name": name,
                "subject": role,
                "value": cost[key],
                "unit": unit,
                "better": "lower",
            }


def roles(rows: list[Row]) -> list[str]:
    """The roles of any row, in order; `after` always."""
    seen = {role for row in rows for role in row.cells} | {"after"}
    return [*(s for s in ROLES if s in seen), *sorted(seen - set(ROLES))]


def find(rows: list[Row], name: str) -> Row | None:
    """The first row of that name."""
    return next((row for row in rows if row.name == name), None)


def headline(evidence: Evidence, side: str) -> tuple[str, ...]:
    """The names of the scores that stand for a side, the best first."""
    return tuple((evidence.get("headline") or MAIN)[side])


def main_row(rows: list[Row], side: str, preferred: tuple[str, ...] = ()) -> Row | None:
    """The row that stands for a side: a preferred name, else the first that was measured after."""
    named = [row for name in preferred for row in rows if row.name == name]
    mine = [row for row in rows if row.side == side]
    return next((row for row in [*named, *mine] if row.measured_score("after")), None)


# Numbers


def places(value: float, low: float | None = None, high: float | None = None) -> int:
    """Decimals worth showing: two significant digits of the half-width, or three of the value."""
    size = abs(value)
    if low is not None and high is not None and high > low:
        wanted = 1 - math.floor(math.log10((high - low) / 2))
    elif size == 0:
        return 0
    else:
        wanted = 2 - math.floor(math.log10(size))
    most = 3 - math.floor(math.log10(size)) if size else 4
    return max(0, min(wanted, max(most, 0), 6))


def number(value: float | None, unit: str = "", decimals: int | None = None) -> str:
    """A figure as text: shares with three decimals, durations, sizes, else three digits."""
    if value is None:
        return "–"
    if unit == "seconds":
        return duration(value)
    if unit == "bytes":
        return size(value)
    if unit in ("count", "steps") and float(value).is_integer():
        return f"{value:,.0f}"
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    if unit in CERTAIN:
        return f"{value:.3f}"
    if value and (abs(value) < 1e-4 or abs(value) >= 1e7):
        return f"{value:.1e}"
    if unit == "p-value":
        return f"{value:.3f}" if value >= 1e-3 else f"{value:.1e}"
    return f"{value:,.{places(value)}f}"


def interval(score: Score) -> str:
    """`1.90 to 2.10`; `n = 1` where a single example has no spread; empty where the score has no interval."""
    low, high = score.get("low"), score.get("high")
    if low is None or high is None:
        return f"n = {score['n']}" if "no interval" in str(score.get("why")) and score.get("n") in (0, 1) else ""
    unit = score.get("unit") or ""
    decimals = None if unit in CERTAIN else places(score["value"], low, high)
    return f"{number(low, unit, decimals)} to {number(high, unit, decimals)}"


def figure(score: Score) -> str:
    """The point value, with as many digits as its interval justifies."""
    unit, low, high = score.get("unit") or "", score.get("low"), score.get("high")
    loose = unit in CERTAIN or low is None or high is None
    return number(score["value"], unit, None if loose else places(score["value"], low, high))


def not_measured(score: Score) -> str:
    """The text in place of a missing figure."""
    why = str(score.get("why") or "").strip()
    return f"not measured: {why}" if why else "not measured: no reason given"


def duration(seconds: float) -> str:
    """`0.42 s`, `42 s`, `11 min 3 s`, `1 h 5 min`."""
    if seconds < 100:
        return f"{seconds:.{places(seconds)}f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size(value: float) -> str:
    """Bytes in the unit that leaves one to three digits before the point (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:,.{0 if unit == 'B' else min(places(value), 2)}f} {unit}"
        value /= 1000
    return f"{value:,.{min(places(value), 2)}f} TB"


def against_retraining(evidence: Evidence) -> str:
    """`6.2 %`: this run's seconds as a share of gold's; empty where either is unknown."""
    cost = evidence.get("cost") or {}
    ours, gold = cost.get("unlearn_seconds"), cost.get("gold_seconds")
    if ours is None or not gold:
        return ""
    percent = 100 * ours / gold
    return f"{percent:.{1 if percent < 10 else 0}f} %"


# The verdict


def verdict_word(evidence: Evidence) -> tuple[str, str]:
    """(the verdict in words, its kind: good, bad, warn or none).

    Under `erase` a verdict passes where everything is shown; what fails for want of evidence alone is not shown. Under
    `suppress` a model meets its bar, which says nothing of what is left in the weights.
    """
    verdict = evidence.get("verdict") or {}
    passed, found = verdict.get("passed"), verdict.get("lines") or []
    if passed is None:
        return "NO CRITERIA SET", "none"
    erase = (evidence.get("request") or {}).get("purpose") == "erase"
    if passed:
        warns = any(line.get("warns") for line in found)
        return ("PASSED", "good") if erase else ("MET ITS BAR", "warn" if warns else "good")
    failing = [line for line in found if not line.get("passed") and not line.get("warns")]
    only_open = bool(failing) and all(line.get("word") == "open" for line in failing)
    return ("NOT SHOWN" if only_open else "FAILED"), "bad"


def lines(evidence: Evidence) -> list[dict[str, Any]]:
    """The verdict's lines with `kind` (good, bad, warn, none), `word`, `shown` and `limit` as text."""
    rows = table(evidence)
    result = []
    for line in (evidence.get("verdict") or {}).get("lines") or []:
        rule, passed = str(line.get("rule") or ""), line.get("passed")
        key = re.split(r"[\s<>=:]", rule, maxsplit=1)[0].replace(".", "_", 1)
        domain = (row for row in rows if row.side == "alignment" and f"{row.name}.{row.split}" == key)
        row = find(rows, key.replace(".", "_")) or next(domain, None)
        score = row.measured_score(_read_of(rule)) if row else None
        kind = {True: "good", False: "warn" if line.get("warns") else "bad", None: "none"}[passed]
        shown, limit = _value_and_bound(line.get("value"), line.get("bound"), row.unit if row else "")
        operator = re.search(r"<=|>=|<|>", rule)
        if limit and operator and not isinstance(line.get("bound"), list | tuple | str):
            limit = operator[0].replace("<=", "≤").replace(">=", "≥") + " " + limit
        result.append(
            {
                **line,
                "rule": rule,
                "name": key,
                "row": row,
                "score": score,
                "kind": kind,
                "shown": shown,
                "limit": limit,
                "why": line.get("why") or "",
                "word": line.get("word") or "",
            }
        )
    return result


def _read_of(rule: str) -> str:
    """The model of the figure that a rule bounds: the left side names it where it is not the changed one."""
    left = re.split("[<>=]", rule, maxsplit=1)[0]
    return "before" if left.endswith(" before the change ") else "gold" if left.endswith(" of gold ") else "after"


def _value_and_bound(value: Any, bound: Any, unit: str) -> tuple[str, str]:
    """Value and bound as texts, with enough decimals to differ where the numbers differ."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        shown = "not measured" if value is None else str(value)
    else:
        shown = number(value, unit)
    if bound is None or isinstance(bound, str):
        return shown, bound or ""
    if isinstance(bound, list | tuple):
        return shown, " to ".join(number(item, unit) for item in bound)
    limit = number(bound, unit)
    decimals = 4
    while shown == limit and isinstance(value, int | float) and value != bound and decimals < 12:
        shown, limit = f"{value:.{decimals}f}", f"{bound:.{decimals}f}"
        decimals += 1
    return shown, limit


# The request


def is_redacted(evidence: Evidence) -> bool:
    """Whether forget texts must not be shown: by request, or by default under `erase`."""
    request = evidence.get("request") or {}
    redact = request.get("redact")
    return bool(redact) if redact is not None else request.get("purpose") == "erase"


def model_name(evidence: Evidence) -> str:
    """The request's model as a name or path."""
    model = (evidence.get("request") or {}).get("model")
    if isinstance(model, dict):
        model = model.get("factory") or model.get("path")
    return str(model or "(not named)")


def method_name(evidence: Evidence) -> str:
    """The method in words; empty in an audit."""
    method = evidence.get("method") or (evidence.get("request") or {}).get("method") or ""
    if isinstance(method, dict):
        return ", ".join(f"{key} {value}" for key, value in method.items())
    return str(method)
