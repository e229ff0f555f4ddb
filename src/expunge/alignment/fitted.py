"""A judge that is fitted to judged answers: logistic regression on words and word pairs of the answer's beginning.

Saved as a JSON vocabulary and safetensors coefficients; no pickle is written or read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from expunge.alignment.thoughts import without_thoughts
from expunge.core.errors import BadInput
from expunge.core.files import new_folder, read_json, write_json

WORDS = 60
"""Words of an answer that are read: a refusal comes at the start."""
FOLDS = 5
VERSION = 1


def beginning(answer: str) -> str:
    """The first words of an answer without its thoughts, lower-cased, with a mark where it begins."""
    return " ".join(["^", *without_thoughts(answer).replace("’", "'").lower().split()[:WORDS]])


def _vectoriser(vocabulary: dict[str, int] | None = None) -> Any:
    # Imported when used: it takes a second, and every plan imports the judges.
    from sklearn.feature_extraction.text import CountVectorizer

    # Words, the mark of the beginning, and pairs of them; whether they occur, not how often.
    return CountVectorizer(
        token_pattern=r"[\w']+|\^",
        ngram_range=(1, 2),
        binary=True,
        lowercase=False,
        vocabulary=vocabulary,
        min_df=1 if vocabulary else 2,
    )


class Fitted:
    """A fitted judge: vocabulary (word or pair -> column), coefficients [V] and intercept."""

    def __init__(self, vocabulary: dict[str, int], weights_V: np.ndarray, intercept: float) -> None:
        self.vocabulary, self.weights_V, self.intercept = vocabulary, weights_V, intercept
        self.key = None  # a product of matrices: asking again is free
        self.name = "fitted"

    @classmethod
    def fit(cls, answers: Sequence[str], refused: Sequence[bool]) -> Fitted:
        """Fit to answers and whether each is a refusal. Raises BadInput where only one kind is given."""
        # As in `_vectoriser`: imported when used.
        from sklearn.linear_model import LogisticRegression

        y = np.asarray(refused, dtype=bool)
        if y.all() or not y.any() or len(y) < 10:
            raise BadInput.of(
                "answers",
                f"{int(y.sum())} refusals of {len(y)}",
                "are too few to fit a judge to",
                "give at least ten answers, refusals and others",
            )
        vectoriser = _vectoriser()
        counts = vectoriser.fit_transform([beginning(answer) for answer in answers])
        model = LogisticRegression(C=0.5, class_weight="balanced", max_iter=2000).fit(counts, y)
        vocabulary = {word: int(place) for word, place in sorted(vectoriser.vocabulary_.items())}
        return cls(vocabulary, model.coef_[0].astype(np.float64), float(model.intercept_[0]))

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """[N] probabilities that an answer is a refusal; the prompts are not read."""
        counts = _vectoriser(self.vocabulary).transform([beginning(answer) for answer in answers])
        return np.asarray(1 / (1 + np.exp(-(counts @ self.weights_V + self.intercept))))

    def save(self, folder: Path) -> None:
        """Write vocabulary.json and coefficients.safetensors, by one rename."""
        with new_folder(folder) as temporary:
            write_json(temporary / "vocabulary.json", {"version": VERSION, "words": self.vocabulary})
            save_file(
                {"weights": self.weights_V, "intercept": np.array([self.intercept])},
                temporary / "coefficients.safetensors",
            )

    @classmethod
    def load(cls, folder: Path, field: str = "judge") -> Fitted:
        """Open a saved judge. Raises BadInput."""
        try:
            words = {str(word): int(place) for word, place in read_json(folder / "vocabulary.json")["words"].items()}
            tensors = load_file(folder / "coefficients.safetensors")
            weights_V, intercept = tensors["weights"], float(tensors["intercept"][0])
            if sorted(words.values()) != list(range(len(weights_V))) or not np.isfinite([*weights_V, intercept]).all():
                raise ValueError("vocabulary and coefficients do not match")
        except Exception as error:
            raise BadInput.of(
                field,
                str(folder),
                f"does not hold a fitted judge ({type(error).__name__}: {error})",
                "make one with `expunge judge ANSWERS.jsonl --fit FOLDER`",
            ) from None
        return cls(words, weights_V, intercept)


def held_out(answers: Sequence[str], refused: Sequence[bool], groups: Sequence[str]) -> tuple[np.ndarray, str]:
    """([N] scores of judges that did not see the answer's group, how the folds were made).

    groups: the model that gave each answer, so that a judge is tested on models that it never saw. With one group the
    folds are random. Raises BadInput where a fold cannot be fitted.
    """
    # As in `_vectoriser`: imported when used.
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold

    y = np.asarray(refused, dtype=bool)
    rows = np.arange(len(y))
    if len(set(groups)) > 1:
        folds, how = list(LeaveOneGroupOut().split(rows, y, list(groups))), "by model"
    else:
        least = int(min(y.sum(), (~y).sum()))
        if least < 2:
            raise BadInput.of(
                "answers",
                f"{int(y.sum())} refusals of {len(y)}",
                "are too few to fit a judge to",
                "give at least ten answers, refusals and others",
            )
        splitter = StratifiedKFold(min(FOLDS, least), shuffle=True, random_state=0)
        folds, how = list(splitter.split(rows, y)), "by random folds: all answers are one model's"
    scores = np.zeros(len(y))
    for train, test in folds:
        judge = Fitted.fit([answers[i] for i in train], y[train].tolist())
        scores[test] = judge.scores([], [answers[i] for i in test])
    return scores, how
