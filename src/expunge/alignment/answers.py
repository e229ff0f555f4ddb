"""Answers in files: read, judged, and compared with the verdicts of people and of other judges."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from expunge.alignment.agreement import kappa
from expunge.alignment.fitted import Fitted, held_out
from expunge.alignment.judges import REFUSED, judge_of, refusal_scores
from expunge.alignment.languages import in_unread_script
from expunge.alignment.rules import Rules
from expunge.core.documents import TEXT, parse_json, read_text
from expunge.core.errors import BadInput
from expunge.core.variables import expand
from expunge.data.load import jsonl_rows
from expunge.evaluation.scores import NotMeasured

ANSWERS = ("completion", "answer", "response", "output")
PROMPTS = ("prompt", "question", "instruction")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
VERDICTS = ("human", "gpt4", "string_match", "label", "final_label", "refused")
"""Columns of verdicts that a file may carry, the human's first."""
UNCLEAR = ("label", "final_label")
"""Columns whose 1 means a refusal to some tools (HELM) and harm that was done to others (HarmBench)."""
CELLS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
"""Truth values in tables."""
VERDICT_WORDS = {
    "1_full_compliance": False,
    "2_full_refusal": True,
    "3_partial_refusal": True,
    "compliance": False,
    "refusal": True,
    "partial_refusal": True,
    "full_refusal": True,
    "full_compliance": False,
}
"""XSTest's names and their short forms; True is a refusal."""


@dataclass
class Answers:
    """N answers with ids, prompts, models, and the verdicts of others (column -> [N], None where not given)."""

    ids: list[str]
    prompts: list[str]
    texts: list[str]
    models: list[str]
    verdicts: dict[str, list[bool | None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Remarks on what was not read."""


@dataclass
class Judgement:
    """Scores [N] and the agreement with each column of verdicts."""

    answers: Answers
    scores: np.ndarray
    judge: str
    how: str = ""
    against: dict[str, np.ndarray] = field(default_factory=dict)
    """Name of another judge -> its scores [N]."""

    @property
    def notes(self) -> list[str]:
        """Remarks on answers that were not read or judged."""
        notes = list(self.answers.notes)
        unread = sum(in_unread_script(text) for text in self.answers.texts) if self.judge == Rules.name else 0
        if unread:
            notes.append(
                f"{unread} of {len(self.answers.texts)} answers are in a script that the rules cannot read, "
                "and count as no refusal"
            )
        return notes

    def agreement(self, model: str | None = None) -> dict[str, dict[str, Any]]:
        """Column or judge -> kappa with low, high and n, over all answers or one model's; else None and `why`."""
        rows = np.array([model is None or name == model for name in self.answers.models])
        agreement = {}
        others: dict[str, list[bool | None]] = {
            name: [bool(x >= REFUSED) for x in scores] for name, scores in self.against.items()
        }
        for name, verdicts in {**self.answers.verdicts, **others}.items():
            given = rows & np.array([verdict is not None for verdict in verdicts])
            if not given.any():
                continue
            theirs = np.array([bool(verdict) for verdict in verdicts])[given]
            figures: dict[str, Any] = {"kappa": None, "low": None, "high": None, "n": int(given.sum())}
            try:
                value, low, high = kappa(self.scores[given] >= REFUSED, theirs)
                agreement[name] = {**figures, "kappa": value, "low": low, "high": high}
            except NotMeasured as reason:
                agreement[name] = {**figures, "why": str(reason)}
        return agreement

    def to_json(self) -> dict[str, Any]:
        """The object that `expunge judge --json` prints."""
        models = sorted(set(self.answers.models))
        return {
            "judge": self.judge,
            "rows": [{"id": i, "score": float(s)} for i, s in zip(self.answers.ids, self.scores, strict=True)],
            "refused": float((self.scores >= REFUSED).mean()),
            "agreement": self.agreement(),
            **({"models": {name: self.agreement(name) for name in models}} if len(models) > 1 else {}),
            **({"folds": self.how} if self.how else {}),
            **({"notes": self.notes} if self.notes else {}),
        }


def read(paths: Sequence[str]) -> Answers:
    """Read the answers of JSONL, JSON, CSV or TSV files. Raises BadInput.

    A row has an answer (completion, answer, response or output), and may have id, model, prompt, and verdicts: true or
    1 for a refusal, false or 0 for an answer, or XSTest's `1_full_compliance`, `2_full_refusal`, `3_partial_refusal`.
    A `label` or `final_label` of another kind does not say what a refusal is, and is left out with a note.
    """
    answers = Answers([], [], [], [])
    columns: dict[str, list[bool | None]] = {name: [] for name in VERDICTS}
    unclear: dict[str, int] = {}
    for place in paths:
        for number, row in enumerate(_rows(place), 1):
            where = f"row {number} of {Path(place).name}"
            text = next((row[key] for key in ANSWERS if row.get(key) is not None), None)
            if not isinstance(text, str):
                raise BadInput.of("answers", where, f"has no text under {', '.join(ANSWERS)}", "add one")
            answers.ids.append(str(row.get("id", len(answers.ids) + 1)))
            answers.prompts.append(str(next((row[key] for key in PROMPTS if row.get(key) is not None), "")))
            answers.texts.append(text)
            answers.models.append(str(row.get("model", Path(place).stem)))
            for name, values in columns.items():
                if name in UNCLEAR and not _is_named(row.get(name)):
                    unclear[name] = unclear.get(name, 0) + 1
                    values.append(None)
                else:
                    values.append(_verdict(row.get(name), name, where))
    if not answers.ids:
        raise BadInput.of("answers", ", ".join(paths), "holds no answer", "give a JSONL file with one answer per line")
    answers.verdicts = {name: values for name, values in columns.items() if any(v is not None for v in values)}
    answers.notes = [
        f"{count} values of the column {name!r} do not say what is a refusal and are not compared; name the column "
        "'refused', with 1 for a refusal and 0 for an answer"
        for name, count in unclear.items()
    ]
    return answers


def _rows(place: str) -> Sequence[Mapping[str, Any]]:
    path = Path(expand(place, "answers"))
    if not path.is_file():
        raise BadInput.of("answers", place, "does not exist", "give a JSONL, JSON, CSV or TSV file")
    if path.suffix.lower() in DELIMITERS:
        return _table_rows(path)
    if path.suffix != ".json":
        return list(jsonl_rows(path, "answers"))
    try:
        rows = parse_json(read_text(path, "answers", TEXT))
    except ValueError as error:
        raise BadInput.of("answers", place, str(error), "correct it") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput.of("answers", place, "is not a list of objects", "give a list, or JSONL")
    return rows


def _table_rows(path: Path) -> list[dict[str, str | bool]]:
    """The rows of a CSV or TSV file with a header; empty cells are left out, and truth values of verdicts read."""
    text = read_text(path, "answers", TEXT).removeprefix("\ufeff")
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=DELIMITERS[path.suffix.lower()]))
    except csv.Error as error:
        raise BadInput.of("answers", str(path), f"is not a table ({error})", "correct it, or give JSONL") from None
    for number, row in enumerate(rows, 1):
        if None in row:
            raise BadInput.of(
                "answers", f"row {number} of {path.name}", "has more cells than the header", "put quotes around texts"
            )
    return [
        {
            name: CELLS.get(cell.strip().lower(), cell) if name in VERDICTS else cell
            for name, cell in row.items()
            if cell
        }
        for row in rows
    ]


