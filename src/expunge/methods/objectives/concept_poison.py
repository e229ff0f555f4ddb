"""Class unlearning by concepts: forget examples that carry what the class is told by are relabelled, and no others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Run, Step
from expunge.core.errors import BadInput
from expunge.data.examples import identity
from expunge.methods._head import head_inputs, linear_head

Concept = tuple[str, str]
"""(field, value)."""
CARD = MethodCard(
    "Concept inference and data poisoning",
    paper="arXiv:2405.15662",
    equation="a post-hoc concept bottleneck, integrated gradients through its head, random and targeted relabelling",
    needs={"forget": {"logits"}},
    capabilities={"labels"},
    optional=("retain",),
    fidelity="variant",
    leaves_out="concepts that a language model names: the text fields of the rows are the concepts; no code is public",
    means="Rows need fields in words (a colour, a shape) that tell what they show. Forget rows without a leading one "
    "teach nothing.",
    shown="Of a class of drawn shapes colour and shape lead, and no texture; it goes, and classes that share one of "
    "these keep at least ten points more than under random labels.",
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}
MOST_STEPS = 300


class ConceptPoison(LossTerm):
    """The loss of concept_poison(), and the label that each chosen row gets."""

    def __init__(self, top: int, to: str) -> None:
        super().__init__()
        self.top, self.to = top, to
        self.labels: dict[int, int] = {}
        self.leading: dict[int, list[Concept]] = {}

    def fits_rows(self, splits: Mapping[str, Sequence[Example]]) -> None:
        """Raises BadInput where no field tells in words what a row shows."""
        forget = splits.get("forget", ())
        if forget and not concepts_of([*forget, *splits.get("retain", ())]):
            why = f"none of {len(forget)} rows has a field whose words tell what it shows"
            raise BadInput.of("forget", "", why, "give rows with fields in words, or choose random_label")

    def prepare(self, run: Run) -> None:
        """Rank the concepts of each forgotten class, choose the rows that carry a leading one, and their labels."""
        self.labels, self.leading = {}, {}
        if not (rows := run.rows("forget")):
            return
        forget, retain = run.examples("forget"), list(run.splits.get("retain", []))
        concepts = concepts_of([*forget, *retain])
        part_NK, label_N, classes = self._contributions(run.model, [*forget, *retain], concepts)
        for label in {int(row["label"]) for row in forget}:
            order = np.argsort(-part_NK[label_N == label].mean(0), kind="stable")
            self.leading[label] = [concepts[k] for k in order[: self.top]]
        profiles = _profiles([*forget, *retain], concepts, classes)
        for row, example in zip(rows, forget, strict=True):
            label = int(example["label"])
            if any(carries(example, concept) for concept in self.leading[label]):
                draw = run.context.derive("concept", identity(example)) % max(1, classes - 1)
                near = int(nearest_class(profiles, label))
                self.labels[row] = near if self.to == "nearest" else (label + 1 + draw) % classes

    def _contributions(
        self, model: Model, rows: Sequence[Example], concepts: Sequence[Concept]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """([N, K] part of each concept that a row carries in its class's bottleneck logit, [N] labels, classes)."""
        path, head = linear_head(model, list(rows[:2]), "concepts are directions of what it reads")
        feature_ND, label_N = head_inputs(model, rows, path), np.array([int(row["label"]) for row in rows])
        z_NK = feature_ND @ concept_directions(feature_ND, rows, concepts).T
        z_NK = (z_NK - z_NK.mean(0)) / np.maximum(z_NK.std(0), 1e-9)
        weight_CK = np.zeros((head.out_features, len(concepts)))
        fitted = _fit(z_NK, label_N)
        # Of two classes the fit has one row, which speaks for the second.
        own_CK = fitted.coef_ if len(fitted.classes_) > 2 else np.vstack([-fitted.coef_, fitted.coef_])
        weight_CK[fitted.classes_] = own_CK
        # Integrated gradients of a linear function from 0: its weight times the input. A concept that a row lacks
        # speaks for its class too (not blue), but is no part of the row to be changed.
        has_NK = np.array([[carries(row, one) for one in concepts] for row in rows])
        return has_NK * weight_CK[label_N] * z_NK, label_N, head.out_features

    def __call__(self, step: Step) -> Tensor:
        forget = step["forget"]
        logp_BV = forget.logits_BTV[:, 0].log_softmax(-1)
        chosen_B = logp_BV.new_tensor([float(row in self.labels) for row in forget.indices])
        label_B1 = torch.tensor([[self.labels.get(row, 0)] for row in forget.indices], dtype=torch.long)
        own_B = logp_BV.gather(-1, label_B1.reshape(-1, 1).to(logp_BV.device))[:, 0]
        return forget.mean(-chosen_B * own_B)

    def notes(self) -> dict[str, Any]:
        """The leading concepts of each class, and how many rows were relabelled."""
        leading = {str(label): [" ".join(one) for one in found] for label, found in self.leading.items()}
        return {"concept_poison": {"leading": leading, "relabelled": len(self.labels)}}


def concepts_of(rows: Sequence[Example]) -> list[Concept]:
    """The (field, value) pairs that some rows have and others not, values in words; a class's own name is none."""
    seen: dict[Concept, int] = {}
    for row in rows:
        for field, value in row.items():
            if isinstance(value, str) and field not in ("class_name", "text"):
                seen[field, value] = seen.get((field, value), 0) + 1
    return sorted(concept for concept, count in seen.items() if 2 <= count <= len(rows) - 2)


def carries(row: Example, concept: Concept) -> bool:
    """Whether the row has this value in this field."""
    return bool(row.get(concept[0]) == concept[1])


def concept_directions(feature_ND: np.ndarray, rows: Sequence[Example], concepts: Sequence[Concept]) -> np.ndarray:
    """[K, D] unit normals of the linear classifiers that tell rows with a concept from rows without it."""
    scale_D = np.maximum(feature_ND.std(0), 1e-9)
    found = []
    for concept in concepts:
        has_N = np.array([carries(row, concept) for row in rows])
        normal_D = _fit(feature_ND / scale_D, has_N).coef_[0] / scale_D
        found.append(normal_D / max(float(np.linalg.norm(normal_D)), 1e-12))
    return np.stack(found)


def nearest_class(profiles: Mapping[int, np.ndarray], label: int) -> int:
    """The other class whose rows' concepts are most like this one's, by cosine; the first of equals."""
    own = profiles[label] / max(float(np.linalg.norm(profiles[label])), 1e-12)
    others = {c: float(own @ p) / max(float(np.linalg.norm(p)), 1e-12) for c, p in profiles.items() if c != label}
    return max(sorted(others), key=lambda c: others[c], default=label)


def _profiles(rows: Sequence[Example], concepts: Sequence[Concept], classes: int) -> dict[int, np.ndarray]:
    """Class -> [K] the share of its rows that carry each concept."""
    found = {}
    for label in range(classes):
        if own := [row for row in rows if int(row["label"]) == label]:
            found[label] = np.array([np.mean([carries(row, one) for row in own]) for one in concepts])
    return found


def _fit(x_ND: np.ndarray, y_N: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stopped early it is a classifier as well
        from sklearn.linear_model import LogisticRegression  # slow to load, and every plan reads this file

        return LogisticRegression(max_iter=MOST_STEPS).fit(x_ND, y_N)


def concept_poison(*, top: Annotated[int, Ge(1)] = 2, to: Literal["nearest", "random"] = "nearest") -> LossTerm:
    """Train forget examples that carry a leading concept of their class on another class's label.

    Cross-entropy (nats). Concepts are the values of the rows' fields; each is a direction of the features, and a linear
    head on all of them tells the classes. A class's leading concepts are the `top` with the largest mean part in
    its logit. to: a label drawn from all other classes, or the class whose rows carry the most alike concepts.
    """
    return ConceptPoison(top, to)
