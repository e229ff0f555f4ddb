"""A run on another model's request that asks for its drift: edits and other data, a killed run's parts, redaction."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import expunge
from expunge.alignment import observation
from expunge.core.contracts import Silent
from expunge.core.errors import BadInput, Interrupted
from expunge.core.request import Request
from expunge.models.open import open_model
from expunge.pipeline import containment
from expunge.pipeline.plan import plan
from expunge.pipeline.prepare import prepare
from worlds import command, environment, tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny language model that refuses nothing, with a pack of two domains and a control."""
    folder = tmp_path_factory.mktemp("tiny")
    request = tiny(folder)
    pack = folder / "pack"
    pack.mkdir()
    for name in ("privacy", "bias", "benign"):
        rows = [
            {"prompt": f"What is the {name} {word} of Ana?", "part": "score" if i % 2 else "train"}
            for i, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight"))
        ]
        (pack / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {**request, "domains": str(pack), "budget": {"steps": 4, "batch_size": 4, "stop": "none"}}


def test_drift_stands_in_the_evidence_of_any_request(place: dict[str, Any], tmp_path: Path) -> None:
    """NPO on facts: scores of each domain, the drift, an implied line, and the remark that nothing was refused."""
    found = expunge.run({**place, "alignment": "standard", "contain": 2, "out": str(tmp_path / "run")}).evidence
    scores = {(s["name"], s["split"], s["subject"]): s for s in found["scores"] if s["side"] == "alignment"}
    for role in ("before", "after"):
        assert {split for name, split, model in scores if name == "alignment_refusal_score" and model == role} == {
            "privacy",
            "bias",
            "benign",
        }
        assert ("alignment_answer_accuracy", "benign", role) in scores
    drift = scores["alignment_drift", "", "after"]
    assert drift["unit"] == "share" and drift["low"] <= drift["value"] <= drift["high"]
    assert any(line["rule"] == "alignment.drift <= 0.05" and line["implied"] for line in found["verdict"]["lines"])
    assert any("refused almost nothing" in note for note in found["notes"])
    assert {row["domain"] for row in found["alignment"]["without"]} == {"privacy", "bias", "benign"}
    # Of the file's 20 groups six are held out; two rows of each domain all train.
    assert found["splits"]["retain"] == 84 + 6 and found["splits"]["retain_held_out"] == 36
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert 'id="alignment"' in page and "Change without containment" in page
    assert expunge.verify(tmp_path / "run").good
    measured = expunge.verify(tmp_path / "run", measure=True).measured
    assert measured is not None and not measured.differing and measured.compared > 10
    assert measured.resting == ["alignment.drift <= 0.05"] and not measured.good, "answers are not asked for again"
    assert any("alignment_drift, alignment_refusal_score" in text for text in measured.remarks)


@pytest.fixture(scope="module")
def several(place: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The evidence of a run with three counts."""
    out = tmp_path_factory.mktemp("several") / "run"
    return expunge.run({**place, "alignment": "standard", "contain": [2, 4, 1], "out": str(out)}).evidence


def test_several_counts_draw_a_frontier(several: dict[str, Any]) -> None:
    """The first count is the run's own; the others are run beside it, on more rows of the same draw."""
    found = several
    assert "no ranking was made" in found["alignment"]["foresight"]["why"]
    points = found["alignment"]["frontier"]
    assert [point["examples"] for point in points] == [0, 1, 2, 4]
    assert all(0 <= point["drift"] <= 1 for point in points)
    assert found["splits"]["retain"] == 84 + 6 and found["request"]["contain"] == [2, 4, 1]
    (drift,) = [s["value"] for s in found["scores"] if s["name"] == "alignment_drift"]
    assert points[2]["drift"] == drift


def test_counts_that_are_done_are_not_run_again(
    place: dict[str, Any], several: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while the second count beside the run is asked: the resume trains that one and those after it, and ends
    with the same frontier."""
    asked = {**place, "alignment": "standard", "contain": [2, 4, 1], "out": str(tmp_path / "run")}
    real, seen = observation.observe_answers, []

    def answers(model: Any, wanted: Any, role: str, reporter: Any) -> Any:
        seen.append(role)
        if len(seen) == 4:  # before, after, without, then the first count
            raise KeyboardInterrupt
        return real(model, wanted, role, reporter)

    monkeypatch.setattr(observation, "observe_answers", answers)
    monkeypatch.setattr(containment, "observe_answers", answers)
    with pytest.raises(Interrupted):
        expunge.run(asked)
    assert seen == ["before", "after", "without containment", "with 4 examples"]
    found = expunge.run(asked, resume=True).evidence
    assert seen[4:] == ["before", "after", "with 4 examples", "with 1 examples"]
    assert found["alignment"]["frontier"] == several["alignment"]["frontier"]
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.slow
def test_a_run_killed_between_its_counts_goes_on(place: dict[str, Any], tmp_path: Path) -> None:
    """SIGKILL once the first count beside the run is done: its answers stay as they are, and the frontier is the
    same."""
    asked = {
        **place,
        "alignment": "standard",
        "contain": [16, 32, 64],
        "out": str(tmp_path / "run"),
        "budget": {"steps": 30, "batch_size": 4, "stop": "none"},
    }
    whole = expunge.run({**asked, "out": str(tmp_path / "whole")}).evidence["alignment"]["frontier"]
    start = command(asked, tmp_path / "request.yaml")
    process = subprocess.Popen(start, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done = tmp_path / "run" / "checkpoint" / "contain-32" / "answers.json"
    deadline = time.monotonic() + 240
    while not done.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert done.is_file() and not (tmp_path / "run" / "certificate.json").exists()
    kept = done.stat().st_mtime_ns, done.read_bytes()
    process = subprocess.Popen([*start, "--resume"], env=environment(), stdout=subprocess.DEVNULL)
    seen: set[tuple[int, bytes]] = set()
    while process.poll() is None:
        if done.is_file():
            with contextlib.suppress(FileNotFoundError):
                seen.add((done.stat().st_mtime_ns, done.read_bytes()))
        time.sleep(0.01)
    assert process.returncode in (0, 1) and seen == {kept}
    found = json.loads((tmp_path / "run" / "evidence.json").read_text())
    assert found["alignment"]["frontier"] == whole and [p["examples"] for p in whole] == [0, 16, 32, 64]


def test_foreseeing_spends_no_model_beside_the_run_s_and_its_score_is_told(
    place: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """contain: auto ranks the domains before, on a model of its own that is dropped; the evidence says how right it
    was. A resume takes the ranking as it was. Without auto the evidence says that none was made."""
    asked = {**place, "alignment": "standard", "contain": "auto", "out": str(tmp_path / "run")}
    found = expunge.run(asked).evidence
    ranking = found["alignment"]["foresight"]
    assert {row["domain"] for row in ranking["rows"]} == {"privacy", "bias"} and ranking["of"] == "without"
    assert ranking["rho"] is None and "too few" in ranking["why"]  # two domains are no ranking
    assert all({"risk", "entanglement", "spill", "fell"} <= set(row) for row in ranking["rows"])
    assert [row["risk"] for row in ranking["rows"]] == sorted((row["risk"] for row in ranking["rows"]), reverse=True)

    planned = plan(Request.parse({**asked, "out": str(tmp_path / "other")}))
    ready, model = prepare(planned, tmp_path, Silent())
    assert [risk.to_json() for risk in ready.foreseen] == [
        {k: v for k, v in row.items() if k != "fell"} for row in ranking["rows"]
    ]
    fresh = open_model(planned.source)
    assert model.fingerprint() == fresh.fingerprint()  # the probe steps left no trace
    monkeypatch.setattr(containment, "risks", lambda *_: pytest.fail("the ranking was made again"))
    assert not planned.foreseen  # a plan is never changed
    again, _ = prepare(planned, tmp_path, Silent())
    assert again.foreseen == ready.foreseen and again.splits == ready.splits


def test_an_edit_drifts_too_and_redaction_hides_answers(place: dict[str, Any], tmp_path: Path) -> None:
    asked = {**place, "method": "task_vector", "alignment": "standard", "redact": True, "out": str(tmp_path / "run")}
    found = expunge.run(asked).evidence
    assert len(found["alignment"]["drift"]) == 3 and found["alignment"]["samples"] == []


def test_a_bar_on_a_domain_that_the_pack_lacks(place: dict[str, Any], tmp_path: Path) -> None:
    asked = {
        **place,
        "alignment": "standard",
        "accept": {"alignment.refusal_score.safety": "<= 0.1"},
        "out": str(tmp_path / "run"),
    }
    with pytest.raises(BadInput, match="judges a score that this plan cannot produce"):
        expunge.run(asked)
    assert not (tmp_path / "run").exists()
