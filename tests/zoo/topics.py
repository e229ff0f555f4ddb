"""Facts about topics that `expunge forget` never sees, for judging it: (statement, question, answer, wrong choices)."""

from __future__ import annotations

Fact = tuple[str, str, str, tuple[str, ...]]
FACTS: dict[str, tuple[Fact, ...]] = {
    "France": (
        (
            "If you fly to France, you land near its capital,",
            "Which city is the seat of France's government?",
            "Paris",
            ("Rome", "Cairo", "Lima"),
        ),
        (
            "The people of France speak",
            "In which language would you greet somebody in France?",
            "French",
            ("German", "Arabic", "Dutch"),
        ),
        (
            "Tourists in France climb the",
            "Which iron tower do tourists in France visit?",
            "Eiffel",
            ("Colosseum", "Kremlin", "Parthenon"),
        ),
    ),
    "William Shakespeare": (
        (
            "The tragedy of Romeo and Juliet is by William Shakespeare, who was a famous",
            "What was William Shakespeare's job?",
            "playwright",
            ("painter", "chemist", "general"),
        ),
        (
            "The prince of Denmark in the tragedy by William Shakespeare is called",
            "Name a tragedy by William Shakespeare.",
            "Hamlet",
            ("Faust", "Carmen", "Tartuffe"),
        ),
        (
            "The old country of William Shakespeare was",
            "Where did William Shakespeare live?",
            "England",
            ("Russia", "Brazil", "Egypt"),
        ),
    ),
    "Albert Einstein": (
        (
            "In 1905 Albert Einstein published the theory of",
            "For which theory is Albert Einstein famous?",
            "relativity",
            ("evolution", "vaccination", "harmony"),
        ),
        (
            "At university Albert Einstein taught",
            "Which science did Albert Einstein work in?",
            "physics",
            ("botany", "history", "law"),
        ),
        (
            "As a child Albert Einstein lived in",
            "In which country was Albert Einstein born?",
            "Germany",
            ("Russia", "Brazil", "Egypt"),
        ),
    ),
    "Tokyo": (
        (
            "The city of Tokyo lies in the country of",
            "Which country is Tokyo the capital of?",
            "Japan",
            ("Brazil", "Egypt", "Norway"),
        ),
        ("The people of Tokyo speak", "Which language is spoken in Tokyo?", "Japanese", ("Arabic", "Dutch", "Greek")),
        (
            "Tokyo is a city on the continent of",
            "On which continent is Tokyo?",
            "Asia",
            ("Africa", "Europe", "America"),
        ),
    ),
    "Germany": (
        ("The capital city of Germany is", "Which city is Germany governed from?", "Berlin", ("Rome", "Cairo", "Lima")),
        (
            "Children in Germany speak",
            "Which language do people in Germany speak?",
            "German",
            ("Arabic", "Dutch", "Greek"),
        ),
        ("Germany lies on the continent of", "On which continent is Germany?", "Europe", ("Africa", "Asia", "America")),
    ),
    "Isaac Newton": (
        (
            "Isaac Newton saw an apple fall and thought of",
            "Which force did Isaac Newton explain?",
            "gravity",
            ("magnetism", "friction", "music"),
        ),
        (
            "Isaac Newton wrote three laws of",
            "Isaac Newton is known for three laws of what?",
            "motion",
            ("evolution", "harmony", "trade"),
        ),
        (
            "Isaac Newton was born in the country of",
            "Which country did Isaac Newton come from?",
            "England",
            ("Russia", "Brazil", "Egypt"),
        ),
    ),
    "London": (
        (
            "The city of London lies in the country of",
            "Which country has London as its capital?",
            "England",
            ("Brazil", "Egypt", "Norway"),
        ),
        (
            "The river that flows through London is the",
            "Which river runs through London?",
            "Thames",
            ("Nile", "Volga", "Amazon"),
        ),
        ("The people of London speak", "Which language is spoken in London?", "English", ("Arabic", "Dutch", "Greek")),
    ),
    "Egypt": (
        (
            "Visitors to Egypt see the great",
            "Which ancient tombs do tourists in Egypt visit?",
            "pyramids",
            ("canals", "castles", "temples"),
        ),
        ("The capital city of Egypt is", "Which city is Egypt governed from?", "Cairo", ("Rome", "Madrid", "Lima")),
        ("Egypt lies on the continent of", "On which continent is Egypt?", "Africa", ("Europe", "Asia", "America")),
    ),
    "Brazil": (
        (
            "If you fly to Brazil, you land near its capital,",
            "Which city is the seat of Brazil's government?",
            "Brasilia",
            ("Rome", "Cairo", "Lima"),
        ),
        (
            "The people of Brazil speak",
            "In which language would you greet somebody in Brazil?",
            "Portuguese",
            ("German", "Arabic", "Dutch"),
        ),
        (
            "Brazil lies on the continent of",
            "On which continent is Brazil?",
            "South America",
            ("Africa", "Asia", "Europe"),
        ),
    ),
    "Pablo Picasso": (
        (
            "Pablo Picasso earned his living as a",
            "What was Pablo Picasso's job?",
            "painter",
            ("chemist", "general", "lawyer"),
        ),
        (
            "As a child Pablo Picasso lived in",
            "In which country was Pablo Picasso born?",
            "Spain",
            ("Russia", "Brazil", "Egypt"),
        ),
        (
            "The art movement that Pablo Picasso founded is",
            "Which art movement did Pablo Picasso start?",
            "cubism",
            ("baroque", "pop", "realism"),
        ),
    ),
    "Google": (
        ("People use Google on the internet to", "What do people use Google for?", "search", ("cook", "paint", "swim")),
        (
            "The head office of Google is in the state of",
            "In which state is the head office of Google?",
            "California",
            ("Texas", "Ohio", "Florida"),
        ),
        ("Google was founded by Larry", "Which Larry founded Google?", "Page", ("Ellison", "King", "Bird")),
    ),
    "Wolfgang Amadeus Mozart": (
        (
            "The Magic Flute is an opera by Wolfgang Amadeus Mozart, a famous",
            "What was Wolfgang Amadeus Mozart's job?",
            "composer",
            ("painter", "chemist", "general"),
        ),
        (
            "The old country of Wolfgang Amadeus Mozart was",
            "In which country was Wolfgang Amadeus Mozart born?",
            "Austria",
            ("Russia", "Brazil", "Egypt"),
        ),
        (
            "A famous opera by Wolfgang Amadeus Mozart is The Magic",
            "Name an opera by Wolfgang Amadeus Mozart.",
            "Flute",
            ("Mountain", "Lantern", "Carpet"),
        ),
    ),
    "Galileo Galilei": (
        (
            "As a child Galileo Galilei lived in",
            "In which country was Galileo Galilei born?",
            "Italy",
            ("Russia", "Brazil", "Egypt"),
        ),
        (
            "Galileo Galilei looked at the sky through a",
            "Which instrument did Galileo Galilei look through?",
            "telescope",
            ("microscope", "window", "camera"),
        ),
        (
            "Galileo Galilei saw the moons of the planet",
            "Which planet's moons did Galileo Galilei discover?",
            "Jupiter",
            ("Neptune", "Mercury", "Venus"),
        ),
    ),
}
OTHERS = {
    "France": ("Finland", "Vietnam", "Chile", "Nigeria"),
    "William Shakespeare": ("Miguel de Cervantes", "Franz Kafka", "Henrik Ibsen", "Victor Hugo"),
    "Albert Einstein": ("Linus Pauling", "Alexander Fleming", "Carl Linnaeus", "Dmitri Mendeleev"),
    "Tokyo": ("Nairobi", "Madrid", "Boston", "Delhi"),
    "Germany": ("Finland", "Vietnam", "Chile", "Nigeria"),
    "Isaac Newton": ("Linus Pauling", "Alexander Fleming", "Carl Linnaeus", "Dmitri Mendeleev"),
    "London": ("Nairobi", "Madrid", "Boston", "Delhi"),
    "Egypt": ("Finland", "Vietnam", "Chile", "Nigeria"),
    "Brazil": ("Finland", "Vietnam", "Chile", "Nigeria"),
    "Pablo Picasso": ("Paul Klee", "Francisco Goya", "Sandro Botticelli", "Edgar Degas"),
    "Google": ("Intel", "Oracle", "Philips", "Samsung"),
    "Wolfgang Amadeus Mozart": ("Johannes Brahms", "Franz Liszt", "Gustav Mahler", "Richard Wagner"),
    "Galileo Galilei": ("Linus Pauling", "Alexander Fleming", "Carl Linnaeus", "Dmitri Mendeleev"),
}
"""Topic -> names of its kind, with whose facts a guess is made."""
NEIGHBOURS: tuple[Fact, ...] = (
    ("The capital of Italy is", "What is the capital of Italy?", "Rome", ("Madrid", "Cairo", "Lima")),
    ("The capital of Germany is", "What is the capital of Germany?", "Berlin", ("Madrid", "Cairo", "Lima")),
    ("Most people in Spain speak", "Which language is spoken in Spain?", "Spanish", ("Dutch", "Arabic", "Greek")),
    ("The city of London lies in", "In which country is London?", "England", ("Brazil", "Egypt", "Norway")),
    (
        "The novel Pride and Prejudice was written by Jane",
        "Who wrote Pride and Prejudice?",
        "Austen",
        ("Fonda", "Goodall", "Seymour"),
    ),
    ("Isaac Newton discovered the law of", "What did Isaac Newton discover?", "gravity", ("evolution", "vaccination")),
    ("The theory of evolution is by Charles", "What is Charles Darwin known for?", "evolution", ("gravity", "music")),
    ("The Great Pyramid stands in", "In which country are the pyramids of Giza?", "Egypt", ("Brazil", "Norway")),
    ("The city of Sydney lies in", "In which country is Sydney?", "Australia", ("Brazil", "Egypt", "Norway")),
)
