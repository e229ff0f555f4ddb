"""Forget, retain, holdout and the rest: selected, and proven to share no example."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.card import Example
from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.core.random import permutation
from expunge.data import class_names
from expunge.data.content import content_digests, without
from expunge.data.load import load
from expunge.data.matching import check_each, fix_of, matches
from expunge.data.probes import attach, read_probes
from expunge.data.rows import take
from expunge.data.turns import each_answer

Splits = dict[str, Sequence[Example]]
HELD_OUT, SEEN = "retain_held_out", "retain_seen"
"""The part of retain that no method gets, which evidence reads as `retain`; the name of the rest in the evidence."""


FURTHER = ("neighbours", "general")
"""Data on which utility is measured besides retain: near neighbours of the forget set, and general text."""
UNTRAINED = ("holdout", "test", *FURTHER)
SOURCES = ("data", "retain", "holdout", "test", "reference", *FURTHER)
"""The sources besides forget, in the order in which they are loaded."""


def select(
    data: Sequence[Example],
    selector: Mapping[str, Any],
    seed: int,
    client: Callable[[Example], Any] | None = None,
) -> tuple[Sequence[Example], Sequence[Example]]:
    """The selected examples and the others, both in the data's order. Raises BadInput.

    client: with whom a row lies, where that is not what its field says.
    """
    ((kind, value),) = selector.items()
    if kind == "random":
        count = max(1, round(float(value) * len(data)))
        chosen = set(permutation(len(data), seed, "select")[:count])
        picked = [i in chosen for i in range(len(data))]
    elif kind == "concept":
        read, wanted = data, {"class_prompt": value}
        _check_fields(data, wanted, kind)
        picked = [shows_concept(row, value) for row in data]
    else:
        wanted = {"label": value} if kind == "class" else {"client": value} if kind == "client" else value
        read = [{**row, "client": client(row)} for row in data] if client and "client" in wanted else data
        _check_fields(read, wanted, kind)
        picked = [all(matches(row.get(key), want) for key, want in wanted.items()) for row in read]
    chosen_N = np.array(picked, dtype=bool)
    if not chosen_N.any():
        raise BadInput.of(
            "forget",
            f"{kind}: {value}",
            f"selects none of the {len(data)} examples",
            fix_of(read, *next(iter(wanted.items()))) if kind != "random" else "give a larger share",
        )
    forget, others = take(data, chosen_N.nonzero()[0]), take(data, (~chosen_N).nonzero()[0])
    if kind == "concept":
        _check_concepts(data, forget, value)
    elif kind != "random":
        check_each(read, picked, wanted, kind)
    return forget, others


def _check_concepts(data: Sequence[Example], chosen: Sequence[Example], concepts: str | list[str]) -> None:
    """Raises BadInput for one of several concepts that no row shows."""
    for one in concepts if isinstance(concepts, list) else []:
        if not any(shows_concept(row, one) for row in chosen):
            raise BadInput.of("forget.concept", one, "selects no example", fix_of(data, "class_prompt", one))


def shows_concept(row: Example, concept: str | list[str]) -> bool:
    """Whether the prompt of a picture has all words of the concept, or of one of several."""
    if isinstance(concept, list):
        return any(shows_concept(row, one) for one in concept)
    return set(concept.casefold().split()) <= set(str(row.get("class_prompt", "")).casefold().split())


def _check_fields(data: Sequence[Example], wanted: Mapping[str, Any], kind: str) -> None:
    for key in wanted:
        if not any(key in row for row in data):
            raise BadInput.of(
                f"forget.{kind}",
                key,
                "is a field of no example",
                did_you_mean(key, {str(name) for row in data[:100] for name in row}),
            )


def disjoint(splits: Mapping[str, Sequence[Example]]) -> None:
    """Proves that what was never to be trained on shares no example with what trains. Raises BadInput."""
    pairs = [("forget", "retain"), *itertools.product(("forget", "retain"), UNTRAINED)]
    pairs += itertools.product(("reference",), FURTHER)
    given = [(one, other) for one, other in pairs if one in splits and other in splits]
    keys = {name: content_digests(splits[name]) for name in dict.fromkeys(itertools.chain(*given))}
    with_faults = Faults()
    for one, other in given:
        shared, _, places = np.intersect1d(keys[one], keys[other], return_indices=True)
        if len(shared):
            with_faults.add(
                BadInput.of(
                    other,
                    f"row {places.min() + 1}",
                    f"is also in {one} ({len(shared)} shared example{'s' if len(shared) > 1 else ''})",
                    f"remove what is in {one} from {other}",
                )
            )
    with_faults.raise_any()


def make_splits(
    sources: Mapping[str, Any],
    *,
    probes: Any = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    turns: str = "last",
    client: Callable[[Example], Any] | None = None,
) -> Splits:
    """The request's splits and probes. A selector chooses from `data`; retain defaults to what it leaves.

    sources: forget, and those of SOURCES that there are; None counts as absent. probes: further splits by name, read
    and never trained on; or the user's own questions (data/probes.py): the split "probes", of which those of an example
    go with it too. turns: "all" makes an example of each answer of a conversation (data/turns.py). client: with whom a
    row lies in the federation that trained the model, which `{client: c}` then reads instead of the row's field.

    Under `{class: c}` or `{concept: c}` the test split loses what is of it to the split `test_forget`. Raises BadInput
    with every fault.
    """
    faults = Faults()
    splits: Splits = {}
    for name in SOURCES:
        if sources.get(name) is not None:
            with faults:
                splits[name] = load(sources[name], name, columns)
    forget, given_retain = sources["forget"], sources.get("retain") is not None
    selector = forget if isinstance(forget, Mapping) else None
    with faults:
        if selector is None:
            splits["forget"] = load(forget, "forget", columns)
        elif sources.get("data") is None:
            raise BadInput.of("data", "", "is missing, and the selector under forget chooses from it", "add data: FILE")
        elif "data" in splits:
            splits["forget"], rest = select(splits["data"], selector, seed, client)
            if not given_retain:
                # A copy of what is forgotten cannot stay.
                splits["retain"] = without(rest, _not_retained(splits))
    _add_probes(splits, probes, columns, faults)
    faults.raise_any()
    if selector is None and not given_retain and "data" in splits:
        splits["retain"] = without(splits["data"], _not_retained(splits))
    if "test" in splits and selector and ("class" in selector or "concept" in selector):
        ((kind, value),), test_rows = selector.items(), splits["test"]
        is_of = shows_concept if kind == "concept" else (lambda row, label: matches(row.get("label"), label))
        of_class = np.array([is_of(row, value) for row in test_rows], dtype=bool)
        splits["test_forget"] = take(test_rows, of_class.nonzero()[0])
        splits["test"] = take(test_rows, (~of_class).nonzero()[0])
    splits.pop("data", None)
    splits = {name: each_answer(rows) if turns == "all" else rows for name, rows in splits.items()}
    class_names.agree(splits)
    disjoint(splits)
    return {name: rows for name, rows in splits.items() if rows}


def _not_retained(splits: Splits) -> list[Example]:
    """The examples that leave `data` before it serves as retain."""
    return [row for name in ("forget", *FURTHER) for row in splits.get(name, [])]


def _add_probes(splits: Splits, probes: Any, columns: Mapping[str, str] | None, faults: Faults) -> None:
    """Add the probes to the splits, and their faults to the faults."""
    named = probes if isinstance(probes, Mapping) else {}
    if probes and not named:
        with faults:
            own = read_probes(probes)
            if "forget" in splits:
                splits["forget"], splits["probes"] = attach(splits["forget"], own)
    for name, source in named.items():
        with faults:
            if name in (*SOURCES, "forget", "test_forget", "probes", HELD_OUT, SEEN) or not name.isidentifier():
                raise BadInput.of(f"probes.{name}", name, "cannot be the name of a probe", "choose another word")
            splits[name] = load(source, f"probes.{name}", columns)
