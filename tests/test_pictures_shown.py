"""A run on pictures, from its request to what its page shows, and to what a purge takes away."""

from __future__ import annotations

import json
from pathlib import Path

import expunge
from expunge.core.request import Request
from expunge.ledger.examples import read_examples

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits_class.yaml"


def test_the_page_shows_pictures_and_a_purge_takes_them_away(tmp_path: Path) -> None:
    out = tmp_path / "run"
    expunge.run(Request.read(EXAMPLE, {"out": str(out), "budget": {"steps": 8}}))
    evidence = json.loads((out / "evidence.json").read_text(encoding="utf-8"))
    assert set(evidence["confusions"]["counts"]) == {"before", "after", "gold"}
    assert evidence["confusions"]["forgotten"] == [3]
    tested = sum(map(sum, evidence["confusions"]["counts"]["after"]))
    assert tested == 120 + 36, "the test rows that were read, and all of the forgotten class"
    assert set(evidence["feature_map"]) == {"before", "after", "gold"}
    assert {split: len(points) for split, points in evidence["feature_map"]["gold"].items()} == {
        "retain": 120,
        "forget": 100,
    }
    shown = [row for row in read_examples(out / "examples.parquet")["examples"]["forget"] if "pixels" in row]
    assert len(shown) == 4 and all(set(row["pixels"]) == {"before", "after", "gold"} for row in shown)
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("What is taken for what", "Features of retain and forget", "What the answer rests on"):
        assert text in page
    assert page.count('<img src="data:image/png') >= 3 * 8 + 4 * 4 and len(page) < 6 * 2**20
    assert expunge.verify(out).good
    expunge.purge(out)
    left, page = json.loads((out / "evidence.json").read_text()), (out / "report.html").read_text(encoding="utf-8")
    assert "feature_map" not in left and "confusions" in left and '<img src="data:image/png' not in page
    assert expunge.verify(out).good
