"""A forest over accounts that are split both ways: a payment network has some columns of all rows, banks the others.

Suffixes: N rows of a bank, K columns of a party, M nodes of a level, L leaves.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput
from expunge.core.random import derive
from expunge.data.clients import Placing, clients_of
from expunge.methods.strategies.private import epsilon, share_of_noise
from expunge.methods.trainers.boosting import require_trees
from expunge.methods.trainers.federated_boosting import classes_of
from expunge.methods.trainers.pax import Split, Tree, as_booster
from expunge.methods.trainers.vertical import hide, unmask
from expunge.models.classifier import floats
from expunge.models.trees import Boosted, Trees

NAME = "joined_forest"
WHERE = f"trainer.{NAME}"
DELTA = 1e-5
"""At which epsilon is told."""


def check(model: Model, data: Sequence[Example], **options: Any) -> None:
    """Check trees, classes, banks, the columns of both sides, and their values. Raises BadInput."""
    require_trees(model, NAME)
    if classes_of(model) != 2:
        why = "classes cannot be told by a flag"
        raise BadInput.of("model.classes", classes_of(model), why, "give rows with the labels 0 and 1")
    banks = clients_of(data, Placing())
    if len(banks) < 2:
        raise BadInput.of(WHERE, len(banks), "is the number of banks", "give rows of two banks or more")
    table = np.stack([floats(row["features"]) for row in data])
    if (held := options["network"]) >= table.shape[1]:
        why = f"leaves the banks none of the {table.shape[1]} columns"
        raise BadInput.of(f"{WHERE}.network", held, why, "give fewer")
    if not (np.isfinite(table).all() and table.min() >= 0 and table.max() <= 1):
        why = "are not all between 0 and 1, where thresholds are drawn"
        raise BadInput.of("data", "features", why, "scale them")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    network: Annotated[int, Ge(1), Le(10_000)],
    trees: Annotated[int, Ge(1), Le(10_000)] = 100,
    depth: Annotated[int, Ge(1), Le(12)] = 6,
    noise: Annotated[float, Ge(0), Le(1e6)] = 0.0,
) -> Model:
    """Grow a forest whose splits are drawn without data, and count the flags of its leaves over both sides.

    network: the first columns, which the payment network has of all rows, with the labels; the others lie with the
    row's bank, which its field `client` names. All columns lie between 0 and 1, where thresholds are drawn. For
    each row and tree the network says which leaves its columns allow; the bank adds which its own allow, and sends
    counts by leaf and label, with its share of the noise, behind masks of which the server sees only the sum. A leaf's
    logit is that of its noisy counts, one added to each; the model's is the mean over the trees. noise: deviation of
    the noise of the sums, over the square root of `trees`, by which one row moves them: epsilon at DELTA is in the
    manifest. Source: arXiv:2310.19304. The network's answers go to banks in the clear, where homomorphic encryption
    should hide them; the masks' and the noise's generators are numpy's and follow from the seed. Raises BadInput.
    """
    began = time.monotonic()
    check(fresh, data, network=network)
    clients, columns = clients_of(data, Placing()), len(floats(data[0]["features"]))
    deviation = share_of_noise(noise * math.sqrt(trees), len(clients))
    sides = [join(rows, network, i, len(clients), deviation, context) for i, rows in enumerate(clients.values())]
    draw, grown, sent = np.random.default_rng(context.derive(NAME, "splits")), [], 0
    context.reporter.start(NAME, trees)
    for number in range(trees):
        splits = Splits.draw(draw, columns, depth)
        messages = [there.count(splits, here.permit(splits), number) for here, there in sides]
        sent += sum(message.nbytes for message in messages)
        grown.append(splits.grow(unmask(messages), trees))
        context.reporter.advance(NAME, number + 1, f"tree {number + 1}")
    context.reporter.finish(NAME)
    told: dict[str, Any] = {"parties": 1 + len(clients), "bytes_up": sent, "bytes_down": trees * len(data) * 2**depth}
    bound = epsilon(noise, 1, DELTA) if noise else None
    told["privacy"] = {"epsilon": bound, "delta": DELTA, "of": "sum", "rounds": 1}
    context.notes["outcome"] = {"steps": trees, "tokens": trees * len(data), "federation": told}
    context.notes["outcome"]["seconds"] = time.monotonic() - began
    return Trees(Boosted(2, columns, as_booster(grown, data[:1], 2)).eval())


@dataclass(frozen=True)
class Splits:
    """A complete tree: of each level the columns [M] and thresholds [M]; a value under the threshold goes left."""

    levels: Sequence[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def draw(cls, draw: np.random.Generator, columns: int, depth: int) -> Splits:
        """Uniformly: which columns and thresholds is nobody's secret."""
        levels = [
            (draw.integers(columns, size=2**i), draw.uniform(0, 1, 2**i).astype(np.float32)) for i in range(depth)
        ]
        return cls(levels)

    def grow(self, counts_2L: np.ndarray, trees: int) -> dict[str, Any]:
        """The tree as XGBoost writes one; a leaf's value is its share of the mean logit. counts: of labels 0 and 1."""
        leaves_L = np.log((counts_2L[1].clip(0) + 1) / (counts_2L[0].clip(0) + 1)) / trees
        nodes = [(int(c), t) for columns, cuts in self.levels for c, t in zip(columns, cuts, strict=True)]
        inner, every = len(nodes), 2 * len(nodes) + 1
        cuts = [np.array([t for c, t in nodes if c == k], np.float32) for k in range(1 + max(c for c, _ in nodes))]
        places = [sum(c == column for c, _ in nodes[:i]) for i, (column, _) in enumerate(nodes)]
        nothing = ((0.0, 0.0), (0.0, 0.0))
        tree = Tree(
            left=[2 * i + 1 if i < inner else -1 for i in range(every)],
            right=[2 * i + 2 if i < inner else -1 for i in range(every)],
            parent=[(i - 1) // 2 if i else Tree().parent[0] for i in range(every)],
            splits=[Split(c, places[i], 0.0, nothing) for i, (c, _) in enumerate(nodes)] + [None] * (inner + 1),
            value=[0.0] * inner + leaves_L.tolist(),
            hessian=[0.0] * every,
        )
        return {**tree.document(cuts, 1.0), "class": 0}


@dataclass(frozen=True)
class Side:
    """One party's columns of a bank's rows. first: the number of its first column."""

    table_NK: np.ndarray
    first: int

    def permit(self, splits: Splits) -> np.ndarray:
        """[N, L] whether a row may end in a leaf, as far as these columns say."""
        found = np.ones((len(self.table_NK), 1), bool)
        for columns_M, cuts_M in splits.levels:
            places_M = columns_M - self.first
            own_M = (places_M >= 0) & (places_M < self.table_NK.shape[1])
            under_NM = self.table_NK[:, np.where(own_M, places_M, 0)] < cuts_M
            left, right = found & (under_NM | ~own_M), found & (~under_NM | ~own_M)
            found = np.stack([left, right], -1).reshape(len(found), -1)
        return found


@dataclass(frozen=True)
class Bank(Side):
    """A bank's columns of its rows. labels: the network's. keys: other bank -> the seed that both have."""

    labels_N: np.ndarray
    place: int
    keys: dict[int, int]
    deviation: float
    draw: np.random.Generator

    def count(self, splits: Splits, allowed_NL: np.ndarray, number: int) -> np.ndarray:
        """Its message for a tree [2, L]: rows of each label by leaf, and its share of the noise, behind masks."""
        reached_NL = self.permit(splits) & allowed_NL
        counts_2L = np.stack([reached_NL[self.labels_N == label].sum(0) for label in (0, 1)])
        noisy = counts_2L + self.deviation * self.draw.normal(size=counts_2L.shape)
        return hide(noisy, self.place, self.keys, number)


def join(
    rows: Sequence[Example], network: int, place: int, count: int, deviation: float, context: Context
) -> tuple[Side, Bank]:
    """(the network's side of a bank's rows, the bank's own)."""
    table = np.stack([floats(row["features"]) for row in rows])
    pairs = [pair for pair in itertools.combinations(range(count), 2) if place in pair]
    keys = {sum(pair) - place: derive(context.seed, NAME, *pair) for pair in pairs}
    draw = np.random.default_rng(context.derive(NAME, "noise", place))
    labels_N = np.array([int(row["label"]) for row in rows])
    own = Bank(table[:, network:], network, labels_N, place, keys, deviation, draw)
    return Side(table[:, :network], 0), own
