"""The rounds of a federation in evidence and report, and `expunge verify` on them: an edited sheet is seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from expunge.cli.app import run as main
from expunge.methods.strategies.private import epsilon
from expunge.pipeline.train import train
from expunge.training.updates import chain
from expunge.workflows.run import run
from expunge.workflows.verify import verify
from test_federation import config
from test_verify import forged

NOISE = {"private": {"clip": 2.0, "noise": 0.7, "delta": 1e-4}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation of four clients that add noise, and a run in which the last one left."""
    folder = tmp_path_factory.mktemp("rounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_CACHE", str(folder / "cache"))
        train(config(folder, rounds=2, history="all", strategy=NOISE))
        run(request(folder, folder / "run"))
    return folder


@pytest.fixture(autouse=True)
def own_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(place / "cache"))


def request(place: Path, out: Path, **fields: Any) -> dict[str, Any]:
    return {
        "model": str(place / "base"),
        "data": str(place / "rows.jsonl"),
        "forget": {"client": 3},
        "method": {"go_on": {"rounds": 1}},
        "gold": "none",
        "out": str(out),
        **fields,
    }


def loaded(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def copied(place: Path, tmp_path: Path, name: str = "run") -> Path:
    return Path(shutil.copytree(place / name, tmp_path / "copy"))


def relinked(rounds: dict[str, Any]) -> None:
    """What a careful forger does: compute all links anew."""
    head = ""
    for fact in (fact for stage in rounds["stages"] for fact in stage["facts"]):
        own = {name: value for name, value in fact.items() if name != "chain"}
        head = fact["chain"] = chain(head, own)


def test_a_run_has_the_rounds_of_the_training_and_of_the_departure(place: Path) -> None:
    """Two rounds of four clients, then one of three, whose link follows the training's last; and how far each moved."""
    training, departure = loaded(place / "run" / "evidence.json")["rounds"]["stages"]
    assert [sorted(fact["updates"]) for fact in training["facts"]] == [["0", "1", "2", "3"]] * 2
    assert [sorted(fact["updates"]) for fact in departure["facts"]] == [["0", "1", "2"]]
    own = {name: value for name, value in departure["facts"][0].items() if name != "chain"}
    assert departure["facts"][0]["chain"] == chain(training["facts"][-1]["chain"], own)
    assert all(length > 0 for fact in training["facts"] for length in fact["moved"].values())
    page = (place / "run" / "report.html").read_text()
    assert "Round by round" in page and "1 to 2" in page and training["facts"][-1]["model"][:12] in page
    assert verify(place / "run").good


def test_epsilon_is_in_manifest_evidence_and_report(place: Path) -> None:
    """That of the training's two rounds, and of these and the departure's one together."""
    expected = [epsilon(0.7, rounds, 1e-4) for rounds in (2, 3)]
    assert loaded(place / "base" / "expunge.json")["federation"]["privacy"]["epsilon"] == expected[0]
    stages = loaded(place / "run" / "evidence.json")["rounds"]["stages"]
    assert [stage["privacy"]["epsilon"] for stage in stages] == expected
    assert f"epsilon {expected[1]:.3g} at delta 0.0001" in (place / "run" / "report.html").read_text()


def edit_update(evidence: dict[str, Any]) -> None:
    evidence["rounds"]["stages"][0]["facts"][1]["updates"]["2"] = "0" * 64


def drop_round(evidence: dict[str, Any]) -> None:
    evidence["rounds"]["stages"][0]["facts"].pop()


def other_model(evidence: dict[str, Any]) -> None:
    evidence["rounds"]["stages"][1]["facts"][-1]["model"] = "0" * 64
    relinked(evidence["rounds"])


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (edit_update, "training, round 2: its link does not follow from the facts"),
        (drop_round, "departure, round 1: its link does not follow from the facts"),
        (other_model, "the model is not that of the departure's last round"),
    ],
)
def test_an_edited_sheet_does_not_verify(
    place: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None], fault: str
) -> None:
    """Also where report, card and every digest of the certificate were made to match."""
    folder = copied(place, tmp_path)
    forged(folder, edit)
    found = verify(folder)
    assert not found.good and any(fault in line for line in found.changed), found.changed


def test_a_training_s_folder_is_verified_by_its_rounds(place: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["verify", str(place / "base")]) == 0
    assert "follow from one another" in capsys.readouterr().out
    folder = copied(place, tmp_path, "base")
    manifest = loaded(folder / "expunge.json")
    manifest["federation"]["facts"][0]["moved"]["1"] = 0.0
    (folder / "expunge.json").write_text(json.dumps(manifest))
    assert main(["verify", str(folder)]) == 1
    assert "round 1: its link does not follow" in capsys.readouterr().out


def test_a_redacted_run_names_no_client(place: Path, tmp_path: Path) -> None:
    run(request(place, tmp_path / "run", redact=True))
    found = loaded(tmp_path / "run" / "evidence.json")["rounds"]
    assert [fact["clients"] for stage in found["stages"] for fact in stage["facts"]] == [4, 4, 3]
    assert "updates" not in json.dumps(found) and "moved" not in json.dumps(found)
    assert verify(tmp_path / "run").good


def test_audit_takes_what_clients_send(place: Path, capsys: Any) -> None:
    given = ["audit", str(place / "base"), "--data", str(place / "rows.jsonl"), "--forget", "{client: 3}"]
    given += ["--gold", "none", "--clients-send", "sums", "--json"]
    assert main(given) == 2
    assert "clients_send" in capsys.readouterr().err
    assert main([*given, "--level", "none"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clients"]["sent"] == "sums" and "distributions" not in found
    assert [stage["name"] for stage in found["rounds"]["stages"]] == ["training"] and not found["rounds"]["faults"]
