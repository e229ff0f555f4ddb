"""A client that asks for some of its rows unlearns them in its own steps; for the others nothing changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.methods._rounds import Rounds, state_of
from expunge.methods.compose import compose
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.plan import plan
from expunge.pipeline.train import train
from expunge.training.stopping import figures
from expunge.training.updates import ClientUpdate, State
from expunge.workflows.run import run
from test_federation import config, equal, request, rows

LABELS = [0, 1, 2, 3, 4]
ASKED = {"where": {"client": 3, "label": LABELS}}
METHOD = {"unlearn_at_client": {"rounds": 2, "after": 1}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))


def divided() -> dict[str, list[dict[str, Any]]]:
    gone = [row for row in rows() if row["client"] == 3 and row["label"] in LABELS]
    return {"forget": gone, "retain": [row for row in rows() if row not in gone]}


def unlearned(folder: Path, method: Any = METHOD) -> tuple[State, dict[str, Any]]:
    composed, given, manifest = compose(method), divided(), read_manifest(folder / "base")
    model = open_model(str(folder / "base"))
    composed.method.fits(model, given, manifest)
    context = Context(Budget(stop="none"), folder / "work", 3, "apply", manifest=manifest)
    return state_of(composed.method(model, given, context)), context.notes


def test_the_others_train_as_always_and_no_one_else_meets_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each update of the first round but the client's own has the bits of a round without these rows; that one counts
    by all the client's rows. The rows to forget are in no other client's hands."""
    train(config(tmp_path, rounds=12))
    sent: dict[str, dict[tuple[int, str], ClientUpdate]] = {}
    honest = Rounds.train_client

    def watched(label: str) -> Any:
        def train_client(run: Rounds, number: int, name: str, weights: State) -> ClientUpdate:
            found: ClientUpdate = honest(run, number, name, weights)
            sent.setdefault(label, {})[number, name] = found
            assert set(run.unlearning) <= {"3"}
            return found

        return train_client

    for label, method in {"local": METHOD, "control": {"go_on": {"rounds": 3}}}.items():
        monkeypatch.setattr(Rounds, "train_client", watched(label))
        unlearned(tmp_path, method)
        (tmp_path / "work").rename(tmp_path / label)
    ours, control = sent["local"], sent["control"]
    assert all(equal(ours[1, name].weights, control[1, name].weights) for name in ("0", "1", "2"))
    assert not equal(ours[1, "3"].weights, control[1, "3"].weights)
    own = [row for row in divided()["retain"] if row["client"] == 3]
    assert [ours[number, "3"].examples for number in (1, 2, 3)] == [64, 64, len(own)]
    losses, model = {}, open_model(str(tmp_path / "base"))
    for label, one in sent.items():
        model.module.load_state_dict(one[1, "3"].weights)
        losses[label] = figures(model, divided()["forget"])["nll"]
    assert losses["local"] > losses["control"] + 0.2, losses


def test_it_ends_with_the_same_bits_again(tmp_path: Path) -> None:
    train(config(tmp_path))
    found, notes = unlearned(tmp_path)
    assert notes["federation"]["rounds"] == 3
    again, _ = unlearned(tmp_path)
    assert equal(found, again), "its rounds are stored, and not computed again"
    (tmp_path / "work").rename(tmp_path / "first")
    assert equal(found, unlearned(tmp_path)[0])


def test_a_request_for_some_rows_of_a_client_says_who_took_part(tmp_path: Path) -> None:
    train(config(tmp_path))
    method = {"unlearn_at_client": {"inner": {"forget": "random_label", "retain": "cross_entropy"}, "rounds": 1}}
    asked = Request.parse(request(tmp_path, method, forget=ASKED))
    made = plan(asked)
    assert not any("reads the rows of all clients in one place" in note for note in made.notes) and made.tokens > 0
    run(asked)
    told = json.loads((tmp_path / "run" / "evidence.json").read_text())
    departure = told["rounds"]["stages"][1]
    assert [list(fact["updates"]) for fact in departure["facts"]] == [["0", "1", "2", "3"]] * 3
    assert any(score["subject"] == "gold" for score in told["scores"])


@pytest.mark.parametrize(
    ("options", "forget", "why"),
    [
        ({}, {"client": 1}, "client 1' leaves whole, and has no rows that its objective could keep; take erase_client"),
        ({"local": {"sgd": 0.2, "dp": {}}}, ASKED, "is noise on each step, which the objective's steps have none of"),
    ],
)
def test_what_it_cannot_do_is_refused(options: Any, forget: Any, why: str, tmp_path: Path) -> None:
    train(config(tmp_path, rounds=1))
    if options:
        place = tmp_path / "base" / "expunge.json"
        manifest = json.loads(place.read_text())
        manifest["federation"]["local"] = options["local"]
        place.write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match=why):
        plan(Request.parse(request(tmp_path, METHOD, forget=forget)))


def test_an_edit_is_no_local_objective() -> None:
    with pytest.raises(BadInput, match="unlearn_at_client wraps methods that yield objective or recipe"):
        compose({"unlearn_at_client": {"inner": "ssd"}})
