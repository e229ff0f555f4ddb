"""Forget in a dialogue (RePAIR, arXiv:2604.12820): intent, repair plan, confirmation, change, evidence."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import binom

from expunge.core.card import Example
from expunge.core.contracts import Reporter
from expunge.core.errors import BadInput, did_you_mean
from expunge.core.request import Request
from expunge.data.examples import answer_of, question_of
from expunge.data.load import load
from expunge.pipeline.worlds import package_of
from expunge.workflows._elicitation import Elicited, elicit
from expunge.workflows.run import Run, run

VERBS = (
    "forget",
    "unlearn",
    "erase",
    "delete",
    "remove",
    "drop",
    "purge",
    "wipe",
    "scrub",
    "expunge",
    "stop talking about",
    "stop knowing",
    "stop mentioning",
    "never mention",
    "never talk about",
    "don't mention",
    "do not mention",
    "don't talk about",
    "do not talk about",
)
FILLER = (
    r"(?:please|now|just|kindly|all|any|everything|anything|whatever|what|of|the|your|every|information|knowledge|data|"
    r"facts|details|memory|memories|records?|that|you|know|knew|learn(?:ed|t)|remember|have|stored|there is|about|"
    r"regarding|concerning|related to|on|from)"
)
ASKS = re.compile(
    rf"^(?:(?:please|can|could|would|will|you|i|want|need|like|to|us|we|ask|have|'d|must|should|"
    r"the model|it|let's)\s+)*"
    rf"(?P<verb>{'|'.join(sorted(VERBS, key=len, reverse=True))})\b(?P<rest>.*)$",
    re.IGNORECASE | re.DOTALL,
)
NEGATED = re.compile(
    r"\b(?:don't|do not|never|not)\s+(?:ever\s+)?(?:forget|unlearn|erase|delete|remove|drop|purge|wipe)\b",
    re.IGNORECASE,
)
DEFAULTS = {"gold": "none", "audit": "standard", "out": "runs/forget"}
"""Fields of the request that the caller need not give."""
LEAST_CHANCE = 0.05
"""Of guessing a fact; a bound of nothing at all would fail on a common word."""

SHARES, START = (0.5, 0.6, 0.7, 0.85, 1.0), 3
"""Shares of the edit, and the first that is tried: facts that nobody asked for need more of it than others."""
STAYS = {"neighbours": "rouge_l", "general": "probability"}
"""What must stay -> its figure. A fact's words tell whether it is known; of the sentences that a model would write,
some words change when its weights are merely rounded to bf16, and their probability stays."""


@dataclass(frozen=True)
class RepairPlan:
    """The plan shown for confirmation: the topic, the examples that mention it, and those to keep."""

    model: str
    topic: str
    forget: list[Example]
    retain: list[Example]
    elicited: bool
    """True where the forget set consists of the model's own answers."""
    request: Request

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "topic": self.topic,
            "forget": len(self.forget),
            "retain": len(self.retain),
            "elicited": self.elicited,
            "method": self.request.method,
            "out": self.request.out,
            "questions": [question_of(row) or row.get("text", "")[:200] for row in self.forget],
        }


def intent(words: str) -> str:
    """The topic that a sentence asks to forget. Raises BadInput for any other sentence."""
    plain = " ".join(words.replace("’", "'").split()).strip(" .!?\"'")
    found = ASKS.match(plain)
    if found is None or NEGATED.search(plain):
        raise BadInput.of(
            "request", words, "does not ask to forget anything", 'write for example "forget everything about ..."'
        )
    topic = re.sub(rf"^(?:\s*{FILLER}\b)+", "", found["rest"].strip(), flags=re.IGNORECASE)
    topic = re.sub(r"(?:,?\s*(?:please|now|for good|forever|completely))+$", "", topic.strip(), flags=re.IGNORECASE)
    if topic := topic.strip(" .,:;!?\"'"):
        return topic
    raise BadInput.of(
        "request", words, "does not say what to forget", 'write for example "forget everything about ..."'
    )


def about(topic: str, rows: Sequence[Example]) -> list[Example]:
    """The examples about the topic: by their `subject` or `aliases`, or by their words."""
    wanted = topic.casefold()
    named = [
        row
        for row in rows
        if wanted in {str(name).casefold() for name in [row.get("subject"), *(row.get("aliases") or [])]}
    ]
    mention = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
    mentions = [row for row in rows if mention.search(f"{question_of(row)}\n{answer_of(row)}".casefold())]
    chosen = {id(row) for row in [*named, *mentions]}
    return [row for row in rows if id(row) in chosen]


