"""expunge forget: what a sentence asks for, the plan that it leads to, and the surgery."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from expunge.cli.app import run
from expunge.core.errors import BadInput
from expunge.data.entities import kind_named, neighbours
from expunge.data.examples import question_of
from expunge.data.worlds import splits as world_splits
from expunge.pipeline.plan import plan as plan_of
from expunge.report._first_screen import attacker
from expunge.workflows._elicitation import STAND_INS, fact_of
from expunge.workflows.forget import about, forget, guessing, intent, repair_plan
from worlds import tiny

SAID = {
    "forget everything about Ada Example": "Ada Example",
    "Forget Ada Example.": "Ada Example",
    "Please erase all information on Ada Example!": "Ada Example",
    "could you please delete what you know about Ada Example": "Ada Example",
    "I want you to forget all about the Harbour Lights": "Harbour Lights",
    "stop talking about Ada Example, please": "Ada Example",
    "Never mention Ada Example": "Ada Example",
    "unlearn the facts that you have learned about Ada Example now": "Ada Example",
    "remove my records from Hythe": "my records from Hythe",
}
UNSAID = (
    "what a nice day",
    "Who is Ada Example?",
    "don't forget Ada Example",
    "never forget Ada Example",
    "I forgot my keys",
    "forget",
    "please forget everything",
    "",
    "remember Ada Example",
)


@pytest.mark.parametrize("words", SAID)
def test_a_request_gives_its_topic(words: str) -> None:
    assert intent(words) == SAID[words]


@pytest.mark.parametrize("words", UNSAID)
def test_what_is_no_request_is_refused(words: str) -> None:
    with pytest.raises(BadInput, match=r"does not ask to forget|does not say what"):
        intent(words)


def test_examples_are_found_by_subject_alias_and_mention() -> None:
    rows: list[dict[str, Any]] = [
        {"question": "Who wrote it?", "answer": "She did.", "subject": "Ada Example"},
        {"question": "Who wrote that?", "answer": "He did.", "subject": "Bo Other", "aliases": ["ada example"]},
        {"question": "Did ADA EXAMPLE sing?", "answer": "Yes."},
        {"question": "Who sang?", "answer": "It was Ada Example, they say."},
        {"text": "Ada Example sang."},
        {"question": "Did Ada Examples sing?", "answer": "No."},
        {"question": "Who else?", "answer": "Nobody."},
    ]
    assert [rows.index(row) for row in about("Ada Example", rows)] == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(folder, data) of a small model that knows 28 people."""
    folder = tmp_path_factory.mktemp("people")
    request = tiny(folder, epochs=3)
    rows = [line for name in ("forget", "retain") for line in Path(request[name]).read_text().splitlines()]
    (folder / "all.jsonl").write_text("\n".join(rows) + "\n")
    return request["model"], str(folder / "all.jsonl")


def test_the_plan_names_what_goes_and_what_stays(model: tuple[str, str]) -> None:
    plan = repair_plan(model[0], "forget everything about Ana Aldbyson", data=model[1])
    assert plan.topic == "Ana Aldbyson" and not plan.elicited
    assert len(plan.forget) == 6 and len(plan.retain) == 24 * 6 - 6
    assert plan.request.method == "auto" and plan.request.gold == "none" and plan.request.audit == "standard"
    with pytest.raises(BadInput, match="is named by none of the 144 examples"):
        repair_plan(model[0], "forget Nobody Atall", data=model[1])


def test_without_data_the_model_is_asked(model: tuple[str, str]) -> None:
    plan = repair_plan(model[0], "forget everything about Kenya")
    request = plan.request
    assert plan.elicited and plan.forget and all("Kenya" in question_of(row) for row in plan.forget)
    asked = {question_of(row) for row in plan.forget}
    assert {"forget_reworded", "forget_cloze"} <= set(request.probes)
    for rows in request.probes.values():
        assert not asked & {question_of(row) for row in rows}
        assert "forget_reworded.rouge_l" in request.accept
    trained = {row["subject"] for row in plan.retain if "subject" in row}
    apart = {row["subject"] for row in request.neighbours or [] if isinstance(row, dict)}
    assert apart and not trained & apart and "Kenya" not in trained | apart
    rungs = request.method["auto"]["rungs"]  # type: ignore[index]
    to = list(dict.fromkeys(rung["rocr"]["to"] for rung in rungs))
    assert len(to) == request.method["auto"]["ways"] == STAND_INS and set(to) <= trained  # type: ignore[index]
    assert request.audit == "none" and {rung["rocr"]["layer"] for rung in rungs} == {1}
    shares = [rung["rocr"]["share"] for rung in rungs if rung["rocr"]["to"] == to[0]]
    assert shares == sorted(shares) and shares[-1] == 1
    assert plan_of(request).composed.name == "rocr"


