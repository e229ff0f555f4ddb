"""A federation of a supernet, and each client's own network among its operations: drops by hand, and a killed run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.core.contracts import Silent
from expunge.core.errors import BadInput
from expunge.data.clients import hold_out
from expunge.data.worlds import splits
from expunge.methods._rounds import Rounds, state_of
from expunge.methods.trainers.spider import FOLDER, cheapest, drops_of, worth
from expunge.models.build import fresh
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.models.supernet import Operations, operations_of, part_of
from expunge.pipeline.gold import gold
from expunge.pipeline.train import train

ALL = ["conv3", "conv5", "skip"]
SUPERNET = {
    "factory": "expunge.models.networks:Supernet",
    "arguments": {"operations": [["conv3", "skip"], ["conv5", "skip"]], "width": 4},
}


def rows() -> list[dict[str, Any]]:
    """Digits at two clients, of unlike labels."""
    found = splits("digits", 0)["train"][:60]
    return [{"image": row["image"].tolist(), "label": row["label"], "client": int(row["label"] >= 5)} for row in found]


def config(folder: Path, **given: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return {
        "model": SUPERNET,
        "data": str(data),
        "batch_size": 16,
        "learning_rate": 0.01,
        "trainer": {"spider": {"rounds": 3, "every": 1, **given}},
        "out": str(folder / "base"),
    }


def test_the_operation_goes_whose_removal_leaves_most() -> None:
    """By accuracy, then by the loss; of equal ones the first; a cell keeps its last."""
    table = {(2, 1): (0.7, -0.5), (1, 2): (0.9, -0.5)}
    operations: Operations = [["conv3", "skip"], ["conv5", "skip"]]
    left = cheapest(operations, lambda some: table[len(some[0]), len(some[1])])
    assert left == [["skip"], ["conv5", "skip"]], "of two that leave .9 the first goes"
    assert cheapest(operations, lambda some: (0.5, -1.0 if "conv5" in some[1] else -0.5)) == [
        ["conv3", "skip"],
        ["skip"],
    ], "equal accuracy: the lower loss"
    assert cheapest([["conv3"], ["conv5", "skip"]], lambda some: (0.0, 0.0)) == [["conv3"], ["skip"]]
    assert cheapest([["conv3"], ["skip"]], lambda some: (0.0, 0.0)) is None
    assert drops_of([ALL] * 3, 2) == [4, 6, 8, 10, 12, 14] and drops_of([["skip"]], 2) == []


def test_an_operation_that_spoils_the_others_is_worth_least() -> None:
    """A conv5 whose planes are so large that class 1 wins with it: all rows are of class 0."""
    model = fresh({**SUPERNET, "arguments": {"operations": [ALL], "width": 4}}, [], 0)
    weights = state_of(model)
    some = [{**row, "label": 0} for row in rows()]
    weights |= {"head.weight": torch.zeros_like(weights["head.weight"])}
    weights["head.weight"][1] = 1.0
    weights["head.bias"] = torch.zeros(10)
    weights["head.bias"][0] = 1e4  # label 0 wins unless the planes are large
    weights["cells.0.conv5.1.bias"] = torch.full((4,), 1e4)
    left = cheapest([ALL], lambda part: worth(model, part, weights, some))
    assert left == [["conv3", "skip"]]
    assert worth(model, [ALL], weights, some)[0] == 0.0 and worth(model, [["skip"]], weights, some)[0] == 1.0


def test_a_part_averages_the_operations_that_it_has(tmp_path: Path) -> None:
    model = fresh(SUPERNET, [], 0)
    x = torch.rand(3, 8, 8)
    net = model.module.eval()
    planes = net.stem(x[:, None])
    planes = torch.nn.functional.max_pool2d((net.cells[0]["conv3"](planes) + planes) / 2, 2)
    part = part_of(model, [["conv3", "skip"], ["conv5"]], state_of(model))
    assert torch.allclose(part.module(x), net.head(net.cells[1]["conv5"](planes).flatten(1)))
    part.save(tmp_path)
    assert torch.equal(open_model(str(tmp_path)).module(x), part.module(x))


class _Killed(Silent):
    """Ends the training as its second round is reported."""

    def advance(self, name: str, done: int, note: str = "") -> None:
        if done == 2:
            raise KeyboardInterrupt


def test_each_client_ends_with_one_operation_a_cell_also_after_a_kill(tmp_path: Path) -> None:
    """Killed after the second round and between the two clients of the third: supernet, networks and account are the
    same bits. The third round ends all drops, so that all rows train from the fourth on."""
    whole = train(config(tmp_path / "whole", rounds=4))
    given = config(tmp_path / "broken", rounds=4)
    with pytest.raises(KeyboardInterrupt):
        train(given, reporter=_Killed())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rounds, "train_client", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(given, resume=True)
    base = train(given, resume=True)
    assert (base / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    told, expected = (read_manifest(one) for one in (base, whole))
    assert told["federation"] == expected["federation"] and told["steps"] == expected["steps"]
    parts = [(len(hold_out(one, 0)[0]), len(one)) for one in clients().values()]
    assert told["steps"] == 2 * sum(3 * -(-few // 16) + -(-all_ // 16) for few, all_ in parts)
    for i, own in enumerate(told["federation"]["own"].values()):
        assert own["folder"] == FOLDER.format(i)
        model = open_model(str(base / own["folder"]))
        assert operations_of(model) == own["operations"] and [len(names) for names in own["operations"]] == [1, 1]
        for name in ("model.safetensors", "classifier.json"):
            assert (base / own["folder"] / name).read_bytes() == (whole / own["folder"] / name).read_bytes()


def clients() -> dict[int, list[dict[str, Any]]]:
    return {k: [row for row in rows() if row["client"] == k] for k in (0, 1)}


@pytest.mark.slow
def test_a_pull_holds_the_clients_own_near_the_supernet(tmp_path: Path) -> None:
    """At a pull of 1,000 a client's own ends less than half as far from the supernet as without one."""
    moved = {}
    for pull in (0.0, 1000.0):
        base = train(config(tmp_path / str(pull), pull=pull))
        supernet = state_of(open_model(str(base)))
        own = state_of(open_model(str(base / FOLDER.format(0))))
        moved[pull] = sum(float((value - supernet[name]).square().sum()) for name, value in own.items())
    assert 0 < moved[1000.0] < moved[0.0] / 2, moved


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    for name, changed, why in (
        ("a", {"rounds": 2}, "too few for 2 drops"),
        ("b", {"clients": {"fraction": 0.5}}, "leaves clients out"),
    ):
        with pytest.raises(BadInput, match=why):
            train(config(tmp_path / name, **changed))
    given = config(tmp_path / "c")
    given["model"] = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}
    with pytest.raises(BadInput, match="is no supernet"):
        train(given)
    given["model"] = {**SUPERNET, "arguments": {"operations": [["conv7"]]}}
    with pytest.raises(BadInput, match="do not build"):
        train(given)


@pytest.mark.slow
def test_gold_without_rows_of_a_client_searches_anew(tmp_path: Path) -> None:
    base = train(config(tmp_path))
    forget = [row for row in rows() if row["label"] == 9]
    found = gold(read_manifest(base), forget, open_model(str(base)))
    told, before = (read_manifest(one)["federation"] for one in (found, base))
    assert told["examples"]["0"] == before["examples"]["0"]
    assert told["examples"]["1"] == before["examples"]["1"] - len(forget)
    assert [len(names) for names in told["own"]["1"]["operations"]] == [1, 1]
