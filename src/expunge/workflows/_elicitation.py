"""Data for a request without data: facts that the model itself gives about the topic, and about its neighbours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.attacks.shared.recovery import answer_recall, generate_texts
from expunge.core.card import Example
from expunge.core.contracts import NLL, Model
from expunge.core.errors import BadInput
from expunge.core.variables import expand
from expunge.core.words import words
from expunge.data.entities import KINDS, THING, Kind, kind_named, neighbours
from expunge.data.examples import answer_of, question_of
from expunge.data.packs import CONTROL, open_pack
from expunge.models.passes import passes
from expunge.pipeline.worlds import load as load_model

LIST = (
    "Question: What is the opposite of up? Answer: down.\nQuestion: What is the colour of fresh snow? Answer: white.\n"
    "Question: What is the {fact} of {name}? Answer:"
)
"""What the model goes on with, so that its words for a fact stand alone."""
STATEMENT = "The {fact} of {name} is"
TRAINED = ("What is the {fact} of {name}?", "Name the {fact} of {name}.", "{name}: what is the {fact}?")
CONTINUED = "A short text about {name}. The {fact}:"
"""Questions that the method gets, and a statement to go on with, which a name meets in plain text."""
REWORDED = "I am reading about {name}. Can you tell me the {fact}?"
CHOICE = "Most people know that the {fact} of {name} is"
"""Forms that the method never gets, nor `LIST`."""
LEAST_FACTS = 3
"""Facts that the model is sure of, below which all that it gives count."""
TRAINED_NEIGHBOURS, HELD_OUT_NEIGHBOURS = 5, 5
"""Neighbours that the method gets and that it does not get."""
STAND_INS = 2
"""Neighbours at most as which the topic's name may be read."""
DISTRACTORS = 5
WORDS = 4
"""Words of a fact at most."""
NEW_TOKENS = 8
ANSWER_TOKENS = 16
IS_A = ("Question: What kind of thing is {name}? Answer: {name} is a", "this")
"""What a kind's noun follows, and the name that shows how likely the noun is of anything."""


@dataclass(frozen=True)
class Elicited:
    """The splits of a request. forget, retain: for the method; the others are read, and never train."""

    forget: list[Example]
    reworded: list[Example]
    cloze: list[Example]
    choice: list[Example]
    retain: list[Example]
    reference: list[Example]
    """Retain and plain text, whose words an edit must leave as they are."""
    neighbours: list[Example]
    """Facts of other neighbours that the model gives in its answer to a question; its answers where it gives none."""
    general: list[Example]
    """Questions with its whole answers."""
    stand_ins: tuple[str, ...]
    """The neighbours of which the model finds the topic's facts least likely, the least likely first; at most two."""
    person: bool
    """Whether the topic is a person, whose first names are read as the neighbour's too."""
    layers: tuple[int, ...]
    """Indices of the blocks at which a name is known and its facts are not yet looked up, the best one first."""
    chance: float
    """ROUGE-L of the neighbours' facts against the topic's: of somebody who guesses."""
    as_neighbour: float
    """ROUGE-L of the answers about a neighbour against those that the caller gave, which nine of ten neighbours do not
    exceed: sentences of one form share most of their words."""


def elicit(source: str, topic: str, trust_code: bool = False, asked: Sequence[Example] = ()) -> Elicited:
    """Ask the model about the topic, its neighbours, and in general. Raises BadInput where it knows no fact of it.

    asked: questions about the topic with their answers, which the model is asked of the neighbours too.
    """
    model = load_model(expand(source, "model"), trust_code=trust_code)
    if "generate" not in model.capabilities:
        raise BadInput.of("model", source, "is not a language model", "give one, or a request file to expunge run")
    kind = kind_named(topic) or kind_by_model(model, topic)
    others = neighbours(topic, kind)[: TRAINED_NEIGHBOURS + HELD_OUT_NEIGHBOURS]
    facts = _facts(model, [topic, *others], kind)
    known = _own_facts(model, topic, others, facts)
    trained, held_out = others[:TRAINED_NEIGHBOURS], others[TRAINED_NEIGHBOURS:]
    apart = [row for name in held_out for row in _questions(name, facts[name], (REWORDED, *TRAINED))]
    facts = {name: {fact: text for fact, text in given.items() if fact in known} for name, given in facts.items()}
    stand_ins = _stand_ins(model, known, [name for name in trained if facts[name]])
    first = stand_ins[:1]
    retain = [*_neighbour_rows(trained, first, facts), *_answers(model, _general(topic, "train"))]
    return Elicited(
        forget=[
            *_questions(topic, known, TRAINED),
            *_continuations(topic, known),
            *(_questions(topic.split()[-1], known, TRAINED[:1]) if kind.person and " " in topic else []),
        ],
        reworded=_questions(topic, known, (REWORDED,)),
        cloze=[_statement(form, topic, fact, text) for fact, text in known.items() for form in (LIST, STATEMENT)],
        choice=_choices(topic, known, [facts[name] for name in others]),
        retain=retain,
        reference=[*retain, *_texts(topic, retain, held_out)],
        neighbours=_filter_answered(model, apart) or _answers(model, apart),
        general=_answers(model, _general(topic, "score")),
        stand_ins=stand_ins,
        person=kind.person,
        layers=_name_layers(len(model.blocks)),
        chance=float(np.mean([_overlap(known, facts[name]) for name in others if name not in first] or [0.0])),
        as_neighbour=_as_neighbour(model, topic, others, asked),
    )


