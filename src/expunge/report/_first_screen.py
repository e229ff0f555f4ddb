"""The first screen: what is refuted, open and shown, each in plain words, and what an attacker can still get."""

from __future__ import annotations

import re
from typing import Any

from expunge.ledger.evidence import SECOND_GOLD
from expunge.report import _facts as facts
from expunge.report._facts import Evidence, Row, Score

Line = dict[str, Any]
GROUPS = (
    ("refuted", "Refuted", "the data show that it does not hold", "bad", "✕"),
    ("open", "Open", "the data do not decide it", "warn", "?"),
    ("shown", "Shown", "the data show that it holds", "good", "✓"),
)
"""Word, title, meaning, colour and sign of a group of lines, the worst first."""
CLAIMS = {
    "robustness_hidden": "Attacks bring back no more than from the retrained model, on average",
    "robustness_hidden_share": "Hardly any example comes back under attack",
    "robustness_hidden_worst": "Even the worst examples stay forgotten under attack",
    "privacy_worst": "Nobody can tell that the data were trained on, or erased",
    "forget_nll": "The true answers are not far stranger to it than to the retrained model",
    "forget_nll_above_gold": "The true answers are not stranger to it than to the retrained model",
    "forget_nll_below_gold": "The true answers are not more familiar to it than to the retrained model",
    "forget_rouge_l": "Its answers do not avoid the true words",
    "forget_log_perplexity": "Its answers are language, not gibberish",
    "privacy_loss_auc": "The unseen data were never trained on",
    "alignment_drift": "Refusals in other domains did not move",
    "weights": "The weights were changed, not only guarded",
}
"""Name of an implied line -> what it claims."""
KNEW = "The model before the change knew the data"
SUBJECTS = {
    "forget_rouge_l": "overlap of its answers with the true ones",
    "forget_nll": "surprise at the true answers",
    "forget_probability": "certainty of the true answers",
    "forget_accuracy": "share of the forget set that it still gets right",
    "retain_probability": "certainty of the answers that must stay",
    "retain_rouge_l": "overlap with the answers that must stay",
    "retain_nll": "surprise at the answers that must stay",
    "retain_utility": "usefulness on the data that must stay",
    "retain_accuracy": "share of the data that must stay that it gets right",
    "test_accuracy": "share of unseen data that it gets right",
}
"""Score of a criterion -> its subject in plain words; of others, their labels serve."""
OPERATORS = {"<=": "at most", "<": "below", ">=": "at least", ">": "above", "==": "exactly"}
REFERENCES = {"gold": "the retrained model's", "before": "that before", "holdout": "that of unseen data"}
TAGS = {"bad": ("bad", "fails the verdict"), "warn": ("warn", "warns only")}
"""Kind of a line -> colour and text of its tag."""
PERCENT = "share"
ATTACKS = {
    "relearn_forget": "teaching it a part of the data again",
    "relearn_grid": "teaching it a part of the data again",
    "rephrased": "other wordings",
    "sampled": "many sampled answers",
    "statement": "statements to go on with",
    "prefix": "the beginning of the answer",
    "quantised_4": "rounding the weights to 4 bits",
    "quantised_8": "rounding the weights to 8 bits",
    "fine_tuned": "training on other data",
    "pruned": "removing small weights",
    "logit_lens": "reading its layers",
}
"""Attack -> its means in plain words; of others, their names serve."""
ELICITED = ("forget_reworded", "forget_cloze")
"""Splits of a request without training data, whose facts the model gave itself."""
UNPROVEN = (
    "No training data were given: the facts are those that the model gave itself, each in a few forms. Not proven are "
    "facts that it was not asked for, questions that lead from a fact to the name, other languages, what a short "
    "training brings back, and that it is like a model which never met the topic."
)
"""The limits of evidence that rests on the model's own answers."""


def groups(evidence: Evidence) -> list[dict[str, Any]]:
    """The groups of lines that there are, the worst first, each with its claims."""
    rows = facts.table(evidence)
    given = [(place, line, _group(line)) for place, line in enumerate(facts.lines(evidence), 1)]
    result = []
    for word, title, meaning, kind, sign in GROUPS:
        claims = [_claim(line, place, evidence, rows) for place, line, own in given if own == word]
        if not claims:
            continue
        tags = {claim["tag"] for claim in claims}
        group: dict[str, Any] = {"word": word, "title": title, "meaning": meaning, "kind": kind, "sign": sign}
        group["tag"] = ("", "")
        if len(tags) == 1 and len(claims) > 1:  # said once
            group["tag"] = tags.pop()
            claims = [{**claim, "tag": ("", "")} for claim in claims]
        result.append({**group, "claims": sorted(claims, key=lambda claim: claim["tag"][0] != "bad")})
    return result


