"""Boosted trees of XGBoost, for tables: retrained without the forget set, never changed otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.extras import require
from expunge.core.request import parse
from expunge.models import schemas
from expunge.models.family import Family, Source
from expunge.models.trees import FILE, TREES, Boosted, Trees, booster_of

Classes = Annotated[int, Field(ge=2, le=10_000)]
SINGLE = "multi:softprob", "binary:logistic"
"""Objectives whose margins are the logits of classes that exclude one another."""


class Spec(schemas._File):
    """`model` of a train.yaml or of a request: new trees, or those of a file of XGBoost's (`weights`).

    classes: where neither the file nor the data tell.
    """

    model_config = ConfigDict(extra="forbid")

    trees: Literal["xgboost"]
    classes: Classes | None = None
    weights: str | None = None


class File(schemas._File):
    """trees.json."""

    classes: Classes
    columns: int | None = Field(default=None, ge=1, le=2**24)


def claims(source: Source) -> bool:
    """Whether it names trees, or is the folder of such."""
    if isinstance(source, Mapping):
        return "trees" in source
    try:
        return (Path(source) / FILE).is_file()
    except (OSError, ValueError):
        return False


def check(source: Source, *, trust_code: bool, weights: bool, field: str) -> None:
    """Everything that can be known of it without building it. Raises BadInput."""
    require(field, str(source), "xgboost", "trees")
    if not isinstance(source, Mapping):
        schemas.read(Path(source) / FILE, File, field)
        path = Path(source) / TREES
        if weights and not path.is_file():
            raise BadInput.of(field, str(source), f"holds no {TREES}", "write the folder again")
        return
    spec = parse(Spec, source, field, field)
    if spec.weights is None:
        return
    path = Path(spec.weights)
    if path.suffix not in (".json", ".ubj"):
        why = "is no .json or .ubj file, and we load no pickle"
        raise BadInput.of(f"{field}.weights", spec.weights, why, 'save it with booster.save_model("model.ubj")')
    if weights and not path.is_file():
        raise BadInput.of(f"{field}.weights", spec.weights, "does not exist", "give XGBoost's own file")


def open_trees(source: Source, *, trust_code: bool, meta: bool, dtype: torch.dtype | None = None) -> Model:
    """The trees of a folder, or of a file of XGBoost's; without trees on the meta device, or where none are named."""
    if not isinstance(source, Mapping):
        found = File.model_validate(schemas.read(Path(source) / FILE, File, "model"))
        raw = b"" if meta else (Path(source) / TREES).read_bytes()
        return _model(found.classes, found.columns, raw, "model", meta)
    spec = parse(Spec, source, "model", "model")
    if spec.weights is None:
        return _model(spec.classes or 2, None, b"", "model", meta)
    path = Path(spec.weights)
    if not path.is_file():
        return _model(spec.classes or 2, None, b"", "model", meta)
    booster = _booster(path.read_bytes(), "model.weights")
    return _model(_classes(booster), booster.num_features(), bytes(booster.save_raw("ubj")), "model.weights", meta)


def _model(classes: int, columns: int | None, raw: bytes, field: str, meta: bool) -> Trees:
    if raw:
        booster = _booster(raw, field)
        if (own := _classes(booster)) != classes or (columns is not None and booster.num_features() != columns):
            why = f"has {own} classes and {booster.num_features()} columns, and {FILE} says otherwise"
            raise BadInput.of(field, TREES, why, "write the folder again")
    module = Boosted(classes, columns, raw).eval()
    return Trees(module.to("meta") if meta else module)


def _booster(raw: bytes, field: str) -> Any:
    """Raises BadInput for what is no booster, or one whose outputs are no classes."""
    try:
        return booster_of(raw)
    except Exception as error:  # a parser's, on bytes of anyone's
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput.of(field, "", f"is no file of XGBoost's ({first_line})", "save it with save_model") from None


def _classes(booster: Any) -> int:
    """How many classes it tells apart. Raises BadInput for a booster of another task."""
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    if objective not in SINGLE:
        fix = f"give a classifier: {' or '.join(SINGLE)}"
        raise BadInput.of("model", objective, "is an objective without classes that exclude one another", fix)
    return max(2, int(learner["learner_model_param"]["num_class"]))


def fresh(
    spec: Mapping[str, Any],
    examples: Sequence[Example],
    *,
    seed: int,
    trust_code: bool,
    like: Model | None,
    meta: bool,
) -> Model:
    """No trees yet, for as many classes as are named, the like model has, or the labels need."""
    named = parse(Spec, spec, "model", "model")
    if named.weights is not None:
        why = "are trees that are there already, and a training begins with none"
        raise BadInput.of("model.weights", named.weights, why, "leave it out")
    known = like.boosted.classes if isinstance(like, Trees) else 2  # labels of an earlier training, or of none
    labels = [int(row["label"]) for row in examples if "label" in row]
    return _model(named.classes or max(known, *[label + 1 for label in labels], 2), None, b"", "model", meta)


FAMILY = Family(
    name="trees",
    title="model of boosted trees",
    claims=claims,
    check=check,
    open=open_trees,
    fresh=fresh,
    example_forms=(("features", "label"),),
    channels=("nll", "logp", "logits", "topk", "argmax", "moments"),
    capabilities=frozenset({"labels", "nll", "trees"}),
    headline={
        "forgetting": ("forget_accuracy", "forget_nll"),
        "utility": ("retain_accuracy", "test_accuracy"),
    },
    kept="accuracy",
    trainer="boosting",
    weights=False,
)
