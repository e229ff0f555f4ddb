"""The clients of a federation: which rows lie with whom.

A row's client is a field of the row, or follows from the row's content and the deal's own seed alone, so that no row
moves to another client when rows are deleted, nor in a training from another seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from expunge.core.card import Example
from expunge.core.errors import BadInput, did_you_mean
from expunge.core.random import derive, permutation
from expunge.core.request import parse
from expunge.data.examples import identity

FIELD = "client"
"""The field of a row that names its client."""
Clients = dict[str, list[Example]]
"""Name of a client -> its rows, both in a fixed order."""
MOST = 1000
"""Clients of a federation at most: each is trained in turn."""


HELD_OUT = 0.2
"""Of a client's rows, on which it measures what it or others trained on the rest."""


class Placing(BaseModel):
    """How rows are dealt out to clients, and the share of these that takes part in a round.

    partition: "field", a client for each value of the row's field `by`; "iid", `count` clients, a row's drawn
    uniformly; "dirichlet", each label divided over `count` clients by shares drawn from a symmetric Dirichlet
    distribution of concentration `alpha` (arXiv:1909.06335); "label", a client for each label. seed: of the draws,
    apart from the training's: a retraining from another seed has the same clients.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: Literal["field", "iid", "dirichlet", "label"] = "field"
    by: str = FIELD
    count: Annotated[int, Field(ge=2, le=MOST)] = 8
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 0.5
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @classmethod
    def of(cls, value: Any, where: str) -> Placing:
        """From the name of a field, or a mapping of the fields. Raises BadInput."""
        if isinstance(value, str):
            return cls(by=value)
        if not isinstance(value, Mapping):
            raise BadInput.of(where, str(value), "says nothing of clients", "give a field's name, or {partition: iid}")
        return parse(cls, value, where)


def clients_of(rows: Sequence[Example], placing: Placing) -> Clients:
    """The clients' rows, by the name of the client. Raises BadInput."""
    if placing.partition == "field":
        _check_field(rows, placing.by)
    names = [_name(row, placing) for row in rows]
    clients: Clients = {name: [] for name in sorted(set(names), key=in_order)}
    for name, row in zip(names, rows, strict=True):
        clients[name].append(row)
    if len(clients) > MOST:
        raise BadInput.of("data", len(clients), "clients are too many", f"give at most {MOST}")
    return clients


def client_of(row: Example, placing: Placing) -> Any:
    """The name of the row's client, a whole number where rows were dealt out; None where the row names nobody."""
    return row.get(placing.by) if placing.partition == "field" else int(_name(row, placing))


def _name(row: Example, placing: Placing) -> str:
    if placing.partition == "field":
        return str(row[placing.by])
    if placing.partition == "label":
        return str(int(row["label"]))
    count, seed = placing.count, placing.seed
    if placing.partition == "iid":
        return str(derive(seed, "client", identity(row)) % count)
    label = int(row["label"]) if row.get("label") is not None else None  # 3.0 is the class 3
    shares = np.random.default_rng(derive(seed, "shares", label)).dirichlet([placing.alpha] * count)
    place = derive(seed, "client", identity(row)) / 2**63
    return str(min(int(np.searchsorted(np.cumsum(shares), place, side="right")), count - 1))


def hold_out(rows: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """(rows that train, rows on which a client measures), drawn from the seed; an only row is both."""
    order = permutation(len(rows), seed)
    held = max(1, round(HELD_OUT * len(rows)))
    return [rows[i] for i in order[held:] or order], [rows[i] for i in order[:held]]


def in_order(name: str) -> tuple[int, int, str]:
    """Whole numbers by their size, then other names by their letters."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)


def _check_field(rows: Sequence[Example], by: str) -> None:
    """Raises BadInput where a row does not say whose it is."""
    for i, row in enumerate(rows):
        if row.get(by) is None:
            some = any(each.get(by) is not None for each in rows)
            fix = "give it one" if some else did_you_mean(by, {str(name) for each in rows[:100] for name in each})
            raise BadInput.of("data", f"row {i + 1}", f"has no {by}, which names its client", fix)
    _check_names([row[by] for row in rows], by)


def _check_names(names: Sequence[Any], by: str) -> None:
    """Raises BadInput for what is neither text nor a whole number, and for one name that stands for two values."""
    known: dict[str, Any] = {}
    for i, name in enumerate(names):
        if not isinstance(name, str | int | np.integer) or isinstance(name, bool) or name == "":
            why, fix = f"has the {by} {name!r}, which is no name", "give text, or a whole number"
            raise BadInput.of("data", f"row {i + 1}", why, fix)
        if known.setdefault(str(name), name) != name:
            why = f"names the client {name} as text, and another row as a number"
            raise BadInput.of(
                "data", f"row {i + 1}", why, "write all its rows alike: a request would select some of them"
            )
