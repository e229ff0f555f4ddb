"""The evidence as a paragraph: what was forgotten, what it cost, and what remains open."""

from __future__ import annotations

from typing import Any

from expunge.report import _facts as facts
from expunge.report._facts import Evidence, Row, Score


def summary(evidence: Evidence) -> list[str]:
    """Sentences that the figures support."""
    rows = facts.table(evidence)
    result = [_opening(evidence, rows), _refusals(evidence, rows)]
    forget = facts.main_row(rows, "forgetting", facts.headline(evidence, "forgetting"))
    if forget:
        result.append(_change(forget, _naming(forget)) + _against_gold(forget))
    rouge = facts.find(rows, "forget_rouge_l")
    if rouge and rouge is not forget and rouge.measured_score("after"):
        result.append(_change(rouge, "the overlap of its answers with the true ones (ROUGE-L)"))
    utility = facts.main_row(rows, "utility", facts.headline(evidence, "utility"))
    if utility:
        result.append(_change(utility, _naming(utility)) + _share_kept(utility) + _against_gold(utility))
    privacy = facts.main_row(rows, "privacy", ("privacy_min_k_auc",))
    if privacy and privacy.unit == "auc":
        after = privacy.cells["after"]
        gold = privacy.measured_score("gold")
        compared = f" on this model and {facts.figure(gold)} on the retrained one" if gold else ""
        result.append(f"A membership attack ({privacy.label}; 0.5 is guessing) reaches {facts.figure(after)}{compared}")
    result.append(_cost(evidence))
    return [_sentence(text) for text in result if text]


HIDDEN = ("robustness_hidden", "robustness_hidden_share", "robustness_hidden_worst")
FINDINGS = {
    "robustness_hidden": "the knowledge that attacks bring back on average",
    "robustness_hidden_share": "the share of examples known again under attack",
    "robustness_hidden_worst": "the knowledge of the worst examples under attack",
    "privacy_worst": "what the worst membership attacker can tell",
    "forget_nll_above_gold": "the distribution of the forgotten answers' NLL",
}
"""Score of an implied line -> its subject in words."""


def proof(evidence: Evidence) -> list[str]:
    """Sentences on what the verdict shows, what it refutes and what it leaves open; none without a verdict."""
    verdict = evidence.get("verdict") or {}
    lines = facts.lines(evidence)
    if verdict.get("passed") is None and not any(line["word"] for line in lines):
        return []
    result = [_erasure(evidence, lines)] if verdict.get("passed") is not None else []
    for word, title in (("shown", "Shown"), ("refuted", "Refuted"), ("open", "Open")):
        named = dict.fromkeys(_finding(line) for line in lines if line["word"] == word)
        if named:
            result.append(f"{title}: {'; '.join(named)}")
    return [_sentence(text) for text in result]


def _erasure(evidence: Evidence, lines: list[dict[str, Any]]) -> str:
    """The verdict in a sentence: suppressed or erased."""
    word, _ = facts.verdict_word(evidence)
    if word == "PASSED":
        return "Erasure is shown: every claim holds against a model retrained without the data, uncertainty included"
    if word == "NOT SHOWN":
        return "Erasure is not shown: nothing is refuted, and the evidence does not suffice"
    opening = "The model met the bar of its request" if word == "MET ITS BAR" else "The verdict failed"
    if evidence.get("yields") == "guard":
        return f"{opening}; the data are suppressed, not erased: the weights are unchanged"
    hidden = {line["name"]: line["word"] for line in lines if line["name"] in HIDDEN}
    if "refuted" in hidden.values():
        return f"{opening}; the data are suppressed, not erased: attacks bring knowledge back"
    if not hidden:
        return f"{opening}; the data count as suppressed: attacks were not compared with a model retrained without them"
    if len(hidden) == len(HIDDEN) and set(hidden.values()) == {"shown"}:
        opening = "The verdict failed on other grounds" if word == "FAILED" else opening
        return f"{opening}; these attacks bring back no more than from a model retrained without the data"
    return f"{opening}; the data count as suppressed: that no attack brings them back is not shown"


def _finding(line: dict[str, Any]) -> str:
    subject = FINDINGS.get(line["name"], line["rule"])
    limit = f", bound {line['limit']}" if line["limit"] and line["name"] in FINDINGS else ""
    return f"{subject} ({line['shown']}{limit})"


def _refusals(evidence: Evidence, rows: list[Row]) -> str:
    """For a request on refusals: how the target's refusal score moved, and the worst of the others."""
    page = evidence.get("alignment") or {}
    target, drift = page.get("target"), facts.find(rows, "alignment_drift")
    mine = next((row for row in page.get("drift") or [] if row["domain"] == target), None)
    if mine is None:
        return ""
    verb = "rose" if mine["change"] > 0 else "fell" if mine["change"] < 0 else "stayed"
    text = (
        f"the refusal score of {str(target).replace('_', '-')} {verb} from {mine['before']:.2f} to {mine['after']:.2f}"
    )
    if drift and (cell := drift.measured_score("after")):
        text += f"; among the domains outside the request, the worst moved by {facts.figure(cell)}"
    return text