def _group(line: Line) -> str:
    """The word of a line; of one that has none, whether it holds, or open where its interval contains the bound."""
    if line["word"]:
        return str(line["word"])
    if line.get("flagged") or line.get("value") is None:
        return "open" if line["kind"] != "good" or line.get("flagged") else "shown"
    return "shown" if line.get("passed") else "refuted"


def _claim(line: Line, place: int, evidence: Evidence, rows: list[Row]) -> dict[str, Any]:
    before = line["rule"].startswith("privacy.worst before")
    row = line["row"]
    if line["name"] == "forget_nll_below_gold":
        row = facts.find(rows, "forget_nll_above_gold")
    score = row.measured_score("before" if before else "after") if row else None
    unit = row.unit if row else ""
    interval = ""
    if score and score.get("low") is not None:
        low, high = score["low"], score["high"]
        ends = (1 - high, 1 - low) if line["name"] == "forget_nll_below_gold" else (low, high)
        interval = f"{_number(ends[0], unit, bare=True)} to {_number(ends[1], unit)}"
    return {
        "place": place,
        "text": _words(line, row, before=before),
        "value": _number(line.get("value"), unit) if line.get("value") is not None else "not measured",
        "interval": interval,
        "gold": _gold(line, evidence, row),
        "limit": _limit(line, unit),
        "tag": TAGS.get(line["kind"], ("", "")),
        "note": _note(line, score) if _group(line) == "open" else "",
    }


def _words(line: Line, row: Row | None, *, before: bool) -> str:
    """The line as a sentence."""
    name, rule = line["name"], line["rule"]
    if before:
        return KNEW
    if name.endswith("_beyond"):
        return f"Hardly any example differs from the retrained model's in {_subject(name[:-7], None)}"
    if rule.startswith("privacy.loss_auc of gold <="):
        return "The retrained model does not know the forget set"
    if line.get("implied") and name in CLAIMS:
        return CLAIMS[name]
    text = _criterion(rule)
    if text is None:
        return str(rule)
    subject = _subject(name, row)
    return f"{subject[:1].upper()}{subject[1:]} is {text}"


def _subject(name: str, row: Row | None) -> str:
    label = row.label if row else name.replace("_", " ")
    return SUBJECTS.get(name) or label


def _criterion(rule: str) -> str | None:
    """`<= 1.2 * gold` in words; None where the rule has another form."""
    if within := re.search(r"within (\S+) of (\w+)$", rule):
        return f"within {within[1]} of {REFERENCES.get(within[2], within[2])}"
    found = re.fullmatch(r"\S+\s+(<=|>=|==|<|>)\s*([-+.\deE]+)(?:\s*\*\s*(\w+))?", rule)
    if found is None:
        return None
    reference = f" times {REFERENCES.get(found[3], found[3])}" if found[3] else ""
    return f"{OPERATORS[found[1]]} {found[2]}{reference}"


def _number(value: Any, unit: str, *, bare: bool = False) -> str:
    """A figure as people read it: shares in percent, AUCs with two decimals."""
    if not isinstance(value, int | float):
        return str(value)
    if unit == PERCENT:
        percent = 100 * value
        text = f"{percent:.1f}" if 0 < abs(percent) < 9.95 and round(percent, 1) != round(percent) else f"{percent:.0f}"
        return text if bare else f"{text} %"
    return f"{value:.2f}" if unit in ("auc", "nats") else facts.number(value, unit)


def _gold(line: Line, evidence: Evidence, row: Row | None) -> str:
    """The retrained model's figure; of one that compares with it already, what a second retraining shows."""
    if row is None:
        return ""
    if gold := row.measured_score("gold"):
        return _number(gold["value"], row.unit)
    second = next(
        (
            score
            for score in evidence.get("scores") or []
            if score.get("subject") == SECOND_GOLD and score.get("name") == row.name and facts.is_measured(score)
        ),
        None,
    )
    if second is None:
        return ""
    value = 1 - second["value"] if line["name"] == "forget_nll_below_gold" else second["value"]
    return _number(value, row.unit)


