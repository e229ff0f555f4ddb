"""Boosted trees of a federation from sums of histograms, whose bins are the finer, the more rows a party has."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import numpy as np
from annotated_types import Ge, Gt, Le

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput
from expunge.data.clients import FIELD, Clients, Placing, client_of, clients_of
from expunge.methods.trainers import boosting
from expunge.methods.trainers.federated_boosting import classes_of
from expunge.models.classifier import floats
from expunge.models.trees import Boosted, Trees, booster_of, grow

NAME = "pax"
WHERE = f"trainer.{NAME}.clients"
FEWEST = 2
"""Bins of the smallest party."""
SHRINKAGE = 1.0
"""L2 penalty of a leaf, as XGBoost has it."""
LEAST_GAIN = 1e-6
"""A split must gain more, as in XGBoost."""
ROOT = 2**31 - 1
"""The parent of a tree's first node, as XGBoost writes it."""


def client_in(options: Mapping[str, Any]) -> Callable[[Example], Any]:
    """With whom a row lies in the federation of these options."""
    placing = Placing.of(options["clients"], WHERE)
    return lambda row: client_of(row, placing)


def check(model: Model, data: Sequence[Example], **options: Any) -> None:
    """Check the model, and that there are two clients. Raises BadInput."""
    boosting.require_trees(model, NAME)
    if len(clients := clients_of(data, Placing.of(options["clients"], WHERE))) < 2:
        raise BadInput.of(WHERE, len(clients), "is the number of clients", "give rows of two clients or more")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    clients: Any = FIELD,
    bins: Annotated[int, Ge(2), Le(4096)] = 256,
    depth: Annotated[int, Ge(1), Le(30)] = 6,
    rate: Annotated[float, Gt(0), Le(1)] = 0.3,
    least_weight: Annotated[float, Ge(0)] = 1.0,
) -> Model:
    """Grow as many rounds as the budget has epochs, each split from the sums of all parties' gradients by bin.

    Each party sends a sketch of its columns once, of as many bins as its share of the largest party's rows allows; the
    server merges them into at most `bins` for each column. At each level of a tree a party sends its sums of gradients
    and Hessians by node, column and bin, and the server chooses the splits from their sums (XGBoost's gain,
    arXiv:1603.02754, equation 7). The other options are those of `boosting`. Source: PAX (arXiv:2012.06670), whose
    surrogate histograms hold gradients of merged bins; here the bins are merged once and the sums are the parties' own.
    """
    check(fresh, data, clients=clients)
    began, classes = time.monotonic(), classes_of(fresh)
    divided, rounds = clients_of(data, Placing.of(clients, WHERE)), int(context.budget.epochs or 1)
    cuts = cuts_of([sketch(_columns(rows), count) for rows, count in _with_bins(divided, bins)], bins)
    parties = [Party.of(rows, cuts, classes) for rows in divided.values()]
    server = Server(parties, cuts, depth, rate, least_weight, SHRINKAGE)
    context.reporter.start(NAME, rounds)
    trees = []
    for number in range(1, rounds + 1):
        for party in parties:
            party.look()
        trees += [server.grow(c) for c in range(1 if classes == 2 else classes)]
        context.reporter.advance(NAME, number, f"round {number}")
    context.reporter.finish(NAME)
    told = {"rounds": rounds, "participants": [list(divided)] * rounds, "bytes_up": server.sent}
    context.notes["outcome"] = {"steps": rounds, "tokens": rounds * len(data), "federation": told}
    context.notes["outcome"]["seconds"] = time.monotonic() - began
    raw = as_booster(trees, data[:1], classes)
    return Trees(Boosted(classes, len(cuts), raw).eval())


def _columns(rows: Sequence[Example]) -> np.ndarray:
    return np.stack([floats(row["features"]) for row in rows])


def _with_bins(clients: Clients, most: int) -> list[tuple[list[Example], int]]:
    """Each party's rows and bins."""
    counts = bins_of({name: len(rows) for name, rows in clients.items()}, most)
    return [(list(rows), counts[name]) for name, rows in clients.items()]


