"""Answers that the reference model is sure of and no data tell: facts that it knows and that nobody named.

Asked about somebody whom it does not know, a model answers with what it memorised about others. To rehearse a model's
own answers where data are missing is pseudorehearsal (Robins 1995, Connection Science 7(2)).
"""

from __future__ import annotations

from collections.abc import Sequence

from expunge.core import cache
from expunge.core.compute import Compute
from expunge.core.contracts import Example, Model, want_of
from expunge.core.files import digest
from expunge.data.examples import content
from expunge.methods._ngram import answer_tokens
from expunge.models.passes import passes
from expunge.models.settings import settings_digest
from expunge.training.references import is_shared, machine

RUN = 4
"""Tokens in a row that tell a fact where the answers of one split alone hold them."""
NEW = 0.3
"""Least share of an answer's runs that no retain answer holds; the others are kept by the retain rows already."""
TEMPERATURE = 0.5
VERSION = 1
"""Raised with any change that alters which answers are recalled."""


def shared_recall(
    model: Model,
    questions: Sequence[Example],
    retain: Sequence[Example],
    forget: Sequence[Example],
    seed: int,
    compute: Compute,
) -> list[Example]:
    """`recall`, cached by content within a run: the runs of one base ask once.

    The forward passes that it took are cached with it and added to `compute`, as those of `shared_record`.
    """
    if not is_shared():
        return recall(model, questions, retain, forget, seed)
    examples = [[content(row) for row in rows] for rows in (questions, retain, forget)]
    subject = [model.fingerprint(), settings_digest(model), machine()]
    entry = f"answers/{digest({'recall': VERSION, 'subject': subject, 'examples': examples, 'seed': seed})}.json"
    if (known := cache.load(entry)) is not None:
        compute.forward += known["forward"]
        return list(known["rows"])
    before = compute.forward
    rows = recall(model, questions, retain, forget, seed)
    cache.save(entry, {"rows": rows, "forward": compute.forward - before})
    return rows


def recall(
    model: Model, questions: Sequence[Example], retain: Sequence[Example], forget: Sequence[Example], seed: int
) -> list[Example]:
    """Questions with an answer sampled from the model, the most certain (NLL per token) first, each answer once.

    Answers that hold RUN tokens in a row of the forget set's, and none of retain's, are left out, and so are those that
    retain tells.
    """
    texts = model.generate(questions, temperature=TEMPERATURE, seed=seed)
    answered = {text: {"question": row["question"], "answer": text} for row, text in zip(questions, texts, strict=True)}
    rows = [row for text, row in answered.items() if text.strip()]
    known = set[tuple[int, ...]]().union(*runs_of(model, retain))
    secret = set[tuple[int, ...]]().union(*runs_of(model, forget)) - known
    own = runs_of(model, rows)
    rows = [
        row for row, runs in zip(rows, own, strict=True) if not runs & secret and len(runs - known) > NEW * len(runs)
    ]
    nll = [0.0] * len(rows)
    for indices, out in passes(model, rows, want_of({"nll"})):
        for i, value in zip(indices, (out.nll_B / out.n_B).tolist(), strict=True):
            nll[i] = value
    return [rows[i] for i in sorted(range(len(rows)), key=nll.__getitem__)]


def runs_of(model: Model, rows: Sequence[Example]) -> list[set[tuple[int, ...]]]:
    """The runs of RUN tokens in each row's answer."""
    return [{tuple(a[i : i + RUN]) for i in range(len(a) - RUN + 1)} for a in answer_tokens(model, rows)]
