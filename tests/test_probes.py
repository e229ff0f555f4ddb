"""The user's own probes: read by line, attached to what they are of, asked of every model, counted by kind."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import expunge
from expunge.attacks.cloze import cloze, gaps
from expunge.attacks.multi_hop import probes as chained
from expunge.attacks.probed import KINDS, probed
from expunge.cli.app import run as command
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.data import probes
from expunge.data.load import load
from expunge.evaluation.attack import Target
from expunge.models.open import open_on_cpu
from expunge.pipeline.observation_spec import reading_splits
from expunge.pipeline.partition import OTHERS_READ
from expunge.pipeline.plan import plan
from worlds import tiny, write

FORGET = [
    {"question": "Where was Ana born?", "answer": "In Aldby."},
    {"question": "When was Bo born?", "answer": "In 1900."},
]
GERMAN = {
    "question": "Wo wurde Ana geboren?",
    "answer": "In Aldby geboren.",
    "kind": "translated",
    "of": "Where was Ana born?",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    request = tiny(tmp_path_factory.mktemp("probed"), epochs=1)
    first = load(request["forget"], "forget")[0]["question"]
    rows = [
        {"question": "Say the town of Ana.", "answer": "Burr.", "kind": "rephrased", "of": 1},
        {"question": "Die Stadt von Ana?", "answer": "Burr.", "kind": "translated", "of": first},
        {"question": "The town of Ana is", "answer": "Burr.", "kind": "cloze", "of": 1},
        {"question": "What do you know of Ana?", "answer": "The town is Burr."},
    ]
    request["probes"] = write(Path(request["model"]).parent / "probes.jsonl", rows)
    return request


def test_probes_go_with_the_example_that_they_are_of() -> None:
    alias = {"question": "When was the painter born?", "answer": "In 1900.", "kind": "alias", "of": 2}
    free = {"question": "Tell me of Ana.", "answer": "Aldby."}
    rows, asked = probes.attach(FORGET, probes.read_probes([GERMAN, alias, free]))
    assert rows[0]["translated_question"] == [{"question": GERMAN["question"], "answer": GERMAN["answer"]}]
    assert chained(rows[1]) == [{"question": alias["question"], "answer": alias["answer"]}]
    assert [row["kind"] for row in asked] == ["translated", "alias", "other"]
    assert rows[0]["question"] == FORGET[0]["question"] and "translated_question" not in FORGET[0], (
        "the given rows stay"
    )
    kept, _ = probes.attach([{**FORGET[0], "translated_question": "Où ?"}], probes.read_probes([GERMAN]))
    assert len(kept[0]["translated_question"]) == 2, "beside those of the forget file"
    filled, _ = probes.attach(
        FORGET, probes.read_probes([{"question": "Ana comes from", "answer": "Aldby.", "kind": "cloze", "of": 1}])
    )
    assert gaps(filled[0]) == [{"question": "Ana comes from", "answer": "Aldby."}]
    assert set(KINDS) == {*probes.KINDS, probes.OTHER}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"question": "Who?"}, "line 3 of p.jsonl: 'question' is not a probe"),
        ({"question": "Who?", "answer": " "}, "line 3 of p.jsonl: 'answer' is empty"),
        (
            {"question": "Who?", "answer": "He.", "kind": "rephrase"},
            "unknown kind of probe 'rephrase'; did you mean 'rephrased'?",
        ),
        (
            {"question": "Who?", "answer": "He.", "of": 7},
            "line 3 of p.jsonl: 7 under 'of' is not a row of forget; give 1 to 2",
        ),
        ({"question": "Who?", "answer": "He.", "of": "Where was Anna born?"}, "did you mean 'Where was Ana born?'"),
        ({"question": "Who?", "answer": "He.", "of": [1]}, "names no example"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(line: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(GERMAN) + "\n\n" + json.dumps(line) + "\n", encoding="utf-8")
    with pytest.raises(BadInput) as error:
        probes.attach(FORGET, probes.read_probes(str(path)))
    assert sentence in str(error.value)


def test_files_without_probes(tmp_path: Path) -> None:
    for text, sentence in (("", "holds no probe"), ("{", "is broken JSON at line 1")):
        (tmp_path / "p.jsonl").write_text(text, encoding="utf-8")
        with pytest.raises(BadInput, match=sentence):
            probes.read_probes(str(tmp_path / "p.jsonl"))
    with pytest.raises(BadInput, match="is not a file here"):
        probes.read_probes(str(tmp_path / "q.jsonl"))
    twice = [{**FORGET[0]}, {**FORGET[0], "answer": "In Burr."}]
    with pytest.raises(BadInput, match="is the question of 2 forget examples; give the row: 1 or 2"):
        probes.attach(twice, probes.read_probes([GERMAN]))


def test_the_attack_counts_by_kind(world: dict[str, Any]) -> None:
    forget, asked = probes.attach(load(world["forget"], "forget"), probes.read_probes(world["probes"]))
    model = open_on_cpu(world["model"])
    found = probed()(Target(model, "after", {"forget": forget, "probes": asked}, {}, {}))
    assert set(found.more) == {"rephrased", "translated", "cloze", "other"} and found.figure.n == 4
    assert found.more["cloze"][2].n == 1
    filled = cloze()(Target(model, "after", {"forget": forget}, {}, {}))
    assert filled.figure.value == pytest.approx(found.more["cloze"][2].value, abs=1e-6)


def test_an_audit_asks_them_of_every_model(world: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "audit",
        world["model"],
        "--forget",
        world["forget"],
        "--before",
        world["model"],
        "--gold",
        "one",
        "--probes",
        world["probes"],
        "--level",
        "standard",
        "--json",
    ]
    assert command(arguments) == 0
    evidence = json.loads(capsys.readouterr().out)
    scores = {(s["name"], s["subject"]): s for s in evidence["scores"]}
    for role in ("before", "after", "gold"):
        assert (
            scores["probes_probability", role]["n"] == 4 and scores["probes_probability", role]["side"] == "forgetting"
        )
    for name in ("robustness_probed", "robustness_probed_translated", "robustness_translated", "robustness_cloze"):
        for role in ("after", "gold"):
            assert scores[name, role]["status"] == "measured", name
    assert scores["robustness_translated", "after"]["value"] == pytest.approx(
        scores["robustness_probed_translated", "after"]["value"]
    )
    assert evidence["splits"]["probes"] == 4
    bad = Path(world["probes"]).with_name("bad.jsonl")
    bad.write_text('{"question": "Who?"}\n', encoding="utf-8")
    assert command([*arguments[:-5], "--probes", str(bad)]) == 2
    assert "line 1 of bad.jsonl" in " ".join(capsys.readouterr().err.split())


def test_a_request_has_them_too(world: dict[str, Any], tmp_path: Path) -> None:
    request = {
        **world,
        "audit": "standard",
        "budget": {"steps": 1},
        "out": str(tmp_path / "out"),
        "accept": {"robustness.probed": "<= 0.9"},
    }
    made = plan(Request.parse(request))
    assert len(made.splits["probes"]) == 4 and "translated_question" in made.splits["forget"][0]
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "Who?", "answer": "He.", "kind": "riddle"}\n', encoding="utf-8")
    with pytest.raises(expunge.BadInput, match=r"probes, line 1 of bad\.jsonl: unknown kind of probe 'riddle'"):
        plan(Request.parse({**request, "probes": str(bad)}))
    inline = Request.parse({**request, "probes": [{"question": "Who?", "answer": "He."}]})
    assert len(plan(inline).splits["probes"]) == 1
    with pytest.raises(expunge.BadInput, match="cannot be the name of a probe"):
        plan(Request.parse({**request, "probes": {"probes": world["holdout"]}}))


def test_no_probe_is_left_out_of_the_reading() -> None:
    """As of the forget set, all are read; of what must stay, a sample is; of the holdout as many as must go."""
    rows = [{"question": f"Who is {i}?", "answer": "One."} for i in range(2 * OTHERS_READ)]
    plan = SimpleNamespace(
        splits=dict.fromkeys(("forget", "retain", "probes", "forget_qa", "real_authors", "holdout"), rows),
        training_splits={},
        request=SimpleNamespace(seed=0, held_out_rows="auto"),
    )
    read = {name: len(found) for name, found in reading_splits(plan).items()}  # type: ignore[arg-type]
    assert read == {
        "forget": len(rows),
        "probes": len(rows),
        "forget_qa": len(rows),
        "retain": len(rows),
        "holdout": len(rows),
        "real_authors": len(rows),
    }
