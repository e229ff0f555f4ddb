"""Find further rows that hold the knowledge to be forgotten: duplicates, shared rare names, similar texts."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from expunge.core.card import Example
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput, Faults
from expunge.core.extras import require
from expunge.data.load import load
from expunge.data.texts import text_of, texts_only, write_rows
from expunge.evaluation.reading import read
from expunge.models.family import family
from expunge.models.open import check, open_model

WHY = ("exact", "near", "entity", "similar")
"""Reasons, strongest first: the same text, nearly the same, a shared rare name, similar words or hidden states."""
SIMILAR, SIMILAR_TO_A_MODEL = 0.4, 0.7
"""Default least cosines of TF-IDF vectors and of hidden states."""
SHINGLE, PERMUTATIONS = 5, 128
"""Characters per shingle; hash functions of the MinHash sketch."""
LONGEST_NAME = 4
"""Most words of a name."""
BACK = 100
"""Characters before a word that are searched for the end of a sentence."""
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
NAME = re.compile(r"[^\W\d_a-z][^\W_]*(?:['’-][^\W_]+)*")
"""A word that begins with a capital (or a letter without case)."""
OPENS = re.compile(r"(?:^|[.?!:;\n])[\s\"'“”‘’(\[*-]*$")
"""The text before the first word of a sentence."""


Pair = tuple[int, int]
"""(forget row, corpus row), counted from 0."""


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
    rows found. redact: leave out the shared names. Raises BadInput; then nothing is written.
    """
    thresholds = thresholds or Thresholds()
    splits = _check_inputs(forget, corpus, model, thresholds, out, trust_code)
    reasons, shared = _reasons(splits, model, thresholds, trust_code, reporter or Silent())
    found = _rank(reasons, {} if redact else shared)
    if out is not None:
        write_rows(Path(out), [splits["corpus"][j - 1] for j in sorted({n.corpus for n in found})])
    return found


def _reasons(
    splits: Mapping[str, Sequence[Example]],
    model: str | None,
    thresholds: Thresholds,
    trust_code: bool,
    reporter: Reporter,
) -> tuple[dict[Pair, dict[str, float]], dict[Pair, str]]:
    """(pair -> why its rows are neighbours, with the scores; pair -> the name that both mention)."""
    reporter.start("neighbours", 4)
    ours, theirs = ([text_of(row) for row in splits[name]] for name in ("forget", "corpus"))
    reasons: dict[Pair, dict[str, float]] = {}
    shared: dict[Pair, str] = {}
    for pair in exact(ours, theirs):
        reasons.setdefault(pair, {})["exact"] = 1.0
    reporter.advance("neighbours", 1, "near duplicates")
    for pair, score in near_duplicates(ours, theirs, thresholds.near).items():
        reasons.setdefault(pair, {})["near"] = score
    reporter.advance("neighbours", 2, "names")
    for pair, (score, name) in names_in_common(ours, theirs).items():
        reasons.setdefault(pair, {})["entity"] = score
        shared[pair] = name
    reporter.advance("neighbours", 3, "similarity")
    cosines = (
        tfidf(ours, theirs) if model is None else model_cosines(model, splits["forget"], splits["corpus"], trust_code)
    )
    least = thresholds.least(with_model=model is not None)
    for pair, score in nearest(cosines, least, thresholds.top).items():
        reasons.setdefault(pair, {})["similar"] = score
    reporter.finish("neighbours")
    return reasons, shared


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


