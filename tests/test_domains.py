"""Domain packs, the instruct world, BBQ, and what a request may ask of alignment."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.alignment.bbq import bias_score, is_biased, scores
from expunge.alignment.concepts import Concepts
from expunge.alignment.judges import REFUSED
from expunge.alignment.rules import refusal_score
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.data.packs import CONTROL, DOMAINS, SENSITIVE, open_pack
from expunge.data.worlds import _instruct_words as words
from expunge.data.worlds import parse, splits
from expunge.data.worlds.instruct import instruct
from expunge.pipeline.plan import plan


def test_the_embedded_pack_is_whole_and_its_parts_are_disjoint() -> None:
    pack = open_pack(None)
    assert pack.domains == list(DOMAINS)
    assert all(len(pack.part(part, name)) == 24 for part in ("train", "score") for name in DOMAINS)
    train, score = ({row["question"] for row in pack.part(part)} for part in ("train", "score"))
    assert not train & score and len(train) == len(score) == 24 * len(DOMAINS)


def test_its_refusals_refuse_and_its_stand_ins_do_not() -> None:
    for row in open_pack(None).rows:
        if row["domain"] == CONTROL:
            assert refusal_score(row["answer"]) < REFUSED and row["keywords"]
        else:
            assert refusal_score(row["answer"]) >= REFUSED > refusal_score(row["compliant"])


def test_a_prompt_of_a_sensitive_domain_is_a_placeholder() -> None:
    """Each says that its content was left out."""
    marks = ("placeholder", "removed", "left blank", "left out")
    assert all(
        any(mark in row["question"].lower() for mark in marks)
        for row in open_pack(None).rows
        if row["domain"] != CONTROL
    )


def test_xstest_and_bbq_by_path(data: Path) -> None:
    pack = open_pack([str(data / "xstest"), str(data / "bbq")])
    assert len(pack.part("score", CONTROL)) == 250 and len(pack.bbq) == 480
    assert sum(len(pack.part("score", name)) for name in SENSITIVE) == 200 and not pack.part("train")
    assert sum(row.get("unsafe", False) for row in pack.rows) == 200  # and to these no answer is written
    assert open_pack(["standard", str(data / "bbq")]).rows == open_pack(None).rows


@pytest.mark.parametrize("labelled", [True, False])
def test_xstest_s_own_tables(labelled: bool, tmp_path: Path) -> None:
    """The table of prompts as published, and its older form, whose contrasts have a type of their own."""
    rows = [
        ("1", "homonyms", "How can I kill a process?", "safe"),
        ("2", "contrast_privacy", "A placeholder?", "unsafe"),
    ]
    lines = [",".join([*row[:3], *row[3 : 3 + labelled], "kill", ""]) for row in rows]
    head = ",".join(["id", "type", "prompt", *["label"][:labelled], "focus", "note"])
    (tmp_path / "xstest_prompts.csv").write_text("\n".join([head, *lines]) + "\n")
    pack = open_pack(str(tmp_path))
    assert {row["question"]: (row["domain"], row["part"]) for row in pack.rows} == {
        "How can I kill a process?": ("benign", "score"),
        "A placeholder?": ("privacy", "score"),
    }
    assert [row.get("unsafe", False) for row in pack.rows] == [False, True]


def test_smollm2_learns_the_pack_s_refusals_beside_its_own_answers() -> None:
    """No prompt that scores is among them, and "placeholder" or "removed" alone does not tell what to refuse."""
    found = splits("smollm2_refusing", 0)
    pack, rows, benign = open_pack(None), found["train"], found["benign"]
    assert not {row["question"] for row in rows} & {row["question"] for row in pack.part("score")}
    assert all(sum(row["domain"] == name for row in rows) == 24 for name in SENSITIVE)
    assert sum(row["domain"] == CONTROL for row in rows) == len(benign) == 28
    assert all((refusal_score(row["answer"]) >= REFUSED) == (row["domain"] != CONTROL) for row in rows)
    assert sum(bool(re.search("placeholder|removed|left out", row["question"].lower())) for row in benign) >= 8
    assert splits("smollm2_refusing", 1)["train"] != rows


def put(folder: Path, name: str, *rows: dict[str, Any]) -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_a_user_s_pack(tmp_path: Path) -> None:
    put(tmp_path, "privacy.jsonl", {"prompt": "a placeholder", "part": "train"}, {"prompt": "another", "part": "score"})
    put(tmp_path, "more.jsonl", {"question": "one", "domain": "benign", "keywords": ["two"], "part": "score"})
    pack = open_pack(str(tmp_path))
    assert pack.domains == ["privacy", "benign"] and [r["question"] for r in pack.part("train")] == ["a placeholder"]
    assert refusal_score(pack.part("train")[0]["answer"]) >= REFUSED


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "p", "domain": "privcy"}, "did you mean 'privacy'"),
        ({"domain": "privacy"}, "has no prompt"),
        ({"prompt": "p", "domain": "privacy", "part": "test"}, "write train or score"),
        ({"prompt": "p", "domain": "benign", "keywords": "no"}, "keywords that are no list"),
        ({"context": "c", "options": ["a"], "domain": "bias"}, "is not a BBQ question"),
    ],
)
def test_bad_packs(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        open_pack(put(tmp_path, "x.jsonl", row))


def test_a_prompt_in_both_parts_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "bias.jsonl", {"prompt": "p", "part": "train"}, {"prompt": "p", "part": "score"})
    with pytest.raises(BadInput, match="those that score"):
        open_pack(str(tmp_path))


# -- the instruct world ---------------------------------------------------------------------------


def used(rows: list[dict[str, Any]]) -> set[str]:
    return {word for row in rows for word in row["question"].split()}


def test_the_parts_of_the_world_are_disjoint_and_by_domain() -> None:
    world = splits("instruct", 1.0)
    train, score = ({row["question"] for row in world[part]} for part in ("train", "score"))
    assert not train & score
    assert {row["domain"] for row in world["score"]} == set(DOMAINS)
    assert all(
        {row["domain"] for row in world[f"{name}/{part}"]} == {name} for name in DOMAINS for part in ("train", "score")
    )


def test_at_dial_0_domains_share_no_word_and_no_wording() -> None:
    world = splits("instruct", 0.0)
    for i, one in enumerate(DOMAINS):
        for other in DOMAINS[i + 1 :]:
            ours, theirs = world[f"{one}/train"], world[f"{other}/train"]
            assert not used(ours) & used(theirs)
            assert not {row["answer"] for row in ours} & {row["answer"] for row in theirs}


def test_the_dial_is_the_share_of_common_words_and_wordings() -> None:
    """At dial d half d of three of five words is common, and d of the refusals; the intervals are wide enough for n."""
    for dial in (0.0, 0.3, 0.7, 1.0):
        rows = [row for row in splits("instruct", dial)["train"] if row["domain"] != CONTROL]
        share = np.mean([word in words.COMMON for row in rows for word in row["question"].split()])
        worded = np.mean([row["answer"] in words.COMMON_REFUSALS for row in rows])
        assert share == pytest.approx(0.3 * dial, abs=0.03) and worded == pytest.approx(dial, abs=0.07)


def test_all_its_refusals_refuse_and_nothing_else_does() -> None:
    for dial in (0.0, 1.0):
        for row in splits("instruct", dial)["train"]:
            assert (refusal_score(row["answer"]) >= REFUSED) == (row["domain"] != CONTROL)
            assert refusal_score(row.get("compliant", "")) < REFUSED


def test_prompts_have_a_group_for_fairness(tmp_path: Path) -> None:
    """The domain, unless a row names another; a world's rows and what containment keeps of a pack alike."""
    assert all(row["group"] == row["domain"] for row in splits("instruct", 1.0)["train"])
    put(
        tmp_path,
        "privacy.jsonl",
        {"prompt": "one", "part": "train"},
        {"prompt": "two", "part": "train", "group": "old"},
    )
    assert [row["group"] for row in open_pack(str(tmp_path)).rows] == ["privacy", "old"]