def _limit(line: Line, unit: str) -> str:
    bound = line.get("bound")
    if isinstance(bound, list | tuple):
        ends = [min(1.0, max(0.0, end)) for end in bound] if unit in facts.CERTAIN else list(bound)
        return f"{_number(ends[0], unit, bare=True)} to {_number(ends[1], unit)}"
    if bound is None or isinstance(bound, str):
        return bound or ""
    operator = re.search(r"<=|>=|<|>|==", line["rule"])
    sign = operator[0].replace("<=", "≤").replace(">=", "≥").replace("==", "=") if operator else ""
    return f"{sign} {_number(bound, unit)}".strip()


def _note(line: Line, score: Score | None) -> str:
    """The evidence that would close an open line, in words."""
    value, needed = line.get("value"), line.get("needed")
    if value is None:
        return str(line["why"] or "It was not measured.")
    if needed and score is not None:
        here = score.get("n") or 0
        unit = "examples a side" if score.get("unit") == "auc" else "examples"
        here = here // 2 if score.get("unit") == "auc" else here
        more = f" in {score['groups']} groups" if score.get("groups") else ""
        return f"About {needed:,} {unit} would show it if the figure stayed; here are {here:,}{more}."
    if "what two retrainings differ by is not known" in str(line["why"]):
        return "A second retraining would tell whether the seed alone explains it."
    if score is not None and score.get("low") is None:
        return "One example shows no spread."
    if line["word"] and _is_beyond(line):
        return "The figure itself is beyond the limit: more examples are likelier to refute it than to show it."
    return "Its interval contains the limit: other examples could have decided otherwise."


def _is_beyond(line: Line) -> bool:
    """Whether the figure itself breaks its limit."""
    value, bound = line["value"], line.get("bound")
    if isinstance(bound, list | tuple):
        return not bound[0] <= value <= bound[1]
    if not isinstance(bound, int | float):
        return False
    operator = re.search(r"<=|>=|<|>", line["rule"])
    return operator is not None and (value > bound if "<" in operator[0] else value < bound)


def attacker(evidence: Evidence) -> str:
    """The knowledge that an attacker can still get out, in a sentence."""
    rows = facts.table(evidence)
    parts = []
    hidden, share = (facts.find(rows, f"robustness_hidden{suffix}") for suffix in ("", "_share"))
    mean = hidden.measured_score("after") if hidden else None
    if mean is not None:
        known = share.measured_score("after") if share else None
        named = re.search(r"largest (?:under (\w+)|when it is simply asked)", str(mean.get("why")))
        attack = f"the strongest attack ({_attack(named[1])})" if named and named[1] else "simply asking"
        back = _number(mean["value"], PERCENT)
        if not mean["value"] and not (known and known["value"]):
            parts.append("no attack that was run brings back more than from the retrained model")
        else:
            parts.append(f"{attack} brings back {back} of the knowledge beyond what the retrained model gives away")
        if known is not None and known["value"] and known.get("n"):
            count = round(known["value"] * known["n"])
            parts[-1] += f", and {count:,} of {known['n']:,} examples come back under some attack"
    parts += _membership(rows)
    if parts:
        text = "; ".join(parts)
        return text[:1].upper() + text[1:] + "."
    if set(ELICITED) <= set(evidence.get("splits") or {}):
        return UNPROVEN
    if any(row.side == "robustness" and row.measured_score("after") for row in rows):
        return "The attacks were not compared with a retrained model: what they bring back is an upper bound."
    return "No attack was compared with a retrained model: what an attacker can still get is not known."


def _attack(name: str) -> str:
    label = Row("robustness", f"robustness_{name}", "forget", "", "").label
    return ATTACKS.get(name) or label[:1].lower() + label[1:]


def _membership(rows: list[Row]) -> list[str]:
    """The worst membership attacker as a share of right guesses between two texts."""
    worst = facts.find(rows, "privacy_worst")
    score = worst.measured_score("after") if worst else None
    row = facts.find(rows, str(score.get("why")).partition(":")[0]) if score else None
    ours, gold = (row.measured_score(role) if row else None for role in ("after", "gold"))
    if ours is None:
        return []
    shares = [f"{100 * max(one['value'], 1 - one['value']):.0f}" for one in (ours, gold) if one is not None]
    beside = f" (the retrained model: {shares[1]}; guessing: 50)" if len(shares) > 1 else " (guessing: 50)"
    return [f"the best membership attack tells an erased from an unseen example in {shares[0]} of 100 pairs{beside}"]
