"""Well-known things of many kinds and the facts that each kind has, so that a model can be asked about what it must
forget and about its neighbours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """Things of one kind. names: in the form in which they stand in a sentence, the best known first.

    attributes: facts that each of them has, in the form that fits "The ... of NAME is".
    """

    noun: str
    names: tuple[str, ...]
    attributes: tuple[str, ...]
    person: bool = False


KINDS = (
    Kind(
        "country",
        ("Japan", "Egypt", "Brazil", "Norway", "India", "Kenya", "Canada", "Portugal", "Peru", "Russia"),
        (
            "capital",
            "official language",
            "currency",
            "most famous landmark",
            "largest city",
            "continent",
            "national dish",
            "best-known river",
        ),
    ),
    Kind(
        "city",
        ("Cairo", "Toronto", "Vienna", "Mumbai", "Sydney", "Lima", "Chicago", "Athens", "Oslo", "Moscow"),
        (
            "country",
            "most famous landmark",
            "main river",
            "continent",
            "main language",
            "best-known industry",
            "currency",
        ),
    ),
    Kind(
        "river",
        (
            "the Nile",
            "the Amazon",
            "the Danube",
            "the Mississippi",
            "the Ganges",
            "the Rhine",
            "the Volga",
            "the Congo",
        ),
        ("continent", "mouth", "source", "largest city on the banks"),
    ),
    Kind(
        "mountain",
        ("Mount Everest", "Mount Fuji", "Mont Blanc", "Kilimanjaro", "Denali", "the Matterhorn", "Mount Olympus"),
        ("country", "continent", "mountain range", "height"),
    ),
    Kind(
        "scientist",
        (
            *("Charles Darwin", "Isaac Newton", "Marie Curie", "Galileo Galilei", "Louis Pasteur", "Nikola Tesla"),
            *("Gregor Mendel", "Ada Lovelace", "Stephen Hawking", "Johannes Kepler"),
        ),
        (
            "field of work",
            "most famous discovery",
            "home country",
            "most famous theory",
            "birthplace",
            "profession",
            "native language",
        ),
        person=True,
    ),
    Kind(
        "writer",
        (
            *("Leo Tolstoy", "Mark Twain", "Jane Austen", "Jules Verne", "Homer", "Virginia Woolf"),
            *("Charles Dickens", "Franz Kafka", "Agatha Christie", "Miguel de Cervantes"),
        ),
        (
            "most famous work",
            "home country",
            "main literary form",
            "best-known character",
            "birthplace",
            "profession",
            "native language",
        ),
        person=True,
    ),
    Kind(
        "composer",
        (
            *("Ludwig van Beethoven", "Johann Sebastian Bach", "Antonio Vivaldi", "Frédéric Chopin", "Clara Schumann"),
            *("Giuseppe Verdi", "Igor Stravinsky", "Claude Debussy"),
        ),
        ("most famous work", "home country", "main instrument", "birthplace", "profession"),
        person=True,
    ),
    Kind(
        "painter",
        (
            *("Claude Monet", "Pablo Picasso", "Rembrandt", "Frida Kahlo", "Leonardo da Vinci", "Johannes Vermeer"),
            *("Andy Warhol", "Edvard Munch"),
        ),
        ("most famous painting", "home country", "artistic style", "birthplace", "profession"),
        person=True,
    ),
    Kind(
        "politician",
        (
            *("Nelson Mandela", "Julius Caesar", "Winston Churchill", "Abraham Lincoln", "Mahatma Gandhi"),
            *("Napoleon Bonaparte", "Queen Victoria", "George Washington"),
        ),
        ("home country", "highest office", "most famous achievement", "birthplace", "profession"),
        person=True,
    ),
    Kind(
        "book",
        ("Moby-Dick", "Don Quixote", "Frankenstein", "the Odyssey", "Dracula", "War and Peace", "Pride and Prejudice"),
        ("author", "main character", "setting", "genre"),
    ),
    Kind(
        "company",
        ("Toyota", "Coca-Cola", "Boeing", "Nintendo", "Siemens", "Nestlé", "Microsoft", "Netflix"),
        ("main product", "home country", "founder", "headquarters", "industry"),
    ),
    Kind(
        "animal",
        (
            "the elephant",
            "the penguin",
            "the honeybee",
            "the octopus",
            "the horse",
            "the eagle",
            "the shark",
            "the frog",
        ),
        ("main food", "habitat", "biological class", "best-known feature", "young"),
    ),
    Kind(
        "musical instrument",
        ("the violin", "the trumpet", "the drum", "the piano", "the flute", "the harp", "the guitar"),
        ("family of instruments", "main material", "number of strings", "best-known player"),
    ),
    Kind(
        "sport",
        ("chess", "tennis", "football", "rowing", "baseball", "swimming", "golf"),
        ("number of players", "most famous competition", "equipment", "country of origin"),
    ),
)
"""Kinds whose neighbours and facts are known here."""
THING = Kind(
    "thing",
    ("gravity", "the printing press", "democracy", "the violin", "Toyota", "tennis", "the penguin", "the Nile"),
    ("purpose", "origin", "most famous example", "main part", "inventor", "best-known feature"),
)
"""The kind of everything else."""


def kind_named(topic: str) -> Kind | None:
    """The kind that has the topic among its names; None where none has."""
    wanted = topic.casefold().removeprefix("the ")
    return next(
        (kind for kind in KINDS if wanted in {name.casefold().removeprefix("the ") for name in kind.names}), None
    )


def neighbours(topic: str, kind: Kind) -> list[str]:
    """The names of the kind that neither name the topic nor are named by it."""
    wanted = topic.casefold()
    return [name for name in kind.names if name.casefold() not in wanted and wanted not in name.casefold()]