def left_open(evidence: Evidence) -> list[str]:
    """Sentences on what these figures leave open."""
    rows = facts.table(evidence)
    result = []
    if not any(row.measured_score("gold") for row in rows if row.side != "cost"):
        result.append(
            "No retrained model was measured, so it cannot be concluded that this model behaves as if it had never "
            "seen the data"
        )
    open_sides = {
        "forgetting": "whether the data are forgotten",
        "utility": "what the change cost in utility",
        "privacy": "whether membership can still be inferred",
        "robustness": "whether the knowledge comes back under relearning or other prompts",
        "alignment": "whether refusals or fairness moved",
    }
    missing = [
        text
        for side, text in open_sides.items()
        if not any(row.measured_score("after") for row in rows if row.side == side)
    ]
    if missing:
        listed = ", ".join(missing[:-1]) + " and " * (len(missing) > 1) + missing[-1]
        result.append(f"This run did not measure {listed}")
    if not any(row.measured_score("before") for row in rows) and rows:
        result.append("The model before the change was not measured, so no change can be reported")
    return [_sentence(text) for text in result]


def _opening(evidence: Evidence, rows: list[Row]) -> str:
    model, method = facts.model_name(evidence), facts.method_name(evidence)
    mine = [row for row in rows if row.side == "forgetting" and row.split == "forget"]
    counts = [cell["n"] for row in mine for cell in row.cells.values() if cell.get("n")]
    what = f"{max(counts):,} examples" if counts else "the forget set"
    purpose = (evidence.get("request") or {}).get("purpose")
    aim = f" (purpose: {purpose})" if purpose else ""
    if not method:
        return f"The model {model} was audited for {what}{aim}"
    return f"The model {model} was changed by {method} to forget {what}{aim}"


def _naming(row: Row) -> str:
    names = {
        "forget_nll": "the NLL of the forgotten answers",
        "forget_accuracy": "accuracy on the forget set",
        "retain_utility": "utility on the retain set",
        "retain_accuracy": "accuracy on the retain set",
        "test_accuracy": "accuracy on unseen data",
    }
    return names.get(row.name) or row.label[:1].lower() + row.label[1:]


def _change(row: Row, what: str) -> str:
    after, before = row.cells["after"], row.measured_score("before")
    unit = " nats per token" if row.unit == "nats" and row.name == "forget_nll" else ""
    if before is None:
        return f"{what} is {facts.figure(after)}{unit}"
    start, end = facts.figure(before), facts.figure(after)
    if start == end:
        return f"{what} stayed at {end}{unit}"
    verb = "rose" if after["value"] > before["value"] else "fell"
    return f"{what} {verb} from {start} to {end}{unit}"


def _share_kept(row: Row) -> str:
    before, after = row.measured_score("before"), row.cells["after"]
    if before is None or row.unit != "share" or not before["value"]:
        return ""
    return f" ({100 * after['value'] / before['value']:.0f} % of before)"


def _against_gold(row: Row) -> str:
    gold, after = row.measured_score("gold"), row.cells["after"]
    if gold is None:
        return ""
    text = f"; a model retrained without the data reaches {facts.figure(gold)}"
    side = _apart(after, gold)
    if side is None:
        return text
    if side == 0:
        return text + ", and the intervals overlap (compatible, though no proof of equality)"
    if row.side == "forgetting":
        beyond = (side > 0) == (row.name.endswith("nll") or row.better == "higher")
        if beyond:
            return text + ", and going that far beyond it is over-forgetting, which leaves a trace of its own"
        return text + ", so the data are less forgotten than there"
    return text + f"; this one is {'above' if side > 0 else 'below'} it, and the intervals do not overlap"


def _apart(after: Score, gold: Score) -> int | None:
    """1 or -1 where the intervals do not overlap, 0 where they do, None without intervals."""
    ends = [after.get("low"), after.get("high"), gold.get("low"), gold.get("high")]
    if any(end is None for end in ends):
        return None
    if after["low"] > gold["high"]:
        return 1
    return -1 if after["high"] < gold["low"] else 0


def _cost(evidence: Evidence) -> str:
    cost = evidence.get("cost") or {}
    seconds = cost.get("unlearn_seconds")
    if seconds is None:
        return ""
    share = facts.against_retraining(evidence)
    compared = f", {share} of the {facts.duration(cost['gold_seconds'])} that retraining took" if share else ""
    return f"It took {facts.duration(seconds)}{compared}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