def bins_of(sizes: Mapping[str, int], most: int) -> dict[str, int]:
    """Party -> bins of its sketch: the largest has `most`, the others their share of its rows, and FEWEST at least."""
    largest = max(sizes.values())
    return {name: max(FEWEST, -(-most * size // largest)) for name, size in sizes.items()}


def _starts(rows: np.ndarray, bins: int) -> np.ndarray:
    """Where at most so many bins of about as many rows begin, among values that have so many rows each."""
    under = np.cumsum(rows) - rows
    return np.unique(np.searchsorted(under, np.arange(bins) * rows.sum() / bins).clip(max=len(rows) - 1))


Sketch = list[tuple[np.ndarray, np.ndarray]]
"""Of each column: the least values of the bins, and the rows in each."""


def sketch(x_NF: np.ndarray, bins: int) -> Sketch:
    """At most so many bins of about as many rows each, for every column; a bin never divides rows of one value."""
    found = []
    for x_N in x_NF.T:
        values, counts = np.unique(x_N, return_counts=True)
        if len(values) > bins:
            starts = _starts(counts, bins)
            values, counts = values[starts], np.add.reduceat(counts, starts)
        found.append((values, counts))
    return found


def cuts_of(sketches: Sequence[Sketch], most: int) -> list[np.ndarray]:
    """Of each column: the thresholds between its bins, at most `most` - 1, from all parties' sketches."""
    cuts = []
    for column in zip(*sketches, strict=True):
        values, place = np.unique(np.concatenate([values for values, _ in column]), return_inverse=True)
        rows = np.bincount(place, np.concatenate([counts for _, counts in column]))
        if len(values) > most:
            values = values[_starts(rows, most)]
        cuts.append(values[1:])
    return cuts


@dataclass
class Party:
    """One party: its rows by bin, their labels, and the margins of the common trees.

    bins_NF, margins_NC: C is 1 for two classes. node_N: where the tree in work has each row.
    """

    bins_NF: np.ndarray
    labels_N: np.ndarray
    margins_NC: np.ndarray
    gradients_NC: np.ndarray = field(default_factory=lambda: np.zeros((0, 1)))
    hessians_NC: np.ndarray = field(default_factory=lambda: np.zeros((0, 1)))
    node_N: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    @classmethod
    def of(cls, rows: Sequence[Example], cuts: Sequence[np.ndarray], classes: int) -> Self:
        """From rows."""
        x_NF, labels_N = _columns(rows), np.array([int(row["label"]) for row in rows])
        bins_NF = np.stack([np.searchsorted(cut, x, side="right") for cut, x in zip(cuts, x_NF.T, strict=True)], 1)
        return cls(bins_NF, labels_N, np.zeros((len(rows), 1 if classes == 2 else classes)))

    def look(self) -> None:
        """Gradients and Hessians of the loss at the margins, as XGBoost has them."""
        margins = self.margins_NC
        if margins.shape[1] == 1:
            p_NC = 1 / (1 + np.exp(-margins))
            self.gradients_NC, self.hessians_NC = p_NC - self.labels_N[:, None], p_NC * (1 - p_NC)
            return
        p_NC = np.exp(margins - margins.max(1, keepdims=True))
        p_NC /= p_NC.sum(1, keepdims=True)
        self.gradients_NC = p_NC - np.eye(margins.shape[1])[self.labels_N]
        self.hessians_NC = 2 * p_NC * (1 - p_NC)

    def sums(self, c: int, nodes: Sequence[int], bins: int) -> np.ndarray:
        """[2, nodes, F, bins]: sums of gradients and Hessians of class c, which is all that leaves the party."""
        columns = self.bins_NF.shape[1]
        places = np.full(max(nodes) + 2, -1)
        places[list(nodes)] = np.arange(len(nodes))
        row_node = places[np.minimum(self.node_N, max(nodes) + 1)]
        here = row_node >= 0
        index = ((row_node[here, None] * columns + np.arange(columns)) * bins + self.bins_NF[here]).ravel()
        size = len(nodes) * columns * bins
        parts = [
            np.bincount(index, np.repeat(values[here, c], columns), size)
            for values in (self.gradients_NC, self.hessians_NC)
        ]
        return np.stack(parts).reshape(2, len(nodes), columns, bins)

    def go(self, node: int, left: int, right: int, column: int, last: int) -> None:
        """Send the rows of a node to its children: bins up to `last` go left."""
        here = self.node_N == node
        self.node_N[here] = np.where(self.bins_NF[here, column] <= last, left, right)


@dataclass
class Server:
    """Chooses splits from the parties' sums, and sends them back. sent: bytes of the sums."""

    parties: Sequence[Party]
    cuts: Sequence[np.ndarray]
    depth: int
    rate: float
    least_weight: float
    shrinkage: float
    sent: int = 0

    def grow(self, c: int) -> dict[str, Any]:
        """The next tree of class c, after which the parties' margins hold it."""
        tree = Tree()
        for party in self.parties:
            party.node_N = np.zeros(len(party.labels_N), int)
        frontier = [0]
        for _ in range(self.depth):
            frontier = self._level(tree, frontier, c)
            if not frontier:
                break
        values = np.array([self.rate * value for value in tree.value])
        for party in self.parties:
            party.margins_NC[:, c] += values[party.node_N]
        return {**tree.document(self.cuts, self.rate), "class": c}

    def _level(self, tree: Tree, nodes: Sequence[int], c: int) -> list[int]:
        """Split the nodes that gain by it; their children."""
        bins = max(len(cut) for cut in self.cuts) + 1
        total = np.zeros((2, len(nodes), len(self.cuts), bins))
        for party in self.parties:
            sums = party.sums(c, nodes, bins)
            self.sent += sums.nbytes
            total += sums
        children = []
        for i, node in enumerate(nodes):
            split = best_split(total[0, i], total[1, i], self.shrinkage, self.least_weight)
            if node == 0:
                gradient, hessian = total[:, i, 0].sum(-1)
                tree.value[0], tree.hessian[0] = -gradient / (hessian + self.shrinkage), hessian
            if split is None:
                continue
            left, right = tree.split(node, split, self.shrinkage)
            for party in self.parties:
                party.go(node, left, right, split.column, split.last)
            children += [left, right]
        return children


@dataclass(frozen=True)
class Split:
    """Bins of a column up to `last` go left. sums: gradient and Hessian, left and right."""

    column: int
    last: int
    gain: float
    sums: tuple[tuple[float, float], tuple[float, float]]


def best_split(g_FB: np.ndarray, h_FB: np.ndarray, shrinkage: float, least_weight: float) -> Split | None:
    """The split of most gain, GL^2/(HL+s) + GR^2/(HR+s) - G^2/(H+s), the first of equal ones; None where none gains."""
    left_g, left_h = g_FB.cumsum(1)[:, :-1], h_FB.cumsum(1)[:, :-1]
    if not left_g.size:
        return None
    g, h = g_FB[0].sum(), h_FB[0].sum()
    right_g, right_h = g - left_g, h - left_h
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = left_g**2 / (left_h + shrinkage) + right_g**2 / (right_h + shrinkage) - g**2 / (h + shrinkage)
    allowed = (left_h >= least_weight) & (right_h >= least_weight) & np.isfinite(gain)
    gain = np.where(allowed, gain, -np.inf)
    column, last = np.unravel_index(int(gain.argmax()), gain.shape)
    if not gain[column, last] > LEAST_GAIN:
        return None
    at = column, last
    sums = (float(left_g[at]), float(left_h[at])), (float(right_g[at]), float(right_h[at]))
    return Split(int(column), int(last), float(gain[at]), sums)


@dataclass
class Tree:
    """Nodes as lists, the first the root. value: the weight of a node before the rate."""

    left: list[int] = field(default_factory=lambda: [-1])
    right: list[int] = field(default_factory=lambda: [-1])
    parent: list[int] = field(default_factory=lambda: [ROOT])
    splits: list[Split | None] = field(default_factory=lambda: [None])
    value: list[float] = field(default_factory=lambda: [0.0])
    hessian: list[float] = field(default_factory=lambda: [0.0])

    def split(self, node: int, split: Split, shrinkage: float) -> tuple[int, int]:
        """Give a node two children, with the weights -G / (H + shrinkage)."""
        first = len(self.left)
        self.left[node], self.right[node], self.splits[node] = first, first + 1, split
        for gradient, hessian in split.sums:
            self.left.append(-1)
            self.right.append(-1)
            self.parent.append(node)
            self.splits.append(None)
            self.value.append(-gradient / (hessian + shrinkage))
            self.hessian.append(hessian)
        return first, first + 1

    def document(self, cuts: Sequence[np.ndarray], rate: float) -> dict[str, Any]:
        """The tree as XGBoost writes one, but for its place."""
        count, weights = len(self.left), [rate * value for value in self.value]
        conditions = [
            weight if split is None else float(cuts[split.column][split.last])
            for split, weight in zip(self.splits, weights, strict=True)
        ]
        empty: dict[str, Any] = {
            name: [] for name in ("categories", "categories_nodes", "categories_segments", "categories_sizes")
        }
        size = {"num_deleted": "0", "num_feature": str(len(cuts)), "num_nodes": str(count), "size_leaf_vector": "1"}
        return {
            **empty,
            "base_weights": weights,
            "default_left": [0] * count,
            "left_children": self.left,
            "right_children": self.right,
            "parents": self.parent,
            "loss_changes": [split.gain if split else 0.0 for split in self.splits],
            "split_conditions": conditions,
            "split_indices": [split.column if split else 0 for split in self.splits],
            "split_type": [0] * count,
            "sum_hessian": self.hessian,
            "tree_param": size,
        }


def as_booster(trees: Sequence[Mapping[str, Any]], rows: Sequence[Example], classes: int) -> bytes:
    """XGBoost's bytes of these trees, in the order of rounds and classes. rows: any, for the number of columns."""
    raw = grow(b"", rows, {**boosting.objective(classes), "base_score": 0.5}, 0)
    whole = json.loads(booster_of(raw).save_raw("json"))
    model = whole["learner"]["gradient_booster"]["model"]
    each = 1 if classes == 2 else classes
    own = [{**{key: value for key, value in tree.items() if key != "class"}, "id": i} for i, tree in enumerate(trees)]
    ends = list(range(0, len(trees) + 1, each))
    model |= {"trees": own, "tree_info": [tree["class"] for tree in trees], "iteration_indptr": ends}
    model["gbtree_model_param"]["num_trees"] = str(len(trees))
    return bytes(booster_of(json.dumps(whole).encode()).save_raw("ubj"))