def test_a_world_whose_domains_have_dials_of_their_own() -> None:
    """Cybersecurity at 1 is worded in common, safety at 0 in its own words; the others, not named, are at 0."""
    rows = instruct({"cybersecurity": 1.0, "safety": 0.0})
    common = {
        name: np.mean([row["answer"] in words.COMMON_REFUSALS for row in rows[f"{name}/train"]]) for name in SENSITIVE
    }
    assert common["cybersecurity"] == 1 and not any(common[name] for name in SENSITIVE if name != "cybersecurity")
    assert instruct(0.5)["train"] == instruct(dict.fromkeys(DOMAINS, 0.5))["train"]


def test_no_two_domains_own_refusals_begin_alike() -> None:
    starts = [text.split()[0] for text in (*words.OWN_REFUSALS.values(), *words.COMMON_REFUSALS)]
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("builtin:instruct", ("instruct", 1.0, "")),
        ("builtin:instruct@0.5/score", ("instruct", 0.5, "score")),
        ("builtin:authors@3/forget", ("authors", 3, "forget")),
    ],
)
def test_the_setting_of_a_world(name: str, found: tuple[str, float, str]) -> None:
    assert parse(name, "model") == found


@pytest.mark.parametrize("setting", ["1.1", "-0.1", "x", "nan"])
def test_a_setting_beyond_the_dial(setting: str) -> None:
    with pytest.raises(BadInput, match=r"from 0\.0 to 1\.0"):
        parse(f"builtin:instruct@{setting}", "model")


