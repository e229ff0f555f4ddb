"""The examples that the report shows; of a redacted run, figures alone."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup, escape

from expunge.report._facts import ROLES, Evidence, is_redacted

Example = dict[str, Any]
SHOWN, SHOWN_PICTURES = 3, 8
PICTURE = re.compile(r"data:image/(png|svg\+xml);base64,[A-Za-z0-9+/=]+")
COMMON = frozenset(
    "the and was were with that this from into their there they have has had been are for his her "
    "its who which what when where whose about your you not but".split()
)


def groups(evidence: Evidence) -> list[dict[str, Any]]:
    """Worst forgotten, best forgotten, worst preserved: each with a title, a sentence and its examples."""
    given = evidence.get("examples") or {}
    hide = is_redacted(evidence)
    forget = [_public_parts(example, hide) for example in given.get("forget") or []]
    retain = [_public_parts(example, hide) for example in given.get("retain") or []]
    forget.sort(key=_sort_key)
    retain.sort(key=_damage)
    most = SHOWN_PICTURES if any(example["picture"] for example in forget) else SHOWN
    worst = forget[:most]
    best = forget[most:][::-1][:most]
    result = [
        ("Least forgotten", "The model still knows these best although it should not.", worst),
        ("Best forgotten", "The least is left of these.", best),
        ("Worst preserved", "These should have stayed, and the change hurt them most.", retain[:most]),
    ]
    return [
        {"title": title, "says": says, "examples": examples, "kind": _kind(examples)}
        for title, says, examples in result
        if examples
    ]


def _kind(examples: list[Example]) -> str:
    if any(example["texts"] for example in examples):
        return "text"
    if all(example["picture"] for example in examples):
        return "picture"
    return "label" if any(example["label"] is not None for example in examples) else "nll"


def _sort_key(example: Example) -> float:
    """Sort key, low where still known: NLL after less gold's, else the plain NLL, else the predicted class."""
    nll = example["nll"]
    if nll.get("after") is not None:
        return float(nll["after"]) - float(nll.get("gold") or 0)
    return float(example["labels"].get("after") != example["label"])


def _damage(example: Example) -> float:
    """Sort key, low where hurt most."""
    nll = example["nll"]
    if nll.get("after") is not None:
        return float(nll.get("before") or 0) - float(nll["after"])
    return float(example["labels"].get("after") == example["label"])


def _public_parts(example: Example, hide: bool) -> Example:
    """The parts of an example that the page may show; figures alone for a hidden one."""
    hidden = hide or bool(example.get("redacted"))
    nll = {s: (example.get("nll") or {}).get(s) for s in ROLES}
    shown: Example = {
        "nll": nll,
        "redacted": hidden,
        "question": "",
        "answer": "",
        "texts": {},
        "label": None,
        "prompt": "",
        "labels": {},
        "picture": "",
    }
    if hidden:
        return shown
    if PICTURE.fullmatch(str(example.get("picture") or "")):  # evidence may come from anyone: nothing but an image
        shown["picture"] = example["picture"]
    if example.get("label") is not None:
        shown |= {"label": example["label"], "prompt": str(example.get("prompt") or "")}
        shown["labels"] = {s: example[s] for s in ROLES if example.get(s) is not None}
        return shown
    question, answer = (str(example.get(key) or "") for key in ("question", "answer"))
    telling = _words(answer) - _words(question) - COMMON
    texts = {s: str(example[s]) for s in ROLES if example.get(s) is not None}
    shown |= {
        "question": question or str(example.get("text") or ""),
        "answer": answer,
        "texts": {s: mark(text, telling) for s, text in texts.items()},
    }
    return shown


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 2 or word.isdigit()}


def mark(text: str, telling: set[str]) -> Markup:
    """The text, escaped, with the words of the true answer marked."""
    parts = re.split(r"(\w+)", text)
    return Markup("").join(
        Markup("<mark>{}</mark>").format(part) if part.lower() in telling else escape(part) for part in parts
    )
