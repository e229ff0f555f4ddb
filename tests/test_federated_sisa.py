"""Federations in shards: a client's departure is a training without it, bit for bit; refused where it cannot be."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from expunge.core.contracts import Silent
from expunge.core.errors import BadInput, Interrupted
from expunge.core.files import digest_folder
from expunge.core.request import Request
from expunge.data.worlds import splits
from expunge.methods._rounds import state_of
from expunge.methods.exact.federated_sisa import place
from expunge.models.build import fresh
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold, gold_folder
from expunge.pipeline.plan import plan
from expunge.pipeline.train import train
from expunge.training.updates import size_of
from expunge.workflows.run import run

MODEL = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 64, "classes": 10, "hidden": 16}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))


def rows() -> list[dict[str, Any]]:
    """Digits at eight clients."""
    found = splits("digits", 0)["train"][:128]
    return [{"image": row["image"].tolist(), "label": row["label"], "client": i % 8} for i, row in enumerate(found)]


def config(folder: Path, **options: Any) -> dict[str, Any]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return {
        "model": MODEL,
        "data": str(folder / "rows.jsonl"),
        "batch_size": 8,
        "learning_rate": 0.01,
        "exact": {"federated_sisa": {"shards": 2, "slices": 2, "rounds": 3, **options}},
        "out": str(folder / "base"),
    }


def request(folder: Path, forget: Any, **fields: Any) -> Request:
    held = splits("digits", 0)["holdout"][:40]
    given = {
        "model": str(folder / "base"),
        "data": str(folder / "rows.jsonl"),
        "forget": forget,
        "holdout": [{"image": row["image"].tolist(), "label": row["label"]} for row in held],
        "method": "federated_sisa",
        "gold": "one",
        "out": str(folder / "run"),
    }
    return Request.parse({**given, **fields})


def test_numbered_clients_are_divided_evenly_and_nobody_s_place_depends_on_the_others() -> None:
    """Eight clients over two shards of two slices: two to each. Other names go by their hash."""
    assert set(Counter(place(str(k), 2, 2, 0) for k in range(8)).values()) == {2}
    assert [place(str(k), 2, 2, 0) for k in (0, 1, 2, 7)] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert len({place(f"hospital {k}", 2, 2, 0) for k in range(32)}) == 4


class Killed(Silent):
    """Ends the run after the first round of the fifth stage: gold has four, and the departure one."""

    stages = 0

    def advance(self, name: str, done: int, note: str = "") -> None:
        self.stages += note == "round 1"
        if self.stages == 5:
            raise KeyboardInterrupt


@pytest.mark.claims("federated_sisa")
def test_a_departure_is_a_training_without_the_client(tmp_path: Path) -> None:
    """Every tensor of both shards and checkpoints. Client 6 joined shard 1 with its second slice: the first stage
    stays, two of eight stages' rounds are run again, by three clients each; killed within, it ends with the same."""
    base = train(config(tmp_path))
    asked = request(tmp_path, {"client": 6})
    with pytest.raises(Interrupted):
        run(asked, reporter=Killed())
    done = run(asked, resume=True)
    forget = [row for row in rows() if row["client"] == 6]
    theirs = digest_folder(gold_folder(read_manifest(base), forget))
    ours, before = digest_folder(tmp_path / "run" / "model"), digest_folder(base)
    tensors = [name for name in theirs if name.endswith(".safetensors")]
    assert len(tensors) == 4 and {name: ours[name] for name in tensors} == {name: theirs[name] for name in tensors}
    assert [name for name in tensors if before[name] != ours[name]] == ["shard-0/model.safetensors"]
    spent, size = done.evidence["method_notes"]["federation"], size_of(state_of(fresh(MODEL, [], 0)))
    assert spent["rounds"] == 2 and spent["bytes_up"] == 2 * 3 * size, "of three clients that stay in the shard"
    assert spent["training_rounds"] == 8 and spent["training_bytes_up"] == 2 * (2 * 2 + 2 * 4) * size
    cost = done.evidence["cost"]
    assert cost["steps_retrained"] == 2 * 3 * 2 and cost["steps_total"] == 2 * (2 + 4 + 2 + 3) * 2


@pytest.mark.slow
def test_a_client_that_stays_with_some_of_its_rows_is_trained_again_on_these(tmp_path: Path) -> None:
    """Rows that were dealt out, whose client no field names; two of client 1's: its shard is trained from the start."""
    base = train(config(tmp_path, clients={"partition": "label"}))
    forget = [row for row in rows() if row["label"] == 1][:2]
    whole = {json.dumps(row) for row in rows()}
    left = [json.loads(row) for row in sorted(whole - {json.dumps(row) for row in forget})]
    (tmp_path / "left.jsonl").write_text("".join(json.dumps(row) + "\n" for row in left))
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in forget))
    named = {"data": None, "forget": str(tmp_path / "some.jsonl"), "retain": str(tmp_path / "left.jsonl")}
    run(request(tmp_path, **named, gold="none"))
    theirs = digest_folder(gold(read_manifest(base), forget, open_model(str(base))))
    ours, before = digest_folder(tmp_path / "run" / "model"), digest_folder(base)
    tensors = [name for name in theirs if name.endswith(".safetensors")]
    assert {name: ours[name] for name in tensors} == {name: theirs[name] for name in tensors}
    assert {name for name in tensors if before[name] != ours[name]} == {
        "shard-1/model.safetensors",
        "shard-1/slice-1.safetensors",
    }
    planned = plan(request(tmp_path, {"client": 3}, out=str(tmp_path / "other")))
    assert {row["label"] for row in planned.splits["forget"]} == {3}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"shards": 3, "slices": 4}, "leave no client for slice 4 of shard 1: there are 8 clients"),
        ({"shards": 8, "slices": 1}, "leaves shard 1 with one client"),
        ({"clients": {"fraction": 0.5}}, r"clients\.fraction: 0\.5 lets the draw"),
        ({"clients": "hospital"}, "has no hospital, which names its client"),
        ({"local": {"epochs": [1, 3]}}, r"federated_sisa\.local\.epochs"),
        ({"rounds": 0}, r"federated_sisa\.rounds"),
    ],
)
def test_what_cannot_be_exact_is_refused_before_anything_is_written(
    options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=why):
        train(config(tmp_path, **options))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_methods_that_change_one_model_are_refused(tmp_path: Path) -> None:
    train(config(tmp_path, rounds=1))
    with pytest.raises(BadInput, match="go_on"):
        plan(request(tmp_path, {"client": 6}, method="go_on"))
    with pytest.raises(BadInput, match="client takes: 0, 1, 2"):
        plan(request(tmp_path, {"client": 9}))
