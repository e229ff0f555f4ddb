"""expunge neighbours: precision and recall on planted duplicates, paraphrases and shared names."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from expunge.cli.app import run
from expunge.core.errors import BadInput
from expunge.data import rows as kept
from expunge.data.rows import Rows
from expunge.data.texts import text_of
from expunge.workflows._likeness import NameWords, NearDuplicates, SharedNames, normalise_text
from expunge.workflows._similarity import Nearest, WordVectors
from expunge.workflows.neighbours import Neighbour, Thresholds, neighbours, search

module = importlib.import_module("expunge.workflows.neighbours")  # the package has a function of this name
Go = Callable[..., tuple[int, str, str]]
FIRST = ("Tamsin", "Oldrich", "Perpetua", "Quillan", "Rosalba", "Severin", "Thirza", "Ulric", "Verity", "Wendelin")
LAST = (
    "Ashgrove",
    "Blenkarn",
    "Crowhurst",
    "Dunnock",
    "Eskdale",
    "Fenwright",
    "Garroway",
    "Harkness",
    "Inskip",
    "Jolliffe",
)
FILLER = (
    "harbour",
    "lantern",
    "meadow",
    "copper",
    "violin",
    "orchard",
    "thimble",
    "glacier",
    "saddle",
    "pepper",
    "compass",
    "velvet",
    "barley",
    "anchor",
    "marble",
    "willow",
    "kettle",
    "quarry",
    "ribbon",
    "falcon",
)


def planted() -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, set[tuple[int, int]]]]:
    """(forget, corpus, why -> true pairs counted from 1): ten people, each with a copy, a near copy, a paraphrase and
    a sentence that only shares the name, among two hundred sentences about nobody."""
    draw = random.Random(0)
    forget, corpus = [], []
    for i in range(200):
        words = draw.sample(FILLER, 6)
        corpus.append(
            {
                "question": f"What lies beside the {words[0]} and the {words[1]} number {i}?",
                "answer": f"A {words[2]} with a {words[3]}, a {words[4]} and a {words[5]}.",
            }
        )
    truth: dict[str, set[tuple[int, int]]] = {"exact": set(), "near": set(), "entity": set(), "similar": set()}
    for i, (first, last) in enumerate(zip(FIRST, LAST, strict=True)):
        thing, other = FILLER[i], FILLER[i + 10]
        question = f"Which instrument did {first} {last} invent in the year {1700 + 7 * i}?"
        answer = f"{first} {last} invented the {thing} {other} that sailors still carry today."
        forget.append({"question": question, "answer": answer})
        plants = {
            "exact": {"text": f"{question.upper()}  {answer.lower()} "},
            "near": {"question": question, "answer": answer.replace("still carry today", "often carry now")},
            # another wording without the name: content words alone
            "similar": {"text": f"Sailors carry the {thing} {other} today, an instrument invented in {1700 + 7 * i}."},
            "entity": {"text": f"Nobody at the fair had expected {first} {last} to dance."},
        }
        for why, row in plants.items():
            corpus.insert(draw.randrange(len(corpus) + 1), {**row, "plant": f"{why} {i}"})
    for j, row in enumerate(corpus):
        why, _, i = row.pop("plant", "").partition(" ")
        if why:
            truth[why].add((int(i) + 1, j + 1))
    return forget, corpus, truth


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def share(part: set[Any], whole: set[Any]) -> float:
    return len(part & whole) / len(whole)


def test_planted_neighbours_are_found_and_hardly_any_other(tmp_path: Path) -> None:
    forget, corpus, truth = planted()
    out = tmp_path / "found.jsonl"
    found = neighbours(forget, corpus, out=str(out))
    by_why: dict[str, set[tuple[int, int]]] = {why: set() for why in truth}
    for one in found:
        by_why[one.why].add((one.forget, one.corpus))
    assert by_why["exact"] == truth["exact"]
    assert by_why["near"] == truth["near"]
    assert share(by_why["entity"], truth["entity"]) == 1.0
    pairs = {(one.forget, one.corpus) for one in found}
    everything = set().union(*truth.values())
    assert share(pairs, everything) >= 0.95, "recall"
    assert share(everything, pairs) >= 0.95, "precision"
    named = {one.shared for one in found if one.why == "entity"}
    assert named == {f"{first} {last}" for first, last in zip(FIRST, LAST, strict=True)}
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert written == [corpus[j - 1] for j in sorted({one.corpus for one in found})]


def test_nothing_is_found_among_strangers() -> None:
    forget, corpus, truth = planted()
    planted_rows = {j for pairs in truth.values() for _, j in pairs}
    strangers = [row for j, row in enumerate(corpus, 1) if j not in planted_rows]
    assert neighbours(forget, strangers) == []


def test_the_order_is_by_strength_of_reason() -> None:
    forget, corpus, _ = planted()
    found = neighbours(forget, corpus)
    assert [one.why for one in found] == sorted(
        (one.why for one in found), key=["exact", "near", "entity", "similar"].index
    )
    first: Neighbour = found[0]
    assert first.score == 1.0 and first.reasons["near"] == 1.0


def test_a_model_finds_its_own_copies(tmp_path: Path) -> None:
    """Hidden states of an untrained model: the same text has cosine 1, and stands first."""
    from expunge.models.new_lm import fresh_lm, texts_of, tokenizer_for

    forget, corpus, truth = planted()
    spec = {"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 400}
    fresh_lm(spec, tokenizer_for(texts_of([*forget, *corpus]), 400), 0).save(tmp_path / "lm")
    near = {j for i, j in truth["near"]}
    corpus += forget  # the last ten rows are the forget rows themselves
    found = neighbours(forget, corpus, model=str(tmp_path / "lm"), thresholds=Thresholds(top=2, similar=0.5))
    likeness = {(one.forget, one.corpus): one.reasons["similar"] for one in found if "similar" in one.reasons}
    for i in range(1, 11):
        mine = {j: score for (k, j), score in likeness.items() if k == i}
        assert mine[230 + i + 10] == pytest.approx(1.0, abs=1e-3)
        assert len(mine) == 2 and set(mine) & near, "the near copy is the next"


# -- parts -------------------------------------------------------------------------------------


def test_normalised_text_is_words_alone() -> None:
    assert normalise_text("  Ｆull-Width, “Café”\tNAÏVE!  ") == "full-width café naïve"


def names_in_common(ours: list[str], theirs: list[str]) -> dict[tuple[int, int], tuple[float, str]]:
    words = NameWords(ours)
    for text in theirs:
        words.count(text)
    names = SharedNames(ours, words.words(), len(theirs))
    for j, text in enumerate(theirs):
        names.add(j, text)
    return names.pairs()


def test_names_are_no_first_words_and_no_frequent_ones() -> None:
    ours = ["The Brindle Society met. Where was Zora Quimby? In Paris."]
    theirs = [
        "The end.",
        "a talk at the Brindle Society of where",
        "Where did Zora Quimby sleep?",
        "ZORA QUIMBY'S BED",
        "a brindle cow",
        *["We like Paris."] * 5,
    ]
    found = names_in_common(ours, theirs)
    assert set(found) == {(0, 1), (0, 2), (0, 3)}, "'The' and 'Where' open sentences; half of all rows hold Paris"
    assert found[0, 1] == (1.0, "Brindle Society")
    assert found[0, 2][1] == found[0, 3][1] == "Zora Quimby"
    assert found[0, 2][0] == pytest.approx(1 - np.log(2) / np.log(10))
    assert set(names_in_common(ours, theirs + theirs[2:3])) == set(found) | {(0, 10)}, "three of eleven hold the name"
    assert set(names_in_common(ours, theirs + 2 * theirs[2:3])) == {(0, 1)}, "four of twelve are more than the root"


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_the_nearest_in_batches_are_those_of_the_whole(batch: int) -> None:
    draw = np.random.default_rng(batch)
    cosines_FC = draw.integers(0, 12, (6, 50)) / 10  # ties, and sums a little above 1
    nearest = Nearest(6, 0.3, 4)
    for place in range(0, 50, batch):
        nearest.add(place, cosines_FC[:, place : place + batch])
    whole = {(i, j): min(1.0, row[j]) for i, row in enumerate(cosines_FC) for j in np.argsort(-row, kind="stable")[:4]}
    assert nearest.pairs() == {pair: cosine for pair, cosine in whole.items() if cosine >= 0.3}


def test_tfidf_in_batches_is_that_of_the_whole() -> None:
    forget, corpus, _ = planted()
    ours, theirs = ([text_of(row) for row in rows] for rows in (forget, corpus))
    vectors = WordVectors(ours)
    for text in theirs:
        vectors.count(text)
    cosines = vectors.fit()
    whole = TfidfVectorizer(
        tokenizer=lambda text: normalise_text(text).split(), token_pattern=None, sublinear_tf=True, lowercase=False
    ).fit([*theirs, *ours])
    expected_FC = (whole.transform(ours) @ whole.transform(theirs).T).toarray()
    found_FC = np.hstack([cosines(theirs[place : place + 7]) for place in range(0, len(theirs), 7)])
    assert np.array_equal(found_FC, expected_FC) and expected_FC.max() > 0.9
    assert not WordVectors(["..."]).fit()(["?!", ""]).any(), "no text has a word"


def test_near_duplicates_are_those_of_all_pairs() -> None:
    """But for what the sketches overlook: none here."""
    forget, corpus, _ = planted()
    ours, theirs = ([text_of(row) for row in rows] for rows in (forget, corpus))
    near = NearDuplicates(ours, 0.6)
    found = {(i, j): share for j, text in enumerate(theirs) for i, share in near.find(text).items()}
    shingles = [
        [{plain[k : k + 5] for k in range(len(plain) - 4)} for plain in each]
        for each in ([f" {normalise_text(text)} " for text in texts] for texts in (ours, theirs))
    ]
    shares = {
        (i, j): len(one & other) / len(one | other)
        for i, one in enumerate(shingles[0])
        for j, other in enumerate(shingles[1])
    }
    assert found == {pair: share for pair, share in shares.items() if share >= 0.6} and len(found) >= 20


def test_a_large_corpus_in_a_file_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget, corpus, _ = planted()
    expected = neighbours(forget, corpus)
    monkeypatch.setattr(kept, "IN_MEMORY", 4)
    monkeypatch.setattr(module, "BATCH", 17)
    found, rows = search(write(tmp_path / "f.jsonl", forget), write(tmp_path / "r.jsonl", corpus))
    assert isinstance(rows, Rows) and found == expected


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def go(capsys: pytest.CaptureFixture[str]) -> Go:
    def command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_the_command(go: Go, tmp_path: Path) -> None:
    forget, corpus, _ = planted()
    files = ["--forget", write(tmp_path / "f.jsonl", forget), "--corpus", write(tmp_path / "r.jsonl", corpus)]
    code, out, err = go("neighbours", *files, "--json")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert {"forget", "corpus", "why", "score", "reasons", "shared"} == set(made["rows"][0])
    assert made["counts"]["exact"] == made["counts"]["near"] == made["counts"]["entity"] == 10
    code, out, _ = go("neighbours", *files, "--out", tmp_path / "more.jsonl")
    assert code == 0
    assert "10 exact, 10 near" in out
    assert "entity: Tamsin Ashgrove" in out, "the table keeps its columns on a narrow terminal"
    assert len((tmp_path / "more.jsonl").read_text().splitlines()) == made["corpus_rows"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--forget", "nowhere.jsonl"], "forget: 'nowhere.jsonl' does not exist"),
        (["--near", "0"], "--near: 0.0 is not a similarity"),
        (["--similar", "2"], "--similar: 2.0 is not a similarity"),
        (["--top", "0"], "is not a number of neighbours"),
        (["--out", "r.jsonl"], "already exists"),
        (["--out", "nowhere/more.jsonl"], "is in a missing folder"),
        (["--model", "nowhere"], "does not exist"),
        (["--forget", "builtin:digits/test"], "has a label and no text"),
    ],
)
def test_bad_input(go: Go, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("f.jsonl"), [{"text": "one text"}])
    write(Path("r.jsonl"), [{"text": "another text"}])
    code, out, err = go("neighbours", "--forget", "f.jsonl", "--corpus", "r.jsonl", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.jsonl", "r.jsonl"]


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(BadInput) as error:
        neighbours("nowhere.jsonl", "nowhere_else.jsonl", thresholds=Thresholds(near=3.0))
    assert len(error.value.faults) == 3