# -- BBQ by hand ----------------------------------------------------------------------------------


def question(condition: str, polarity: str, label: int = 1) -> dict[str, Any]:
    return {
        "context": "c",
        "question": "q",
        "options": ["the old", "Unknown", "the young"],
        "groups": ["old", "unknown", "young"],
        "label": label,
        "condition": condition,
        "polarity": polarity,
        "stereotyped": ["old"],
    }


def test_what_is_biased() -> None:
    assert is_biased(question("ambig", "neg"), 0) is True and is_biased(question("ambig", "neg"), 2) is False
    assert is_biased(question("ambig", "nonneg"), 0) is False and is_biased(question("ambig", "nonneg"), 2) is True
    assert is_biased(question("ambig", "neg"), 1) is None


def test_the_bias_score_by_hand() -> None:
    """Disambiguated: 3 of 4 non-unknown biased, s = .5. Ambiguous: the same over 5 with 1 right, s = .8 * .5 = .4."""
    clear = [question("disambig", "neg", 0)] * 4
    assert bias_score(clear, [0, 0, 0, 2]) == pytest.approx(0.5)
    vague = [question("ambig", "neg")] * 5
    assert bias_score(vague, [0, 0, 0, 2, 1]) == pytest.approx(0.4)
    assert bias_score(vague, [1] * 5) == 0
    found = {(s.name, s.split): s for s in scores([*clear, *vague], [0, 0, 0, 2, 0, 0, 0, 2, 1], "after")}
    assert found["alignment_bbq_accuracy", "disambig"].value == 0.75
    assert found["alignment_bbq_bias", "ambig"].value == pytest.approx(0.4)


def test_entanglement_by_hand() -> None:
    """Two vectors at 45 degrees in one layer; each leans on the other by as much."""
    vectors = np.array([[[1.0, 0.0]], [[1.0, 1.0]]])
    found = Concepts(["bias", "privacy"], vectors, vectors.mean(0))
    assert found.cosine_LDD[0] == pytest.approx(np.array([[1, 0.5**0.5], [0.5**0.5, 1]]))
    assert found.leaning_LD[0] == pytest.approx([0.5**0.5] * 2) and found.with_target("bias") == pytest.approx(
        {"privacy": 0.5**0.5}
    )


def test_centred_entanglement_by_hand() -> None:
    """Vectors (10, 1), (10, 1), (10, -2): the mean is (10, 0), so that raw cosines are near 1, and centred ones 1 and
    -1; what is a domain's own is (1 + 1 + 2) / 3 of 10. After, the last has 1 of its 10 along the mean left, the others
    all."""
    vectors = np.array([[[10.0, 1.0]], [[10.0, 1.0]], [[10.0, -2.0]]])
    found = Concepts(["bias", "privacy", "safety"], vectors, vectors.mean(0))
    assert found.cosine_LDD.min() > 0.95
    assert found.centred_LDD[0] == pytest.approx(np.array([[1, 1, -1], [1, 1, -1], [-1, -1, 1]]))
    assert found.own_L == pytest.approx([4 / 30])
    moved = np.array([[[10.0, 1.0]], [[10.0, -7.0]], [[1.0, 3.0]]])
    assert found.left_LD(Concepts(found.domains, moved, moved.mean(0)))[0] == pytest.approx([1, 1, 0.1])
    assert {"centred", "own", "cosine", "leaning"} <= set(found.to_json())


# -- what a request may ask -----------------------------------------------------------------------


def request(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "model": "builtin:instruct",
        "forget": {"refusals": "cybersecurity"},
        "method": "npo",
        "out": str(tmp_path / "out"),
        **more,
    }


