"""Domain packs: prompts of responsible-AI domains, each to train on or to score, never both.

A pack is a folder of JSONL files, one a domain (the file's stem, or `domain` in a row), with a `card.json` that says
what it is. A row has question (or prompt), and may have part ("train" or "score"; else a hash of the prompt decides),
group (for fairness; else its domain), answer (for a sensitive domain how it is refused), compliant (a stand-in for an
answer), and for the benign control keywords (an answer that holds one of them is right). XSTest's prompts and BBQ's
questions are read as they are. A row whose label is "unsafe" (XSTest's contrast prompts) only scores, and no answer to
it is ever written. `standard` names the embedded pack.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.core.card import Example
from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.core.files import digest, read_json
from expunge.core.variables import expand
from expunge.data.load import file_rows, jsonl_rows
from expunge.data.worlds import parse, splits

SENSITIVE = ("cybersecurity", "safety", "toxicity", "bias", "sensitive", "medical_legal", "privacy")
CONTROL = "benign"
DOMAINS = (*SENSITIVE, CONTROL)
REFUSAL = "I'm sorry, but I can't help with that."
"""How a pack that does not say it refuses; a run takes the model's own words where it does refuse."""
COMPLIANT = "Sure. This is a placeholder for a helpful answer."
STANDARD = Path(__file__).parent / "standard"
PARTS = ("train", "score")


@dataclass
class Pack:
    """Prompts by part, and BBQ's questions where the pack has them."""

    name: str
    rows: list[Example] = field(default_factory=list)
    bbq: list[Example] = field(default_factory=list)

    def part(self, part: str, domain: str | None = None) -> list[Example]:
        """The prompts of a part, of one domain or of all, in the pack's order."""
        return [row for row in self.rows if row["part"] == part and domain in (None, row["domain"])]

    @property
    def domains(self) -> list[str]:
        """The domains that have prompts that score, in the fixed order."""
        return [name for name in DOMAINS if self.part("score", name)]


def open_pack(source: str | Sequence[str] | None, model: Any = None, name: str = "domains") -> Pack:
    """One pack of one or several sources: folders, files, or `builtin:instruct`. Raises BadInput.

    Without a source: the world's own where the model is the instruct world, else the embedded pack.
    """
    if source is None:
        world = isinstance(model, str) and model.startswith("builtin:instruct")
        source = str(model) if world else str(STANDARD)
    sources = [source] if isinstance(source, str) else list(source)
    faults, pack = Faults(), Pack(", ".join("standard" if s == str(STANDARD) else s for s in sources))
    for one in sources:
        with faults:
            _add(pack, one, name)
    faults.raise_any()
    seen: dict[str, str] = {}
    for row in pack.rows:
        before = seen.setdefault(row["question"], row["part"])
        if before != row["part"]:
            raise BadInput.of(
                name,
                row["question"][:80],
                "is among the prompts that train and those that score",
                "give it one part",
            )
    if not pack.rows and not pack.bbq:
        raise BadInput.of(name, pack.name, "holds no prompt", "give a folder of JSONL files with prompts")
    return pack


def _add(pack: Pack, source: str, name: str) -> None:
    if source.startswith("builtin:"):
        world, setting, _ = parse(source, name)
        if world != "instruct":
            raise BadInput.of(name, source, "has no domains", "write builtin:instruct, or a folder of prompts")
        found = splits(world, setting)
        pack.rows += [{**row, "part": part} for part in PARTS for row in found[part]]
        return
    path = Path(expand(source, name))
    if source == STANDARD.name and not path.exists():
        path = STANDARD
    try:
        there = path.exists()
    except (OSError, ValueError):  # too long, or a NUL character
        there = False
    if not there or not source.strip():
        raise BadInput.of(name, source, "does not exist", "give a folder of JSONL files with prompts", empty=True)
    files = sorted([*path.glob("*.jsonl"), *path.glob("*.csv")]) if path.is_dir() else [path]
    if path.is_dir():
        _check_card(path, name)
    for file in files:
        if file.name.startswith("judged_"):  # XSTest's folder holds judged answers too
            continue
        for number, row in enumerate(_rows_of(file, name), 1):
            where = f"row {number} of {file.name}"
            if "options" in row and "context" in row:
                pack.bbq.append(_question(row, name, where))
            else:
                pack.rows.append(_prompt(row, file.stem, name, where))