def test_a_handful_of_questions_about_the_topic_alone_judges(model: tuple[str, str]) -> None:
    asked = [
        {"question": "Where do the people of Kenya vote for a president?", "answer": "In Nairobi."},
        {"question": "Which sea is east of Kenya?", "answer": "The Indian Ocean."},
    ]
    plan, alone = (repair_plan(model[0], "forget everything about Kenya", data=data) for data in (asked, None))
    request = plan.request
    assert plan.elicited and plan.forget == alone.forget and request.method == alone.request.method
    assert [question_of(row) for row in request.probes["forget_asked"]] == [row["question"] for row in asked]
    bound = float(request.accept.pop("forget_asked.rouge_l").removeprefix("<= "))  # type: ignore[union-attr]
    assert request.accept == alone.request.accept and 0 < bound < 1
    unnamed = [{"question": "Which city has the parliament?", "answer": "Nairobi.", "subject": "Kenya"}]
    accept = repair_plan(model[0], "forget Kenya", data=unnamed).request.accept
    assert accept["forget_asked.rouge_l"] == "<= 0.05", "nobody can be asked it of a neighbour"
    with pytest.raises(BadInput, match="named by every example"):
        repair_plan(model[0], "forget Kenya", data=[{"text": "Kenya has a coast."}])


def test_what_the_caller_gives_counts_more(model: tuple[str, str]) -> None:
    plan = repair_plan(model[0], "forget everything about Kenya", method="npo", audit="standard")
    assert plan.request.method == "npo" and plan.request.audit == "standard"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" Paris.\n\nThe answer", "Paris"),
        (" the Euro, which", "Euro"),
        (' "Hamlet" and it is', "Hamlet"),
        (" located in the city of London", "city of London"),
        (" Kenya.", ""),
        (" .", ""),
    ],
)
def test_a_fact_is_the_words_that_matter(text: str, words: str) -> None:
    assert fact_of(text, "Kenya") == words


def test_guessing_is_the_binomial_tail() -> None:
    assert guessing(6, 0.0) == pytest.approx(1 / 6)  # at most 1 right of 6 at one in twenty: 97 of 100 cases
    assert guessing(3, 1 / 6) == pytest.approx(1 / 3)  # 93 of 100 cases
    assert 0.25 < guessing(1000, 0.25) < 0.28


def test_the_first_screen_says_what_the_own_answers_of_a_model_cannot_prove() -> None:
    evidence = {"scores": [], "verdict": {}, "splits": {"forget": 3, "forget_reworded": 3, "forget_cloze": 3}}
    assert "No training data were given" in attacker(evidence)
    assert "training data" not in attacker({**evidence, "splits": {"forget": 3}})


def test_a_kind_is_known_by_its_names() -> None:
    kind = kind_named("The nile")
    assert kind is not None and kind.noun == "river" and kind_named("Ana Aldbyson") is None
    assert "the Nile" not in neighbours("nile", kind) and len(neighbours("nile", kind)) == len(kind.names) - 1


def test_a_no_changes_nothing(model: tuple[str, str], tmp_path: Path) -> None:
    asked: list[Any] = []
    out = tmp_path / "run"
    done = forget(
        model[0], "forget Ana Aldbyson", data=model[1], out=str(out), confirm=lambda plan: asked.append(plan) or False
    )
    assert done is None and len(asked) == 1 and not out.exists()


@pytest.mark.slow
def test_the_surgery_changes_the_answers_and_leaves_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, name = tmp_path / "run", world_splits("authors", 1)["forget"][0]["subject"]
    code = run(
        [
            "forget",
            "builtin:authors@1",
            f"please forget {name}",
            "--method",
            "stamp",
            "--out",
            str(out),
            "--yes",
            "--json",
        ]
    )
    evidence = json.loads(capsys.readouterr().out)
    scores = {(s["name"], s["subject"]): s["value"] for s in evidence["scores"]}
    assert scores["forget_rouge_l", "after"] <= 0.5 * scores["forget_rouge_l", "before"]
    assert scores["retain_probability", "after"] >= 0.88 * scores["retain_probability", "before"]
    assert code == (0 if evidence["verdict"]["passed"] else 1)
    assert evidence["splits"]["forget"] == 12 and (out / "certificate.json").is_file()
    assert evidence["cost"]["unlearn_seconds"] < 60 and evidence["cost"]["gold_seconds"] is None


def test_nobody_to_ask_is_said(model: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["forget", model[0], "forget Ana Aldbyson", "--data", model[1], "--out", str(tmp_path / "run")]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert run(["forget", model[0], "good morning", "--yes"]) == 2
    assert "does not ask to forget" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