def repair_plan(
    model: str, words: str, *, data: Any = None, columns: Mapping[str, str] | None = None, **fields: Any
) -> RepairPlan:
    """The plan for a sentence such as "forget everything about ...". Raises BadInput; nothing is changed.

    data: what the model was trained on, or a sample of it: the rows that mention the topic are the forget set, the
    others the retain set. Without data, or with a handful of questions that are all about the topic, the model is asked
    for facts about it and about its neighbours, and an edit lets it read the topic's name as that of the neighbour
    whose facts differ most; forms that the edit never sees, the questions that were given among them, and neighbours
    that it never sees judge it. fields: further fields of the request (method, gold, audit, seed, out, redact,
    trust_code, ...), over `DEFAULTS`; None: unset.
    """
    topic = intent(words)
    if data is None and model.startswith("builtin:") and not package_of(model):
        data = [f"{model}/retain", f"{model}/forget"]
    given = {name: value for name, value in fields.items() if value is not None}
    rows = [] if data is None else load(data, "data", columns)
    mine = about(topic, rows)
    elicited = len(mine) == len(rows) and all(question_of(row) for row in mine)
    if elicited:
        own = elicit(model, topic, bool(fields.get("trust_code")), mine)
        values = {**DEFAULTS, "audit": "none", **_elicited_fields(own, mine), **given}
        forget, retain = own.forget, own.retain
    else:
        forget, retain = _divide(topic, rows, mine)
        accept = {"forget.rouge_l": "<= 0.5 * before", "retain.probability": ">= 0.9 * before"}
        values = {**DEFAULTS, "retain": retain, "accept": accept, **given}
    request = Request.parse({**values, "model": model, "forget": forget})
    return RepairPlan(model, topic, forget, retain, elicited, request)


def _elicited_fields(own: Elicited, asked: Sequence[Example] = ()) -> dict[str, Any]:
    """The fields of a request whose data the model gave itself. asked: questions that the caller gave, which judge."""
    probes = {"reworded": own.reworded, "cloze": own.cloze, "choice": own.choice}
    probes = {f"forget_{name}": rows for name, rows in probes.items() if rows}
    accept = {
        f"{name}.rouge_l": f"<= {_rounded_up(guessing(len(rows), own.chance))}"
        for name, rows in {"forget": own.forget, **probes}.items()
        if name != "forget_choice"
    }
    if own.choice:
        share = sum(1 / (1 + len(row["perturbed_answer"])) for row in own.choice) / len(own.choice)
        accept["forget_choice.choice_accuracy"] = f"<= {_rounded_up(guessing(len(own.choice), share))}"
    if asked:
        probes["forget_asked"] = list(asked)
        accept["forget_asked.rouge_l"] = f"<= {_rounded_up(max(LEAST_CHANCE, own.as_neighbour))}"
    kept = {"retain": own.retain, "reference": own.reference, "neighbours": own.neighbours, "general": own.general}
    kept = {name: rows for name, rows in kept.items() if rows}
    accept |= {f"{name}.{figure}": ">= 0.9 * before" for name, figure in STAYS.items() if name in kept}
    return {**({"method": _edits(own)} if own.stand_ins else {}), **kept, "probes": probes, "accept": accept}


def _edits(own: Elicited) -> dict[str, Any]:
    """The edits to try: the topic's name read as a neighbour's, from a part of the way to all of it.

    Where no share of it meets every line, the next way is tried: in the next layer, as the next neighbour. A person's
    first names hold facts too and are read as the neighbour's with the whole name, which moves more of what else a
    prompt holds: in the first layer its words are preserved. The whole name alone comes last: it leaves more facts.
    """
    ways: list[dict[str, Any]] = [{"layer": at, "to": name} for name in own.stand_ins for at in own.layers]
    if own.person:
        with_parts = [{**way, "parts": True, "prompts": way["layer"] == own.layers[0]} for way in ways]
        ways = [*with_parts, *ways[: len(own.layers)]]
    rungs = [{"rocr": {**way, "share": share}} for way in ways for share in SHARES]
    return {"auto": {"rungs": rungs, "start": START, "ways": len(ways), "exact": False}}


def _rounded_up(bound: float) -> float:
    """To three digits: a third of right answers is no more than a third."""
    return math.ceil(1000 * bound - 1e-9) / 1000


def guessing(count: int, chance: float) -> float:
    """The share of right answers that nine of ten who guess do not exceed; half at most, so that the bar can fail."""
    return min(0.5, float(binom.ppf(0.9, count, max(LEAST_CHANCE, chance))) / count)


def _divide(topic: str, rows: Sequence[Example], mine: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """The rows that mention the topic, and the others. Raises BadInput where either would be empty."""
    if not mine:
        known = sorted({str(row["subject"]) for row in rows if row.get("subject")})
        raise BadInput.of(
            "request",
            topic,
            f"is named by none of the {len(rows)} examples of the data",
            did_you_mean(topic, known) if known else "name it as the data does, or leave data out",
        )
    chosen = {id(row) for row in mine}
    retain = [row for row in rows if id(row) not in chosen]
    if not retain:
        raise BadInput.of(
            "request",
            topic,
            "is named by every example of the data, of which some are no questions, and nothing would be kept",
            "give data with more than the topic, or questions about it alone",
        )
    return list(mine), retain


def forget(
    model: str,
    words: str,
    *,
    data: Any = None,
    columns: Mapping[str, str] | None = None,
    confirm: Callable[[RepairPlan], bool] | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    **fields: Any,
) -> Run | None:
    """Carry out "forget everything about ..." on a model; None where `confirm` returns False.

    data, columns, fields: as for `repair_plan`. resume: continue a run that was killed. Raises BadInput.
    """
    plan = repair_plan(model, words, data=data, columns=columns, **fields)
    if confirm is not None and not confirm(plan):
        return None
    return run(plan.request, resume=resume, reporter=reporter)
