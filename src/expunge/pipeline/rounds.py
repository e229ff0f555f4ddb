"""The rounds of a federation as the evidence has them: the training's, and those of a departure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.methods.facts import check_facts, has_facts

KEPT = ("bytes_down", "bytes_up", "left_out", "privacy", "privacy_of_rows", "sums")
"""Fields of a stage that the evidence has as they are. `left_out`: round -> client -> why."""


def rounds_exhibit(
    folder: str, manifest: Mapping[str, Any] | None, departure: Mapping[str, Any] | None, redacted: bool, code: bool
) -> dict[str, Any]:
    """`rounds` of the evidence: the stages with their facts, and what in the model's folder does not go with these.

    folder, manifest: of the model that a federation trained. departure: the account of the rounds without the client.
    code: the model may be opened with code of its own. Redacted: counts in place of names.
    """
    accounts = {"training": (manifest or {}).get("federation") or {}, "departure": departure or {}}
    stages = [_stage(name, one, redacted) for name, one in accounts.items() if one.get("facts")]
    if not stages:
        return {}
    faults = check_facts(Path(folder), code) if has_facts(Path(folder)) else []
    return {"rounds": {"stages": stages, "faults": faults}}


def _stage(name: str, account: Mapping[str, Any], redacted: bool) -> dict[str, Any]:
    kept = {key: account[key] for key in KEPT if account.get(key) not in (None, {})}
    if not redacted:
        return {"name": name, **kept, "facts": account["facts"]}
    kept.pop("left_out", None)
    if "privacy_of_rows" in kept:
        kept["privacy_of_rows"] = {**kept["privacy_of_rows"], "epsilon": _nameless(kept["privacy_of_rows"]["epsilon"])}
    facts = [{key: fact[key] for key in ("round", "model", "chain")} for fact in account["facts"]]
    counts = [len(fact["updates"]) for fact in account["facts"]]
    shown = [{**fact, "clients": count} for fact, count in zip(facts, counts, strict=True)]
    return {"name": name, **kept, "redacted": True, "facts": shown}


def _nameless(found: Mapping[str, float]) -> dict[str, float]:
    """Figures by client, the largest first, with numbers in place of names."""
    return {str(i): value for i, value in enumerate(sorted(found.values(), reverse=True), 1)}
