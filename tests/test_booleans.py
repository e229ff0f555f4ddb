"""Where a number or a name belongs, true is not 1: in options, selectors, fields and clients' names."""

from __future__ import annotations

from typing import Any

import pytest

from expunge.core.errors import BadInput
from expunge.data.clients import Placing, client_of, clients_of
from expunge.data.splits import select
from expunge.methods._rounds import Local
from expunge.methods._strategy import strategy_of
from expunge.methods.training import with_defaults
from expunge.pipeline.train import parse_training


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"federation": {"rounds": True}}, "trainer.federation.rounds"),
        ({"vertical": {"parties": [True, 2]}}, "trainer.vertical.parties.0"),
    ],
)
def test_an_option_that_is_a_number_is_no_boolean(options: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput, match=f"{field}: True is no number; give a number"):
        with_defaults(options, "trainer")


def test_nor_is_one_within_an_option() -> None:
    for call in (
        lambda: Placing.of({"partition": "iid", "seed": True}, "clients"),
        lambda: Local.of(True, "local"),
        lambda: strategy_of({"tifl": {"pace": {"1": True}}}, "strategy"),
        lambda: parse_training({"model": "m", "data": "d", "out": "o", "epochs": True}),
    ):
        with pytest.raises(BadInput, match="True is no number"):
            call()


def test_a_boolean_that_an_option_takes_stays_one() -> None:
    read = with_defaults({"pseudo_labels": {"by": "labelled"}}, "trainer")
    assert read is not None and read["pseudo_labels"]["rounds"] == 3
    assert parse_training({"model": "m", "data": "d", "out": "o", "trust_code": True}).trust_code is True


def test_a_field_that_is_true_is_not_1() -> None:
    rows = [{"text": str(i), "flag": flag} for i, flag in enumerate((True, 1, False, 0, "true", 1.0))]
    for wanted, places in ((True, [0, 4]), (1, [1, 5]), (False, [2]), ([True, 0], [0, 3, 4])):
        chosen, _ = select(rows, {"where": {"flag": wanted}}, 0)
        assert [int(row["text"]) for row in chosen] == places, wanted


def test_a_client_is_no_boolean_and_a_label_3_0_is_the_class_3() -> None:
    """At so small a concentration all rows of a class lie with one client."""
    with pytest.raises(BadInput, match="has the client True, which is no name"):
        clients_of([{"client": True}, {"client": 1}], Placing())
    rows = [{"features": [0.0], "label": label} for label in (3.0, 3)]
    for placing in (Placing(partition="label"), Placing(partition="dirichlet", count=1000, alpha=1e-3)):
        assert len({client_of(row, placing) for row in rows}) == 1
