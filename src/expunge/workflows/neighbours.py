"""Find further rows that hold the knowledge to be forgotten: duplicates, shared rare names, similar texts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expunge.core.card import Example
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput, Faults
from expunge.core.extras import require
from expunge.data.load import load
from expunge.data.texts import text_of, texts_only, write_rows
from expunge.models.open import check
from expunge.workflows._likeness import NameWords, NearDuplicates, Pair, SameWords, SharedNames
from expunge.workflows._similarity import Nearest, WordVectors, batches, hidden_cosines

WHY = ("exact", "near", "entity", "similar")
"""Reasons, strongest first: the same text, nearly the same, a shared rare name, similar words or hidden states."""
SIMILAR, SIMILAR_TO_A_MODEL = 0.4, 0.7
"""Default least cosines of TF-IDF vectors and of hidden states."""
BATCH = 256
"""Rows of the corpus that are compared at a time."""


@dataclass(frozen=True)
class Neighbour:
    """Row `corpus` of the corpus is a neighbour of row `forget` of the forget set (both counted from 1).

    why: the strongest reason. reasons: every reason with its score in 0-1. shared: the rare name.
    """

    forget: int
    corpus: int
    why: str
    score: float
    reasons: dict[str, float]
    shared: str = ""


@dataclass(frozen=True)
class Thresholds:
    """Least similarities of a neighbour.

    near: Jaccard similarity of a near duplicate. similar: cosine of TF-IDF vectors or, with a model, of mean last
    hidden states (centred on the corpus); None for the default of each. top: neighbours by cosine per forget row.
    """

    near: float = 0.5
    similar: float | None = None
    top: int = 5

    def least(self, with_model: bool) -> float:
        """The least cosine of a neighbour."""
        return (SIMILAR_TO_A_MODEL if with_model else SIMILAR) if self.similar is None else self.similar

    def check(self, faults: Faults) -> None:
        """Add the values that are out of bounds to the faults."""
        for option, value in (("--near", self.near), ("--similar", self.similar)):
            if value is not None and not 0 < value <= 1:
                faults.add(BadInput.of(option, value, "is not a similarity", "give a number above 0, up to 1"))
        if self.top < 1:
            faults.add(
                BadInput.of("--top", self.top, "is not a number of neighbours", "give a whole number of at least 1")
            )


def neighbours(
    forget: Any,
    corpus: Any,
    *,
    model: str | None = None,
    thresholds: Thresholds | None = None,
    out: str | None = None,
    redact: bool = False,
    trust_code: bool = False,
    reporter: Reporter | None = None,
) -> list[Neighbour]:
    """Find the rows of the corpus that hold the knowledge of the forget rows, most certain first.

    model: a language model whose hidden states measure similarity, in place of TF-IDF. out: a JSONL file for the corpus
    rows found. redact: leave out the shared names. Time grows with the corpus; memory with the forget set, the words
    of the corpus and what is found. Raises BadInput; then nothing is written.
    """
    return search(
        forget,
        corpus,
        model=model,
        thresholds=thresholds,
        out=out,
        redact=redact,
        trust_code=trust_code,
        reporter=reporter,
    )[0]


def search(
    forget: Any,
    corpus: Any,
    *,
    model: str | None = None,
    thresholds: Thresholds | None = None,
    out: str | None = None,
    redact: bool = False,
    trust_code: bool = False,
    reporter: Reporter | None = None,
) -> tuple[list[Neighbour], Sequence[Example]]:
    """`neighbours`, and the corpus's rows that it read."""
    thresholds = thresholds or Thresholds()
    splits = _check_inputs(forget, corpus, model, thresholds, out, trust_code)
    reasons, shared = _reasons(splits, model, thresholds, trust_code, reporter or Silent())
    found = _rank(reasons, {} if redact else shared)
    if out is not None:
        write_rows(Path(out), [splits["corpus"][j - 1] for j in sorted({n.corpus for n in found})])
    return found, splits["corpus"]