def normalise_text(text: str) -> str:
    """The words in lower case with single spaces: the text without case, punctuation and layout."""
    return " ".join(WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def exact(ours: Sequence[str], theirs: Sequence[str]) -> list[Pair]:
    """Pairs of the same words, whatever their case, punctuation and spaces."""
    places: dict[str, list[int]] = {}
    for j, text in enumerate(theirs):
        places.setdefault(normalise_text(text) or text, []).append(j)
    return [(i, j) for i, text in enumerate(ours) for j in places.get(normalise_text(text) or text, [])]


def near_duplicates(ours: Sequence[str], theirs: Sequence[str], least: float) -> dict[Pair, float]:
    """Pairs with a Jaccard similarity of character shingles of at least `least`.

    MinHash finds the candidates without comparing all pairs (Broder 1997); the similarity is then exact.
    """
    from datasketch import MinHash, MinHashLSH  # an optional extra

    # The candidates' threshold is lower than `least`: the sketch errs by about 1/sqrt(permutations).
    index = MinHashLSH(threshold=max(0.1, least - 0.15), num_perm=PERMUTATIONS, weights=(0.2, 0.8))
    shingles = {name: [_shingles(text) for text in texts] for name, texts in (("ours", ours), ("theirs", theirs))}

    def sketch(parts: set[bytes]) -> Any:
        minhash = MinHash(num_perm=PERMUTATIONS, seed=1)
        minhash.update_batch(sorted(parts))
        return minhash

    for j, parts in enumerate(shingles["theirs"]):
        index.insert(j, sketch(parts))
    found = {}
    for i, parts in enumerate(shingles["ours"]):
        for j in index.query(sketch(parts)):
            other = shingles["theirs"][j]
            similarity = len(parts & other) / len(parts | other)
            if similarity >= least:
                found[i, j] = similarity
    return found


def _shingles(text: str) -> set[bytes]:
    plain = f" {normalise_text(text) or text} "
    return {plain[k : k + SHINGLE].encode() for k in range(max(1, len(plain) - SHINGLE + 1))}


def names_in_common(ours: Sequence[str], theirs: Sequence[str]) -> dict[Pair, tuple[float, str]]:
    """Pairs that share a rare name: score and name.

    A name is a run of capitalised words, or a part of one. Its score is log(N / df) / log N for N corpus rows, df of
    which contain it: 1 for a single row, 0.5 for sqrt(N) rows. A name with a lower score does not count.
    """
    words = _name_words([*ours, *theirs])
    holders: dict[str, list[int]] = {}
    for j, text in enumerate(theirs):
        for name in _names(text, words):
            holders.setdefault(name, []).append(j)
    scale = math.log(max(2, len(theirs)))
    found: dict[Pair, tuple[float, str]] = {}
    for i, text in enumerate(ours):
        for name, shown in sorted(_names(text, words).items()):
            rows = holders.get(name, [])
            score = 1 - math.log(len(rows)) / scale if rows else 0.0
            if score >= 0.5:
                for j in rows:
                    found[i, j] = max(found.get((i, j), (0.0, "")), (score, shown), key=lambda s: (s[0], len(s[1])))
    return found


def _name_words(texts: Iterable[str]) -> set[str]:
    """Words, in lower case, that are capitalised inside sentences more often than not.

    The first word of a sentence is always capitalised and does not count.
    """
    inside: Counter[str] = Counter()
    for text in texts:
        for match in WORD.finditer(text):
            if match[0][:1].islower():
                inside[match[0].casefold()] -= 1
            elif NAME.fullmatch(match[0]) and not OPENS.search(text, max(0, match.start() - BACK), match.start()):
                inside[_bare(match[0]).casefold()] += 1
    return {word for word, count in inside.items() if count > 0 and len(word) > 1}


def _bare(word: str) -> str:
    return re.sub("['’][sS]$", "", word)


def _names(text: str, words: set[str]) -> dict[str, str]:
    """Runs of capitalised name words and their parts, up to LONGEST_NAME words: in lower case -> as written."""
    found: dict[str, str] = {}
    run: list[str] = []
    last = 0
    for match in (*WORD.finditer(text), None):
        part = _bare(match[0]) if match else ""
        if (
            match is None
            or part.casefold() not in words
            or not NAME.fullmatch(part)
            or text[last : match.start()].strip()
        ):
            found |= _parts(run)
            run = []
        if match is not None:
            last = match.end()
            if part.casefold() in words and NAME.fullmatch(part):
                run.append(part)
    return found


def _parts(run: Sequence[str]) -> dict[str, str]:
    parts = (
        " ".join(run[k : k + length]) for length in range(1, LONGEST_NAME + 1) for k in range(len(run) - length + 1)
    )
    return {part.casefold(): part for part in parts}


def tfidf(ours: Sequence[str], theirs: Sequence[str]) -> np.ndarray:
    """[ours, theirs] cosines of TF-IDF vectors of words (bigrams would hide a paraphrase)."""
    vectorizer = TfidfVectorizer(
        tokenizer=lambda text: normalise_text(text).split(), token_pattern=None, sublinear_tf=True, lowercase=False
    )
    try:
        vectorizer.fit([*theirs, *ours])
    except ValueError:  # no text has a word
        return np.zeros((len(ours), len(theirs)))
    return np.asarray((vectorizer.transform(ours) @ vectorizer.transform(theirs).T).todense())


def model_cosines(model: str, ours: Sequence[Example], theirs: Sequence[Example], trust_code: bool) -> np.ndarray:
    """[ours, theirs] cosines of mean last hidden states, centred on the corpus: all texts share a direction."""
    opened = open_model(model, trust_code)
    if ("text",) not in family(opened.family).example_forms:
        raise BadInput.of("--model", model, "is not a language model", "give one, or leave --model out for TF-IDF")
    last = f"pooled:{opened.blocks[len(opened.blocks) - 1]}"
    texts = ([{"text": text_of(row)} for row in examples] for examples in (ours, theirs))
    one, two = (read(opened, "texts", rows, {last}, cache=False).pooled[last.partition(":")[2]] for rows in texts)
    centre = two.mean(0)
    one, two = (x - centre for x in (one, two))
    norms = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(two, axis=1)[None]
    return np.asarray((one @ two.T) / np.maximum(norms, 1e-12))


def nearest(cosines: np.ndarray, least: float, top: int) -> dict[Pair, float]:
    """The `top` largest cosines of each row that are at least `least`."""
    found = {}
    for i, row in enumerate(cosines):
        for j in np.argsort(-row, kind="stable")[:top].tolist():
            if row[j] >= least:
                found[i, j] = min(1.0, float(row[j]))
    return found


def counts(found: Iterable[Neighbour]) -> dict[str, int]:
    """Reason -> number of neighbours whose strongest reason it is."""
    tally = Counter(one.why for one in found)
    return {why: tally[why] for why in WHY if tally[why]}
