"""The part of retain that is held out."""

from __future__ import annotations

from typing import Any

import pytest

from expunge.data.content import content_key
from expunge.data.sampling import hold_out


def rows(groups: int, each: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"question": f"Fact {j} of {i}?", "answer": "One.", "group": i, **more}
        for i in range(groups)
        for j in range(each)
    ]


def test_a_third_of_the_groups_is_held_out() -> None:
    training, held_out = hold_out(rows(36, 4), 0)
    assert len(held_out) == 48 and len(training) == 96
    assert not {row["group"] for row in training} & {row["group"] for row in held_out}
    assert [row for row in rows(36, 4) if row in training] == training, "in their order"


def test_it_follows_from_the_seed_and_not_from_the_order() -> None:
    given = rows(12, 3)
    chosen = {seed: {row["group"] for row in hold_out(given, seed)[1]} for seed in range(4)}
    assert len({tuple(sorted(groups)) for groups in chosen.values()}) > 1
    assert {row["group"] for row in hold_out(given[::-1], 2)[1]} == chosen[2]


def test_copies_stay_together_where_there_is_no_group() -> None:
    once = [{"question": f"Fact {i}?", "answer": "One."} for i in range(18)]
    chat = [
        {"messages": [{"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["answer"]}]}
        for r in once
    ]
    training, held_out = hold_out([*once, *chat], 1)
    assert len(held_out) == 12 and not {*map(content_key, training)} & {*map(content_key, held_out)}


@pytest.mark.parametrize("given", [rows(11, 5), rows(1, 11), [{"text": f"Line {i}."} for i in range(11)], []])
def test_too_few_are_left_whole(given: list[dict[str, Any]]) -> None:
    assert hold_out(given, 0) == (given, [])


def test_at_least_two_thirds_train_whatever_the_groups_sizes() -> None:
    """A group with most of the rows is not held out; the others are, up to a third of the rows."""
    large = [{"text": f"Line {i}.", "group": "large"} for i in range(88)]
    training, held_out = hold_out([*large, *rows(11, 2)], 0)
    assert len(held_out) == 22 and [row for row in training if row["group"] == "large"] == large
    assert len(hold_out([*large[:20], *rows(11, 2)], 0)[1]) == 14
