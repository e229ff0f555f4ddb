"""The facts of a federation's rounds: what was kept is what was sent, and the models follow from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

import expunge
from expunge.core.errors import BadInput
from expunge.methods.facts import check_facts
from expunge.models.history import HISTORY
from expunge.pipeline.train import train
from test_federation import config


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("facts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_CACHE", str(folder / "cache"))
        return train(config(folder, rounds=3, history="all", strategy="fedopt"))


def change(base: Path, folder: Path, edit: Any) -> Path:
    """A copy of the model's folder whose facts were edited."""
    manifest = json.loads((base / "expunge.json").read_text())
    edit(manifest["federation"]["facts"])
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "expunge.json").write_text(json.dumps(manifest))
    return folder


def test_what_was_kept_goes_with_the_facts(base: Path) -> None:
    """Three rounds of a strategy with a memory: the model of each follows from what the clients sent."""
    facts = json.loads((base / "expunge.json").read_text())["federation"]["facts"]
    assert [fact["round"] for fact in facts] == [1, 2, 3] and len({fact["chain"] for fact in facts}) == 3
    assert check_facts(base) == []


def test_a_fact_that_was_changed_breaks_its_link(base: Path, tmp_path: Path) -> None:
    def edit(facts: list[dict[str, Any]]) -> None:
        facts[1]["updates"]["2"] = "0" * 64

    found = check_facts(change(base, tmp_path, edit))
    assert found == [
        "round 2: its link does not follow from the facts",
        "round 2: what clients sent is not what was kept",
    ]


def test_a_round_that_was_taken_out_breaks_the_next_link(base: Path, tmp_path: Path) -> None:
    found = check_facts(change(base, tmp_path, lambda facts: facts.pop(0)))
    assert "round 2: its link does not follow from the facts" in found


def test_an_update_that_was_changed_is_seen(base: Path, tmp_path: Path) -> None:
    folder = change(base, tmp_path, lambda facts: None)
    with safe_open(folder / HISTORY, "pt") as file:
        told, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    name = next(key for key in tensors if key.startswith("2.1.") and tensors[key].is_floating_point())
    save_file({**tensors, name: tensors[name] + 1e-3}, folder / HISTORY, told)
    assert check_facts(folder) == ["round 3: what clients sent is not what was kept"]


def test_a_purge_deletes_the_record_and_leaves_model_and_facts(base: Path, tmp_path: Path) -> None:
    """The rounds' facts are checked without what was kept, and a second purge says that there is nothing left."""
    folder = change(base, tmp_path, lambda facts: None)
    others = {path.name for path in folder.iterdir()} - {HISTORY}
    assert expunge.purge(folder) == [str(folder / HISTORY)]
    assert {path.name for path in folder.iterdir()} == others and check_facts(folder) == []
    with pytest.raises(BadInput, match="is a trained model, and holds no record of a federation's rounds"):
        expunge.purge(folder)


def test_a_record_without_a_manifest_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / HISTORY).write_text("mine")
    with pytest.raises(BadInput, match="holds no run"):
        expunge.purge(tmp_path)
    assert (tmp_path / HISTORY).is_file()
