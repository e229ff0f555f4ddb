"""Was a model trained on these data: marks that were set beforehand, and tests of contamination without any.

Each model is opened once and tested alike: the one in question, and where they are given the one before unlearning and
one that never saw the data. Nothing is trained or changed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from expunge.attacks.population.contamination import Marks, guided_completion, leads, option_order, pieces, sign_flip_p
from expunge.core.card import Example
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.errors import BadInput, Faults
from expunge.data.examples import identity
from expunge.data.load import load
from expunge.data.sampling import sample
from expunge.data.texts import texts_only
from expunge.evaluation import intervals, reading
from expunge.evaluation.scores import NotMeasured, Score, measure
from expunge.models.open import check, open_model
from expunge.pipeline import evidence as dossier
from expunge.pipeline import out_folder
from expunge.pipeline.compatibility import fits_model
from expunge.pipeline.worlds import build
from expunge.pipeline.worlds import config as builtin_config
from expunge.workflows.mark import LEAST_MARKS, read_marks

ALPHA = 0.01
"""At or below it a p-value is called small."""
READ = 200
"""Rows of the data, and of the holdout, that are read at most."""
MEMBERSHIP = {"min_k_auc": "auc", "dataset_inference": "p-value", "blind_auc": "auc"}
"""Attacks of an audit that say whether data were seen, and their units."""
CHANNELS = {"nll", "logp", "moments"}
MODELS = {"before": "the model before", "after": "the model", "gold": "gold"}
SAYS = {
    "marks": "A small p says that the marks were learnt: of models that never saw them so few look like this as p says, since a "
    "secret draw chose which of the two was published. A large p does not say that the data were not used: marks are few, "
    "and can be seen too seldom to be learnt, or be filtered out.",
    "removed": "After unlearning, a large p says that this test no longer finds the marks, not that nothing else of the data is left.",
    "others": "That the marks were drawn beforehand is what the p-value rests on: to convince others, show that the digest of marks.json "
    "is older than the model.",
    "guided_completion": "A small p says that naming the data set helps the model to finish its rows; a model that cannot follow "
    "instructions gives a large one, whatever it saw.",
    "option_order": "A small p says that the model prefers the published order of the options. It speaks of training only where that order is "
    "an accident: options that rise in size, or end in `all of the above`, are preferred by every model. A large p says "
    "nothing, for the rows may have been seen in another form.",
    "membership": "Data and holdout can differ by more than training: where the blind baseline, which asks no model, lies above 0.5, the "
    "others cannot be read as memory.",
}


def provenance(
    model: str,
    *,
    marks: str | None = None,
    data: Any = None,
    holdout: Any = None,
    name: str | None = None,
    split: str = "train",
    before: str | None = None,
    gold: str | None = None,
    seed: int = 0,
    trust_code: bool = False,
    out: str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """The evidence dict; with `out` also evidence.json. Raises BadInput before a model is opened.

    marks: the folder that `mark` wrote. data: rows that may have been trained on; name and split: what the data set is
    called, for guided completion; holdout: rows like data that were never trained on.
    """
    reporter = reporter or Silent()
    began = time.monotonic()
    faults = Faults()
    kind, marked = "", None
    rows: dict[str, list[Example]] = {}
    if marks is None and data is None:
        faults.add(
            BadInput.of(
                "marks",
                "",
                "is missing, and so is data: there is nothing to test",
                "give --marks FOLDER, --data FILE, or both",
            )
        )
    for field, value in {"holdout": holdout, "name": name}.items():
        if value is not None and data is None:
            faults.add(BadInput.of(field, str(value), "is of use beside data alone", "add --data FILE"))
    if marks is not None:
        with faults:
            kind, marked = read_marks(marks)
    for field, source in {"data": data, "holdout": holdout}.items():
        if source is not None:
            with faults:
                found = load(source, field)
                texts_only(found, field)
                rows[field] = found
    if shared := {identity(row) for row in rows.get("data", [])} & {identity(row) for row in rows.get("holdout", [])}:
        faults.add(
            BadInput.of(
                "holdout", str(holdout), f"shares {len(shared)} rows with data", "give rows that were never trained on"
            )
        )
    sources = {role: source for role, source in {"before": before, "after": model, "gold": gold}.items() if source}
    for role, source in sources.items():
        with faults:
            if source.startswith("builtin:"):
                builtin_config(source)
            else:
                check(source, trust_code, field="model" if role == "after" else role)
    if out is not None:
        with faults:
            out_folder.free(out)
    faults.raise_any()
    rows = {field: sample(found, seed, READ) for field, found in rows.items()}
    named = {"name": name, "split": split, "seed": seed}
    scores: list[Score] = []
    reporter.start("testing models", len(sources))
    for done, (role, source) in enumerate(sources.items(), 1):
        source = str(build(source, reporter)) if source.startswith("builtin:") else source
        opened = open_model(source, trust_code)
        fits_model(opened, rows | ({"marks": [*marked.published, *marked.twins]} if marked else {}))
        scores += [*_marks(opened, role, marked), *_order(opened, role, rows, named), *_members(opened, role, rows)]
        reporter.advance("testing models", done, role)
    reporter.finish("testing models")
    evidence = {
        "schema": 1,
        "title": "Contamination and provenance",
        "request": {
            "model": model,
            "before": before,
            "gold": gold,
            "marks": marks,
            "kind": kind or None,
            "data": data if isinstance(data, str) else None,
            **named,
        },
        "scores": [score.to_json() for score in scores],
        "conclusions": conclusions(scores),
        "notes": notes(scores, len(marked.published) if marked else None),
        "cost": {"audit_seconds": round(time.monotonic() - began, 2)},
        "environment": dossier.environment(),
        "verdict": {"passed": None, "lines": []},
        "splits": {field: len(found) for field, found in rows.items()},
    }
    if out is not None:
        with out_folder.held(out):
            out_folder.write(out, evidence)
    return evidence


def _score(name: str, split: str, role: str, figures: Callable[[], dict[str, Any]], unit: str = "p-value") -> Score:
    """What a test came to; a test that cannot be had says why."""
    same: dict[str, Any] = {
        "name": f"privacy_{name}",
        "side": "privacy",
        "split": split,
        "subject": role,
        "unit": unit,
        "better": "gold",
    }
    try:
        return Score(**same, **{"low": None, "high": None, **figures()})
    except (NotMeasured, BadInput) as reason:
        why = str(reason)
    return Score(**same, value=None, low=None, high=None, n=0, status="not measured", why=why)


def _marks(model: Model, role: str, marks: Marks | None) -> list[Score]:
    """p, and by how much marks are likelier than their twins."""
    lead: list[Any] = []

    def p() -> dict[str, Any]:
        if marks is None:
            raise NotMeasured("no --marks was given")
        lead.append(leads(model, marks))
        return {"value": sign_flip_p(lead[0]), "n": len(lead[0])}

    def by() -> dict[str, Any]:
        if not lead:
            raise NotMeasured(found.why)
        return {**intervals.mean(lead[0])._asdict(), "n": len(lead[0])}

    found = _score("marks", "marks", role, p)
    return [found, _score("marks_lead", "marks", role, by, "nats")]


def _order(model: Model, role: str, rows: Mapping[str, Sequence[Example]], named: Mapping[str, Any]) -> list[Score]:
    """Guided completion and the order of options."""
    data = rows.get("data")

    def guided() -> dict[str, Any]:
        if data is None:
            raise NotMeasured("no --data was given")
        if not named["name"]:
            raise NotMeasured("no --name was given: what the data set is called")
        if "generate" not in model.capabilities:
            raise NotMeasured("the model writes no text")
        return {
            "value": guided_completion(model, data, dataset=named["name"], split=named["split"]),
            "n": len(pieces(data)),
        }

    def order() -> dict[str, Any]:
        if data is None:
            raise NotMeasured("no --data was given")
        chosen = [found for row in data if (found := with_options(row))]
        if not chosen:
            raise NotMeasured("no row has a question and three options or more (options, or choices)")
        return {"value": option_order(model, chosen, seed=named["seed"]), "n": len(chosen)}

    return [_score("guided_completion", "data", role, guided), _score("option_order", "data", role, order)]


def with_options(row: Example) -> Example | None:
    """{"question", "options"} of a row that has three options or more; a question that lists them loses the list."""
    options = row.get("options") or row.get("choices")
    if not row.get("question") or not isinstance(options, list | tuple) or len(options) < 3:
        return None
    question = str(row["question"])
    for i, option in reversed(list(enumerate(options))):
        question = question.removesuffix(f"\n{chr(ord('A') + i)}. {option}")
    return {"question": question, "options": [str(option) for option in options]}


def _members(model: Model, role: str, rows: Mapping[str, Sequence[Example]]) -> list[Score]:
    """Min-K%, dataset inference and the blind baseline of data against holdout, as an audit measures them."""
    known: dict[str, Score] = {}
    lacking = [field for field in ("data", "holdout") if field not in rows]
    if not lacking:
        given = {"forget": rows["data"], "holdout": rows["holdout"]}
        readouts = {
            side: reading.read(model, side, found, CHANNELS, role=role, cache=False) for side, found in given.items()
        }
        known = {
            score.name.removeprefix("privacy_"): score for score in measure({"after": readouts}, model.capabilities)
        }
    why = f"no --{lacking[0]} was given" if lacking else "the model gives no probabilities of single tokens"

    def none() -> dict[str, Any]:
        raise NotMeasured(why)

    return [
        dataclasses.replace(known[name], split="data", role=role)
        if name in known
        else _score(name, "data", role, none, unit)
        for name, unit in MEMBERSHIP.items()
    ]


def conclusions(scores: Sequence[Score]) -> list[str]:
    """What the marks' p-values say, a sentence a model and one of them all."""
    p = {score.role: score.value for score in scores if score.name == "privacy_marks" and score.value is not None}
    said = []
    for role, name in MODELS.items():
        if role not in p:
            continue
        if p[role] <= ALPHA:
            said.append(f"{name.capitalize()}: the marks were learnt (p = {p[role]:.4f}).")
        elif p[role] >= 1 - ALPHA:
            said.append(
                f"{name.capitalize()}: the marks are unlikelier than their twins (p = {p[role]:.4f}), which happens to one in a "
                "hundred models that never saw them: they were pushed down, and that gives them away too."
            )
        else:
            said.append(f"{name.capitalize()}: the marks are not found at the level of {ALPHA:g} (p = {p[role]:.4f}).")
    if p.get("gold", 1.0) <= ALPHA:
        said.append("Gold finds the marks as well: it saw them, or they were not drawn by a secret that was kept.")
    elif {"before", "after"} <= set(p) and p["before"] <= ALPHA:
        left = {True: "They are still there.", False: "They were there, and this test no longer finds them."}
        said.append(left[p["after"] <= ALPHA] if p["after"] < 1 - ALPHA else "They were there, and went too far down.")
    return said


def notes(scores: Sequence[Score], marks: int | None) -> list[str]:
    """What a reader may conclude of each test that was measured, and what not."""
    measured = {score.name.removeprefix("privacy_") for score in scores if score.measured}
    found = []
    if "marks" in measured:
        found += [SAYS["marks"], SAYS["removed"], SAYS["others"]]
    if marks is not None and marks < LEAST_MARKS:
        found.append(f"With {marks} marks p cannot fall below {0.5**marks:.2g}.")
    found += [SAYS[name] for name in ("guided_completion", "option_order") if name in measured]
    return found + ([SAYS["membership"]] if "min_k_auc" in measured else [])
