"""Facts of a federation's rounds, each bound to those before: who has them can check later what the server did.

A fact has the number of a round, a digest of what each client sent, and one of the model that was made of it. A client
that leaves takes its updates along; their digests stay. They prove the procedure, not that no copy exists.
Source: AF2 (arXiv:2202.12443), without its claims and their signatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.methods._history import Kept, read_history
from expunge.methods._rounds import state_of
from expunge.methods._strategy import Strategy, strategy_of
from expunge.methods.trainers.federation import WHERE, federation_of
from expunge.models.history import HISTORY
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.training.updates import chain, digest_of


def check_facts(folder: Path) -> list[str]:
    """Why the rounds that a model's server kept, and their facts, do not go together; none where they do.

    folder: of a model that a federation trained. Raises BadInput.
    """
    manifest = read_manifest(folder)
    options = federation_of(manifest)
    facts = (manifest.get("federation") or {}).get("facts") or []
    state = state_of(open_model(str(folder)))
    kept = read_history(folder, state) if (folder / HISTORY).is_file() else []
    found = faults_of(facts, kept, strategy_of(options["strategy"], f"{WHERE}.strategy"))
    if facts and facts[-1]["model"] != digest_of(state):
        found.append("the model is not that of the last round")
    return found


def faults_of(facts: Sequence[Mapping[str, Any]], kept: Sequence[Kept], strategy: Strategy) -> list[str]:
    """The rounds whose link, updates or model differ from the facts. strategy: a new one, as the training had it."""
    found, previous = [], ""
    for fact in facts:
        own = {name: value for name, value in fact.items() if name != "chain"}
        if fact["chain"] != chain(previous, own):
            found.append(f"round {fact['round']}: its link does not follow from the facts")
        previous = fact["chain"]
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
