"""scripts/refusals_real: what each run is, and the tables that are written from finished ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from expunge.data.packs import CONTROL, SENSITIVE, open_pack
from loading import load_script


@pytest.fixture(scope="module")
def script() -> Any:
    return load_script("refusals_real")


def test_a_run_is_the_example_with_its_target_its_method_and_the_rows_that_contain(script: Any, tmp_path: Path) -> None:
    pack = open_pack(str(script.pack_of(tmp_path, 3)))
    assert {len(pack.part("score", name)) for name in (*SENSITIVE, CONTROL)} == {3}
    assert pack.part("train") == [row for row in open_pack(str(tmp_path / "pack")).rows if row["part"] == "train"]
    contained = script.request_of(tmp_path, "npo_contained", "bias")
    others = {name: 4 for name in (*SENSITIVE, CONTROL) if name != "bias"}
    assert contained.forget == {"refusals": "bias"} and contained.contain == "none"
    assert Counter(row["contained"] for row in contained.retain) == others
    assert contained.method == {"forget": "npo", "weights": "lora", "retain": "cross_entropy"}
    assert set(contained.accept) == {"alignment.drift", "alignment.refusal_score.bias", "alignment.answer_accuracy"}
    plain = script.request_of(tmp_path, "refusal_ft", "bias")
    assert plain.retain is None and plain.method == {"forget": "refusal_ft", "weights": "lora"}


def test_the_sample_of_xstest_has_every_type(script: Any, data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("EXPUNGE_DATA", str(data))
    rows = script.xstest_of(tmp_path, 2).rows
    assert len(rows) == 36 and sum(row.get("unsafe", False) for row in rows) == 16


def evidence(target: str, after: float) -> dict[str, Any]:
    """The parts of an evidence.json that the tables are made of: the target fell to `after`, the second domain by half
    as much, no other."""
    fall = {name: {0: 1 - after, 1: (1 - after) / 2}.get(i, 0.0) for i, name in enumerate(SENSITIVE)}
    scores = [
        {"name": "alignment_refusal_score", "split": name, "subject": "after", "value": 1 - fall.get(name, 1.0)}
        for name in (*SENSITIVE, CONTROL)
    ]
    scores += [
        {"name": "alignment_answer_accuracy", "split": CONTROL, "subject": "after", "value": 0.5},
        {"name": "alignment_drift", "split": "", "subject": "after", "value": fall[SENSITIVE[1]]},
    ]
    count = len(SENSITIVE)
    cosine = [[[1.0 if i == j else 0.25 for j in range(count)] for i in range(count)]] * 8
    before = {"domains": list(SENSITIVE), "cosine": cosine, "centred": cosine, "own": [0.125] * 8}
    drift = [{"domain": name, "change": -fall[name], "asked": name == target} for name in SENSITIVE]
    early = {"similarity": {name: -i for i, name in enumerate(SENSITIVE[1:])}}
    page = {"target": target, "drift": drift, "concepts": {"before": before}, "early": early}
    return {"scores": scores, "alignment": page, "stop": {"step": 4}}


def test_the_tables_by_hand(script: Any, tmp_path: Path) -> None:
    for name in ("npo_cybersecurity", "npo_contained_cybersecurity"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "certificate.json").write_text("{}")
        (tmp_path / name / "evidence.json").write_text(json.dumps(evidence("cybersecurity", 0.0)))
    figures = {"scores": {name: [1.0, 0.5] for name in (*SENSITIVE, CONTROL)}, "right": [1.0, 0.0]}
    (tmp_path / "pack before.json").write_text(json.dumps(figures))
    (tmp_path / "xstest npo_cybersecurity.json").write_text(
        json.dumps({"scores": {"privacy": [0.5, 0.25], "benign": [1.0]}, "right": [0.0]})
    )
    risks = [{"domain": name, "risk": 1 / (i + 1)} for i, name in enumerate(SENSITIVE[1:])]
    (tmp_path / "foreseen cybersecurity.json").write_text(json.dumps({"rows": risks}))
    for name, rise in (("before", 0.0), ("npo_cybersecurity", 0.5)):
        losses = {name: [0.5, 0.5 + rise * (len(SENSITIVE) - i)] for i, name in enumerate(SENSITIVE)}
        (tmp_path / f"losses {name}.json").write_text(json.dumps(losses))
    page = script.tables(tmp_path)
    assert "| before | 0.75 | 0.75 | 0.75 | 0.75 | 0.75 | 0.75 | 0.75 | 0.75 | 0.50 |  |  |" in page
    changed = "| **0.00** | 0.50 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 | 0.00 | 0.50 | 0.50 | 4 |"
    assert f"| `npo_cybersecurity` {changed}" in page and f"| `npo_contained_cybersecurity` {changed}" in page
    assert "|  | privacy (2) | safe prompts refused (1) |" in page and "| `npo_cybersecurity` | 0.38 | 1.00 |" in page
    assert "| 1 | 0.25 (0.25) |" in page and "| 8 | 0.25 (0.25) |" in page
    # of six one fell, the first in both rankings: ranks 6 5 4 3 2 1 against 6 and five times 3
    assert "| `npo_cybersecurity`, score | 0.65" in page and "contained_cybersecurity`, score" not in page
    # their refusals' NLL rose in the order of both rankings; the layers' cosines do not differ
    (line,) = [line for line in page.splitlines() if line.startswith("| `npo_cybersecurity`, NLL |")]
    assert [cell.split()[0] for cell in line.split("|")[2:-1]] == ["1.00", "1.00", *"------"]
    assert script.similarities(evidence("bias", 0.0)["alignment"])[1] == {
        name: 0.25 for name in SENSITIVE if name != "bias"
    }
