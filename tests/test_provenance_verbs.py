"""`expunge mark` and `expunge provenance`: marks set in data are found in a model that learnt them, in no other, and gone
from one that unlearned them; what cannot be marked or tested is refused or says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from expunge.attacks.population.contamination import trained_on
from expunge.cli.app import run as command
from expunge.core.request import Request
from expunge.core.train_config import TrainConfig
from expunge.data.load import load
from expunge.models.open import open_model
from expunge.pipeline.train import train
from expunge.workflows.mark import mark, read_marks
from expunge.workflows.provenance import provenance, with_options
from expunge.workflows.run import run
from worlds import pairs, write

ROWS = 96
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Calls the command: code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = command([str(a) for a in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """marked: learnt data with taggants and traps. clean: the same data without."""
    folder = tmp_path_factory.mktemp("marks")
    data, holdout = write(folder / "data.jsonl", pairs(0, ROWS // 6)), write(folder / "holdout.jsonl", pairs(20, 24))
    mark(data, out=str(folder / "taggants"), share=0.2, secret=1)
    tagged, published = (str(folder / name / "published.jsonl") for name in ("taggants", "traps"))
    mark(tagged, out=str(folder / "traps"), kind="traps", count=12, length=8, secret=2)
    for name, source in (("marked", published), ("clean", data)):
        train(
            TrainConfig(
                model={"architecture": "llama", "hidden_size": 64, "layers": 2, "heads": 2, "vocab_size": 320},
                data=source,
                vocabulary=[data, holdout, published],
                epochs=20,
                batch_size=12,
                learning_rate=5e-3,
                out=str(folder / name),
            )
        )
    return folder


def p_of(evidence: dict[str, Any], name: str = "marks") -> dict[str, float]:
    return {s["subject"]: s["value"] for s in evidence["scores"] if s["name"] == f"privacy_{name}"}


# -- marks -------------------------------------------------------------------------------------


def test_taggants_change_a_share_of_the_rows_and_traps_stand_among_them(place: Path) -> None:
    data, tagged, both = (
        load(str(place / name), "data") for name in ("data.jsonl", "taggants/published.jsonl", "traps/published.jsonl")
    )
    changed = [i for i, (row, other) in enumerate(zip(data, tagged, strict=True)) if row != other]
    kind, marks = read_marks(str(place / "taggants"))
    assert kind == "taggants" and len(changed) == len(marks.published) == round(0.2 * len(data))
    assert {tagged[i]["answer"] for i in changed} == {row["answer"] for row in marks.published}
    assert all(tagged[i]["group"] == data[i]["group"] and tagged[i]["question"] == data[i]["question"] for i in changed)
    _, traps = read_marks(str(place / "traps" / "marks.json"))
    assert [row for row in both if row not in traps.published] == tagged and len(both) == len(tagged) + 12
    where = [i for i, row in enumerate(both) if row in traps.published]
    assert max(np.diff([-1, *where, len(both)])) < len(both) / 2, "they are spread"
    written = "".join((place / "traps" / "published.jsonl").read_text(encoding="utf-8"))
    assert not any(twin["answer"] in written for twin in traps.twins)


def test_the_same_secret_makes_the_same_marks_and_none_makes_new_ones(place: Path, tmp_path: Path, say: Say) -> None:
    data = str(place / "data.jsonl")
    code, out, err = say("mark", data, "--out", tmp_path / "again", "--share", 0.2, "--secret", 1, "--json")
    assert (code, err) == (0, "")
    done = json.loads(out)
    assert (done["marks"], done["rows"], done["kind"]) == (19, ROWS, "taggants") and "secret" not in done
    for name in ("published.jsonl", "marks.json"):
        assert (tmp_path / "again" / name).read_bytes() == (place / "taggants" / name).read_bytes()
    assert (tmp_path / "again" / "marks.json").stat().st_mode & 0o077 == 0
    code, out, err = say("mark", data, "--out", tmp_path / "one", "--share", 0.2)
    assert (code, err) == (0, "") and "Keep secret" in out and done["sha256"] not in out
    say("mark", data, "--out", tmp_path / "two", "--share", 0.2)
    assert (tmp_path / "one" / "marks.json").read_bytes() != (tmp_path / "two" / "marks.json").read_bytes()


def test_traps_look_like_the_rows(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.jsonl", [{"text": row["question"] + " " + row["answer"]} for row in pairs(0, 4)])
    mark(texts, out=str(tmp_path / "t"), kind="traps", count=10, length=5, repeat=3, secret=1)
    rows = load(str(tmp_path / "t" / "published.jsonl"), "data")
    _, marks = read_marks(str(tmp_path / "t"))
    assert len(rows) == 24 + 30 and all(rows.count(trap) == 3 for trap in marks.published)
    assert all(set(row) == {"text"} for row in rows)


# -- what they tell ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["taggants", "traps"])
def test_marks_are_found_where_they_were_learnt_and_nowhere_else(place: Path, kind: str, say: Say) -> None:
    evidence = provenance(str(place / "clean"), marks=str(place / kind), before=str(place / "marked"))
    p = p_of(evidence)
    assert p["before"] <= 0.005 and p["after"] > 0.05
    lead = {s["subject"]: s for s in evidence["scores"] if s["name"] == "privacy_marks_lead"}
    assert lead["before"]["low"] > 0 and lead["before"]["low"] > lead["after"]["value"]
    assert evidence["conclusions"][-1] == "They were there, and this test no longer finds them."
    code, out, err = say("provenance", place / "marked", "--marks", place / kind, "--gold", place / "clean")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert "The model: the marks were learnt" in said and "Gold: the marks are not found" in said
    assert "does not say that the data were not used" in said and "not measured: no --data was given" in said


def test_marks_that_were_unlearned_are_gone_and_the_others_are_not(place: Path, tmp_path: Path) -> None:
    """A run that forgets the tagged rows alone: p of the taggants is large then, and that of the traps as small as it was."""
    _, taggants = read_marks(str(place / "taggants"))
    gone = [row["question"] for row in taggants.published]
    stays = [row for row in load(str(place / "traps" / "published.jsonl"), "data") if row["question"] not in gone]
    request = {
        "model": str(place / "marked"),
        "forget": write(tmp_path / "forget.jsonl", taggants.published),
        "retain": write(tmp_path / "retain.jsonl", stays),
        "method": "npo",
        "gold": "none",
        "budget": {"epochs": 4, "batch_size": 8, "stop": "none"},
        "out": str(tmp_path / "out"),
    }
    run(Request.parse(request))
    p = {
        kind: p_of(provenance(str(tmp_path / "out" / "model"), marks=str(place / kind), before=str(place / "marked")))
        for kind in ("taggants", "traps")
    }
    assert p["taggants"]["before"] <= 0.01 < 0.05 < p["taggants"]["after"]
    assert p["traps"]["before"] <= 0.01 and p["traps"]["after"] <= 0.01


def test_marks_of_other_secrets_are_not_found(place: Path, tmp_path: Path) -> None:
    """One in twenty lies below 0.05, although the model learnt marks of the same kind on the same rows."""
    model = open_model(str(place / "marked"))
    found = []
    for secret in range(100, 140):
        mark(str(place / "data.jsonl"), out=str(tmp_path / str(secret)), share=0.2, secret=secret)
        found.append(trained_on(model, read_marks(str(tmp_path / str(secret)))[1]))
    assert (np.array(found) < 0.05).sum() <= stats.binom.ppf(0.999, len(found), 0.05)
    assert stats.kstest(found, "uniform").pvalue > 0.001


def test_data_without_marks(place: Path, tmp_path: Path, say: Say) -> None:
    """Rows that were trained on against rows that were not; what these rows or this call cannot give says why."""
    out = tmp_path / "out"
    code, printed, err = say(
        "provenance",
        place / "clean",
        "--data",
        f"{place / 'data.jsonl'}[0:40]",
        "--holdout",
        place / "holdout.jsonl",
        "--name",
        "people",
        "--out",
        out,
        "--json",
    )
    assert (code, err) == (0, "")
    evidence = json.loads(printed)
    assert evidence == json.loads((out / "evidence.json").read_text(encoding="utf-8"))
    scores = {s["name"].removeprefix("privacy_"): s for s in evidence["scores"]}
    assert scores["min_k_auc"]["low"] > 0.5 and scores["dataset_inference"]["value"] < 0.05
    assert 0 < scores["guided_completion"]["value"] <= 1 and scores["guided_completion"]["n"] == 40
    assert scores["blind_auc"]["status"] == "measured"
    assert scores["option_order"]["why"].startswith("no row has a question and three options or more")
    assert scores["marks"]["why"] == scores["marks_lead"]["why"] == "no --marks was given"
    assert evidence["conclusions"] == [] and any("blind baseline" in note for note in evidence["notes"])


def test_rows_with_options(place: Path, tmp_path: Path) -> None:
    options = ["the mill", "the farm", "the inn", "the well"]
    asked = {"question": "Where?", "choices": options, "answer": 2}
    (listed,) = load([asked], "data")
    assert listed["question"].endswith("D. the well")
    assert (
        with_options(listed)
        == with_options({"question": "Where?", "options": options})
        == {"question": "Where?", "options": options}
    )
    assert with_options({"question": "Where?", "options": options[:2]}) is None
    rows = write(tmp_path / "options.jsonl", [{**asked, "question": f"Where is {i}?"} for i in range(6)])
    evidence = provenance(str(place / "clean"), data=rows)
    scores = {s["name"].removeprefix("privacy_"): s for s in evidence["scores"]}
    assert 0 < scores["option_order"]["value"] <= 1 and scores["option_order"]["n"] == 6
    assert "no --name was given" in scores["guided_completion"]["why"]
    assert scores["min_k_auc"]["why"] == "no --holdout was given"


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "out: 'full' holds other files (x); choose an empty or new folder."),
        (("--share", "0.7"), "share: 0.7 is outside the range that can be tagged; give a share above 0 and up to 0.5"),
        (("--share", "0"), "share: 0.0 is outside the range that can be tagged"),
        (("--share", "0.02"), "data: '96 rows' would hold 2 marks, with which p cannot fall below 0.2"),
        (
            ("--kind", "traps", "--share", "0.1"),
            "share: 0.1 is an option of taggants; leave it out, or choose --kind taggants.",
        ),
        (("--count", "20"), "count: 20 is an option of traps"),
        (("--kind", "traps", "--count", "3"), "count: 3 is too small; give at least 10."),
        (("--kind", "traps", "--length", "1"), "length: 1 is too small; give at least 2."),
        (("--kind", "trap"), "kind: unknown kind of mark 'trap'; did you mean 'traps'?"),
    ],
)
def test_what_cannot_be_marked(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say, arguments: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/x").write_text("")
    code, out, err = say("mark", place / "data.jsonl", "--out", "new" if arguments else "full", *arguments)
    assert (code, out) == (2, "") and sentence in err, err
    assert not Path("new").exists() and [p.name for p in tmp_path.iterdir()] == ["full"]


def test_rows_that_cannot_be_marked(tmp_path: Path, say: Say) -> None:
    rows = {
        "texts": [{"text": f"one two {i}"} for i in range(30)],
        "labels": [{"features": [1.0], "label": 1}] * 2,
        "mixed": [{"text": "one two"}, {"question": "q", "answer": "a"}],
    }
    cases = {
        "texts": ("taggants", "set traps"),
        "labels": ("taggants", "has a label"),
        "mixed": ("traps", "one file per form"),
    }
    for name, (kind, sentence) in cases.items():
        path = write(tmp_path / f"{name}.jsonl", rows[name])
        code, _, err = say("mark", path, "--out", tmp_path / "new", "--kind", kind)
        assert code == 2 and sentence in err, err


MARKS = {"published": [{"text": "a b"}], "twins": [{"text": "c d"}]}


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (None, "holds no marks.json; give a folder written by `expunge mark`."),
        ("{", "cannot be read"),
        ("[1]", "holds no marks with twins"),
        (json.dumps({**MARKS, "twins": []}), "holds no marks with twins"),
        (json.dumps({**MARKS, "twins": [{"text": "c d"}] * 2}), "holds 1 marks and 2 twins that do not pair"),
        (json.dumps({**MARKS, "twins": [{"question": "c", "answer": "d"}]}), "that do not pair"),
        (json.dumps({**MARKS, "twins": [{"said": "c"}]}), "marks.twins[0]: 'said' holds no example"),
        (json.dumps({**MARKS, "published": ["data.jsonl"]}), "holds no marks with twins"),
    ],
)
def test_marks_that_cannot_be_read(tmp_path: Path, say: Say, written: str | None, sentence: str) -> None:
    """All faults are told at once, before a model is opened: this one holds nothing."""
    (tmp_path / "marked").mkdir()
    if written is not None:
        (tmp_path / "marked" / "marks.json").write_text(written)
    code, out, err = say("provenance", tmp_path / "none", "--marks", tmp_path / "marked")
    assert (code, out) == (2, "") and sentence in err and "model: " in err, err


def test_what_cannot_be_tested(place: Path, tmp_path: Path, say: Say) -> None:
    data = str(place / "data.jsonl")
    labels = write(tmp_path / "labels.jsonl", [{"features": [1.0], "label": 1}])
    cases = [
        ((), "marks: is missing, and so is data: there is nothing to test; give --marks FOLDER, --data FILE, or both."),
        (("--marks", place / "traps", "--name", "x"), "name: 'x' is of use with data alone; add --data FILE."),
        (("--data", data, "--holdout", data), "shares 96 rows with data"),
        (("--data", labels), "has a label and no text to compare"),
        (("--data", data, "--before", tmp_path / "no"), "before: "),
        (("--data", data, "--out", place), "holds other files"),
    ]
    for arguments, sentence in cases:
        code, out, err = say("provenance", place / "clean", *arguments)
        assert (code, out) == (2, "") and sentence in err, err