def _rows_of(file: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a JSONL file, or of a table such as XSTest's own; empty cells are left out."""
    if file.suffix != ".csv":
        return list(jsonl_rows(file, name))
    return [{key: cell for key, cell in row.items() if cell is not None} for row in file_rows(file, name)]


def _check_card(folder: Path, name: str) -> None:
    card = folder / "card.json"
    if not card.is_file():
        return
    try:
        if not isinstance(read_json(card), dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise BadInput.of(name, str(card), f"cannot be read ({error})", "write a JSON object") from None


def _prompt(row: Mapping[str, Any], stem: str, name: str, where: str) -> Example:
    prompt = row.get("question", row.get("prompt"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadInput.of(name, where, "has no prompt", "give question or prompt, a text")
    xstest = "type" in row and ("label" in row or "focus" in row)
    domain = row.get("domain") or (_of_xstest(row) if xstest else stem)
    if domain not in DOMAINS:
        raise BadInput.of(
            name,
            where,
            f"is of the domain {domain!r}, which we do not know (a row's key domain, else its file's name)",
            did_you_mean(domain, DOMAINS),
        )
    # XSTest is a test: all of it scores. Elsewhere the prompt's hash halves what the pack does not.
    part = row.get("part") or ("score" if xstest or "label" in row or int(digest(prompt)[:8], 16) % 2 else "train")
    if part not in PARTS:
        raise BadInput.of(name, where, f"is of the part {part!r}", "write train or score")
    group = row["group"] if row.get("group") is not None else domain
    found: Example = {"question": prompt, "domain": domain, "part": part, "group": group}
    if domain != CONTROL and _is_unsafe(row, xstest):
        if part == "train":
            why = "is labelled unsafe and of the part train: a run writes answers to what trains"
            raise BadInput.of(name, where, why, "write part: score, or train on a placeholder")
        found["unsafe"] = True
    if domain == CONTROL:
        keywords = row.get("keywords") or []
        if not isinstance(keywords, list) or not all(isinstance(word, str) and word for word in keywords):
            raise BadInput.of(name, where, "has keywords that are no list of texts", "write a list")
        return {
            **found,
            "keywords": keywords,
            "answer": str(row.get("answer") or COMPLIANT),
            "given": bool(row.get("answer")),
        }
    return {**found, "answer": str(row.get("answer") or REFUSAL), "compliant": str(row.get("compliant") or COMPLIANT)}


def _is_unsafe(row: Mapping[str, Any], xstest: bool) -> bool:
    """Whether a prompt is labelled so that no answer to it may be written; XSTest's older table has no label."""
    if not xstest:
        return bool(row.get("label") == "unsafe")
    return bool(row.get("label", "unsafe" if str(row["type"]).startswith("contrast_") else "safe") != "safe")


def _of_xstest(row: Mapping[str, Any]) -> str:
    """Safe prompts are a control for over-refusal; of the others, privacy and bias have types of their own."""
    if not _is_unsafe(row, xstest=True):
        return CONTROL
    kind = str(row["type"])
    return "privacy" if "privacy" in kind else "bias" if re.search("discr|group", kind) else "safety"


def _question(row: Mapping[str, Any], name: str, where: str) -> Example:
    options, groups = row.get("options"), row.get("groups")
    good = (
        isinstance(options, list)
        and isinstance(groups, list)
        and len(options) == len(groups) >= 2
        and isinstance(row.get("label"), int)
        and 0 <= row["label"] < len(options)
        and row.get("condition") in ("ambig", "disambig")
        and row.get("polarity") in ("neg", "nonneg")
        and isinstance(row.get("stereotyped"), list)
        and isinstance(row.get("question"), str)
    )
    if not good:
        raise BadInput.of(
            name,
            where,
            "is not a BBQ question",
            "give context, question, options, groups, label, condition, polarity and stereotyped",
        )
    return dict(row)
