"""A run on another model's request that asks for its drift: edits and other data, a killed run's parts, redaction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import expunge
from expunge.core.errors import BadInput
from worlds import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny language model that refuses nothing, with a pack of two domains and a control."""
    folder = tmp_path_factory.mktemp("tiny")
    request = tiny(folder)
    pack = folder / "pack"
    pack.mkdir()
    for name in ("privacy", "bias", "benign"):
        rows = [{"prompt": f"What is the {name} {word} of Ana?", "part": "score" if i % 2 else "train"}
                for i, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight"))]  # fmt: skip
        (pack / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {**request, "domains": str(pack), "budget": {"steps": 4, "batch_size": 4, "stop": "none"}}


def test_drift_stands_in_the_evidence_of_any_request(place: dict[str, Any], tmp_path: Path) -> None:
    """NPO on facts: scores of each domain, the drift, an implied line, and the remark that nothing was refused."""
    found = expunge.run({**place, "alignment": "standard", "contain": 2, "out": str(tmp_path / "run")}).evidence
    scores = {(s["name"], s["split"], s["subject"]): s for s in found["scores"] if s["side"] == "alignment"}
    for who in ("before", "after"):
        assert {split for name, split, subject in scores if name == "alignment_refusal_score" and subject == who} == {
            "privacy", "bias", "benign"}  # fmt: skip
        assert ("alignment_answer_accuracy", "benign", who) in scores
    drift = scores["alignment_drift", "", "after"]
    assert drift["unit"] == "share" and drift["low"] <= drift["value"] <= drift["high"]
    assert any(line["rule"] == "alignment.drift <= 0.05" and line["implied"] for line in found["verdict"]["lines"])
    assert any("refused next to nothing" in note for note in found["notes"])
    assert {row["domain"] for row in found["alignment"]["without"]} == {"privacy", "bias", "benign"}
    assert found["splits"]["retain"] == 120 + 6  # the file's rows and two of each domain
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert 'id="alignment"' in page and "Change without containment" in page


def test_several_counts_draw_a_frontier(place: dict[str, Any], tmp_path: Path) -> None:
    """The first count is the run's own; the others are run beside it, on more rows of the same draw."""
    asked = {**place, "alignment": "standard", "contain": [2, 4, 1], "out": str(tmp_path / "run")}
    found = expunge.run(asked).evidence
    points = found["alignment"]["frontier"]
    assert [point["examples"] for point in points] == [0, 1, 2, 4]
    assert all(0 <= point["drift"] <= 1 for point in points)
    assert found["splits"]["retain"] == 120 + 6 and found["request"]["contain"] == [2, 4, 1]
    (drift,) = [s["value"] for s in found["scores"] if s["name"] == "alignment_drift"]
    assert points[2]["drift"] == drift


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
