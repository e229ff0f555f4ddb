"""The model card: a README for the folder of the changed model."""

from __future__ import annotations

import re

from expunge.report import _facts as facts
from expunge.report import _summary
from expunge.report._facts import Evidence, Row


def model_card(evidence: Evidence) -> str:
    """Markdown on what was done to this model, with the verdict, figures and limits.

    It has figures only, never an example, so it needs no redaction.
    """
    word, _ = facts.verdict_word(evidence)
    rows = facts.table(evidence)
    parts = [
        "---\ntags:\n- unlearning\n---",
        f"# {_plain(evidence.get('title') or 'A model after unlearning')}",
        "\n".join(_facts(evidence)),
        _plain(" ".join(_summary.summary(evidence))),
        f"## Verdict: {word.lower()}",
        _plain(" ".join(_summary.proof(evidence))),
        _verdict(evidence),
        "## Figures",
        f"Brackets are 95 % intervals. {facts.INTERVALS}",
        _figures(rows),
        "## Limits",
        "\n".join(f"- {_plain(text)}" for text in _summary.left_open(evidence)),
        "This evidence cannot prove:",
        "\n".join(f"- {text}" for text in facts.LIMITS),
    ]
    notes = evidence.get("notes") or []
    if notes:
        parts += ["## Notes", "\n".join(f"- {_plain(note)}" for note in notes)]
    parts.append("Made by expunge; the run's `evidence.json` and `report.html` have the details.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(evidence: Evidence) -> list[str]:
    given = {
        "Base model": facts.model_name(evidence),
        "Method": facts.method_name(evidence),
        "Purpose": str((evidence.get("request") or {}).get("purpose") or ""),
    }
    return [f"- **{name}**: {_plain(text)}" for name, text in given.items() if text]


def _verdict(evidence: Evidence) -> str:
    lines = facts.lines(evidence)
    if not lines:
        return "The request has no acceptance criteria, so nothing could pass or fail."
    kinds = {"good": "holds", "bad": "fails", "warn": "does not hold (warns)", "none": "undecided"}
    result = ["| Criterion | Value | Bound | |", "|---|---|---|---|"]
    for line in lines:
        remarks = [kinds[line["kind"]], *([line["word"]] if line["word"] else [])]
        if line.get("flagged"):
            remarks.append(facts.STRADDLES)
        if line["why"]:
            remarks.append(str(line["why"]))
        cells = [line["rule"], line["shown"], line["limit"], "; ".join(remarks)]
        result.append("| " + " | ".join(_plain(cell) for cell in cells) + " |")
    return "\n".join(result)


def _figures(rows: list[Row]) -> str:
    present = facts.roles(rows)
    result = [
        "| | " + " | ".join(facts.ROLES.get(role, role) for role in present) + " |",
        "|---|" + "---|" * len(present),
    ]
    for side in facts.known_sides(rows):
        mine = [row for row in rows if row.side == side]
        if not mine:
            result.append(f"| **{side}** | {facts.NOT_REQUESTED} |" + " |" * (len(present) - 1))
            continue
        result.append(f"| **{side}** |" + " |" * len(present))
        for row in mine:
            cells = [_cell(row, role) for role in present]
            name = row.name if row.side == "cost" else f"{row.name}{_split(row)}"
            result.append(f"| {_plain(name)} | " + " | ".join(cells) + " |")
    return "\n".join(result)


def _split(row: Row) -> str:
    plain = row.split in ("", "forget") or row.name.startswith(f"{row.split}_")
    return "" if plain else f" ({row.split})"


def _cell(row: Row, role: str) -> str:
    score = row.cells.get(role)
    if score is None:
        return "–"
    if not facts.is_measured(score):
        return _plain(facts.not_measured(score))
    between = facts.interval(score) if score.get("low") is not None else ""
    text = facts.figure(score) + (f" [{between.replace(' to ', ', ')}]" if between else "")
    return text + (f" (n = {score['n']:,})" if score.get("n") is not None else "")


def _plain(text: object) -> str:
    """One line in which markdown sees no formatting, HTML or table border."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", flat).replace("<", "&lt;").replace(">", "&gt;")
