"""Boosted trees as a model: XGBoost's own bytes in a buffer, and the logits that it makes of a row.

Trees have no weights that a step could change. They are retrained, and no method of steps takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.card import Example
from expunge.core.files import write_json
from expunge.models.classifier import Classifier, floats
from expunge.models.weights import device_of, fingerprint_of

FILE, TREES = "trees.json", "model.ubj"
"""In a folder: the number of classes and of columns, and XGBoost's own file."""


class Boosted(nn.Module):
    """A booster without parameters of torch; without trees, all classes are equally likely.

    raw: what `Booster.save_raw` gives. columns: of a row; None for any.
    """

    def __init__(self, classes: int, columns: int | None = None, raw: bytes = b"") -> None:
        super().__init__()
        self.classes, self.columns = classes, columns
        self.trees: Tensor
        self.register_buffer("trees", torch.frombuffer(bytearray(raw or b"\0"), dtype=torch.uint8)[: len(raw)].clone())
        self._opened: Any = None

    @property
    def raw(self) -> bytes:
        """XGBoost's own bytes; empty where nothing was trained."""
        return self.trees.cpu().numpy().tobytes()

    def forward(self, x_BF: Tensor) -> Tensor:
        """[B, F] -> logits [B, C] float32. Raises ValueError for rows with another number of columns."""
        if self.columns is not None and x_BF.shape[-1] != self.columns:
            raise ValueError(f"rows of {self.columns} columns are expected, and the shape is {list(x_BF.shape)}")
        if x_BF.is_meta or not len(self.trees):
            return torch.zeros(len(x_BF), self.classes, device=x_BF.device)
        if self._opened is None:
            self._opened = booster_of(self.raw)
        margins = torch.from_numpy(self._opened.inplace_predict(x_BF.cpu().numpy(), predict_type="margin"))
        if margins.dim() == 1:  # of the second of two classes
            margins = torch.stack([torch.zeros_like(margins), margins], 1)
        return margins.to(x_BF.device)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *_: Any) -> None:
        """Takes bytes of any length: trees come and go."""
        self.trees = state_dict[f"{prefix}trees"].clone()
        self._opened = None


def grow(
    raw: bytes,
    rows: Sequence[Example],
    parameters: Mapping[str, Any],
    rounds: int,
    advance: Callable[[int], None] = lambda _: None,
) -> bytes:
    """XGBoost's bytes after so many further rounds on the rows; none at first: empty bytes. advance: called after each.

    On one thread: the sums of several have no order.
    """
    import xgboost  # an extra, and it takes a second

    labels = [int(row["label"]) for row in rows]
    matrix = xgboost.DMatrix(np.stack([floats(row["features"]) for row in rows]), labels, nthread=1)
    booster = booster_of(raw) if raw else xgboost.Booster(dict(parameters), [matrix])
    booster.set_param({**parameters, "nthread": 1, "tree_method": "hist"})
    for i in range(booster.num_boosted_rounds(), booster.num_boosted_rounds() + rounds):
        booster.update(matrix, i)
        advance(i + 1)
    return bytes(booster.save_raw("ubj"))


def booster_of(raw: bytes) -> Any:
    """XGBoost's booster, on one thread, so that its sums have one order. Raises xgboost's errors for foreign bytes."""
    import xgboost  # an extra, and it takes a second

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(raw))
    return booster


class Trees(Classifier):
    """A classifier of tables that is retrained, and never changed by steps."""

    family = "trees"

    def __init__(self, module: Boosted) -> None:
        super().__init__(module, {"trees": "xgboost", "classes": module.classes})
        self.capabilities = frozenset({"labels", "nll", "trees"})

    @property
    def boosted(self) -> Boosted:
        """The module, by its class."""
        assert isinstance(self.module, Boosted)
        return self.module

    def teach(self, rows: Sequence[Example], rounds: int) -> None:
        """Further rounds on the rows, with leaves as small as may be: what fine-tuning is to weights."""
        raw = grow(self.boosted.raw, rows, {"min_child_weight": 0}, rounds)
        self.module.load_state_dict(Boosted(self.boosted.classes, None, raw).state_dict())

    def save(self, folder: Path) -> None:
        """XGBoost's own file, which XGBoost opens too, and the number of classes and columns."""
        (folder / TREES).write_bytes(self.boosted.raw)
        write_json(folder / FILE, {"classes": self.boosted.classes, "columns": self.boosted.columns})

    def fingerprint(self) -> dict[str, Any]:
        return {
            "weights": fingerprint_of(self.module),
            "dtype": "float32",
            "device": device_of(self.module).type,
            "build": self.build,
        }
