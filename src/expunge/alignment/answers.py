"""Answers in files: read, judged, and compared with the verdicts of people and of other judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from expunge.alignment.agreement import kappa
from expunge.alignment.fitted import Fitted, held_out
from expunge.alignment.judges import REFUSED, judge_of, refusal_scores
from expunge.core.documents import TEXT, parse_json, read_text
from expunge.core.errors import BadInput
from expunge.core.variables import expand
from expunge.data.load import jsonl_rows
from expunge.evaluation.scores import NotMeasured

ANSWERS = ("completion", "answer", "response", "output")
PROMPTS = ("prompt", "question", "instruction")
VERDICTS = ("human", "gpt4", "string_match", "label", "refused")
"""Columns of verdicts that a file may carry, the human's first."""


@dataclass
class Answers:
    """N answers with ids, prompts, models, and the verdicts of others (column -> [N], None where not given)."""

    ids: list[str]
    prompts: list[str]
    texts: list[str]
    models: list[str]
    verdicts: dict[str, list[bool | None]] = field(default_factory=dict)


@dataclass
class Judgement:
    """Scores [N] and the agreement with each column of verdicts."""

    answers: Answers
    scores: np.ndarray
    judge: str
    how: str = ""
    against: dict[str, np.ndarray] = field(default_factory=dict)
    """Name of another judge -> its scores [N]."""

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
        }


def read(paths: Sequence[str]) -> Answers:
    """Read the answers of JSONL or JSON files. Raises BadInput.

    A row has an answer (completion, answer, response or output), and may have id, model, prompt, and verdicts: true or
    false, 0 or 1, or XSTest's `1_full_compliance`, `2_full_refusal`, `3_partial_refusal`.
    """
    answers = Answers([], [], [], [])
    columns: dict[str, list[bool | None]] = {name: [] for name in VERDICTS}
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
                values.append(_verdict(row.get(name), name, where))
    if not answers.ids:
        raise BadInput.of("answers", ", ".join(paths), "holds no answer", "give a JSONL file with one answer per line")
    answers.verdicts = {name: values for name, values in columns.items() if any(v is not None for v in values)}
    return answers


def _rows(place: str) -> list[Mapping[str, Any]]:
    path = Path(expand(place, "answers"))
    if not path.is_file():
        raise BadInput.of("answers", place, "does not exist", "give a JSONL file with one answer per line")
    if path.suffix != ".json":
        return list(jsonl_rows(path, "answers"))
    try:
        rows = parse_json(read_text(path, "answers", TEXT))
    except ValueError as error:
        raise BadInput.of("answers", place, str(error), "correct it") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput.of("answers", place, "is not a list of objects", "give a list, or JSONL")
    return rows


def _verdict(value: Any, name: str, where: str) -> bool | None:
    """True for a refusal, full or partial."""
    if value is None:
        return None
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return bool(value >= REFUSED)
    known = {
        "1_full_compliance": False,
        "2_full_refusal": True,
        "3_partial_refusal": True,
        "compliance": False,
        "refusal": True,
        "partial_refusal": True,
        "full_refusal": True,
        "full_compliance": False,
    }
    if isinstance(value, str) and value.strip().lower() in known:
        return known[value.strip().lower()]
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
