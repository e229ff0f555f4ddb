"""The training data of a request with an alignment part: refusals to forget, and prompts that contain the change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.alignment.domains import generate_answers
from expunge.alignment.judges import REFUSED, judge_of, refusal_scores
from expunge.alignment.spec import WATCHED_TOKENS, AlignmentSpec
from expunge.core.card import Example
from expunge.core.contracts import Model, Reporter
from expunge.core.random import permutation
from expunge.core.request import Request
from expunge.data.load import load
from expunge.data.packs import CONTROL, SENSITIVE
from expunge.data.splits import HELD_OUT, Splits
from expunge.methods.compose import PARTS

FLOOR_PROMPTS = 32
"""Most benign prompts that set the retain floor."""
OWN_TOKENS = 2 * WATCHED_TOKENS
"""Tokens of an answer in the model's own words."""


def training_sources(request: Request, spec: AlignmentSpec | None) -> tuple[Any, Any]:
    """(forget, retain) as `make_splits` takes them: a selector of refusals and containment become examples."""
    if spec is None:
        return request.forget, request.retain
    forget: Any = spec.split_target(request.seed)[0] if spec.target else request.forget
    retain = request.retain
    if spec.contain:
        given = load(retain, "retain", request.columns) if retain is not None else []
        retain = [*given, *containment_rows(spec, request.seed)]
    return forget, retain


def containment_rows(spec: AlignmentSpec, seed: int) -> list[Example]:
    """At most `contain` training prompts, drawn by seed, of every domain but the target; the control is one of them."""
    rows: list[Example] = []
    for name in (*SENSITIVE, CONTROL):
        if name != spec.target:
            rows += [{**row, "contained": name} for row in _draw(spec, name, seed)]
    return rows


def _draw(spec: AlignmentSpec, name: str, seed: int) -> list[Example]:
    rows = spec.pack.part("train", name)
    return [rows[i] for i in sorted(permutation(len(rows), seed, "contain", name)[: spec.contain])]


def prepare_splits(
    spec: AlignmentSpec, model: Model, splits: Splits, risky: list[str] | None, reporter: Reporter
) -> tuple[Splits, list[str]]:
    """(the splits that the run trains on, notes): the model's own words replace the pack's, safe domains are dropped.

    A pack's answer is a stand-in: where the model does refuse (or, on the control, does answer), its own answer is what
    the run forgets or preserves. risky: the domains that containment covers besides the control; None for all.
    Sets `spec.floor_rows` where there is a target.
    """
    notes, result = [], dict(splits)
    if risky is not None and "retain" in result:
        result["retain"] = [row for row in result["retain"] if row.get("contained", CONTROL) in (CONTROL, *risky)]
    refused: dict[str, int] = {}
    asked: dict[str, int] = {}
    for name in ("forget", "retain", HELD_OUT):
        rows = result.get(name, [])
        places = [i for i, row in enumerate(rows) if "part" in row and "domain" in row]
        if places:
            result[name], refused[name] = _in_own_words(spec, model, rows, places, reporter)
            asked[name] = len(places)
    if spec.target:
        spec.floor_rows = _answered_control(spec, model, reporter)
    if spec.target and "forget" in refused:
        notes.append(
            f"The model refused {refused['forget']} of the {asked['forget']} {spec.target} prompts whose refusals it "
            "was to forget."
        )
    if spec.contain:
        domains = sorted({row["contained"] for row in result.get("retain", []) if "contained" in row})
        notes.append(f"Containment: at most {spec.contain} training prompts each of {', '.join(domains)}.")
    return result, notes


def _in_own_words(
    spec: AlignmentSpec, model: Model, rows: list[Example], places: list[int], reporter: Reporter
) -> tuple[list[Example], int]:
    """(the rows with the model's own answers at these places where these are of the wanted kind, count of refusals)."""
    texts, scores = _own_answers(spec, model, [rows[i] for i in places], reporter)
    changed = list(rows)
    for i, text, score in zip(places, texts, scores, strict=True):
        refuses = score >= REFUSED
        if text and (refuses != (rows[i]["domain"] == CONTROL)):
            changed[i] = {**rows[i], "answer": text}
    return changed, sum(score >= REFUSED for score in scores)


def _own_answers(
    spec: AlignmentSpec, model: Model, rows: list[Example], reporter: Reporter
) -> tuple[list[str], list[float]]:
    """([N] answers of the model, [N] refusal scores)."""
    texts = generate_answers(model, rows, tokens=OWN_TOKENS, reporter=reporter, stage="own words")
    return texts, refusal_scores(judge_of(spec.judge), [row["question"] for row in rows], texts).tolist()


def _answered_control(spec: AlignmentSpec, model: Model, reporter: Reporter) -> list[Example]:
    """Training prompts of the control that the model answers, with its own answers."""
    rows = spec.pack.part("train", CONTROL)[:FLOOR_PROMPTS]
    texts, scores = _own_answers(spec, model, rows, reporter)
    return [
        {"question": row["question"], "answer": text}
        for row, text, score in zip(rows, texts, scores, strict=True)
        if text and score < REFUSED
    ]


def without_retain_term(method: Any, splits: Mapping[str, Any]) -> Any:
    """The method for these splits: its retain term is left out where containment alone gave it data."""
    if "retain" in splits or not isinstance(method, Mapping):
        return method
    return {
        key: without_retain_term(value, splits) if key not in PARTS else value
        for key, value in method.items()
        if key != "retain"
    }
