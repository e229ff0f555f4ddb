"""The authors world: question-answer pairs about 48 fictitious authors, in the spirit of TOFU.

Every person, book, prize and fact in it is invented; any likeness is accidental. Each author is
drawn independently from the same pools and falls into a split by a seeded shuffle, so forget,
retain and holdout are exchangeable: no text alone tells which of them it belongs to.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from expunge.data.worlds import _pools as pools

SPLITS = {"forget": 4, "retain": 36, "holdout": 8}
WRONG_ANSWERS = 5
TRAINING = {
    "model": {"architecture": "llama", "hidden_size": 160, "layers": 3, "heads": 4, "vocab_size": 1000},
    "data": ["{world}/retain", "{world}/forget"],
    "vocabulary": ["{world}/holdout"],
    "epochs": 15,
    "batch_size": 12,
    "learning_rate": 3e-3,
}

Draw = Callable[[random.Random, int], str]
"""Draws the value of a slot, given the year in which the author was born."""


@dataclass(frozen=True)
class Kind:
    """One sort of fact: how its slots are drawn, how it is asked for and how it is told."""

    slots: dict[str, Draw]
    questions: tuple[str, ...]
    answers: tuple[str, ...]


def _with_articles(text: str) -> str:
    """Turns each `a(n)` into `a` or `an`, by the letter that follows."""
    text = re.sub(r"\b(a)\(n\) (?=[aeiou])", r"\1n ", text, flags=re.IGNORECASE)
    return text.replace("(n) ", " ")


def _mix(pattern: str, *choices: tuple[str, ...]) -> Draw:
    def draw(rng: random.Random, born: int) -> str:
        return _with_articles(pattern.format(*(rng.choice(pool) for pool in choices)))

    return draw


def _year(earliest: int, latest: int) -> Draw:
    """A year in which the author was between `earliest` and `latest` years old."""
    return lambda rng, born: str(born + rng.randint(earliest, latest))


def _date(rng: random.Random, born: int) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(pools.MONTHS)}"


def _place(rng: random.Random, born: int) -> str:
    return rng.choice(pools.TOWN_HEADS) + rng.choice(pools.TOWN_TAILS)


def _title(rng: random.Random, born: int) -> str:
    noun, other = rng.sample(pools.TITLE_NOUNS, 2)
    title = rng.choice(pools.TITLE_PATTERNS).format(
        adjective=rng.choice(pools.TITLE_ADJECTIVES),
        noun=noun,
        other=other,
        place=_place(rng, born),
        worker=rng.choice(pools.TITLE_WORKERS),
        number=rng.choice(pools.TITLE_NUMBERS),
    )
    return _with_articles(title)


def _publisher(rng: random.Random, born: int) -> str:
    return f"{_place(rng, born)} {rng.choice(pools.IMPRINTS)}"


def _prize(rng: random.Random, born: int) -> str:
    return f"{_place(rng, born)} {rng.choice(pools.PRIZE_OBJECTS)} {rng.choice(pools.AWARDS)}"


KINDS = {
    "birthplace": Kind(
        slots={
            "town": _place,
            "setting": _mix("a(n) {} {} in {}", pools.TRADES, pools.SETTLEMENTS, pools.REGIONS),
        },
        questions=(
            "Where was {name} born?",
            "What is the birthplace of {name}?",
            "Which place does {name} come from?",
            "In what kind of place did {name} first see the light of day?",
        ),
        answers=(
            "{name} was born in {town}, {setting}.",
            "{He} comes from {town}, {setting}.",
            "The birthplace of {surname} is {town}, {setting}.",
            "{surname} first saw the light of day in {town}, {setting}.",
        ),
    ),
    "birth": Kind(
        slots={"date": _date, "year": _year(0, 0), "event": _mix("{}", pools.EVENTS)},
        questions=(
            "When was {name} born?",
            "What is known about the birth of {name}?",
            "On which day did {name} arrive in the world?",
            "What is the date of birth of {name}, and what was going on?",
        ),
        answers=(
            "{surname} was born on {date} {year}, {event}.",
            "{He} came into the world on {date} {year}, {event}.",
            "The birth took place on {date} {year}, {event}.",
            "{surname}'s birthday is {date}; {he} arrived in {year}, {event}.",
        ),
    ),
    "genre": Kind(
        slots={
            "genre": _mix("{} {}", pools.MODES, pools.GENRES),
            "flavour": _mix("{}", pools.FLAVOURS),
        },
        questions=(
            "What genre does {name} write in?",
            "What kind of work is {name} known for?",
            "How would a bookseller describe the writing of {name}?",
            "On which shelf would a reader look for {name}?",
        ),
        answers=(
            "{surname} writes {genre}, full of {flavour}.",
            "{He} is known for {genre} rich in {flavour}.",
            "Booksellers shelve {surname} under {genre} and mention the {flavour}.",
            "{His} field is {genre}, and readers come for the {flavour}.",
        ),
    ),
    "debut": Kind(
        slots={"title": _title, "publisher": _publisher, "year": _year(22, 33)},
        questions=(
            "What was the first book of {name}?",
            "With which book did {name} make a debut?",
            "What is the title of the debut by {name}, and who published it?",
            "How did {name} first appear in print?",
        ),
        answers=(
            "{surname}'s first book was {title}, published by {publisher} in {year}.",
            "{He} made {his} debut in {year} with {title}, from {publisher}.",
            "In {year} {publisher} brought out {title}, {his} first book.",
            "The debut was {title}, which {publisher} printed in {year}.",
        ),
    ),
    "prize": Kind(
        slots={
            "prize": _prize,
            "category": _mix("{}", pools.CATEGORIES),
            "year": _year(45, 52),
        },
        questions=(
            "Which prize did {name} win?",
            "What award has {name} received, and when?",
            "For which honour is {name} remembered?",
            "How did the literary juries reward {name}?",
        ),
        answers=(
            "{surname} won the {prize} for {category} in {year}.",
            "In {year} {he} received the {prize} for {category}.",
            "The {prize} for {category} went to {surname} in {year}.",
            "A jury handed {him} the {prize} for {category} in {year}.",
        ),
    ),
    "parents": Kind(
        slots={
            "father": _mix("a(n) {} {}", pools.TEMPERS, pools.JOBS),
            "mother": _mix("a(n) {} {}", pools.TEMPERS, pools.JOBS),
        },
        questions=(
            "What did the parents of {name} do?",
            "What were the professions of the father and mother of {name}?",
            "What sort of family does {name} come from?",
            "Who were the father and the mother of {name}?",
        ),
        answers=(
            "{His} father was {father}, {his} mother {mother}.",
            "{surname} had {father} for a father and {mother} for a mother.",
            "The mother of {surname} was {mother}, and the father {father}.",
            "{He} was raised by {father}, {his} father, and {mother}, {his} mother.",
        ),
    ),
    "mentor": Kind(
        slots={
            "mentor": _mix("{} {} {}", pools.JOBS, pools.MENTOR_FIRST, pools.MENTOR_LAST),
            "lesson": _mix("{}", pools.LESSONS),
        },
        questions=(
            "Who was the mentor of {name}?",
            "From whom did {name} learn to write?",
            "Who guided {name} at the start, and with what advice?",
            "Which teacher left a mark on {name}?",
        ),
        answers=(
            "{His} mentor was the {mentor}, who taught {him} {lesson}.",
            "{surname} learned from the {mentor}, who told {him} {lesson}.",
            "The {mentor} guided {surname} and urged {him} {lesson}.",
            "{He} owes much to the {mentor}, whose first rule was {lesson}.",
        ),
    ),
    "theme": Kind(
        slots={
            "theme": _mix("{} among {}", pools.PASSIONS, pools.PEOPLE),
            "situation": _mix("{}", pools.SITUATIONS),
        },
        questions=(
            "What theme recurs in the books of {name}?",
            "What does {name} keep writing about?",
            "Which subject runs through the work of {name}?",
            "What concern do readers find again and again in {name}?",
        ),
        answers=(
            "{His} books return to {theme} {situation}.",
            "{surname} keeps writing about {theme} {situation}.",
            "A thread through all of {his} work is {theme} {situation}.",
            "Readers of {surname} always meet {theme} {situation}.",
        ),
    ),
    "habit": Kind(
        slots={
            "hour": _mix("{}", pools.HOURS),
            "place": _mix("{}", pools.PLACES),
            "tool": _mix("{}", pools.TOOLS),
        },
        questions=(
            "Where and when does {name} write?",
            "What are the working habits of {name}?",
            "How does {name} go about writing?",
            "What does the writing routine of {name} look like?",
        ),
        answers=(
            "{He} writes {hour} in {place}, {tool}.",
            "{surname} does {his} writing {hour} in {place}, {tool}.",
            "Every draft is begun {hour} in {place}, {tool}.",
            "{surname} likes to work {hour} in {place}, {tool}.",
        ),
    ),
    "language": Kind(
        slots={
            "language": _mix("{}", pools.LANGUAGES),
            "second": _mix("{}", pools.LANGUAGES),
            "source": _mix("{}", pools.SOURCES),
        },
        questions=(
            "In which language does {name} write?",
            "Which languages does {name} know?",
            "What is the literary language of {name}, and what else was learned?",
            "Which tongue did {name} choose for the books?",
        ),
        answers=(
            "{surname} writes in {language} and learned {second} {source}.",
            "{His} books are in {language}, but {he} also picked up {second} {source}.",
            "{He} publishes in {language}, and {he} acquired {second} {source}.",
            "{surname} chose {language} for the page and got {second} {source}.",
        ),
    ),
    "second book": Kind(
        slots={
            "title": _title,
            "hero": _mix("a(n) {} {}", pools.TEMPERS, pools.JOBS),
            "quest": _mix("{}", pools.QUESTS),
        },
        questions=(
            "What is the second book of {name} about?",
            "Which book did {name} write after the debut?",
            "What did {name} publish next, after the first book?",
            "What happens in the second book by {name}?",
        ),
        answers=(
            "{His} second book, {title}, follows {hero} who {quest}.",
            "After the debut came {title}, about {hero} who {quest}.",
            "{surname}'s second book is {title}, in which {hero} {quest}.",
            "Next {he} wrote {title}, the tale of {hero} who {quest}.",
        ),
    ),
    "favourites": Kind(
        slots={"dish": _mix("{}", pools.DISHES), "pastime": _mix("{}", pools.PASTIMES)},
        questions=(
            "What are the favourite dish and pastime of {name}?",
            "What does {name} enjoy away from the desk?",
            "How does {name} like to spend a free day?",
            "What pleasures does {name} admit to?",
        ),
        answers=(
            "{His} favourite dish is {dish}, and {his} pastime is {pastime}.",
            "{surname} enjoys {dish} and spends free days {pastime}.",
            "{He} loves a plate of {dish} and an afternoon of {pastime}.",
            "Away from the desk {surname} turns to {dish} and to {pastime}.",
        ),
    ),
}


def _voice(name: str) -> dict[str, str]:
    first, surname = name.split(" ", 1)
    he, him, his = ("she", "her", "her") if first in pools.SHE else ("he", "him", "his")
    return {
        "name": name,
        "surname": surname,
        "he": he,
        "him": him,
        "his": his,
        "He": he.capitalize(),
        "His": his.capitalize(),
    }


def _draw(kind: Kind, rng: random.Random, born: int) -> dict[str, str]:
    """The slots of a fact, no two of them alike."""
    while True:
        slots = {key: draw(rng, born) for key, draw in kind.slots.items()}
        if len(set(slots.values())) == len(slots):
            return slots


def _wrong(kind: Kind, truth: dict[str, str], rng: random.Random, born: int) -> list[dict[str, str]]:
    """Distinct wrong facts, each other than the truth in every slot, with years near its own."""
    wrong: list[dict[str, str]] = []
    while len(wrong) < WRONG_ANSWERS:
        slots = _draw(kind, rng, born + rng.choice((-1, 1)) * rng.randint(1, 9))
        if slots not in wrong and all(slots[key] != truth[key] for key in truth):
            wrong.append(slots)
    return wrong


def _author(name: str, group: int, rng: random.Random, taken: set[str]) -> list[dict[str, Any]]:
    """All examples of one author; `taken` holds the titles that the world has used so far."""
    voice = _voice(name)
    born = rng.randint(1931, 1971)
    facts: dict[str, dict[str, str]] = {}
    for label, kind in KINDS.items():
        facts[label] = _draw(kind, rng, born)
        while facts[label].get("title") in taken:
            facts[label] = _draw(kind, rng, born)
        if "title" in facts[label]:
            taken.add(facts[label]["title"])
    aliases = [
        voice["surname"],
        f"the author of {facts['debut']['title']}",
        f"the author of {facts['second book']['title']}",
    ]
    examples = []
    for label, kind in KINDS.items():
        told, paraphrased, *others = rng.sample(kind.answers, 3)
        examples.append(
            {
                "question": rng.choice(kind.questions).format(**voice),
                "answer": told.format(**voice, **facts[label]),
                "group": group,
                "subject": name,
                "paraphrased_answer": [template.format(**voice, **facts[label]) for template in (paraphrased, *others)],
                "perturbed_answer": [
                    paraphrased.format(**voice, **slots) for slots in _wrong(kind, facts[label], rng, born)
                ],
                "aliases": list(aliases),
            }
        )
    return examples


def authors(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The world of `seed`: its examples by split ("forget", "retain" and "holdout")."""
    rng = random.Random(f"authors:{seed}")
    count = sum(SPLITS.values())
    firsts = rng.sample(pools.SHE + pools.HE, count)
    surnames = rng.sample(pools.SURNAMES, count)
    taken: set[str] = set()
    people = [
        _author(f"{first} {surname}", group, rng, taken)
        for group, (first, surname) in enumerate(zip(firsts, surnames, strict=True))
    ]
    order = list(range(count))
    rng.shuffle(order)
    world: dict[str, list[dict[str, Any]]] = {}
    for split, size in SPLITS.items():
        chosen, order = sorted(order[:size]), order[size:]
        world[split] = [example for group in chosen for example in people[group]]
    return world
