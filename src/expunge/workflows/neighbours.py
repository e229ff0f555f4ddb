"""What else holds the knowledge that is to be forgotten: duplicates, shared rare names, like texts."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
"""Strongest first: the same text, nearly the same, a rare name in both, alike in words or to a model."""


NEAR, SIMILAR, SIMILAR_TO_A_MODEL = 0.5, 0.4, 0.7
"""Default thresholds: Jaccard similarity of shingles, and cosines."""


SHINGLE, PERMUTATIONS = 5, 128


LONGEST_NAME = 4


BACK = 100
"""Characters before a word in which the end of a sentence is looked for: no more marks stand between the two."""


WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


NAME = re.compile(r"[^\W\d_a-z][^\W_]*(?:['’-][^\W_]+)*")
"""A word that begins with a capital (or a letter that has no case)."""


OPENS = re.compile(r"(?:^|[.?!:;\n])[\s\"'“”‘’(\[*-]*$")
"""Before the first word of a sentence."""


@dataclass(frozen=True)
class Neighbour:
    """Row `corpus` of the corpus is near row `forget` of the forget set (counted from 1).

    why: the strongest reason; reasons: each with its score in 0..1. shared: the rare name.
    """

    forget: int
    corpus: int
    why: str
    score: float
    reasons: dict[str, float]
    shared: str = ""


def neighbours(
    forget: Any,
    corpus: Any,
    *,
    model: str | None = None,
    near: float = NEAR,
    similar: float | None = None,
    top: int = 5,
    out: str | None = None,
    redact: bool = False,
    trust_code: bool = False,
    reporter: Reporter | None = None,
) -> list[Neighbour]:
    """Rows of the corpus that hold what forget rows hold, the surest first.

    near: least Jaccard similarity of a near duplicate. similar: least cosine, of TF-IDF vectors or,
    with a model, of its mean last hidden states (centred on the corpus). top: neighbours by cosine a
    forget row at most. out: a JSONL file for the corpus rows found. redact: without the names that are shared.
    Raises BadInput; then nothing is written.
    """
    require("neighbours", "", "datasketch", "neighbours")
    faults = Faults()
    splits: dict[str, list[Example]] = {"forget": [], "corpus": []}
    for name, source in (("forget", forget), ("corpus", corpus)):
        with faults:
            splits[name] = load(source, name)
            texts_only(splits[name], name)
    bounds = {"--near": near, "--similar": SIMILAR if similar is None else similar}
    for option, value in bounds.items():
        if not 0 < value <= 1:
            faults.add(BadInput.of(option, value, "is no similarity", "give a number above 0, up to 1"))
    if top < 1:
        faults.add(BadInput.of("--top", top, "is no number of neighbours", "give a whole number from 1 up"))
    if model is not None:
        with faults:
            check(model, trust_code)
    if out is not None:
        with faults:
            _free(Path(out))
    faults.raise_any()
    ours, theirs = ([text_of(row) for row in splits[name]] for name in ("forget", "corpus"))
    reporter = reporter or Silent()
    reporter.start("neighbours", 4)
    reasons: dict[tuple[int, int], dict[str, float]] = {}
    shared: dict[tuple[int, int], str] = {}
    for pair in exact(ours, theirs):
        reasons.setdefault(pair, {})["exact"] = 1.0
    reporter.advance("neighbours", 1, "near duplicates")
    for pair, score in near_duplicates(ours, theirs, near).items():
        reasons.setdefault(pair, {})["near"] = score
    reporter.advance("neighbours", 2, "names")
    for pair, (score, name) in names_in_common(ours, theirs).items():
        reasons.setdefault(pair, {})["entity"] = score
        shared[pair] = name
    reporter.advance("neighbours", 3, "likeness")
    if model is None:
        cosines, least = tfidf(ours, theirs), SIMILAR
    else:
        cosines, least = embedded(model, splits["forget"], splits["corpus"], trust_code), SIMILAR_TO_A_MODEL
    for pair, score in nearest(cosines, least if similar is None else similar, top).items():
        reasons.setdefault(pair, {})["similar"] = score
    reporter.finish("neighbours")
    found = []
    for (i, j), scores in reasons.items():
        why = next(kind for kind in WHY if kind in scores)
        rounded = {kind: round(scores[kind], 4) for kind in WHY if kind in scores}
        found.append(Neighbour(i + 1, j + 1, why, rounded[why], rounded, "" if redact else shared.get((i, j), "")))
    found.sort(key=lambda n: (WHY.index(n.why), -n.score, -sum(n.reasons.values()), n.forget, n.corpus))
    if out is not None:
        write_rows(Path(out), [splits["corpus"][j - 1] for j in sorted({n.corpus for n in found})])
    return found


def rows(found: Iterable[Neighbour]) -> list[dict[str, Any]]:
    """As JSON holds them."""
    return [asdict(one) for one in found]


def _free(path: Path) -> None:
    if path.exists():
        raise BadInput.of("--out", str(path), "already exists", "choose another file")
    if not path.absolute().parent.is_dir():
        raise BadInput.of("--out", str(path), "lies in no folder that exists", "make the folder, or choose another")


def normalised(text: str) -> str:
    """Words in lower case with single blanks: what is left of a text when its looks are taken away."""
    return " ".join(WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


Pair = tuple[int, int]


def exact(ours: Sequence[str], theirs: Sequence[str]) -> list[Pair]:
    """Pairs of the same words, whatever their case, punctuation and blanks."""
    places: dict[str, list[int]] = {}
    for j, text in enumerate(theirs):
        places.setdefault(normalised(text) or text, []).append(j)
    return [(i, j) for i, text in enumerate(ours) for j in places.get(normalised(text) or text, [])]


def near_duplicates(ours: Sequence[str], theirs: Sequence[str], least: float) -> dict[Pair, float]:
    """Pairs with a Jaccard similarity of character shingles of at least `least`.

    MinHash finds the candidates without comparing all pairs (Broder 1997); the similarity is then exact.
    """
    from datasketch import MinHash, MinHashLSH

    # Candidates are asked for below the bar, because the sketch errs by about 1/sqrt(permutations).
    index = MinHashLSH(threshold=max(0.1, least - 0.15), num_perm=PERMUTATIONS, weights=(0.2, 0.8))
    shingles = {name: [_shingles(text) for text in texts] for name, texts in (("ours", ours), ("theirs", theirs))}

    def sketch(parts: set[bytes]) -> Any:
        made = MinHash(num_perm=PERMUTATIONS, seed=1)
        made.update_batch(sorted(parts))
        return made

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
    plain = f" {normalised(text) or text} "
    return {plain[k : k + SHINGLE].encode() for k in range(max(1, len(plain) - SHINGLE + 1))}


def names_in_common(ours: Sequence[str], theirs: Sequence[str]) -> dict[Pair, tuple[float, str]]:
    """Pairs that share a rare name: score and name.

    A name is a run of capitalised words, and each part of it. Its score is log(N / df) / log N with N
    corpus rows, df of which hold it: 1 where one does, 0.5 where sqrt(N) do, below which it counts no
    more.
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
    """Words, in lower case, that bear a capital within sentences more often than they bear none.

    The first word of a sentence has its capital from there, and says nothing.
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
    """Runs of capitalised name words up to LONGEST_NAME and their parts: in lower case -> as they stand."""
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
    """[ours, theirs] cosines of TF-IDF vectors of words (pairs of words would drown a paraphrase)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    maker = TfidfVectorizer(
        tokenizer=lambda text: normalised(text).split(), token_pattern=None, sublinear_tf=True, lowercase=False
    )
    try:
        maker.fit([*theirs, *ours])
    except ValueError:  # no text has a word
        return np.zeros((len(ours), len(theirs)))
    return np.asarray((maker.transform(ours) @ maker.transform(theirs).T).todense())