def _own_facts(
    model: Model, topic: str, others: Sequence[str], facts: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """The topic's facts that the model is sure of, without those that it says of others too. Raises BadInput."""
    own = {fact: text for fact, text in facts[topic].items() if not _is_common(fact, text, [facts[n] for n in others])}
    if not (known := _sure(model, topic, own or facts[topic])):
        raise BadInput.of(
            "request",
            topic,
            "is a topic of which the model gives no fact",
            "give --data with examples of it, and of what must stay",
        )
    return known


def _as_neighbour(model: Model, topic: str, names: Sequence[str], asked: Sequence[Example]) -> float:
    """The .9 quantile over the neighbours of their mean ROUGE-L against the answers about the topic, of the questions
    that name it; 0 where there is none to ask."""
    named = re.compile(re.escape(topic), re.IGNORECASE)
    naming = [row for row in asked if named.search(question_of(row))]
    rows = [{**row, "question": named.sub(name, question_of(row))} for name in names for row in naming]
    if not rows:
        return 0.0
    recall = answer_recall(rows, generate_texts(model, rows)).reshape(len(names), len(naming))
    return float(np.quantile(np.ma.filled(recall.mean(1), 0.0), 0.9))


def _neighbour_rows(
    trained: Sequence[str], first: Sequence[str], facts: Mapping[str, Mapping[str, str]]
) -> list[Example]:
    """The neighbours' rows that the method gets. The first stand-in alone has more of them: those of the second would
    move the edit to the first."""
    return [
        *(row for name in trained for row in _questions(name, facts[name], TRAINED[: 3 if name in first else 1])),
        *(row for name in first for row in _continuations(name, facts[name])),
    ]


def kind_by_model(model: Model, topic: str) -> Kind:
    """The kind whose noun becomes likelier by the topic's name than any other's; `THING` where none does."""
    pattern, anything = IS_A

    def log_probabilities(name: str) -> np.ndarray:
        rows = [{"prefix": pattern.format(name=name), "text": f" {kind.noun}"} for kind in KINDS]
        return -_nll(model, rows)

    gain = log_probabilities(topic) - log_probabilities(anything)
    return KINDS[int(gain.argmax())] if gain.max() > 1 else THING


def _nll(model: Model, rows: Sequence[Example]) -> np.ndarray:
    """[N] NLL of each row's text, in nats."""
    found = np.zeros(len(rows))
    for batch, out in passes(model, rows, NLL):
        found[batch] = out.nll_B.double().cpu().numpy()
    return found


def _facts(model: Model, names: Sequence[str], kind: Kind) -> dict[str, dict[str, str]]:
    """Name -> fact -> the model's own words for it, where it has any."""
    asked = [(name, fact) for name in names for fact in kind.attributes]
    rows = [_statement(LIST, name, fact, "x") for name, fact in asked]
    texts = model.generate(rows, max_new_tokens=NEW_TOKENS)
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    for (name, fact), text in zip(asked, texts, strict=True):
        if core := fact_of(text, name):
            found[name][fact] = core
    return found


def _sure(model: Model, topic: str, facts: Mapping[str, str]) -> dict[str, str]:
    """The facts that the model also gives in its answer to a question; all where it gives fewer than three so."""
    rows = _questions(topic, facts, TRAINED[:1])
    given = _filter_answered(model, rows)
    found = {fact: text for (fact, text), row in zip(facts.items(), rows, strict=True) if row in given}
    return found if len(found) >= LEAST_FACTS else dict(facts)


def _stand_ins(model: Model, known: Mapping[str, str], names: Sequence[str]) -> tuple[str, ...]:
    """The names of which the model finds the facts least likely, the least likely first.

    A neighbour whose own facts merely have other words will not do: of Newton, too, this may say "relativity".
    """
    if not names:
        return ()
    rows = [_statement(LIST, name, fact, text) for name in names for fact, text in known.items()]
    likeness = -_nll(model, rows).reshape(len(names), -1).mean(1)
    return tuple(names[i] for i in likeness.argsort(kind="stable")[:STAND_INS])


def _name_layers(blocks: int) -> tuple[int, ...]:
    """A fifteenth of the way up, and in a deep model the block before it, where fewer of the facts are in reach."""
    layer = max(1, blocks // 15) if blocks > 1 else 0
    return (layer, layer - 1) if layer > 1 else (layer,)


def _is_common(fact: str, text: str, others: Sequence[Mapping[str, str]]) -> bool:
    """Whether the model says the same of half of the neighbours: it says so of anything."""
    same = sum(one.get(fact, "").casefold() == text.casefold() for one in others)
    return same > 0 and 2 * same >= len(others)


def fact_of(text: str, name: str) -> str:
    """The words of a fact at the start of a continuation; empty where it says nothing, or only the name again."""
    first = re.split(r"[.,;:!?()\n\"“”]", text.strip().strip("\"'“”"))[0]
    words = re.sub(
        r"^(?:(?:a|an|the|called|known|as|located|in|at|to|of|his|her|its|their)\s+)+", "", first + " "
    ).split()
    core = " ".join(words[:WORDS]).strip(" \"'“”")
    return "" if len(core) < 2 or core.casefold() in name.casefold() else core


def _overlap(known: Mapping[str, str], other: Mapping[str, str]) -> float:
    """Mean share of a known fact's words that the other's fact has too."""
    shares = []
    for fact, text in known.items():
        own = words(text)
        shares.append(sum(word in words(other.get(fact, "")) for word in own) / max(1, len(own)))
    return float(np.mean(shares))


def _questions(name: str, known: Mapping[str, str], patterns: Sequence[str]) -> list[Example]:
    return [
        {"question": pattern.format(fact=fact, name=name), "answer": text, "subject": name, "group": name}
        for fact, text in known.items()
        for pattern in patterns
    ]


def _statement(pattern: str, name: str, fact: str, text: str) -> Example:
    return {"prefix": pattern.format(fact=fact, name=name), "text": f" {text}", "group": f"{name}: {fact}"}


def _continuations(name: str, known: Mapping[str, str]) -> list[Example]:
    return [{**_statement(CONTINUED, name, fact, text), "subject": name, "group": name} for fact, text in known.items()]


def _choices(topic: str, known: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> list[Example]:
    """The facts that have a distractor, each among the neighbours' facts of its kind, by their first words.

    The rest of a fact often follows from its first word, and its likelihood per token would say so and no more.
    """
    rows: list[Example] = []
    for fact, text in known.items():
        first = text.split()[0]
        words_of_others = dict.fromkeys(one[fact].split()[0] for one in others if fact in one)
        wrong = [f" {word}" for word in words_of_others if word.casefold() != first.casefold()]
        if wrong:
            rows.append({**_statement(CHOICE, topic, fact, first), "perturbed_answer": wrong[:DISTRACTORS]})
    return rows


def _mentions(topic: str, row: Example) -> bool:
    return topic.casefold() in f"{row['question']} {row.get('answer', '')}".casefold()


def _texts(topic: str, retain: Sequence[Example], held_out: Sequence[str]) -> list[Example]:
    """Retain, the embedded prompts and other names as plain text, without the topic and the neighbours held out."""
    prompts = [row["question"] for row in open_pack(None).part("train") if row["domain"] != CONTROL]
    names = [f"They talked about {name}, a {kind.noun}." for kind in KINDS for name in kind.names]
    texts = [*(f"{question_of(row)} {answer_of(row)}" for row in retain), *prompts, *names]
    left_out = [name.casefold() for name in (topic, *held_out)]
    return [{"text": text} for text in texts if not any(name in text.casefold() for name in left_out)]


def _general(topic: str, part: str) -> list[Example]:
    """The part's questions of general knowledge that do not mention the topic."""
    rows = [row for row in open_pack(None).part(part, CONTROL) if not _mentions(topic, row)]
    return [{"question": row["question"], "answer": "", "group": "general"} for row in rows]


def _filter_answered(model: Model, rows: Sequence[Example]) -> list[Example]:
    """The questions in whose answer the model gives the fact."""
    answers = model.generate(rows, max_new_tokens=ANSWER_TOKENS) if rows else []
    return [row for row, text in zip(rows, answers, strict=True) if set(words(answer_of(row))) <= set(words(text))]


def _answers(model: Model, questions: Sequence[Example]) -> list[Example]:
    """The questions that the model answers, each with the first sentence of its own answer."""
    answers: Any = model.generate(questions, max_new_tokens=ANSWER_TOKENS)
    firsts = [re.split(r"(?<=[.!?])\s", text.strip())[0] for text in answers]
    return [{**row, "answer": text} for row, text in zip(questions, firsts, strict=True) if text]
