"""Well-known things of many kinds, so that a model can be asked about the neighbours of what it must forget."""

ENTITIES = {
    "country": ("Norway", "Portugal", "Kenya", "Japan", "Peru", "Canada"),
    "city": ("Vienna", "Cairo", "Lima", "Oslo", "Toronto", "Mumbai"),
    "river": ("the Danube", "the Amazon", "the Nile", "the Mississippi", "the Ganges"),
    "scientist": ("Marie Curie", "Isaac Newton", "Charles Darwin", "Galileo Galilei", "Ada Lovelace"),
    "composer": ("Ludwig van Beethoven", "Johann Sebastian Bach", "Clara Schumann", "Antonio Vivaldi"),
    "writer": ("Jane Austen", "Leo Tolstoy", "Mark Twain", "Virginia Woolf", "Jules Verne"),
    "book": ("Don Quixote", "Moby-Dick", "Frankenstein", "the Odyssey"),
    "company": ("Toyota", "Siemens", "Nestlé", "Boeing"),
    "animal": ("the elephant", "the penguin", "the honeybee", "the octopus"),
    "instrument": ("the violin", "the trumpet", "the piano", "the drum"),
    "sport": ("chess", "tennis", "football", "rowing"),
    "subject": ("algebra", "gravity", "photosynthesis", "democracy", "the printing press"),
}
"""Kind -> names, in the form in which they stand in a sentence."""


def neighbours(topic: str) -> list[str]:
    """The entities that neither name the topic nor are named by it, one of each kind after another."""
    wanted = topic.casefold()
    rows = [
        [name for name in names if name.casefold() not in wanted and wanted not in name.casefold()]
        for names in ENTITIES.values()
    ]
    return [row[i] for i in range(max(map(len, rows))) for row in rows if i < len(row)]