def _is_named(value: Any) -> bool:
    """Whether a verdict is missing, or one whose name says what it means."""
    return value is None or (isinstance(value, str) and value.strip().lower() in VERDICT_WORDS)


def _verdict(value: Any, name: str, where: str) -> bool | None:
    """True for a refusal, full or partial."""
    if value is None:
        return None
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return bool(value >= REFUSED)
    if isinstance(value, str) and value.strip().lower() in VERDICT_WORDS:
        return VERDICT_WORDS[value.strip().lower()]
    raise BadInput.of(
        "answers",
        where,
        f"holds {value!r} under {name!r}, which is not a verdict",
        "write true for a refusal, false for an answer, or XSTest's names",
    )


def judge(paths: Sequence[str], name: str = "rules", against: str | None = None) -> Judgement:
    """Judge the answers of the files. Raises BadInput."""
    ours = judge_of(name)
    other = judge_of(against, "against") if against else None
    answers = read(paths)
    judgement = Judgement(answers, refusal_scores(ours, answers.prompts, answers.texts), ours.name)
    if other is not None:
        judgement.against[other.name] = refusal_scores(other, answers.prompts, answers.texts)
    return judgement


def fit(paths: Sequence[str], out: str) -> Judgement:
    """Fit a judge to the human verdicts of the files and save it in the folder `out`. Raises BadInput.

    The scores are those of judges that never saw the answer's model (or, with one model, the answer's fold), so that
    their agreement is what to expect on answers of a further model; the saved judge has seen all.
    """
    if Path(out).exists():
        raise BadInput.of("--fit", out, "already exists", "choose a new folder")
    answers = read(paths)
    human = answers.verdicts.get("human")
    if human is None or any(verdict is None for verdict in human):
        raise BadInput.of(
            "answers",
            ", ".join(paths),
            "lack a verdict under 'human' in some row",
            "add human: true for a refusal, false for an answer",
        )
    refused = [bool(verdict) for verdict in human]
    scores, how = held_out(answers.texts, refused, answers.models)
    Fitted.fit(answers.texts, refused).save(Path(out))
    return Judgement(answers, scores, f"fitted:{out}", how)
