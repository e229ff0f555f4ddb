"""Clients by files and folders: `data/{client}.jsonl` says whose a row is; what leaves that open is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.data.load import load
from expunge.data.worlds import splits
from expunge.models.manifest import MANIFEST, read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.plan import plan
from expunge.pipeline.train import train
from test_federation import _Killed, config, equal, request, rows, weights


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))


def write(path: Path, given: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in given))


def hospitals(folder: Path) -> str:
    """The rows of four clients, a file for each, none of which says whose it is."""
    for client in range(4):
        own = [{k: v for k, v in row.items() if k != "client"} for row in rows() if row["client"] == client]
        write(folder / "data" / f"hospital_{client}.jsonl", own)
    return str(folder / "data" / "{client}.jsonl")


def by_files(folder: Path, **options: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return {**config(folder, rounds=2, **options), "data": hospitals(folder)}


def test_a_row_s_client_is_the_name_of_its_file(tmp_path: Path) -> None:
    """All files of the form, in the order of their names, numbers by their size; other entries are none."""
    found = load(hospitals(tmp_path), "data")
    counts = {name: sum(row["client"] == name for row in found) for name in dict.fromkeys(r["client"] for r in found)}
    assert counts == {"hospital_0": 32, "hospital_1": 32, "hospital_2": 32, "hospital_3": 64}
    numbered = str(tmp_path / "data" / "hospital_{site}.jsonl")
    assert list(dict.fromkeys(row["site"] for row in load(numbered, "data"))) == ["0", "1", "2", "3"]
    (tmp_path / "data" / "hospital_1.jsonl").rename(tmp_path / "data" / "hospital_10.jsonl")
    (tmp_path / "data" / ".hidden.jsonl").write_text("{broken")
    (tmp_path / "data" / "README.md").write_text("Four hospitals.")
    assert list(dict.fromkeys(row["site"] for row in load(numbered, "data"))) == ["0", "2", "3", "10"]
    assert len(load(numbered + "[10:50]", "data")) == 40


@pytest.mark.parametrize("form", ["{client}", "{client}/scans", "site_{client}"])
def test_a_folder_of_pictures_is_a_client(form: str, tmp_path: Path) -> None:
    for client, count in (("north", 2), ("south", 3)):
        for i in range(count):
            place = tmp_path / form.replace("{client}", client) / str(i % 2) / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((4, 4), 40 * i + 10 * (client == "south"), np.uint8)
            Image.fromarray(pixels).save(place)
    found = load(str(tmp_path / form), "data")
    assert [(row["client"], row["label"]) for row in found] == [
        ("north", 0),
        ("north", 1),
        ("south", 0),
        ("south", 0),
        ("south", 1),
    ]


@pytest.mark.parametrize(
    ("others", "why"),
    [
        (("dog", "fox"), r"'dog'. has the number 0 here and 1 in .*a; give all splits all classes"),
        (("dog",), r"b' has rows without a label, and others have labels"),
    ],
)
def test_classes_that_each_client_numbers_for_itself_are_refused(others: Any, why: str, tmp_path: Path) -> None:
    for client, names in (("a", ("cat", "dog")), ("b", others)):
        for i, name in enumerate(names):
            place = tmp_path / client / name / "x.png"
            place.parent.mkdir(parents=True)
            Image.fromarray(np.full((4, 4), 50 * i + 7 * (client == "b"), np.uint8)).save(place)
    with pytest.raises(BadInput, match=why):
        load(str(tmp_path / "{client}"), "data")


def test_a_federation_of_files_is_that_of_a_field(tmp_path: Path) -> None:
    """Who had which row decides, and not where it stood: the same bits."""
    field = {**config(tmp_path, rounds=2, clients="hospital")}
    named = [{**row, "hospital": f"hospital_{row.pop('client')}"} for row in sorted(rows(), key=lambda r: r["client"])]
    write(tmp_path / "rows.jsonl", named)
    one = train({**field, "out": str(tmp_path / "field")})
    other = train(by_files(tmp_path))
    assert equal(weights(one), weights(other))
    told = [read_manifest(base)["federation"]["participants"] for base in (one, other)]
    assert told[0] == told[1] == [[f"hospital_{i}" for i in range(4)]] * 2


def test_a_client_of_a_file_leaves_and_gold_is_trained_without_it(tmp_path: Path) -> None:
    base = train(by_files(tmp_path))
    asked = request(tmp_path, "go_on", data=hospitals(tmp_path), forget={"client": "hospital_1"})
    planned = plan(Request.parse(asked))
    assert {row["client"] for row in planned.splits["forget"]} == {"hospital_1"} and planned.gold == "train"
    found = gold(read_manifest(base), planned.splits["forget"], open_model(str(base)))
    others = ["hospital_0", "hospital_2", "hospital_3"]
    assert read_manifest(found)["federation"]["participants"] == [others] * 2
    with pytest.raises(BadInput, match="hospital_0, hospital_1"):
        plan(Request.parse({**asked, "forget": {"client": "hospital_9"}}))
    (tmp_path / "data" / "hospital_3.jsonl").rename(tmp_path / "data" / "hospital_5.jsonl")
    assert "rows of the training lie with other clients now" in plan(Request.parse(asked)).no_gold
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="rows of the training lie with other clients now"):
        gold(read_manifest(base), planned.splits["forget"], open_model(str(base)))


def test_a_killed_training_on_files_is_resumed_unless_they_changed(tmp_path: Path) -> None:
    whole = train(by_files(tmp_path / "whole"))
    given = by_files(tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        train(given, reporter=_Killed(1))
    place = tmp_path / "broken" / "data"
    (place / "hospital_3.jsonl").rename(place / "hospital_7.jsonl")
    with pytest.raises(BadInput, match=r"another train\.yaml or of other data"):
        train(given, resume=True)
    (place / "hospital_7.jsonl").rename(place / "hospital_3.jsonl")
    base = train(given, resume=True)
    assert equal(weights(base), weights(whole))
    manifest = read_manifest(base)
    del manifest["homes"]  # as an earlier version wrote it
    (base / MANIFEST).write_text(json.dumps(manifest))
    assert train(given, resume=True) == base


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("data/{client}/{part}.jsonl", "names several fields"),
        ("data/{label}.jsonl", "would set label, which is part of an example"),
        ("none/{client}.jsonl", "lies in .*none, which is no folder"),
        ("data/{client}.csv", "would leave out hospital_.*jsonl, which lies beside"),
        ("data/clinic_{client}.jsonl", "names no file and no folder"),
    ],
)
def test_a_form_that_leaves_it_open_whose_a_row_is_is_refused(source: str, why: str, tmp_path: Path) -> None:
    hospitals(tmp_path)
    with pytest.raises(BadInput, match=why):
        load(str(tmp_path / source), "data")


def test_a_row_that_names_another_client_than_its_file_is_refused(tmp_path: Path) -> None:
    source = hospitals(tmp_path)
    own = splits("digits", 0)["test"][:2]
    named = [{"image": row["image"].tolist(), "label": row["label"], "client": "b"} for row in own]
    write(tmp_path / "data" / "b.jsonl", named)
    assert load(source, "data")[0]["client"] == "b"
    write(tmp_path / "data" / "c.jsonl", named)
    with pytest.raises(BadInput, match=r"row 1 of c\.jsonl.* has the client 'b', and lies with 'c'"):
        load(source, "data")


def test_a_file_that_is_called_so_is_read_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "{client}.jsonl", [{"text": "a row"}])
    assert load(str(tmp_path / "{client}.jsonl"), "data") == [{"text": "a row"}]