def embedded(model: str, ours: Sequence[Example], theirs: Sequence[Example], trust_code: bool) -> np.ndarray:
    """[ours, theirs] cosines of mean last hidden states, centred on the corpus: all texts of a model share a direction."""
    opened = open_model(model, trust_code)
    if ("text",) not in family(opened.family).example_forms:
        raise BadInput.of("--model", model, "is no language model", "give one, or leave it out for TF-IDF")
    last = f"pooled:{opened.blocks[len(opened.blocks) - 1]}"
    texts = ([{"text": text_of(row)} for row in examples] for examples in (ours, theirs))
    one, two = (read(opened, "texts", rows, {last}, cache=False).pooled[last.partition(":")[2]] for rows in texts)
    centre = two.mean(0)
    one, two = (x - centre for x in (one, two))
    norms = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(two, axis=1)[None]
    return np.asarray((one @ two.T) / np.maximum(norms, 1e-12))


def nearest(cosines: np.ndarray, least: float, top: int) -> dict[Pair, float]:
    """The `top` nearest of each row that are at least `least`."""
    found = {}
    for i, row in enumerate(cosines):
        for j in np.argsort(-row, kind="stable")[:top].tolist():
            if row[j] >= least:
                found[i, j] = min(1.0, float(row[j]))
    return found


def counts(found: Iterable[Neighbour]) -> dict[str, int]:
    """Reason -> neighbours of which it is the strongest."""
    tally = Counter(one.why for one in found)
    return {why: tally[why] for why in WHY if tally[why]}