def _reasons(
    splits: Mapping[str, Sequence[Example]],
    model: str | None,
    thresholds: Thresholds,
    trust_code: bool,
    reporter: Reporter,
) -> tuple[dict[Pair, dict[str, float]], dict[Pair, str]]:
    """(pair -> why its rows are neighbours, with the scores; pair -> the name that both mention)."""
    ours, corpus = [text_of(row) for row in splits["forget"]], splits["corpus"]
    reporter.start("neighbours", 2 * len(corpus))
    reasons: dict[Pair, dict[str, float]] = defaultdict(dict)
    same, near = SameWords(ours), NearDuplicates(ours, thresholds.near)
    name_words, vectors = NameWords(ours), WordVectors(ours)
    for place, texts in _read(corpus, reporter, 0, "duplicates"):
        for j, text in enumerate(texts, place):
            for i in same.find(text):
                reasons[i, j]["exact"] = 1.0
            for i, score in near.find(text).items():
                reasons[i, j]["near"] = score
            name_words.count(text)
            vectors.count(text)
    names = SharedNames(ours, name_words.words(), len(corpus))
    nearest = Nearest(len(ours), thresholds.least(with_model=model is not None), thresholds.top)
    cosines = None if model else vectors.fit()
    for place, texts in _read(corpus, reporter, len(corpus), "names and similarity"):
        for j, text in enumerate(texts, place):
            names.add(j, text)
        if cosines is not None:
            nearest.add(place, cosines(texts))
    for place, cosines_FB in hidden_cosines(model, splits["forget"], corpus, trust_code) if model else ():
        nearest.add(place, cosines_FB)
    shared = names.pairs()
    for kind, scores in (
        ("entity", {pair: score for pair, (score, _) in shared.items()}),
        ("similar", nearest.pairs()),
    ):
        for pair, score in scores.items():
            reasons[pair][kind] = score
    reporter.finish("neighbours")
    return reasons, {pair: name for pair, (_, name) in shared.items()}


def _read(corpus: Sequence[Example], reporter: Reporter, done: int, note: str) -> Iterator[tuple[int, list[str]]]:
    """(place of the first, texts) of each batch. done: rows that were read earlier.

    The corpus is read twice: only after the first time is it known which words are names, and what each weighs.
    """
    for place, rows in batches(corpus, BATCH):
        yield place, [text_of(row) for row in rows]
        reporter.advance("neighbours", done + place + len(rows), note)


def _check_inputs(
    forget: Any, corpus: Any, model: str | None, thresholds: Thresholds, out: str | None, trust_code: bool
) -> dict[str, Sequence[Example]]:
    """The rows of both sets. Raises BadInput with every fault of the input."""
    require("neighbours", "", "datasketch", "neighbours")
    faults = Faults()
    splits: dict[str, Sequence[Example]] = {"forget": [], "corpus": []}
    for name, source in (("forget", forget), ("corpus", corpus)):
        with faults:
            splits[name] = load(source, name)
            texts_only(splits[name], name)
    thresholds.check(faults)
    if model is not None:
        with faults:
            check(model, trust_code)
    if out is not None:
        with faults:
            _free(Path(out))
    faults.raise_any()
    return splits


def _rank(reasons: Mapping[Pair, Mapping[str, float]], shared: Mapping[Pair, str]) -> list[Neighbour]:
    """The pairs as neighbours: by their strongest reason, then by score."""
    found = []
    for (i, j), scores in reasons.items():
        why = next(kind for kind in WHY if kind in scores)
        rounded = {kind: round(scores[kind], 4) for kind in WHY if kind in scores}
        found.append(Neighbour(i + 1, j + 1, why, rounded[why], rounded, shared.get((i, j), "")))
    found.sort(key=lambda n: (WHY.index(n.why), -n.score, -sum(n.reasons.values()), n.forget, n.corpus))
    return found


def rows(found: Iterable[Neighbour]) -> list[dict[str, Any]]:
    """The neighbours as JSON objects."""
    return [asdict(one) for one in found]


def _free(path: Path) -> None:
    if path.exists():
        raise BadInput.of("--out", str(path), "already exists", "choose another file")
    if not path.absolute().parent.is_dir():
        raise BadInput.of("--out", str(path), "is in a missing folder", "create the folder, or choose another")


def counts(found: Iterable[Neighbour]) -> dict[str, int]:
    """Reason -> number of neighbours whose strongest reason it is."""
    tally = Counter(one.why for one in found)
    return {why: tally[why] for why in WHY if tally[why]}