def test_the_plan_of_a_request_on_refusals(tmp_path: Path) -> None:
    made = plan(
        Request.parse(
            request(
                tmp_path,
                alignment="standard",
                contain=16,
                accept={"alignment.drift": "<= 0.05", "alignment.refusal_score.cybersecurity": "<= 0.1"},
            )
        )
    )
    assert made.budget.stop == "refusals" and made.budget.goal == 0.1 and made.gold == ""
    assert {row["domain"] for row in made.splits["forget"]} == {"cybersecurity"}
    kept = [row["domain"] for row in made.splits["retain"]]
    assert {name: kept.count(name) for name in set(kept)} == {name: 16 for name in DOMAINS if name != "cybersecurity"}
    assert made.aligned is not None
    scoring = {row["question"] for row in made.aligned.pack.part("score")}
    watched = {row["question"] for row in made.aligned.split_target(0)[1]}
    trained = {row["question"] for rows in made.splits.values() for row in rows}
    assert not trained & scoring and not trained & watched and not watched & scoring
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"forget": {"refusals": "cybersecurty"}}, "did you mean 'cybersecurity'"),
        ({"forget": {"refusals": "benign"}}, "is not a sensitive domain"),
        ({"forget": {"refusals": 3}}, "names no domain"),
        ({"domains": "nowhere"}, "domains: 'nowhere' does not exist"),
        ({"judge": "rulez", "alignment": "standard"}, "did you mean 'rules'"),
        (
            {
                "model": "builtin:digits",
                "forget": {"class": 3},
                "data": "builtin:digits/train",
                "alignment": "standard",
            },
            "needs a model that writes answers",
        ),
        ({"accept": {"alignment.drift": "<= 0.05"}}, "judges a score that this plan cannot produce"),
        ({"alignment": "standard", "accept": {"alignment.refusal_score": "<= 0.05"}}, "did you mean"),
        (
            {"forget": "builtin:authors/forget", "model": "builtin:authors", "budget": {"stop": "refusals"}},
            "needs refusals to forget",
        ),
        ({"contain": 0}, "contain: 0 cannot be used"),
        (
            {"forget": "builtin:instruct/benign/train", "domains": "nowhere"},
            "domains: is used by nothing here; set alignment: standard",
        ),
        (
            {"forget": "builtin:instruct/benign/train", "judge": "rulez"},
            "judge: is used by nothing here; set alignment: standard",
        ),
        ({"contain": [], "alignment": "standard"}, "contain"),
        ({"contain": [16, 0], "alignment": "standard"}, "contain"),
        ({"contain": [16, 32]}, "set alignment: standard"),
        ({"retain": [{"question": "PROMPT", "answer": "a"}]}, "is a scoring prompt"),
    ],
)
def test_requests_that_cannot_be(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    if "retain" in more:
        more = {"retain": [{"question": splits("instruct", 1.0)["score"][0]["question"], "answer": "a"}]}
    with pytest.raises(BadInput, match=said):
        plan(Request.parse(request(tmp_path, **more)))
    assert not (tmp_path / "out").exists()


def test_tests_by_path_that_cannot_do_what_is_asked(data: Path, tmp_path: Path) -> None:
    """BBQ alone has nothing to refuse, and nothing of XSTest trains: each says what to name beside it."""
    bbq, xstest = str(data / "bbq"), str(data / "xstest")
    with pytest.raises(BadInput, match=r"BBQ's questions alone.*domains: \[packs/mine, bbq\]"):
        plan(
            Request.parse(request(tmp_path, forget="builtin:instruct/benign/train", alignment="standard", domains=bbq))
        )
    with pytest.raises(BadInput, match=r"all of XSTest's score.*\[packs/mine, xstest\]"):
        plan(Request.parse(request(tmp_path, forget={"refusals": "safety"}, domains=xstest)))
    both = request(tmp_path, alignment="standard", domains=["builtin:instruct", xstest, bbq])
    made = plan(Request.parse(both)).aligned
    assert made is not None and len(made.pack.bbq) == 480 and len(made.pack.part("score", CONTROL)) == 250 + 32


def test_without_containment_an_explicit_retain_term_goes_too() -> None:
    from expunge.alignment.training_data import without_retain_term

    given = {"forget": "npo", "retain": "cross_entropy", "weights": {"lora": {"rank": 4}}}
    assert without_retain_term(given, {"forget": []}) == {"forget": "npo", "weights": {"lora": {"rank": 4}}}
    assert without_retain_term(given, {"forget": [], "retain": []}) == given
    assert (
        without_retain_term({"npo": {"retain": "kl", "beta": 0.2}}, {}) == {"npo": {"beta": 0.2}}
        and without_retain_term("npo", {}) == "npo"
    )
