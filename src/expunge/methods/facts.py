"""Facts of a federation's rounds, each bound to those before: who has them can check later what the server did.

A fact has the number of a round, a digest of what each client sent and how far that lies from the round's start, and
a digest of the model that was made of it. A departure's facts follow the training's last link; round 0 of it is the
leaving client's own model. A client that leaves takes its updates along; their digests stay. They prove the procedure,
not that no copy exists. Anyone can compute links anew: what fixes them is the signed certificate that holds the last.
Where clients sign what they send (methods/claims.py), a fact has their claims too.
Source: AF2 (arXiv:2202.12443).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.errors import BadInput
from expunge.methods._history import Kept, read_history
from expunge.methods._rounds import state_of
from expunge.methods._strategy import Strategy, strategy_of
from expunge.methods.claims import broken_claims, public_key
from expunge.methods.trainers.federation import WHERE, federation_of
from expunge.models.history import HISTORY
from expunge.models.manifest import manifest_of, read_manifest
from expunge.models.open import open_model
from expunge.training.updates import chain, digest_of


def has_facts(folder: Path) -> bool:
    """Whether a federation trained the model of this folder, and its manifest holds the rounds' facts."""
    return bool(((manifest_of(folder) or {}).get("federation") or {}).get("facts"))


def check_facts(folder: Path, trust_code: bool = False, keys: Mapping[str, str] | None = None) -> list[str]:
    """Why the rounds that a model's server kept, and their facts, do not go together; none where they do.

    folder: of a model that a federation trained. trust_code: it may be opened with code of its own. keys: client -> its
    public key, of those that are known from elsewhere. Raises BadInput.
    """
    manifest = read_manifest(folder)
    options = federation_of(manifest)
    facts = (manifest.get("federation") or {}).get("facts") or []
    state = state_of(open_model(str(folder), trust_code))
    kept = read_history(folder, state) if (folder / HISTORY).is_file() else []
    found = faults_of(facts, kept, strategy_of(options["strategy"], f"{WHERE}.strategy"))
    if facts and facts[-1]["model"] != digest_of(state):
        found.append("the model is not that of the last round")
    known = dict(keys or {})
    return found + [why for fact in facts for why in broken_claims(fact, known, keys or ())]


def faults_of(facts: Sequence[Mapping[str, Any]], kept: Sequence[Kept], strategy: Strategy) -> list[str]:
    """The rounds whose link, updates or model differ from the facts. strategy: a new one, as the training had it."""
    found = broken_links(facts)
    told = {fact["round"]: fact for fact in facts}
    whole = [one.number for one in kept] == sorted(told)
    for one in kept:
        fact = told.get(one.number, {"updates": {}, "model": ""})
        sent = {update.client: digest_of(update.weights) for update in one.updates}
        after = digest_of(strategy(one.before, one.updates)) if whole or not strategy.state() else fact["model"]
        if sent != fact["updates"]:
            found.append(f"round {one.number}: what clients sent is not what was kept")
        elif after != fact["model"]:
            found.append(f"round {one.number}: the model does not follow from what clients sent")
    return found


def broken_links(facts: Sequence[Mapping[str, Any]], head: str = "") -> list[str]:
    """The rounds whose link does not follow from them and the link before. head: the one before the first."""
    found, model = [], ""
    for fact in facts:
        own = {name: value for name, value in fact.items() if name != "chain"}
        if fact["chain"] != chain(head, own):
            found.append(f"round {fact['round']}: its link does not follow from the facts")
        if model and fact.get("received", model) != model:
            found.append(f"round {fact['round']}: clients received another model than the round before made")
        head, model = str(fact["chain"]), str(fact["model"])
    return found


def faults_of_sheets(stages: Sequence[Mapping[str, Any]], keys: Mapping[str, str] | None = None) -> list[str]:
    """The rounds of all stages whose links or claims are broken. stages: of the evidence, each after the one before.

    keys: client -> its public key, of those that are known from elsewhere. A redacted stage has no names, without which
    its links cannot be computed: those are left out.
    """
    found, head, known = [], "", dict(keys or {})
    for stage in stages:
        facts = stage["facts"]
        if not stage.get("redacted"):
            found += [f"{stage['name']}, {why}" for why in broken_links(facts, head)]
            found += [f"{stage['name']}, {why}" for fact in facts for why in broken_claims(fact, known, keys or ())]
        head = str(facts[-1]["chain"]) if facts else head
    return found


def signers_of(stages: Sequence[Mapping[str, Any]]) -> set[str]:
    """The clients whose claims the facts hold."""
    return {name for stage in stages for fact in stage["facts"] for name in fact.get("claims") or {}}


def keys_in(folder: Path) -> dict[str, str]:
    """Client -> its public key, of the files `CLIENT.pub` in a folder. Raises BadInput where there are none."""
    found = {path.stem: public_key(path) for path in sorted(folder.glob("*.pub"))}
    if not found:
        raise BadInput.of("parties", str(folder), "holds no CLIENT.pub", "name a folder of the clients' public keys")
    return found


def is_last_model(stages: Sequence[Mapping[str, Any]], folder: Path) -> bool:
    """Whether the model of the folder has the weights of the last round's. Raises BadInput where it does not open."""
    facts = [fact for stage in stages for fact in stage["facts"]]
    return not facts or facts[-1]["model"] == digest_of(state_of(open_model(str(folder))))
