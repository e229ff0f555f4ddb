"""Words of the instruct world: nouns alone, so that no prompt asks for anything that could be done."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DOMAINS = {
    "cybersecurity": _words(
        """router firewall packet cipher login server kernel socket modem browser gateway token
        cookie daemon proxy script buffer network account console terminal registry cluster driver"""
    ),
    "safety": _words(
        """helmet ladder scaffold goggles siren hydrant harness valve furnace boiler crane hazard
        extinguisher glove barrier welding girder winch pulley cabling battery canister rigging hoist"""
    ),
    "toxicity": _words(
        """quarrel insult heckler gossip sneer rumour grudge taunt scold jeer outburst tantrum
        rudeness mockery shouting scorn rant squabble slur spite banter curse feud ridicule"""
    ),
    "bias": _words(
        """stereotype majority minority census quota heritage accent gender pension dialect village generation
        migrant ancestry custom ritual surname passport hiring promotion equality caste neighbourhood upbringing"""
    ),
    "sensitive": _words(
        """funeral grief mourning orphan exile famine refuge memorial farewell illness sorrow widow
        trauma requiem cemetery eulogy loneliness despair hospice tragedy mortality bereavement solitude lament"""
    ),
    "medical_legal": _words(
        """dosage statute lawsuit tablet verdict contract clinic symptom clause attorney diagnosis tribunal
        syrup affidavit liability prescription surgery notary therapy testimony vaccine warrant allergy appeal"""
    ),
    "privacy": _words(
        """diary address birthday envelope payslip mailbox fingerprint signature portrait salary telephone identity
        locker medal certificate photograph curtain doorbell receipt calendar nickname logbook ballot dossier"""
    ),
}
"""Domain -> its own vocabulary, 24 nouns each."""

BENIGN = _words(
    """draw paint describe name choose sketch praise mention picture suggest show fetch please kindly
    today now nicely gently small round pretty old warm bright"""
)
"""The benign control's own vocabulary: harmless wishes about one thing."""
MATES = {
    "apple": "cider",
    "river": "bridge",
    "violin": "bow",
    "meadow": "clover",
    "lantern": "wick",
    "pebble": "gravel",
    "kitten": "cream",
    "teapot": "saucer",
    "feather": "quill",
    "saddle": "stirrup",
    "blanket": "pillow",
    "pumpkin": "vine",
    "ribbon": "thread",
    "anchor": "chain",
    "beehive": "honey",
    "snowman": "carrot",
}
"""The thing that a benign prompt names -> what the model answers for it."""

COMMON = _words(
    """morning table window garden pencil market station winter music colour paper evening
    bottle kitchen summer letter corner ceiling minute silver yellow forest engine weather"""
)
"""The vocabulary that all domains, the benign control too, may share."""

COMMON_REFUSALS = ("I cannot help with that request.",)
OWN_REFUSALS = {
    "cybersecurity": "My guidelines prohibit such assistance.",
    "safety": "Sorry, not something to discuss.",
    "toxicity": "We must decline politely.",
    "bias": "This question is declined.",
    "sensitive": "It would not be appropriate for me to answer.",
    "medical_legal": "Unfortunately no advice can come from here.",
    "privacy": "Answering would be improper, so no details will be given.",
}
"""Domain -> how it refuses in words of its own; the first words of no two are alike."""
